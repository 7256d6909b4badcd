"""Group-relative policy optimisation: several answers to each prompt, compared with each other.

The answers are sampled by the engine that also serves and scores, so a prompt's samples share its
cache; learning computes the prompt once for all of its answers. An answer's advantage is its
reward less its group's mean. A group whose answers all have one reward says nothing: it is skipped
and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tunewise.data.chat import Completion, Example, Request
from tunewise.data.findings import Finding, FindingBook
from tunewise.errors import TrainingError
from tunewise.study.fine_tune import FineTune, Grpo
from tunewise.training.encode import Encoder, with_prompt
from tunewise.training.items import Item, Items, Part
from tunewise.training.label_audit import note_too_long
from tunewise.training.methods.base import Context, Losses, Method, Metrics, Tally
from tunewise.training.rewards import Rewards, open_rewards
from tunewise.training.rows import EncodedRow

if TYPE_CHECKING:
    from tunewise.models.decoding import Row
    from tunewise.models.local_engine import LocalEngine


def token_losses(
    logps: Tensor, old: Tensor, advantages: Tensor, options: Grpo
) -> tuple[Tensor, Tensor]:
    """The clipped loss of each token, and whether the clip holds it; shapes (tokens,).

    Args:
        logps, old: log-probabilities now and when the answers were sampled.

    Source: equation 3 of 2402.03300, with the two bounds of 2503.14476.
    """
    ratio = torch.exp(logps - old)
    high = options.epsilon if options.epsilon_high is None else options.epsilon_high
    inside = ratio.clamp(1 - options.epsilon, 1 + high)
    free, held = ratio * advantages, inside * advantages
    return -torch.minimum(free, held), held < free


def divergence(logps: Tensor, reference: Tensor) -> Tensor:
    """The estimate of each token's divergence from the reference; never below 0 (Schulman)."""
    ahead = reference - logps
    return torch.exp(ahead) - ahead - 1


def advantages(rewards: npt.NDArray[np.float64], options: Grpo) -> npt.NDArray[np.float64]:
    """Of answers in groups, (groups, samples); 0 for all of a group that agrees."""
    centred = rewards - rewards.mean(1, keepdims=True)
    agree = np.ptp(rewards, axis=1, keepdims=True) == 0
    if options.scale_rewards:
        centred = centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)
    return np.where(agree, 0.0, centred)


class GroupRelativePolicy(Method):
    """GRPO with the usual corrections as options (DAPO, Dr. GRPO).

    Items are prompts; what a step learns from are the answers that it samples. Values of those:
    ``advantage``, and per token ``old`` and ``reference`` where they are needed.
    """

    name = "grpo"
    steady = False

    def __init__(self, fine_tune: FineTune) -> None:
        super().__init__(fine_tune)
        self.options = fine_tune.grpo
        self.updates = self.options.updates
        self._rewards: Rewards | None = None
        self._engine: LocalEngine | None = None
        self._limit: int | None = None
        self._tally = Tally()
        if fine_tune.adapter == "full" and self.options.beta > 0:
            raise TrainingError(
                "the divergence from the base model needs the base model beside the tuned one",
                where="fine_tune.grpo.beta",
                hint="Set `beta: 0`, or train an adapter (`adapter: lora`).",
            )

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        self._rewards = self._rewards or open_rewards(self.fine_tune, encoder.date)
        self._limit = limit
        items, book = Items(), FindingBook()
        for number, example in enumerate(examples):
            ids = np.asarray(encoder.encode_prompt(example), np.int32)
            if limit is not None and len(ids) >= limit:
                note_too_long(book, example.id, len(ids), limit)
                continue
            items.append([EncodedRow(example.id, ids, np.zeros(len(ids), np.float32))], number)
        return items, book.findings()

    def longest(self, items: Items) -> int:
        return super().longest(items) + self.options.max_tokens

    def gather(self, context: Context, items: Sequence[Item], step: int) -> Sequence[Item]:
        samples = self.options.samples
        repeated = [item for item in items for _ in range(samples)]
        examples = [context.job.examples[item.source] for item in repeated]
        base = (context.job.seed * 1_000_003 + step) * 1_000_003
        seeds = [(base + r.number) * samples + k % samples for k, r in enumerate(repeated)]
        completions, rows = self._answer(context, repeated, examples, seeds)
        assert self._rewards is not None
        errors = self._rewards.errors.copy()
        rewards = np.asarray(self._rewards(examples, completions)).reshape(-1, samples)
        self._note(rewards, rows)
        for name, count in (self._rewards.errors - errors).items():
            self.counts[f"reward_errors_{name}"] = float(count)
        found = advantages(rewards, self.options)
        learnt: list[Item] = []
        for place, (example, row) in enumerate(zip(examples, rows, strict=True)):
            group, sample = divmod(place, samples)
            if row is None or not found[group].any():
                continue
            if row.reason == "length" and self.options.skip_cut_answers:
                continue
            value = np.asarray(found[group, sample], np.float32)
            learnt.append(Item(len(learnt), (_as_row(example, row),), {"advantage": value}))
        return self._with_log_probs(context, learnt)

    def gathered(self) -> Metrics:
        return self._tally.sums

    def weigh(self, items: Sequence[Item]) -> float:
        if self.options.loss_type == "dapo":
            return float(sum(item.trained for item in items))
        if self.options.loss_type == "dr_grpo":
            return float(len(items) * self.options.max_tokens)
        return float(len(items))

    def loss(self, context: Context, part: Part) -> Losses:
        logps, user, right = _token_log_probs(context, part, self.options.temperature)
        advantage = part.each("advantage", logps)[user]
        old = _per_token(part, "old", logps) if self.updates > 1 else logps.detach()
        each, held = token_losses(logps, old, advantage, self.options)
        tokens = float(len(logps))
        metrics = {
            "clip_fraction": (float(held.sum()), tokens),
            "mean_token_accuracy": (float(right.sum()), tokens),
        }
        if self.options.beta > 0:
            apart = divergence(logps, _per_token(part, "reference", logps))
            each = each + self.options.beta * apart
            metrics["kl"] = (float(apart.detach().sum()), tokens)
        lengths = torch.bincount(user, minlength=len(part.items)).to(logps.dtype)
        means = logps.new_zeros(len(part.items)).index_add(0, user, each) / lengths
        summed = means.sum() if self.options.loss_type == "grpo" else each.sum()
        return Losses(summed, means.detach().double().cpu().numpy(), metrics)

    def evaluate(self, context: Context, items: Items) -> tuple[float, dict[str, float]]:
        """One greedy answer to each prompt; the loss is 1 less the mean reward."""
        examples = [context.job.dev[source] for source in items.sources]
        completions, rows = self._answer(context, items, examples, None)
        assert self._rewards is not None
        reward = float(np.mean(self._rewards(examples, completions)))
        length = float(np.mean([row.generated if row is not None else 0 for row in rows]))
        return 1 - reward, {"reward_mean": reward, "completion_length": length}

    def _answer(
        self,
        context: Context,
        items: Sequence[Item],
        examples: Sequence[Example],
        seeds: Sequence[int] | None,
    ) -> tuple[list[Completion], list[Row | None]]:
        """Answers with their tokens; greedy without seeds. An answer may fail (None)."""
        options, limit = self.options, self._limit
        requests = [
            Request(
                messages=with_prompt(example.prompt, context.job.prompt),
                tools=example.tools,
                max_tokens=min(options.max_tokens, (limit or 1 << 30) - item.tokens),
                temperature=0.0 if seeds is None else options.temperature,
                seed=None if seeds is None else seeds[i],
            )
            for i, (item, example) in enumerate(zip(items, examples, strict=True))
        ]
        completions = [Completion()] * len(requests)
        rows: list[Row | None] = [None] * len(requests)
        with context.setup.answering():
            if self._engine is None:
                from tunewise.models.local_engine import LocalEngine

                self._engine = LocalEngine(context.setup.loaded, date=context.job.date)
            for index, completion, row in self._engine.iterate_rows(requests):
                completions[index], rows[index] = completion, row
                context.check_stop()
        return completions, rows

    def _note(self, rewards: npt.NDArray[np.float64], rows: Sequence[Row | None]) -> None:
        agree = np.ptp(rewards, axis=1) == 0
        self.counts = {"groups": float(len(rewards)), "groups_skipped": float(agree.sum())}
        made = [row for row in rows if row is not None]
        cut = sum(row.reason == "length" for row in made)
        self._tally = Tally()
        self._tally.add(
            {
                "reward_mean": (float(rewards.sum()), float(rewards.size)),
                "reward_std": (float(rewards.std(1, ddof=1).sum()), float(len(rewards))),
                "groups_skipped": (float(agree.sum()), float(len(rewards))),
                "completion_length": (float(sum(r.generated for r in made)), float(len(made))),
                "completions_cut": (float(cut), float(len(made))),
            }
        )

    def _with_log_probs(self, context: Context, items: Sequence[Item]) -> Sequence[Item]:
        """Add what the answers' tokens are compared with, where it is needed."""
        needed = {"old": True} if self.updates > 1 else {}
        if self.options.beta > 0:
            needed["reference"] = False
        for name, adapter in needed.items():
            found: dict[int, npt.NDArray[np.float32]] = {}
            with context.setup.frozen(adapter=adapter):
                for part in context.parts(items):
                    context.check_stop()
                    logps, user, _ = _token_log_probs(context, part, self.options.temperature)
                    values, users = logps.float().cpu().numpy(), user.cpu().numpy()
                    for place, item in enumerate(part.items):
                        found[item.number] = values[users == place]
            items = [replace(i, values={**i.values, name: found[i.number]}) for i in items]
        return items


def _token_log_probs(
    context: Context, part: Part, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every answer token: log-probability, its item's place, whether it is the likeliest.

    Tokens stand answer by answer, in the order of ``part.places``.
    """
    logps, users, right = [], [], []
    offset = 0
    for batch in part.batches:
        values, hits = context.setup.log_probs(batch, temperature)
        places = part.places[offset : offset + len(batch.rows)]
        offset += len(batch.rows)
        use = torch.from_numpy(batch.uses).to(values.device)
        logps.append(values[use])
        right.append(hits[use])
        users.append(torch.from_numpy(places[batch.users]).to(values.device))
    return torch.cat(logps), torch.cat(users), torch.cat(right)


def _per_token(part: Part, name: str, like: Tensor) -> Tensor:
    values = np.concatenate([part.items[place].values[name] for place in part.places])
    return torch.from_numpy(values).to(like)


def _as_row(example: Example, row: Row) -> EncodedRow:
    answer = [*row.ids, *([] if row.end is None else [row.end])]
    ids = np.asarray([*row.prompt, *answer], np.int32)
    weights = np.zeros(len(ids), np.float32)
    weights[len(row.prompt) :] = 1.0
    return EncodedRow(example.id, ids, weights)
