"""Odds-ratio preference optimisation: supervised fine-tuning with a term against the other answer.

Neither a reference model nor a first round of supervised fine-tuning is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunewise.data.chat import Example
from tunewise.data.findings import Finding
from tunewise.training.encode import Encoder
from tunewise.training.items import Item, Items, Part
from tunewise.training.methods.answers import encode_pairs, log_probs, pair_metrics
from tunewise.training.methods.base import Context, Losses, Method


def odds_ratio_term(means: Tensor) -> Tensor:
    """``-log sigmoid(log odds ratio)`` of each pair, shape (pairs,).

    Args:
        means: (pairs, 2), log-probability per token of the wanted answer and the other.

    Source: equations 4 and 6 of 2403.07691.
    """
    # A probability of 1 would have infinite odds.
    likely = means.clamp(max=-1e-6)
    odds = likely - torch.log(-torch.expm1(likely))
    return -torch.nn.functional.logsigmoid(odds[:, 0] - odds[:, 1])


class OddsRatioPreference(Method):
    """Mean over pairs: the wanted answer's loss per token, and ``beta`` times the odds term."""

    name = "orpo"

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        return encode_pairs(encoder, examples, limit)

    def weigh(self, items: Sequence[Item]) -> float:
        return float(len(items))

    def loss(self, context: Context, part: Part) -> Losses:
        beta = self.fine_tune.orpo.beta
        answers = log_probs(context, part)
        each = -answers.mean[:, 0] + beta * odds_ratio_term(answers.mean)
        return Losses(
            each.sum(),
            each.detach().double().cpu().numpy(),
            pair_metrics(answers, beta * answers.mean),
        )
