"""What of a configuration depends on the machine, told without loading torch."""

from __future__ import annotations

import importlib.util
import shutil
import sys


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, or Apple's."""
    return shutil.which("nvidia-smi") is not None or sys.platform == "darwin"


def quantizes() -> bool:
    """Whether a base model can be held in 4 bits here."""
    return has_gpu() and importlib.util.find_spec("bitsandbytes") is not None


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None
