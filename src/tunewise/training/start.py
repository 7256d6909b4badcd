"""Training on top of an adapter: the weights that it begins with are those trained before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunewise.errors import ModelError, TrainingError

_SHAPE = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "task_type")
"""What decides how an adapter's weights are computed with."""


def begin_with(outer: Any, folder: Path) -> None:
    """Put the weights of the adapter in ``folder`` into the one that ``outer`` has got.

    Args:
        outer: a peft model, its adapter not yet trained.
        folder: an adapter in peft's format.

    Raises:
        ModelError: the files cannot be read.
        TrainingError: it is an adapter of another kind or rank, or of another model.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        theirs = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"the adapter to begin with cannot be read: {error}", where=str(folder)
        ) from error
    ours = json.loads(json.dumps(outer.peft_config["default"].to_dict(), default=str))
    differing = [
        f"{name} is {theirs.get(name)} there and {ours[name]} here"
        for name in _SHAPE
        if theirs.get(name) != ours[name]
    ]
    if differing:
        raise _unfit(folder, f"of another kind or size ({'; '.join(differing)})")
    wanted = {
        name: tensor.shape
        for name, tensor in get_peft_model_state_dict(outer, save_embedding_layers=False).items()
    }
    if {name: tensor.shape for name, tensor in weights.items()} != wanted:
        raise _unfit(folder, "for other layers or another model")
    set_peft_model_state_dict(outer, weights)


def _unfit(folder: Path, why: str) -> TrainingError:
    return TrainingError(
        f"training cannot begin with this adapter: it is {why}",
        where=str(folder),
        hint="Train with the adapter options that it was trained with, or begin with the base.",
    )
