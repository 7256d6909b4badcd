"""Code that a study names (``fine_tune.reward: module:function``): run only where its user says so.

A study comes with somebody's folder, and so does what lies beside it. So a file of code is trusted
by its content alone, and what is trusted stands in the user's own configuration folder, where no
study's folder reaches: a file for each, named by the SHA-256 of the code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from tunewise.errors import StudyError, UntrustedCodeError, WorkspaceError
from tunewise.study.fine_tune import FineTune
from tunewise.workspace import write_json_atomic

_PLACE = "fine_tune.reward"


@dataclass(frozen=True)
class Code:
    """A function of a user's own, in one file.

    What the file imports must be installed or on ``PYTHONPATH``: nothing comes from the working
    directory but the file itself, whose bytes are the ones that were trusted.

    Attributes:
        name: ``module:function``.
        path: of the file.
        source: its bytes.
    """

    name: str
    path: Path
    source: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.source).hexdigest()

    @property
    def trusted(self) -> bool:
        """Whether the user has allowed this very content."""
        return _folder().joinpath(f"{self.sha256}.json").is_file()

    def trust(self) -> None:
        """Remember that the user allows it.

        Raises:
            WorkspaceError: nothing can be written into the configuration folder.
        """
        place = _folder()
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise WorkspaceError(
                f"what is trusted cannot be remembered: {error.strerror}",
                where=str(place),
                hint="Set XDG_CONFIG_HOME to a folder of your own that can be written to.",
            ) from error
        told = {"name": self.name, "path": str(self.path)}
        write_json_atomic(place / f"{self.sha256}.json", told)

    def load(self) -> Callable[..., Any]:
        """Run the file, and give the function that is named.

        Raises:
            UntrustedCodeError: the user has not allowed it.
            Exception: whatever the file raises.
            AttributeError: it has no such function.
        """
        if not self.trusted:
            raise _refused(self)
        module_name, _, function = self.name.partition(":")
        spec = importlib.util.spec_from_loader(module_name, _Bytes(self))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(module_name, module)  # where dataclasses look for it
        spec.loader.exec_module(module)
        found: Callable[..., Any] = getattr(module, function)
        return found


class _Bytes(importlib.abc.SourceLoader):
    """Loads the bytes that were looked at, whatever the file holds by now; no cached bytecode."""

    def __init__(self, code: Code) -> None:
        self._code = code

    def get_filename(self, fullname: str) -> str:
        return str(self._code.path)

    def get_data(self, path: str | bytes) -> bytes:
        if os.fsdecode(path) != str(self._code.path):
            raise OSError(path)
        return self._code.source


def find_code(name: str) -> Code:
    """The file that ``module:function`` names, found and read without running anything.

    It is looked for in the working directory, then wherever Python imports from.

    Raises:
        StudyError: there is no such file of Python code.
    """
    module = name.partition(":")[0]
    importlib.invalidate_caches()
    paths, origin = [str(Path.cwd()), *filter(None, sys.path)], None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, paths) if part.isidentifier() else None
        paths = list(spec.submodule_search_locations or []) if spec else []
        origin = spec.origin if spec else None
    if origin is None or not origin.endswith(".py"):
        raise StudyError(
            f"the reward {name!r} cannot be found: there is no file of Python code for {module!r}",
            where=_PLACE,
            hint="Write `module:function`; the module's file lies where the command is run, or is "
            "installed or on PYTHONPATH.",
        )
    path = Path(origin).absolute()
    try:
        return Code(name, path, path.read_bytes())
    except OSError as error:
        raise StudyError(
            f"the reward {name!r} cannot be read: {error.strerror}", where=str(path)
        ) from error


def named_code(fine_tune: FineTune) -> Code | None:
    """The code that a fine-tune would run, found and read; None where it names none.

    Raises:
        StudyError: there is no such file.
    """
    reward = fine_tune.reward
    if fine_tune.method != "grpo" or reward is None or ":" not in reward.name:
        return None
    return find_code(reward.name)


def require_trusted(fine_tune: FineTune, *, allow: bool = False) -> None:
    """Stop where the study names code that its user has not allowed.

    Args:
        allow: the user allows it now, and from now on, until the file changes.

    Raises:
        UntrustedCodeError: names the file and its hash.
        StudyError: there is no such file.
        WorkspaceError: what is trusted cannot be remembered.
    """
    code = named_code(fine_tune)
    if code is None or code.trusted:
        return
    if not allow:
        raise _refused(code)
    code.trust()


def _refused(code: Code) -> UntrustedCodeError:
    return UntrustedCodeError(
        f"the study names code of its own, {code.name!r}, which would run with all your rights: "
        f"{code.path}, SHA-256 {code.sha256}",
        where=_PLACE,
        hint="Read that file. If you trust it, allow it with --allow-code (from Python: "
        "allow_code=True); this is remembered until the file changes.",
    )


def _folder() -> Path:
    """``trusted-code`` in the user's configuration folder; never relative to where we are."""
    given = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    base = given if given.is_absolute() else Path.home() / ".config"
    if not base.is_absolute():
        raise WorkspaceError(
            "there is no home directory, where what is trusted would be remembered",
            hint="Set HOME, or XDG_CONFIG_HOME, to a folder of your own.",
        )
    return base / "tunewise" / "trusted-code"
