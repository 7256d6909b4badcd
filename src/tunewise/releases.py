"""The releases of other packages: which are installed, which were tested, and what to say when one
of them does not load.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import metadata, resources, util
from types import TracebackType

from tunewise.errors import MissingExtraError, TunewiseError


@cache
def tested_versions() -> dict[str, tuple[str, ...]]:
    """The releases that this version was tested with, by package; several where they differ by
    system or Python. Written by ``make lock``.
    """
    text = resources.files("tunewise").joinpath("tested_versions.json").read_text("utf-8")
    return {name: tuple(versions) for name, versions in json.loads(text).items()}


def installed_version(package: str) -> str | None:
    """The installed release of a package by its name on the index, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class ReleaseError(TunewiseError):
    """A package that is installed and does not load, for its own or another one's release."""


def import_failed(what: str, extra: str, error: ImportError) -> TunewiseError:
    """What to raise for a failed import: the missing extra, or the releases that do not fit.

    Args:
        what: cannot be done, as the beginning of a sentence.
        extra: of this package that would bring what is missing.
        error: as it was caught.
    """
    while isinstance(error.__cause__, ImportError):  # transformers wraps it in one of its own
        error = error.__cause__
    wanted = (error.name or "").partition(".")[0]
    importer = _importer(error)
    absent = isinstance(error, ModuleNotFoundError) and wanted and not _found(wanted)
    if absent and importer in (None, wanted):
        return MissingExtraError(what, extra)
    names = list(dict.fromkeys(n for n in (importer, wanted, *_named(error)) if n))
    told = [f"{name} {installed_version(name) or 'not installed'}" for name in names]
    among = f" ({', '.join(told)})" if told else ""
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no reason"
    pins = [f'"{n}=={tested_versions()[n][0]}"' for n in names if n in tested_versions()]
    cure = f"pip install {' '.join(pins)}" if pins else f'pip install "tunewise[{extra}]"'
    return ReleaseError(
        f"{what} needs packages that do not load together{among}: {reason}",
        hint=f"Releases that were tested together: {cure}   (`tunewise doctor` compares all)",
    )


def _found(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _importer(error: ImportError) -> str | None:
    """The package whose code asked for what cannot be imported; None if it was the caller."""
    trace = error.__traceback__
    below = _frames(trace.tb_next) if trace is not None else ()  # the first frame is the caller
    names = [name for name in below if name not in ("importlib", "tunewise")]
    return names[-1] if names else None


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if name not in ("", "__main__", "_frozen_importlib"):
            yield name
        trace = trace.tb_next


def _named(error: ImportError) -> list[str]:
    """Packages that the message speaks of, such as ``peft>=0.22.0 is required``."""
    words = {word.strip("'\"`,.:;()<>=!0123456789").lower() for word in str(error).split()}
    return sorted(words & set(tested_versions()) - {"packaging"})
