"""A process of its own: GGUF weights, unpacked to safetensors as transformers loads them.

    python -m tunewise.models.unpack_gguf SITE FILE TARGET

SITE is a folder with the package ``gguf``, which is not installed. The weights are those of the
file: what was rounded to few bits stays so, in bfloat16.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def unpack(file: Path, target: Path) -> None:
    """Write config, weights and tokenizer of the model in ``file`` to the folder ``target``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunewise.models.quiet import quiet

    where: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    with quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(**where)
        model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
        # The weights are plain numbers now, so nothing may say that they are to be unpacked.
        if getattr(model.config, "quantization_config", None) is not None:
            del model.config.quantization_config
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    unpack(Path(sys.argv[2]), Path(sys.argv[3]))
