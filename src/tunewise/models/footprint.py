"""How much memory a model's weights will take, told from its files without loading them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from tunewise.models.names import ModelRef
from tunewise.models.weights import cached

if TYPE_CHECKING:
    import torch

    from tunewise.models.loading import DType

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types that become the one that is asked for; others (packed weights, 8 bits) stay."""
_WIDER = {"I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}


def bytes_in_memory(ref: ModelRef, dtype: DType = "auto") -> int:
    """Bytes of a local model's weights once it is loaded; 0 for one that is not on this machine.

    Files hold numbers in their own type, memory in the one that is asked for: 16-bit weights take
    twice their size on disk as float32.

    Args:
        dtype: as for ``load_local``.
    """
    folder = cached(ref) if ref.kind == "hub" else ref.path
    if folder is None:
        return 0
    size = _numeric_type(folder, dtype).itemsize
    return sum(_bytes(path, size) for path in folder.glob("*.safetensors"))


def _numeric_type(folder: Path, dtype: DType) -> torch.dtype:
    import torch

    from tunewise.models.loading import numeric_type

    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        config = {}  # what is wrong with the folder is told when it is loaded
    text = config.get("text_config") or {}
    places = (config.get("dtype"), config.get("torch_dtype"), text.get("dtype"))
    saved = next((getattr(torch, str(name), None) for name in places if name), None)
    return numeric_type(dtype, saved, "cuda" if torch.cuda.is_available() else "cpu")


def _bytes(path: Path, size: int) -> int:
    """Of the tensors in a safetensors file, of which the header alone is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
            return sum(
                math.prod(tensor.get_shape()) * _itemsize(tensor.get_dtype(), size)
                for tensor in tensors
            )
    except SafetensorError:
        return path.stat().st_size  # a damaged file is told when it is loaded


def _itemsize(saved: str, size: int) -> int:
    return size if saved in _FLOATS else _WIDER.get(saved, 1)
