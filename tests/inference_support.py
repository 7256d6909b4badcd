"""Adapters of each kind, and short ways to ask the serving engine."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tunewise.models.quiet import quiet
from tunewise.server.inference.protocol import Done, Event, Generate, ModelRef, Piece

_numbers = count()


def save_adapter(base: Path, folder: Path, seed: int = 1, **options: Any) -> Path:
    """A random adapter that changes the model's answers, as peft saves it."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    config: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}
    with quiet():
        adapted = get_peft_model(
            model, LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **config)
        )
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_magnitude" in name or "modules_to_save" in name:
                weight.mul_(1 + 0.3 * torch.rand_like(weight))
    adapted.save_pretrained(folder)
    return folder


def ask(model: ModelRef, text: str = "Tom sees the red house.", **options: Any) -> Generate:
    """A greedy request with an id of its own."""
    given: dict[str, Any] = {
        "messages": ({"role": "user", "content": text},),
        "prompt": None,
        "temperature": 0.0,
        "max_tokens": 12,
        **options,
    }
    if given["prompt"] is not None:
        given["messages"] = None
    return Generate(f"r{next(_numbers)}", model, **given)


def text_of(events: list[Event], choice: int = 0) -> str:
    """The whole text of one choice; the request must have ended well."""
    assert isinstance(events[-1], Done), events[-1]
    return "".join(e.text for e in events if isinstance(e, Piece) and e.choice == choice)


def pieces(events: list[Event], choice: int = 0) -> list[Piece]:
    return [e for e in events if isinstance(e, Piece) and e.choice == choice]


def reason_of(events: list[Event], choice: int = 0) -> str | None:
    return pieces(events, choice)[-1].finish_reason
