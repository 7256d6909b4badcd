"""Kahneman-Tversky optimisation: answers that are good or bad, each by itself.

An answer is judged against a reference point: how far the model has moved from the base on
prompts with answers that do not belong to them. That divergence is estimated anew in each step,
without a gradient, over the step's rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from tunewise.data.chat import Example, Message
from tunewise.data.findings import Finding, FindingBook
from tunewise.training.encode import Encoder
from tunewise.training.items import Item, Items, Part
from tunewise.training.label_audit import note, note_too_long
from tunewise.training.methods.answers import (
    add_reference,
    answer_problems,
    encode_answer,
    log_probs,
)
from tunewise.training.methods.base import Context, Losses, Method, Metrics
from tunewise.training.rows import EncodedRow, EncodedRows


class KahnemanTversky(Method):
    """Rows with a label, or pairs as one good and one bad row.

    An item is a row, and its prompt with the answer of another row. Values: ``desirable`` and
    ``reference``.
    """

    name = "kto"
    _divergence = 0.0

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        book = FindingBook()
        rows = EncodedRows()
        labels, sources = array("f"), array("Q")
        for number, example in enumerate(examples):
            labelled = _labelled(example)
            if not labelled:
                note(book, "no_label", example.id)
            longest = 0
            for answer, desirable in labelled:
                row = encode_answer(encoder, example, answer)
                if limit is not None and len(row.ids) > limit:
                    longest = max(longest, len(row.ids))
                    continue
                rows.append(row)
                labels.append(float(desirable))
                sources.append(number)
                for code in answer_problems(encoder, example, (answer,), (row,)):
                    note(book, code, row.id)
            if limit is not None and longest:
                note_too_long(book, example.id, longest, limit)
        items = Items(width=2)
        half = len(rows) // 2  # neighbours may be answers to one prompt
        for i, (row, source) in enumerate(zip(rows, sources, strict=True)):
            items.append([row, _with_answer_of(row, rows[(i + half) % len(rows)], limit)], source)
        items.values["desirable"] = np.asarray(labels, np.float32)
        return items, book.findings()

    def begin(self, context: Context, split: str, items: Items) -> None:
        add_reference(context, split, items)

    def gather(self, context: Context, items: Sequence[Item], step: int) -> Sequence[Item]:
        others = [replace(item, rows=item.rows[1:]) for item in items]
        moved = 0.0
        with context.setup.frozen():
            for part in context.parts(others):
                context.check_stop()
                summed = log_probs(context, part).summed[:, 0]
                moved += float((summed - part.each("reference", summed)[:, 1]).sum())
        self._divergence = max(0.0, moved / len(items))
        return [replace(item, rows=item.rows[:1]) for item in items]

    def gathered(self) -> Metrics:
        return {"kl": (self._divergence, 1.0)}

    def weigh(self, items: Sequence[Item]) -> float:
        return float(len(items))

    def loss(self, context: Context, part: Part) -> Losses:
        """Equation 8 of 2402.01306."""
        options = self.fine_tune.kto
        answers = log_probs(context, part)
        summed = answers.summed[:, 0]
        ratio = summed - part.each("reference", summed)[:, 0]
        good = part.each("desirable", summed) > 0
        above = torch.where(good, ratio - self._divergence, self._divergence - ratio)
        weight = torch.where(good, options.desirable_weight, options.undesirable_weight)
        each = weight * (1 - torch.sigmoid(options.beta * above))
        rewards = options.beta * ratio.detach()
        right = answers.right[:, 0]
        metrics = {
            "mean_token_accuracy": (float(right[good].sum()), float(answers.tokens[good].sum())),
            "reward_chosen": (float(rewards[good].sum()), float(good.sum())),
            "reward_rejected": (float(rewards[~good].sum()), float((~good).sum())),
        }
        return Losses(each.sum(), each.detach().double().cpu().numpy(), metrics)


def _labelled(example: Example) -> list[tuple[Message, bool]]:
    """The example's answers with their labels; empty where it has none."""
    if example.target is None:
        return []
    if example.rejected is not None:
        return [(example.target, True), (example.rejected, False)]
    label = example.desirable
    if label is None and isinstance(example.metadata.get("label"), bool):
        label = example.metadata["label"]
    return [] if label is None else [(example.target, label)]


def _with_answer_of(row: EncodedRow, other: EncodedRow, limit: int | None) -> EncodedRow:
    """A row's prompt with another row's answer, which is cut at the limit: it is only measured."""
    prompt = row.ids[: _start(row)]
    answer = other.ids[_start(other) :]
    if limit is not None:
        answer = answer[: max(1, limit - len(prompt))]
    weights = np.zeros(len(prompt) + len(answer), np.float32)
    weights[len(prompt) :] = 1.0
    return EncodedRow(row.id, np.concatenate([prompt, answer]), weights)


def _start(row: EncodedRow) -> int:
    """Where the answer begins."""
    return int(np.argmax(row.weights > 0)) if row.trained else len(row.ids) - 1
