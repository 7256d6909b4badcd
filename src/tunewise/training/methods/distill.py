"""Distillation from recorded answers of a teacher: its text, and what it thought of the tokens.

The text alone is distillation by sequences (Kim and Rush, 1606.07947). Where the teacher's
likeliest tokens were recorded too, the loss mixes the cross-entropy with the divergence from its
distribution, as Hinton et al. (1503.02531) do with all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tunewise.data.chat import Example
from tunewise.data.findings import Finding, FindingBook
from tunewise.study.fine_tune import Distill, FineTune
from tunewise.training.encode import Encoder
from tunewise.training.items import Items, Part, Ragged
from tunewise.training.label_audit import audited_row, note
from tunewise.training.methods.base import Context, Losses
from tunewise.training.methods.sft import SupervisedFineTuning
from tunewise.training.rows import EncodedRow
from tunewise.training.teacher import TaughtAnswer, Teacher, Vocabulary

_TOKENS, _LOG_PROBS = "teacher_tokens", "teacher_log_probs"


def top_k_divergence(student: Tensor, student_rest: Tensor, teacher: Tensor) -> Tensor:
    """The forward Kullback-Leibler divergence, teacher from student, shape (tokens,), in nats.

    Over k tokens and the rest of the vocabulary as one more. Without the rest the student's mass
    outside the k tokens would be free, and what it learnt biased (2503.16870).

    Args:
        student: (tokens, k), log-probabilities of the k tokens.
        student_rest: (tokens,), log-probability of all the others together.
        teacher: as ``student``; minus infinity for what is not recorded.
    """
    likely = teacher.exp()
    rest = (1 - likely.sum(-1)).clamp(min=0)
    negative_entropy = torch.xlogy(likely, likely).sum(-1) + torch.xlogy(rest, rest)
    return negative_entropy - (likely * student).sum(-1) - rest * student_rest


class Distillation(SupervisedFineTuning):
    """Supervised fine-tuning on what a teacher answered; rows without such an answer stay out."""

    name = "distill"

    def __init__(self, fine_tune: FineTune) -> None:
        super().__init__(fine_tune)
        self._teacher: Teacher | None = None

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        if self._teacher is None:
            self._teacher = Teacher(self.fine_tune.distill)
        items, book = Items(), FindingBook()
        recorded = _Recorded(encoder, self.fine_tune.distill, book)
        for number, example in enumerate(examples):
            answer = self._teacher.answer(example)
            if answer is None:
                note(book, "no_teacher_answer", example.id)
                continue
            taught = replace(example, messages=(*example.prompt, answer.message))
            row = audited_row(encoder, taught, limit, book)
            if row is not None:
                items.append([row], number)
                recorded.add(row, answer)
        if recorded.used:
            items.ragged = {_TOKENS: recorded.tokens, _LOG_PROBS: recorded.log_probs}
            for finding in recorded.missing.findings():
                book.put(finding)
        return items, book.findings()

    def loss(self, context: Context, part: Part) -> Losses:
        if _TOKENS not in part.items[0].values:
            return super().loss(context, part)
        (batch,) = part.batches
        device = context.setup.causal.device
        tokens, recorded = _in_order(part)
        found, rest, right = context.setup.top_k(batch, torch.from_numpy(tokens).to(device))
        teacher = torch.from_numpy(recorded).to(found)
        weights = torch.from_numpy(batch.use_weights).to(found)
        known = teacher.isfinite().any(-1).to(found)
        share = known * self.fine_tune.distill.divergence_weight
        entropy, divergence = -found[:, 0], top_k_divergence(found, rest, teacher)
        each = weights * ((1 - share) * entropy + share * divergence)
        places, count = part.places[batch.users], len(part.items)
        rows = np.bincount(places, each.detach().double().cpu().numpy(), count)
        total = np.bincount(places, batch.use_weights, count)

        def weighed(values: Tensor) -> float:
            return float((weights * values).detach().sum())

        metrics = {
            "mean_token_accuracy": (weighed(right), batch.weight),
            "cross_entropy": (weighed(entropy), batch.weight),
            "divergence": (weighed(known * divergence), weighed(known)),
        }
        return Losses(each.sum(), rows / np.maximum(total, 1e-9), metrics)


def _in_order(part: Part) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """What is recorded for the learnt tokens of a part's one batch, in the order of its ``uses``.

    Returns:
        Token ids and log-probabilities, (learnt tokens, k). What a row has less than others is
        filled up with its own tokens at minus infinity.
    """
    items = [part.items[place] for place in part.places]
    shapes = [(item.trained, -1) for item in items]
    tokens = [i.values[_TOKENS].reshape(s) for i, s in zip(items, shapes, strict=True)]
    log_probs = [i.values[_LOG_PROBS].reshape(s) for i, s in zip(items, shapes, strict=True)]
    width = max(one.shape[1] for one in tokens)
    missing = [((0, 0), (0, width - one.shape[1])) for one in tokens]
    filled = [np.pad(one, m, mode="edge") for one, m in zip(tokens, missing, strict=True)]
    lowest = [
        np.pad(one, m, constant_values=-np.inf) for one, m in zip(log_probs, missing, strict=True)
    ]
    return np.concatenate(filled).astype(np.int64), np.concatenate(lowest)


class _Recorded:
    """The teacher's log-probabilities for the rows of a split, gathered row by row.

    Attributes:
        used: whether the loss needs them: a row has some, and they shall weigh something.
        missing: rows that have none.
    """

    def __init__(self, encoder: Encoder, options: Distill, book: FindingBook) -> None:
        self._encoder, self._book = encoder, book
        self._wanted = options.divergence_weight > 0
        self._refused = options.on_mismatch == "refuse"
        self._vocabulary: Vocabulary | None = None
        self.used = False
        self.missing = FindingBook()
        self.tokens, self.log_probs = Ragged(np.int32), Ragged(np.float32)

    def add(self, row: EncodedRow, answer: TaughtAnswer) -> None:
        """Take those of the next row, matched to its tokens."""
        found = None
        if self._wanted and answer.tokens:
            self.used = True
            self._vocabulary = self._vocabulary or Vocabulary(self._encoder.tokenizer)
            found = self._vocabulary.align(row, answer)
            if found is None:
                code = "teacher_tokens_differ" if self._refused else "teacher_tokens_not_used"
                note(self._book, code, row.id)
        else:
            note(self.missing, "no_teacher_tokens", row.id)
        if found is None:
            ids = row.ids[row.weights > 0, None]
            found = ids, np.full(ids.shape, -np.inf, np.float32)
        self.tokens.append(found[0])
        self.log_probs.append(found[1])
