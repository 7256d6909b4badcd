"""Direct preference optimisation: make the wanted answer likelier than the other.

The reference is the model that training begins with: its log-probabilities are computed once,
before step 0 (of the base with the adapter off), so that no second model is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunewise.data.chat import Example
from tunewise.data.findings import Finding
from tunewise.study.fine_tune import Dpo
from tunewise.training.encode import Encoder
from tunewise.training.items import Item, Items, Part
from tunewise.training.methods.answers import (
    add_reference,
    encode_pairs,
    log_probs,
    pair_metrics,
)
from tunewise.training.methods.base import Context, Losses, Method


def dpo_loss(ratios: Tensor, options: Dpo) -> Tensor:
    """The loss of each pair, shape (pairs,).

    Args:
        ratios: (pairs, 2), log-probability less that of the reference, of the wanted answer and
            the other; per token where ``length_normalised``.

    Source: equation 7 of 2305.18290, label smoothing as in its follow-up cDPO (Mitchell, 2023);
    equation 17 of 2310.12036 for ``ipo``.
    """
    margin = ratios[:, 0] - ratios[:, 1]
    if options.loss_type == "ipo":
        return (margin - 1 / (2 * options.beta)) ** 2
    good = torch.nn.functional.logsigmoid(options.beta * margin)
    bad = torch.nn.functional.logsigmoid(-options.beta * margin)
    return -good * (1 - options.label_smoothing) - bad * options.label_smoothing


class DirectPreference(Method):
    """DPO, and IPO with ``loss_type: ipo``."""

    name = "dpo"

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        return encode_pairs(encoder, examples, limit)

    def begin(self, context: Context, split: str, items: Items) -> None:
        add_reference(context, split, items)

    def weigh(self, items: Sequence[Item]) -> float:
        return float(len(items))

    def loss(self, context: Context, part: Part) -> Losses:
        options = self.fine_tune.dpo
        answers = log_probs(context, part)
        ratios = answers.summed - part.each("reference", answers.summed)
        if options.length_normalised:
            ratios = ratios / answers.tokens
        each = dpo_loss(ratios, options)
        return Losses(
            each.sum(),
            each.detach().double().cpu().numpy(),
            pair_metrics(answers, options.beta * ratios),
        )
