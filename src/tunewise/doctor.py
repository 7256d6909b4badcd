"""Is this machine ready? What is installed against what was tested, and what is missing."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from tunewise.errors import TunewiseError
from tunewise.releases import import_failed, installed_version, tested_versions
from tunewise.workspace import Workspace

_LEAST_FREE = 5 << 30
"""Bytes of disk under which a note is due: a small model, its answers and checkpoints."""

_LOADED = {
    "": ("numpy", "scipy.stats", "sklearn.linear_model", "openai"),
    # transformers imports an architecture when it is asked for, so one is.
    "local": ("torch", "transformers.models.llama.modeling_llama", "peft", "llguidance"),
    "server": ("fastapi", "sqlalchemy", "alembic", "uvicorn"),
    "parquet": ("pyarrow.parquet",),
    "postgres": ("psycopg",),
}
"""Modules that are really imported, since an installed package may still not load."""

_USES = {
    "local": "local models and fine-tuning",
    "server": "`tunewise serve`",
    "parquet": "reading Parquet",
    "dense": "retrieval by meaning",
    "postgres": "a server on PostgreSQL",
}


class State(StrEnum):
    """How a check ended; only ``FAILED`` makes the command fail."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is about. found: what is there, in words.
        advice: what to do, None where nothing needs doing.
    """

    name: str
    state: State
    found: str
    advice: str | None = None


def examine(workspace: Workspace) -> list[Check]:
    """All checks. It imports what the installed extras import, which takes some seconds."""
    return [
        _python(),
        *_extras(),
        *_releases(),
        _processor(),
        _threads(),
        _accelerator(),
        _sandbox(),
        _disk(workspace),
    ]


def _python() -> Check:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return Check("python", State.OK, found)


def _requirements() -> dict[str, list[str]]:
    """Names of the packages that each extra asks for; ``""`` holds what is always needed."""
    found: dict[str, list[str]] = {"": []}
    for line in metadata.requires("tunewise") or []:
        name = re.split(r"[\s\[<>=!~;(]", line, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        found.setdefault(extra.group(1) if extra else "", []).append(name)
    return found


def _extras() -> list[Check]:
    checks = []
    for extra, names in _requirements().items():
        if extra and extra not in _USES:
            continue
        missing = [name for name in names if installed_version(name) is None]
        label = f"extra {extra}" if extra else "core"
        if not missing:
            error = _import_error(extra)
            if error is None:
                checks.append(Check(label, State.OK, _USES.get(extra, "studies, audit, reports")))
            else:
                checks.append(Check(label, State.FAILED, error.message, error.hint))
        elif extra:
            advice = f'for {_USES[extra]}: pip install "tunewise[{extra}]"'
            checks.append(Check(label, State.NOTE, f"not installed: {_listed(missing)}", advice))
        else:
            advice = "pip install --force-reinstall tunewise"
            checks.append(Check(label, State.FAILED, f"missing: {_listed(missing)}", advice))
    return checks


def _import_error(extra: str) -> TunewiseError | None:
    for module in _LOADED.get(extra, ()):
        try:
            importlib.import_module(module)
        except ImportError as error:
            what = f"The extra {extra}" if extra else "Tunewise"
            return import_failed(what, extra or "all", error)
        except Exception as error:  # a release at odds with another may fail in any way
            top = module.partition(".")[0]
            name = metadata.packages_distributions().get(top, [top])[0]
            told = str(error).strip().splitlines() or ["no message"]
            return TunewiseError(
                f"{name} {installed_version(name)} does not load "
                f"({type(error).__name__}: {told[0][:200]})",
                hint=f"install the tested release: {_pip([name])}",
            )
    return None


def _releases() -> list[Check]:
    """Installed releases that differ from those that were tested."""
    wanted = {name for names in _requirements().values() for name in names}
    other, names = [], []
    for name in sorted(wanted):
        version, tested = installed_version(name), tested_versions().get(name.lower())
        # A local part such as +cpu names a build of the same release.
        if version and tested and version.partition("+")[0] not in tested:
            other.append(f"{name} {version} (tested: {' or '.join(tested)})")
            names.append(name)
    if not other:
        return [Check("releases", State.OK, "all as tested")]
    advice = f"if something fails, install the tested releases first: {_pip(names)}"
    return [Check("releases", State.NOTE, _listed(other, most=40), advice)]


def _pip(names: Iterable[str]) -> str:
    """The command that brings the tested releases of some packages."""
    tested = tested_versions()
    pins = [f'"{n}=={tested[n.lower()][0]}"' if n.lower() in tested else n for n in names]
    return f"pip install {' '.join(pins)}"


def _processor() -> Check:
    memory = _memory_bytes()
    parts = [f"{os.cpu_count()} cores"]
    if memory is not None:
        parts.append(f"{memory / 1e9:.0f} GB of memory")
    from tunewise.models.loading import processor_has_bfloat16

    parts.append("bfloat16 in hardware" if processor_has_bfloat16() else "no bfloat16: float32")
    return Check("processor", State.OK, ", ".join(parts))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _threads() -> Check:
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else os.cpu_count() or 1
    busy = os.getloadavg()[0]
    found = f"{threads} for computing; load {busy:.1f}"
    if busy > 0.5 and threads > 1:
        advice = "the machine is busy: OMP_NUM_THREADS=1 may be several times faster"
        return Check("threads", State.NOTE, found, advice)
    return Check("threads", State.OK, found)


def _accelerator() -> Check:
    torch = sys.modules.get("torch")
    if torch is None:
        return Check("accelerator", State.OK, "not looked for, since torch is not installed")
    if not torch.cuda.is_available():
        return Check("accelerator", State.OK, "none that torch can use; the processor computes")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check("accelerator", State.OK, _listed(names))


def _sandbox() -> Check:
    from tunewise.scoring.sandbox import SandboxError, require_sandbox, sandbox_kind

    try:
        require_sandbox()
    except SandboxError as error:
        return Check("sandbox", State.NOTE, error.message, error.hint)
    return Check("sandbox", State.OK, f"Python graders run in one ({sandbox_kind()})")


def _disk(workspace: Workspace) -> Check:
    root = workspace.root
    there = next(p for p in (root, *root.parents) if p.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError:
        advice = "choose another folder: TUNEWISE_HOME=… or --workspace …"
        return Check("workspace", State.FAILED, f"{root} cannot be written", advice)
    free = shutil.disk_usage(there).free
    found = f"{_shown(root)}, {free / 1e9:.0f} GB free"
    if free < _LEAST_FREE:
        return Check("workspace", State.NOTE, found, "`tunewise clean` lists what can go")
    return Check("workspace", State.OK, found)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _listed(names: Iterable[str], most: int = 6) -> str:
    all_names = list(names)
    more = f" and {len(all_names) - most} more" if len(all_names) > most else ""
    return ", ".join(all_names[:most]) + more
