"""A reward model: a score for an answer, learnt from pairs (Bradley and Terry).

The language model's head gives way to one that turns the last token's hidden state into a number,
so the result is a sequence classifier with one label, or an adapter for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tunewise.data.chat import Example
from tunewise.data.findings import Finding
from tunewise.errors import ModelError
from tunewise.training.encode import Encoder
from tunewise.training.items import Item, Items, Part
from tunewise.training.methods.answers import encode_pairs
from tunewise.training.methods.base import Context, Losses, Method

if TYPE_CHECKING:
    from tunewise.models.loading import LoadedModel


def pair_loss(scores: Tensor, centre: float = 0.0) -> Tensor:
    """The loss of each pair, shape (pairs,).

    Args:
        scores: (pairs, 2), of the wanted answer and the other.
        centre: weight of the squared sum of a pair's scores (2312.09244).

    Source: equation 1 of 2203.02155.
    """
    apart = -torch.nn.functional.logsigmoid(scores[:, 0] - scores[:, 1])
    return apart + centre * scores.sum(1) ** 2


class RewardModel(Method):
    """Scores answers at the last token of the conversation, as sequence classifiers do."""

    name = "reward"

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        return encode_pairs(encoder, examples, limit)

    def open(self, loaded: LoadedModel, seed: int) -> None:
        """Put the model with a scoring head in the place of the language model.

        Raises:
            ModelError: transformers has no such model of this kind.
        """
        from transformers import AutoModelForSequenceClassification

        from tunewise.models.quiet import quiet

        plain: Any = loaded.model
        torch.manual_seed(seed)
        try:
            with quiet():
                config = plain.config
                config.num_labels, config.pad_token_id = 1, loaded.pad_id
                scoring: Any = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
                    config, dtype=plain.dtype
                )
        except ValueError as error:
            raise ModelError(
                "no model with a scoring head is known for this architecture",
                where=loaded.name,
                hint="Use a Llama, Qwen, Mistral or Gemma model.",
            ) from error
        setattr(scoring, scoring.base_model_prefix, plain.get_decoder())
        scoring.to(plain.device).requires_grad_(False)
        with torch.no_grad():  # small, so that learning starts from scores near 0
            scoring.score.weight.normal_(std=(scoring.score.in_features + 1) ** -0.5)
        loaded.model = scoring.eval()

    def weigh(self, items: Sequence[Item]) -> float:
        return float(len(items))

    def loss(self, context: Context, part: Part) -> Losses:
        scores = score_rows(context, part)
        each = pair_loss(scores, self.fine_tune.reward_model.centre)
        chosen, rejected = scores.detach().unbind(1)
        count = float(len(each))
        metrics = {
            "reward_chosen": (float(chosen.sum()), count),
            "reward_rejected": (float(rejected.sum()), count),
            "reward_margin": (float((chosen - rejected).sum()), count),
            "reward_accuracy": (float((chosen > rejected).sum()), count),
        }
        return Losses(each.sum(), each.detach().double().cpu().numpy(), metrics)


def score_rows(context: Context, part: Part) -> Tensor:
    """The scores of a part's answers, (items, rows of an item)."""
    setup = context.setup
    found = []
    for batch in part.batches:
        last = np.asarray([batch.place_of(row)[-1] for row in range(len(batch.rows))])
        hidden = setup.hidden(batch, last)
        with setup.autocast():
            found.append(setup.causal.score(hidden)[:, 0].float())
    scores = torch.cat(found)
    order = torch.from_numpy(np.argsort(part.places)).to(scores.device)
    return scores[order].view(len(part.items), part.width)
