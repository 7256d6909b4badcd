"""An adapter and its base as files that need neither: merged weights, and the tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tunewise.errors import ModelError
from tunewise.models.adapters import WEIGHTS
from tunewise.models.loading import load_local
from tunewise.models.names import ModelRef
from tunewise.models.weights import locate, require_safetensors


def merge(ref: ModelRef, adapter: Path, out: Path) -> None:
    """Write the base with the adapter's update in its weights, and its tokenizer.

    A scoring model (``reward``) keeps its head.

    Args:
        ref: the local model that the adapter was trained on.
        out: a folder; made, or written into.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    from peft import PeftModel

    from tunewise.models.quiet import quiet

    require_safetensors(adapter, WEIGHTS)
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    loaded = load_local(ref)
    base: Any = loaded.model
    if config.get("task_type") == "SEQ_CLS":
        base = _scoring(loaded.folder, loaded.dtype)
    try:
        with quiet():
            merged: Any = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
            merged.save_pretrained(out)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"the adapter cannot be merged into {ref.spec}: {str(error).splitlines()[0]}",
            where=str(adapter),
            hint="Use it with the model that it was trained on.",
        ) from error
    save_tokenizer(ref, out)


def save_tokenizer(ref: ModelRef, out: Path) -> None:
    """Copy a local model's tokenizer and chat template beside an adapter."""
    folder = locate(ref)
    wanted = ("tokenizer*", "*.jinja", "special_tokens_map.json", "vocab.*", "merges.txt")
    out.mkdir(parents=True, exist_ok=True)
    for pattern in wanted:
        for file in folder.glob(pattern):
            if file.is_file() and not (out / file.name).exists():
                shutil.copyfile(file, out / file.name)


def _scoring(folder: Path, dtype: Any) -> Any:
    """The base with one score as its head; the adapter brings the head's weights."""
    import transformers

    from tunewise.models.quiet import quiet

    with quiet():
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=1,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
