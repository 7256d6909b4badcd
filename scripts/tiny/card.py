"""Writes the model folder: weights, configuration, tokenizer, and a card of measured values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from tiny import evaluate, forms
from tiny.loop import GATE, SYMBOLS_GATE, Plan, State
from tiny.tokens import Encoder
from tiny.vocabulary import save_tokenizer

TARGETS = {
    "answer from 1-6 statements": 0.9,
    "answer from 10 statements": 0.8,
    "refuse what is not stated": 0.8,
    "extract a value": 0.9,
    "extract by type": 0.9,
    "two-way pattern, 8 shots in one message": 0.9,
    "two-way pattern, 8 shots as turns": 0.9,
    "valid JSON": 0.95,
}
FILES = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
)


def export(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    out: Path,
    plan: Plan,
    state: State,
    device: str,
    context: int,
    samples: int,
    note: str = "",
) -> None:
    """Write everything beside ``out``, then move it in, so that no reader sees half a file.

    Weights are stored in float16 and scored after that rounding; the configuration asks for
    float32, because float16 arithmetic is slow on a CPU.
    """
    beside = out / ".new"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    weights = {
        k: v.detach().cpu().half().contiguous()
        for k, v in model.state_dict().items()
        if k != "lm_head.weight"
    }
    save_file(weights, beside / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = torch.float32
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(beside)
    GenerationConfig(
        bos_token_id=0, eos_token_id=2, pad_token_id=0, do_sample=False, max_new_tokens=64
    ).save_pretrained(beside)
    save_tokenizer(tokenizer, beside, context)
    rounded = {k: v.float() for k, v in load_file(beside / "model.safetensors").items()}
    model.load_state_dict(rounded, strict=False)
    model.to(device).eval()
    encoder = Encoder(tokenizer, plan.prompt_weight)
    scores = evaluate.full(model, encoder, device, samples)
    scores["valid JSON"] = round(valid_json(model, encoder, device, max(4, samples // 2)), 3)
    parameters = sum(p.numel() for p in model.parameters())
    (beside / "README.md").write_text(
        card(plan, state, scores, parameters, samples, device, note), encoding="utf-8"
    )
    for name in FILES:
        (beside / name).chmod(0o644)
        (beside / name).replace(out / name)
    shutil.rmtree(beside)
    print(json.dumps({"scores": scores, "parameters": parameters}), flush=True)


@torch.no_grad()
def valid_json(model: LlamaForCausalLM, encoder: Encoder, device: str, count: int) -> float:
    """Share of greedy answers to JSON orders that parse as JSON at all."""
    rng = Random("json")
    good = 0
    for _ in range(count):
        ids = torch.tensor([encoder.prompt(forms.structured(rng, "held_out"))], device=device)
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=160,
            do_sample=False,
            eos_token_id=encoder.end,
            pad_token_id=encoder.end_of_text,
        )
        text = encoder.tokenizer.decode(made[0, ids.shape[1] :].tolist(), skip_special_tokens=True)
        try:
            json.loads(text)
            good += 1
        except ValueError:
            pass
    return good / count


def card(
    plan: Plan,
    state: State,
    scores: dict[str, float],
    parameters: int,
    samples: int,
    device: str,
    note: str,
) -> str:
    """The model card in Markdown; ``note`` is what else a reader should know of the run."""
    log = state.log
    picked = [log[i * (len(log) - 1) // 11] for i in range(12)] if len(log) > 12 else log
    curve = "\n".join(
        f"| {e['step']:,} | {e['tokens'] / 1e6:.2f} M | {e['stage']} | {e['loss']:.3f} "
        f"| {e['repeats']:.2f} |"
        for e in picked
    )
    rows = "\n".join(
        f"| {name} | {value:.1%} | {_target(name, value)} |" for name, value in scores.items()
    )
    missed = [name for name, target in TARGETS.items() if scores.get(name, 0) < target]
    honest = (
        "Every target was reached."
        if not missed
        else "Not reached within this budget: "
        + "; ".join(f"{n} ({scores[n]:.1%} of {TARGETS[n]:.0%})" for n in missed)
        + "."
    )
    place = "a GPU" if device == "cuda" else "one CPU core"
    facts: dict[str, Any] = {
        "parameters": f"{parameters:,}",
        "seed": plan.seed,
        "steps": f"{state.step:,}",
        "tokens": f"{state.tokens:,}",
        "time": f"{state.seconds / 60:.0f} minutes on {place}",
    }
    listed = "\n".join(f"- {k}: {v}" for k, v in facts.items())
    return f"""---
license: apache-2.0
language: en
pipeline_tag: text-generation
tags: [synthetic, tiny, in-context]
---
# tunewise/tiny

A very small Llama trained from nothing, on text made by programs only. It knows nothing about the
world. What it does, it does in its context: it answers from a passage in the prompt, copies and
extracts spans, follows a pattern from a few shots, fills JSON from a text, says that something is
not stated, and follows a named answer form; how well, the table below says.

{listed}
- context: 2,048 tokens; weights stored in float16, to be run in float32

## What it is for

Demonstrations and tests of Tunewise on a laptop: a base model on which prompting, retrieval and
fine-tuning each change something, small enough to ship. It is **not** a language model to use: it
has no knowledge, a vocabulary of some 2,600 tokens, and English only in the sentence frames of its
generator.

## How it was trained

`scripts/pretrain_tiny.py` draws names, places, goods and numbers from syllables, so that nothing
can be memorised; one invented word in eight is kept for evaluation. The tokenizer cuts every
invented word into two tokens and leaves every listed word whole. The stages: repeated random tokens
until {GATE:.0%} of repeats are predicted; look-ups and patterns over random tokens until
{SYMBOLS_GATE:.0%} of the look-ups are right; then language, in more and more phrasings and answer
forms; then longer contexts. Two heads of the first layer start by looking at the token before,
which saves most of the time the first stage would take. In the loss answers weigh 1, and prompts (a
part of their tokens) {plan.prompt_weight}. AdamW at {plan.rate:g}, {plan.tokens_per_step:,} tokens
a step.
{note}
Chat format: ChatML-like, no default system prompt; `<|im_end|>` ends a turn, `<|endoftext|>` pads.

| step | tokens | stage | loss | repeats |
|---|---|---|---|---|
{curve}

## Held-out scores

Exact greedy answers on {samples} generated conversations each, with names, places and things that
training never drew. "Held-out task" and "held-out sentence frames" are kinds of task and sentence
that training never showed.

| task | score | target |
|---|---|---|
{rows}

{honest}

## Again, or longer

    python scripts/pretrain_tiny.py --out DIR --steps {state.step} --seed {plan.seed} --threads 1

With a GPU for an hour, the same script takes larger steps:

    python scripts/pretrain_tiny.py --out DIR --steps 20000 --tokens-per-step 18432 \\
        --seed {plan.seed} --device cuda
"""


def _target(name: str, value: float) -> str:
    if name not in TARGETS:
        return ""
    return f"{TARGETS[name]:.0%}: {'reached' if value >= TARGETS[name] else 'missed'}"
