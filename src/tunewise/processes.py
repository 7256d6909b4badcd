"""Processes of our own: no code comes to them from the folder where somebody happens to be.

``python -m`` puts the working directory before all else on ``sys.path``, so a file named like one
of our libraries there, which came with somebody's data, would run in its place.
"""

from __future__ import annotations

import os
import sys

NOWHERE = "/"
"""The working directory of processes that need none."""


_COMPUTING = {
    # Threads that wait by spinning slow a machine that does other work at the same time down
    # tenfold; after a short spin they should sleep.
    "GOMP_SPINCOUNT": "10000",
    # Where a processor multiplies bfloat16 itself, torch compiles a product for each new shape and
    # keeps 1,024 of them, in two caches, each with its memory: over rows of many lengths a small
    # model's training grew from 0.5 to 2 GB. A pass has some 30 shapes.
    "LRU_CACHE_CAPACITY": "64",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}
"""What torch's libraries read when they first compute, unless the user has set it."""


def prepare_computing() -> None:
    """Set what torch's libraries should know, here and for children, before they first compute."""
    for name, value in _COMPUTING.items():
        os.environ.setdefault(name, value)


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours, without the working directory on ``sys.path``."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The environment of such a process: this one's, safe for what it starts in its turn too."""
    return {
        **_COMPUTING,
        "TOKENIZERS_PARALLELISM": "false",
        **os.environ,
        **_safe(),
    }


def forget_working_directory() -> None:
    """Take the working directory off ``sys.path`` where nobody has put it there by name.

    It stands there first after ``python -m``, and wherever ``PYTHONPATH`` has an empty entry. What
    this process starts is told the same.
    """
    here = os.getcwd()  # noqa: PTH109 (pathlib would come from the very folder)
    if here not in _named(os.environ.get("PYTHONPATH", "")):
        # Both come before Python's own folders; what stands behind those is installed.
        zipped = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
        own = next((k for k, e in enumerate(sys.path) if e.endswith(zipped)), 1)
        sys.path[:own] = [entry for entry in sys.path[:own] if entry not in ("", here)]
    os.environ.update(_safe())


def _safe() -> dict[str, str]:
    named = _named(os.environ.get("PYTHONPATH", ""))
    paths = {"PYTHONPATH": os.pathsep.join(named)} if "PYTHONPATH" in os.environ else {}
    return {"PYTHONSAFEPATH": "1", **paths}


def _named(paths: str) -> list[str]:
    """The folders in ``paths``; an empty entry, as of ``$PYTHONPATH:more``, would be where we are.

    Absolute, for a process that is started elsewhere.
    """
    return [os.path.abspath(entry) for entry in paths.split(os.pathsep) if entry]  # noqa: PTH100
