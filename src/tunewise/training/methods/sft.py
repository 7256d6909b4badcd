"""Supervised fine-tuning: the wanted answer, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewise.data.chat import Example
from tunewise.data.findings import Finding
from tunewise.training.encode import Encoder, Trained
from tunewise.training.items import Item, Items, Part
from tunewise.training.label_audit import encode_and_audit
from tunewise.training.methods.base import Context, Losses, Method


class SupervisedFineTuning(Method):
    """The mean cross-entropy of the learnt tokens of a step, however it is cut into parts."""

    name = "sft"

    @property
    def trained(self) -> Trained:
        return self.fine_tune.trained_rows

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        return encode_and_audit(encoder, examples, limit)

    def weigh(self, items: Sequence[Item]) -> float:
        return sum(float(r.weights.sum(dtype=np.float64)) for item in items for r in item.rows)

    def loss(self, context: Context, part: Part) -> Losses:
        (batch,) = part.batches
        summed, losses, right = context.setup.losses(batch)
        each, hits = losses.double().cpu().numpy(), right.cpu().numpy()
        # Rows may share a prediction, so what a row is told by goes by its uses of them.
        rows = np.zeros(len(part.items))
        np.add.at(rows, part.places[batch.users], each[batch.uses] * batch.use_weights)
        weights = np.bincount(
            part.places[batch.users], weights=batch.use_weights, minlength=len(rows)
        )
        hit = float((hits * batch.weights).sum(dtype=np.float64))
        return Losses(
            summed,
            rows / np.maximum(weights, 1e-9),
            {"mean_token_accuracy": (hit, batch.weight)},
        )
