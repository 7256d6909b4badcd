"""An adapter's files, as peft saves them, read into updates of a model's linear layers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import regex
import torch
from torch import nn

from tunewise.errors import ModelError
from tunewise.models.weights import require_safetensors
from tunewise.server.inference.lora import AdapterLinear, AdapterTable, Update

FILES = ("adapter_model.safetensors", "adapter_config.json")

_PREFIX = "base_model.model."
# What changes the arithmetic of LoRA in ways that are not computed here.
_UNKNOWN = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)


def replaces_modules(folder: Path) -> bool:
    """Whether an adapter brings whole modules of its own (peft's ``modules_to_save``)."""
    try:
        config = json.loads((folder / FILES[1]).read_text("utf-8"))
    except (OSError, ValueError):
        return False  # what is wrong with it is told when it is read
    return isinstance(config, dict) and bool(config.get("modules_to_save"))


def put_modules(folder: Path, model: Any) -> frozenset[str]:
    """Give ``model`` the modules that an adapter brings, in place of its own.

    Returns:
        The names of the replaced parameters.

    Raises:
        ModelError: missing or pickled files, or a module that the model does not have like that.
    """
    config, tensors = _config(folder, saved=True), _tensors(folder)
    names = [str(name) for name in config["modules_to_save"]]
    found: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        parameter, part = _split(key)
        module = parameter.rpartition(".")[0]
        if part is None and module.endswith(tuple(names)):  # as peft finds them
            found[parameter] = tensor
    for name in names:
        if not any(parameter.rpartition(".")[0].endswith(name) for parameter in found):
            raise _unfit(folder, f"it holds no weights of {name}, which it names")
    own = dict(model.named_parameters(remove_duplicate=False))
    for parameter, tensor in found.items():
        if parameter not in own or own[parameter].shape != tensor.shape:
            raise _unfit(folder, f"the weight {parameter} has no counterpart in the model")
        _require_finite(folder, parameter, tensor)
        place, _, leaf = parameter.rpartition(".")
        value = tensor.to(own[parameter].device, own[parameter].dtype)
        # A parameter of its own, since the head may share the embedding's.
        setattr(model.get_submodule(place), leaf, nn.Parameter(value, requires_grad=False))
    return frozenset(found)


def read_adapter(
    folder: Path, layers: dict[str, AdapterLinear], replaced: frozenset[str] = frozenset()
) -> dict[str, Update]:
    """The updates of an adapter, by the layer's name.

    Every file of the adapter is used or it is refused: half an adapter answers wrongly.

    Args:
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.
        layers: the model's linear layers, by their names in it.
        replaced: parameters that the model has from this adapter (``put_modules``).

    Raises:
        ModelError: missing or pickled files, an adapter of another kind or for another model, or
            weights that are no finite numbers.
    """
    config, tensors = _config(folder, saved=bool(replaced)), _tensors(folder)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        layer, part = _split(key)
        if part is None and layer in replaced:
            continue
        if part is None or layer not in layers:
            raise _unfit(folder, f"the weight {key} has no counterpart in the model")
        _require_finite(folder, key, tensor)
        parts.setdefault(layer, {})[part] = tensor
    if not parts:
        raise _unfit(folder, "it holds no weights")
    try:
        return {name: _update(folder, config, name, p, layers[name]) for name, p in parts.items()}
    except (regex.error, TimeoutError, TypeError, ValueError, AttributeError) as error:
        raise _unfit(folder, f"its adapter_config.json makes no sense: {error}") from error


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_safetensors(folder, FILES[0])
    try:
        return load_file(str(folder / FILES[0]))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the adapter cannot be read: {error}", where=str(folder)) from error


def _require_finite(folder: Path, key: str, tensor: torch.Tensor) -> None:
    if not bool(torch.isfinite(tensor).all()):
        raise _unfit(folder, f"the weight {key} holds values that are no finite numbers")


def _config(folder: Path, *, saved: bool = False) -> dict[str, Any]:
    path = folder / FILES[1]
    if not path.is_file():
        raise ModelError("no adapter_config.json, so this is no adapter", where=str(folder))
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"not readable as JSON: {error}", where=str(path)) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise _unfit(folder, f"it is of the kind {kind}; served are LORA, with rsLoRA and DoRA")
    odd = [key for key in _UNKNOWN if config.get(key) and not (saved and key == "modules_to_save")]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if odd:
        raise _unfit(
            folder,
            f"it uses {', '.join(odd)}, and requests of several adapters are computed together, "
            "which leaves room for updates of linear layers only",
            "Merge it into the model (peft's merge_and_unload) and serve the merged folder.",
        )
    return dict(config)


def _split(key: str) -> tuple[str, str | None]:
    """``base_model.model.NAME.lora_A.weight`` -> NAME and which part it is."""
    name = key.removeprefix(_PREFIX)
    for suffix, part in (
        (".lora_A.weight", "a"),
        (".lora_B.weight", "b"),
        (".lora_magnitude_vector.weight", "magnitude"),
        (".lora_magnitude_vector", "magnitude"),
    ):
        if name.endswith(suffix):
            return name.removesuffix(suffix), part
    return name, None


def _update(
    folder: Path,
    config: dict[str, Any],
    name: str,
    parts: dict[str, torch.Tensor],
    layer: AdapterLinear,
) -> Update:
    dora = bool(config.get("use_dora"))
    wanted = {"a", "b", "magnitude"} if dora else {"a", "b"}
    if set(parts) != wanted:
        raise _unfit(folder, f"the layer {name} has {sorted(parts)} and not {sorted(wanted)}")
    # 32 bits, as peft computes them (autocast_adapter_dtype).
    values = {p: t.to(layer.weight.device, torch.float32) for p, t in parts.items()}
    a, b = values["a"], values["b"]
    fits = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1]
    if not fits or (b.shape[0], a.shape[1]) != tuple(layer.weight.shape):
        raise _unfit(
            folder,
            f"the layer {name} is {tuple(layer.weight.shape)} in the model, and "
            f"{tuple(b.shape)} by {tuple(a.shape)} in the adapter",
        )
    scaling = _scaling(config, name, a.shape[0])
    magnitude = None
    if dora:
        weight = layer.weight.float() + scaling * (b @ a)
        magnitude = values["magnitude"].flatten() / torch.linalg.norm(weight, dim=1)
    return Update(a.T.contiguous(), (b.T * scaling).contiguous(), magnitude)


def _scaling(config: dict[str, Any], name: str, rank: int) -> float:
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        # peft matches them by `re`; these are somebody's, and may be made never to end.
        if regex.match(rf"(.*\.)?({pattern})$", name, timeout=0.1):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


_SAME_MODEL = "Use it with the model that it was trained on, as peft's save_pretrained wrote it."


def _unfit(folder: Path, why: str, hint: str = _SAME_MODEL) -> ModelError:
    return ModelError(f"the adapter cannot be served: {why}", where=folder.name, hint=hint)


def open_layers(model: Any) -> tuple[dict[str, AdapterLinear], AdapterTable]:
    """Replace the model's linear layers by ones that take adapters; gives them by name.

    The output head stays as it is: it sees only some of the tokens.
    """
    table = AdapterTable()
    layers: dict[str, AdapterLinear] = {}
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module is not head:
            parent, _, leaf = name.rpartition(".")
            layers[name] = AdapterLinear(module, name, table)
            setattr(model.get_submodule(parent), leaf, layers[name])
    return layers, table
