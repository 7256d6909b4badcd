"""Checkpoints: safetensors and JSON, written whole or not at all.

A checkpoint is a folder ``step-00000123``; it appears by one rename, after its files are on disk.
Random numbers need no state of their own: each step seeds them from the job's seed and its number.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tunewise import digests
from tunewise.digests import DamagedError
from tunewise.errors import WorkspaceError
from tunewise.workspace import write_json_atomic

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FORMAT = 1
_DIGEST = ".sha256"


@dataclass
class Progress:
    """How far a run has come; everything beside tensors that a checkpoint holds.

    Attributes:
        step: optimiser steps done; with the plan, the position in the data.
        plan: digest of batch plan and rows: what the steps refer to.
        chosen: what was calibrated or taken from the machine (threads, token budget, path), and
            must stay the same for the same weights.
        best_step, best_loss: of the lowest dev loss so far.
        evaluations_since_best: for early stopping.
        metrics: the method's latest figures.
        counts: what is counted over the run (groups of equal answers that were skipped).
    """

    key: str
    plan: str
    chosen: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    trained_tokens: int = 0
    train_loss: list[float] = field(default_factory=list)
    dev_loss: list[tuple[int, float]] = field(default_factory=list)
    best_step: int | None = None
    best_loss: float | None = None
    evaluations_since_best: int = 0
    stopped_early: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    progress: Progress,
    weights: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> Path:
    """Write the checkpoint of ``progress.step``, then remove what it makes superfluous.

    Raises:
        WorkspaceError: when the disk is full; the last good checkpoint stays.
    """
    tensors: dict[str, Tensor] = {}
    steps: dict[str, float] = {}
    for name, parameter in weights.items():
        tensors[f"weight/{name}"] = parameter.detach()
        state = optimiser.state.get(parameter, {})
        for key, value in state.items():
            if key == "step":
                steps[name] = float(value)
            else:
                tensors[f"{key}/{name}"] = value
    path = folder / f"step-{progress.step:08d}"
    if path.exists():
        return path

    def fill(place: Path) -> None:
        _save(tensors, place / "state.safetensors")
        write_json_atomic(
            place / "state.json", {"format": FORMAT, "optimiser_steps": steps, **vars(progress)}
        )

    write_folder(path, fill)
    needed = {path, best_path(folder, progress.best_step)}
    for old in [*folder.glob("step-*"), *folder.glob("best-*")]:
        if old not in needed:
            shutil.rmtree(old, ignore_errors=True)
    return path


def best_path(folder: Path, step: int | None) -> Path:
    """Where the weights of the lowest dev loss lie, if that was at ``step``."""
    return folder / f"best-{step or 0:08d}"


def load_checkpoint(
    folder: Path,
    key: str,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> None:
    """Put the newest checkpoint of job ``key``, if there is one, into weights and optimiser."""
    _, path, steps = newest(folder, key)
    if path is None:
        return
    tensors = _load(path / "state.safetensors")
    state: dict[int, dict[str, Tensor]] = {}
    for index, (name, parameter) in enumerate(parameters.items()):
        with torch.no_grad():
            parameter.copy_(tensors.pop(f"weight/{name}"))
        if name in steps:
            # One tensor per parameter: AdamW counts in place, so a shared one would count
            # once for each parameter.
            state[index] = {"step": torch.tensor(steps[name], dtype=torch.float32)}
    order = {name: index for index, name in enumerate(parameters)}
    for full_name, tensor in tensors.items():
        kind, name = full_name.split("/", 1)
        state[order[name]][kind] = tensor
    optimiser.load_state_dict(
        {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    )


def newest(folder: Path, key: str) -> tuple[Progress | None, Path | None, dict[str, float]]:
    """The newest whole checkpoint of job ``key``: its progress, place and optimiser steps.

    Raises:
        DamagedError: it is there, and it or the best weights that it names have changed on disk.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            value = json.loads((path / "state.json").read_text("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise DamagedError(
                f"the checkpoint cannot be read: {error}", where=str(path / "state.json")
            ) from error
        if value.pop("format", None) != FORMAT or value.get("key") != key:
            continue
        steps = value.pop("optimiser_steps")
        value["dev_loss"] = [(int(s), float(v)) for s, v in value["dev_loss"]]
        progress = Progress(**value)
        _held(path / "state.safetensors")
        if progress.best_step is not None and best_path(folder, progress.best_step).is_dir():
            _held(best_path(folder, progress.best_step) / "weights.safetensors")
        return progress, path, steps
    return None, None, {}


def save_values(
    folder: Path, split: str, plan: str, values: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    """Write what a method computed before step 0 for the items of a split."""
    tensors = {name: torch.from_numpy(value) for name, value in values.items()}
    write_folder(
        _values_path(folder, split, plan), lambda p: _save(tensors, p / "values.safetensors")
    )


def load_values(folder: Path, split: str, plan: str) -> dict[str, npt.NDArray[np.float32]] | None:
    """The inverse of ``save_values``; None where there is nothing that is whole."""
    path = _values_path(folder, split, plan) / "values.safetensors"
    if not path.is_file():
        return None
    try:
        tensors = _load(path)
    except DamagedError:
        return None  # they are computed again
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _values_path(folder: Path, split: str, plan: str) -> Path:
    return folder / f"values-{split}-{plan[:16]}"


def save_weights(path: Path, weights: Mapping[str, nn.Parameter]) -> None:
    """Write trained weights alone (the best so far), whole or not at all."""
    tensors = {name: p.detach() for name, p in weights.items()}
    write_folder(path, lambda place: _save(tensors, place / "weights.safetensors"))


def load_weights(path: Path, weights: Mapping[str, nn.Parameter]) -> None:
    """The inverse of ``save_weights``.

    Raises:
        DamagedError: they have changed on disk.
    """
    tensors = _load(path / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(tensors[name])


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder ``path`` appear with all that ``fill`` writes, or not at all.

    A folder of that name is replaced.

    Raises:
        WorkspaceError: when the disk is full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        fill(beside)
        for file in beside.rglob("*"):
            _sync(file)
        _sync(beside)
        if path.exists():
            shutil.rmtree(path)
        beside.rename(path)
        _sync(path.parent)
    except Exception as error:
        # safetensors reports a full disk in words only.
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise WorkspaceError(
                "the disk is full; the last good checkpoint is intact",
                where=str(path.parent),
                hint="Free some space and run again: training goes on from there.",
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(beside, ignore_errors=True)


_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file, one tensor after the other.

    The library's own ``save_file`` holds all of them a second time, as bytes: with AdamW's moments
    that is more memory than the training itself takes.
    """
    # As the format wants it: the widest first, so that every tensor is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names:
            flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
            file.write(flat.cpu().numpy().data)
    path.with_suffix(_DIGEST).write_text(digests.of_file(path), "ascii")


def _load(path: Path) -> dict[str, Tensor]:
    _held(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"the checkpoint cannot be read: {error}", where=str(path)) from error


def _held(path: Path) -> None:
    """Compare a file of tensors with its digest; those of earlier releases have none."""
    try:
        digest = path.with_suffix(_DIGEST).read_text("ascii")
    except FileNotFoundError:
        digest = None
    except (OSError, ValueError):
        digest = ""
    if digest is not None or not path.is_file():
        digests.hold(path, digest or "", "the checkpoint")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
