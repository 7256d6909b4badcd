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
    import transformers

    from tunewise.models.quiet import quiet

    where: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    auto: Any = transformers.AutoModelForCausalLM
    with quiet():
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(**where)
        packed = auto.from_pretrained(**where, dtype=torch.bfloat16)
        # What was loaded counts as quantised and is not saved; its weights are plain numbers.
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = auto.from_config(config, dtype=torch.bfloat16)
        model.load_state_dict(packed.state_dict())
        model.generation_config = packed.generation_config
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    unpack(Path(sys.argv[2]), Path(sys.argv[3]))
