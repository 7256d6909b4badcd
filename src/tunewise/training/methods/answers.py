"""What the preference methods share: answers as rows, and their log-probabilities."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tunewise.data.chat import Example, Message
from tunewise.data.findings import Finding, FindingBook
from tunewise.training.encode import Encoder
from tunewise.training.items import Items, Part
from tunewise.training.label_audit import note, note_too_long, row_problems
from tunewise.training.methods.base import Context
from tunewise.training.rows import EncodedRow


@dataclass(frozen=True)
class Answers:
    """What the model makes of the answers of a part; all of shape (items, rows of an item).

    Attributes:
        summed: log-probability of the whole answer.
        tokens: of the answer.
        right: how many of them have the highest probability.
    """

    summed: Tensor
    tokens: Tensor
    right: Tensor

    @property
    def mean(self) -> Tensor:
        """Log-probability per token."""
        return self.summed / self.tokens

    def accuracy(self, column: int) -> tuple[float, float]:
        """Right tokens and all tokens of one of the answers: a metric."""
        return float(self.right[:, column].sum()), float(self.tokens[:, column].sum())


def log_probs(context: Context, part: Part) -> Answers:
    """Log-probabilities of a part's answers, with their graph while gradients are on."""
    count = len(part.items) * part.width
    summed = tokens = right = None
    offset = 0
    for batch in part.batches:
        logps, hits = context.setup.log_probs(batch)
        if summed is None or tokens is None or right is None:
            summed, tokens, right = (logps.new_zeros(count) for _ in range(3))
        places = part.places[offset : offset + len(batch.rows)]
        offset += len(batch.rows)
        user = torch.from_numpy(places[batch.users]).to(logps.device)
        use = torch.from_numpy(batch.uses).to(logps.device)
        summed = summed.index_add(0, user, logps[use])
        tokens = tokens.index_add(0, user, torch.ones_like(logps[use]))
        right = right.index_add(0, user, hits[use].to(logps.dtype))
    assert summed is not None and tokens is not None and right is not None
    shape = (len(part.items), part.width)
    return Answers(summed.view(shape), tokens.detach().view(shape), right.view(shape))


def add_reference(context: Context, split: str, items: Items) -> None:
    """Put the reference's log-probabilities of all answers into ``items.values["reference"]``.

    The reference is the model that training begins with. The base: the adapter is off for that.
    Where all weights learn, or an earlier adapter goes on learning, it is the model as it stands
    before step 0.

    Raises:
        StopAsked: the caller wants to stop.
    """
    begin = time.monotonic()
    values = np.empty((len(items), items.width), np.float32)
    as_it_stands = context.job.fine_tune.adapter == "full" or context.job.start is not None
    with context.setup.frozen(adapter=as_it_stands):
        for start in range(0, len(items), 256):
            for part in context.parts(items[start : start + 256]):
                context.check_stop()
                found = log_probs(context, part).summed.float().cpu().numpy()
                values[[item.number for item in part.items]] = found
    items.values["reference"] = values
    seconds = time.monotonic() - begin
    context.tell({"event": "reference", "split": split, "rows": len(items), "seconds": seconds})


def encode_answer(encoder: Encoder, example: Example, answer: Message) -> EncodedRow:
    """The row of the example's prompt with this answer; each of its tokens counts as 1."""
    row = encoder.encode(replace(example, messages=(*example.prompt, answer)))
    return EncodedRow(row.id, row.ids, (row.weights > 0).astype(np.float32))


def encode_pairs(
    encoder: Encoder, examples: Sequence[Example], limit: int | None
) -> tuple[Items, list[Finding]]:
    """Items of two rows, the wanted answer and the other, with what is wrong with them.

    Raises:
        DataError: a row cannot be encoded at all.
    """
    items = Items(width=2)
    book = FindingBook()
    for number, example in enumerate(examples):
        if example.target is None or example.rejected is None:
            note(book, "no_pair", example.id)
            continue
        pair = [encode_answer(encoder, example, a) for a in (example.target, example.rejected)]
        if np.array_equal(pair[0].ids, pair[1].ids):
            note(book, "equal_answers", example.id)
        elif limit is not None and (longest := max(len(r.ids) for r in pair)) > limit:
            note_too_long(book, example.id, longest, limit)
        else:
            items.append(pair, number)
            for code in answer_problems(encoder, example, (example.target, example.rejected), pair):
                note(book, code, example.id)
    return items, book.findings()


def answer_problems(
    encoder: Encoder, example: Example, answers: Sequence[Message], rows: Sequence[EncodedRow]
) -> list[str]:
    """Codes of what is wrong with the labels of an example's answers, each once."""
    found: dict[str, None] = {}
    for answer, row in zip(answers, rows, strict=True):
        plain = {key: value for key, value in answer.items() if key != "weight"}
        one = replace(example, messages=(*example.prompt, plain))
        found |= dict.fromkeys(row_problems(encoder, one, row))
    return list(found)


def pair_metrics(answers: Answers, rewards: Tensor) -> dict[str, tuple[float, float]]:
    """The usual figures of a preference method.

    Args:
        rewards: (items, 2), of the wanted answer and the other.
    """
    chosen, rejected = rewards.detach().unbind(1)
    count = float(len(chosen))
    return {
        "mean_token_accuracy": answers.accuracy(0),
        "reward_chosen": (float(chosen.sum()), count),
        "reward_rejected": (float(rejected.sum()), count),
        "reward_margin": (float((chosen - rejected).sum()), count),
        "reward_accuracy": (float((chosen > rejected).sum()), count),
    }
