"""What is kept of a failure that nobody foresaw: a report on disk, without secrets."""

from __future__ import annotations

import datetime
import itertools
import platform
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from tunewise import __version__
from tunewise.errors import TunewiseError
from tunewise.releases import installed_version
from tunewise.study.keys import redact
from tunewise.workspace import default_root, write_text_atomic

_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "openai", "fastapi")


def write_crash_report(error: BaseException, command: Sequence[str]) -> Path | None:
    """Write the traceback and what it ran on; where it lies, or None if nowhere could be written.

    It lies in ``crashes/`` of the workspace, or where that cannot be written in the folder for
    temporary files. Only its owner can read it.

    Args:
        command: the arguments of the command line.
    """
    now = datetime.datetime.now(datetime.UTC)
    versions = {name: installed_version(name) for name in _PACKAGES}
    lines = [
        f"tunewise {__version__}, {now.isoformat(timespec='seconds')}",
        f"command: tunewise {' '.join(command)}",
        f"python {platform.python_version()} on {platform.platform()}",
        ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "",
        "".join(traceback.format_exception(error)),
    ]
    name = f"{now:%Y%m%dT%H%M%S}-{type(error).__name__}.txt"
    for folder in (_workspace(command) / "crashes", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / name
            write_text_atomic(path, redact("\n".join(lines)))
        except (OSError, TunewiseError):
            continue
        return path
    return None


def _workspace(command: Sequence[str]) -> Path:
    for option, value in itertools.pairwise(command):
        if option == "--workspace":
            return Path(value)
    return default_root()
