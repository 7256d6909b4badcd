"""What is kept of a failure that nobody foresaw: a report on disk, without secrets.

The command's child processes (training, forecasts, the server's engine and jobs) write theirs into
the same folder, which they are told by the environment.
"""

from __future__ import annotations

import datetime
import logging
import os
import platform
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from types import TracebackType

from tunewise import __version__
from tunewise.errors import TunewiseError
from tunewise.releases import import_failed, installed_version
from tunewise.study.keys import redact
from tunewise.workspace import default_root, write_text_atomic

FOLDER = "TUNEWISE_CRASHES"
"""The environment variable that names the folder for reports."""

_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "openai", "fastapi")


class UnforeseenError(TunewiseError):
    """A failure that is nobody's but ours; its traceback lies in a file."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h


def unforeseen(error: Exception, what: str, hint: str = "") -> TunewiseError:
    """A failure that nobody foresaw, in words; its traceback goes to a file.

    An import that fails is told as the release that broke it (``import_failed``).

    Args:
        what: was done, as the beginning of a sentence.
        hint: what is kept and how to go on.
    """
    if isinstance(error, ImportError):
        return import_failed(what, "all", error)
    path = write_crash_report(error, sys.argv[1:])
    where = f"The full report lies in {path}" if path else "No report could be written"
    return UnforeseenError(
        f"{what} met what should not happen ({type(error).__name__}: {_first_line(error)})",
        hint=f"{hint}\n{where}; keys are taken out of it, your rows may stand in it.".lstrip(),
    )


def write_crash_report(error: BaseException, command: Sequence[str]) -> Path | None:
    """Write the traceback and what it ran on; where it lies, or None if nowhere could be written.

    It lies in ``$TUNEWISE_CRASHES`` or ``crashes/`` of the workspace, or where that cannot be
    written in the folder for temporary files. Only its owner can read it.

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
    # The process and a fraction of the second: two that fail at once leave two reports.
    name = f"{now:%Y%m%dT%H%M%S%f}-{os.getpid()}-{type(error).__name__}.txt"
    chosen = os.environ.get(FOLDER)
    for folder in (
        Path(chosen) if chosen else default_root() / "crashes",
        Path(tempfile.gettempdir()),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / name
            write_text_atomic(path, redact("\n".join(lines)))
        except (OSError, TunewiseError):
            continue
        return path
    return None


def name_folder(command: Sequence[str], environment: MutableMapping[str, str]) -> None:
    """Say in ``environment`` where this command's reports and its children's belong."""
    root = default_root()
    for number, word in enumerate(command):
        option, equals, value = word.partition("=")
        if option in ("--workspace", "--home"):
            value = value if equals else "".join(command[number + 1 : number + 2])
            root = Path(value).expanduser().absolute() if value else root
    environment[FOLDER] = str(root / "crashes")


class LogFormatter(logging.Formatter):
    """Log lines without secrets, and the place of a report where a traceback would stand."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or the two of a failure."""
        return redact(super().format(record))

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        """Write the report; what the log then says of it."""
        error = ei[1]
        if error is None:
            return ""
        told = f"{type(error).__name__}: {_first_line(error)}"
        if os.environ.get("TUNEWISE_DEBUG"):
            return super().formatException(ei)
        path = write_crash_report(error, sys.argv[1:])
        return f"  {told} (the full report: {path or 'could not be written'})"


def tell_of_threads(show: Callable[[TunewiseError], None]) -> None:
    """What ends a thread is told as ``unforeseen`` is; Python itself would print a traceback."""

    def ended(ending: threading.ExceptHookArgs) -> None:
        error = ending.exc_value
        if isinstance(error, TunewiseError):
            show(error)
        elif isinstance(error, Exception):
            show(unforeseen(error, "A thread of this command"))

    threading.excepthook = ended


def log_to_stderr(pattern: str) -> None:
    """Warnings and errors of all libraries on stderr, by ``LogFormatter``.

    So is what ends a thread or this process; Python itself would print a traceback.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter(pattern))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log = logging.getLogger("tunewise")
    threading.excepthook = lambda ending: _log_end(log, ending.exc_value, "a thread ended")
    sys.excepthook = lambda _, error, __: _log_end(log, error, "the process ended")


def _log_end(log: logging.Logger, error: BaseException | None, what: str) -> None:
    if error is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
        return
    if isinstance(error, ImportError):
        log.error("%s: %s", what, import_failed("It", "all", error))
    else:
        log.error(what, exc_info=error)


def _first_line(error: BaseException) -> str:
    text = redact(str(error).strip())
    return text.splitlines()[0][:200] if text else "no message"
