"""The training loop: stages by progress, checkpoints to resume from, a log of what was measured."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from tiny import evaluate
from tiny.curriculum import STAGES, Mixer
from tiny.team import ALONE, Team
from tiny.tokens import Encoder, tensors

GATE = 0.9
"""Repeats must be predicted this well before look-ups start."""
SYMBOLS_GATE = 0.7
"""Look-ups over random tokens must be answered this well before language takes their place."""


@dataclass(frozen=True)
class Plan:
    """Budget and shape of a run. ``minutes`` or ``steps`` bounds it; shares are of that budget."""

    seed: int
    minutes: float | None
    steps: int | None
    tokens_per_step: int = 4608
    rate: float = 2e-3
    warm_up: int = 100
    language_latest: float = 0.4
    long_at: float = 0.7
    lengths: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("repeat", (96,)),
        ("symbols", (192,)),
        ("language", (256, 256, 384)),
        ("long", (256, 384, 512)),
    )
    longest_at: float = 0.85
    longest: int = 2048
    prompt_weight: float = 0.25
    check_every: int = 100
    save_every: int = 250


@dataclass
class State:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    stage: str = "repeat"
    log: list[dict[str, Any]] = field(default_factory=list)


def groups(model: LlamaForCausalLM) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Matrices inside the layers, and everything else (embedding and norms)."""
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    chosen = {id(p) for p in inside}
    return inside, [p for p in model.parameters() if id(p) not in chosen]


def optimisers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """AdamW for every weight; decay only for matrices inside the layers."""
    inside, outside = groups(model)
    return [
        torch.optim.AdamW(
            [{"params": inside, "weight_decay": 0.05}, {"params": outside, "weight_decay": 0.0}],
            lr=rate,
            betas=(0.9, 0.98),
            fused=True,
        )
    ]


def stage_of(plan: Plan, current: str, progress: float, repeats: float, found: float) -> str:
    """The stage a run should be in, from what is predicted so far; it never goes back."""
    wanted = current
    if current == "repeat" and repeats >= GATE:
        wanted = "symbols"
    if current == "symbols" and (found >= SYMBOLS_GATE or progress >= plan.language_latest):
        wanted = "language"
    if current == "language" and progress >= plan.long_at:
        wanted = "long"
    return STAGES[max(STAGES.index(wanted), STAGES.index(current))]


def rate_at(plan: Plan, step: int, progress: float) -> float:
    """Share of the peak learning rate: linear warm-up, flat, a linear fall over the last 45 %."""
    return min(1.0, (step + 1) / plan.warm_up) * min(1.0, max(0.02, (1 - progress) / 0.45))


def make_batch(
    plan: Plan, encoder: Encoder, stage: str, progress: float, step: int
) -> dict[str, Any]:
    """Rows of one length, drawn from a generator that depends on seed and step only."""
    rng = Random(plan.seed * 1_000_003 + step)
    length = rng.choice(dict(plan.lengths)[stage])
    if stage == "long" and progress >= plan.longest_at and rng.random() < 0.15:
        length = plan.longest
    count = max(1, plan.tokens_per_step // length)
    if stage == "repeat":
        return tensors([encoder.symbols.repeated(rng, length) for _ in range(count)])
    return tensors([encoder.row(rng, Mixer(stage), length) for _ in range(count)])


def loss_of(
    model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor, total: float
) -> torch.Tensor:
    """Weighted sum of next-token losses over ``total``; logits for weighted positions only."""
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    share = weights[:, 1:]
    picked = share > 0
    logits = model.lm_head(hidden[picked])
    each = F.cross_entropy(logits.float(), ids[:, 1:][picked], reduction="none")
    kept = share[picked]
    return (each * kept).sum() / total


def train(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    plan: Plan,
    work: Path,
    device: str,
    resume: bool,
    team: Team = ALONE,
) -> State:
    """Train until the budget of ``plan`` is spent and return what was measured on the way.

    A checkpoint is written to ``work`` every ``plan.save_every`` steps; ``resume`` goes on from it.
    The members of ``team`` share the rows of each step; the first decides, measures and writes.
    """
    encoder = Encoder(tokenizer, plan.prompt_weight)
    model.to(device)
    made = optimisers(model, plan.rate)
    peaks = [[plan.rate for _ in o.param_groups] for o in made]
    state = State()
    checkpoint = work / "checkpoint.pt"
    if resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=False)
        model.load_state_dict(saved["model"])
        for optimiser, kept in zip(made, saved["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        state = State(**saved["state"])
    work.mkdir(parents=True, exist_ok=True)
    last = time.monotonic()
    running: list[float] = []
    while True:
        progress = (
            state.step / plan.steps
            if plan.steps
            else state.seconds / (60 * float(plan.minutes or 0))
        )
        progress, at = team.agree(progress, float(STAGES.index(state.stage)))
        state.stage = STAGES[int(at)]
        if progress >= 1:
            break
        batch = make_batch(plan, encoder, state.stage, progress, state.step)
        share = rate_at(plan, state.step, progress)
        for optimiser, kept in zip(made, peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, kept, strict=True):
                group["lr"] = peak * share
        total = float(batch["weights"][:, 1:].sum())
        mine = {name: part[team.rank :: team.size].to(device) for name, part in batch.items()}
        if mine["ids"].shape[0]:
            loss = loss_of(model, mine["ids"], mine["weights"], total)
            loss.backward()  # type: ignore[no-untyped-call]
        running.append(team.add_up(model, float(loss.detach()) if mine["ids"].shape[0] else 0.0))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in made:
            optimiser.step()
            optimiser.zero_grad()
        state.step += 1
        state.tokens += batch["ids"].numel()
        every = plan.check_every // 4 or 1 if state.stage == "repeat" else plan.check_every
        if state.step % every == 0 and team.rank == 0:
            _check(model, encoder, plan, state, device, running, progress)
            running = []
        now = time.monotonic()
        state.seconds += now - last
        last = now
        if state.step % plan.save_every == 0 and team.rank == 0:
            _save(checkpoint, model, made, state)
    if team.rank == 0:
        _save(checkpoint, model, made, state)
    return state


def _check(
    model: LlamaForCausalLM,
    encoder: Encoder,
    plan: Plan,
    state: State,
    device: str,
    running: list[float],
    progress: float,
) -> None:
    """Measure, log, and move to the next stage where it is due."""
    repeats = evaluate.repeats(model, encoder, device)
    entry: dict[str, Any] = {
        "step": state.step,
        "tokens": state.tokens,
        "stage": state.stage,
        "loss": round(sum(running) / len(running), 3),
        "repeats": round(repeats, 3),
    }
    found = 0.0
    if state.stage == "symbols":
        symbols = evaluate.symbols(model, encoder, device)
        found = symbols["look_ups"]
        first = {n: evaluate.score(model, encoder, n, 40, device) for n in evaluate.FIRST}
        entry["symbols"] = symbols | first
    elif state.stage != "repeat" and state.step % (3 * plan.check_every) == 0:
        entry["scores"] = evaluate.quick(model, encoder, device)
    state.stage = stage_of(plan, state.stage, progress, repeats, found)
    state.log.append(entry)
    print(json.dumps({**entry, "minutes": round(state.seconds / 60, 1)}), flush=True)


def _save(
    path: Path, model: LlamaForCausalLM, made: list[torch.optim.Optimizer], state: State
) -> None:
    kept = {
        "model": model.state_dict(),
        "optimisers": [o.state_dict() for o in made],
        "state": asdict(state),
    }
    beside = path.with_suffix(".new")
    torch.save(kept, beside)
    beside.replace(path)
