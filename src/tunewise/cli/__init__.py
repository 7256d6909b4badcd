"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any


def main() -> None:
    """Entry point of the ``tunewise`` command; turns known errors into words and exit codes."""
    from tunewise.errors import TunewiseError

    debug = bool(os.environ.get("TUNEWISE_DEBUG"))
    # Torch's threads wait by spinning, which slows them tenfold where the machine does other work.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nStopped. What was finished is kept; the same command goes on.", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of our output went away (`tunewise … | head`): not an error of ours.
        _drop_stdout()
        code = 0
    except TunewiseError as error:
        if debug:
            raise
        show_error(error)
        code = error.exit_code
    except OSError as error:
        if debug:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        message = "the disk is full; what was finished before is intact" if full else error.strerror
        show_error(TunewiseError(message or str(error), where=str(error.filename or "")))
        _drop_stdout()
        code = 3
    except ImportError as error:
        if debug:
            raise
        from tunewise.releases import import_failed

        show_error(import_failed("This command", "all", error))
        code = 3
    except Exception as error:
        if debug:
            raise
        show_error(_unforeseen(error))
        code = 70  # EX_SOFTWARE of sysexits.h
    sys.exit(code)


def _unforeseen(error: Exception) -> Any:
    """A failure that nobody foresaw, in words; its traceback goes to a file."""
    from tunewise.crash import write_crash_report
    from tunewise.errors import TunewiseError

    path = write_crash_report(error, sys.argv[1:])
    where = f"The full report lies in {path}" if path else "No report could be written"
    return TunewiseError(
        f"this should not have happened ({type(error).__name__}: {_first_line(error)})",
        hint="What was finished is kept; the same command goes on from there.\n"
        f"{where}; keys are taken out of it, your rows may stand in it.",
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else "no message"


def _run(arguments: list[str]) -> int:
    """Run one command; its exit code.

    Typer's own entry point would turn Ctrl-C and a closed pipe into exit codes of its own and
    say nothing, so the command is called here.
    """
    import typer

    from tunewise.cli.app import app

    # What typer raises for every usage error: click's class, or that of the copy it carries.
    usage_error: Any = typer.BadParameter.__base__
    command = typer.main.get_command(app)
    try:
        with command.make_context("tunewise", arguments) as context:
            command.invoke(context)
    except usage_error as error:
        error.show()
        return 2
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    return 0


def _drop_stdout() -> None:
    from tunewise.cli.output import drop

    drop(sys.stdout)


def show_error(error: Any) -> None:
    """Print an error on stderr: what, where, what to do."""
    from rich.console import Console
    from rich.text import Text

    from tunewise.study.keys import redact

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    line = Text("error: ", style="bold red")
    if error.where:
        line.append(redact(f"{error.where}: "), style="bold")
    line.append(redact(error.message))
    console.print(line)
    if error.hint:
        console.print(Text(redact(error.hint)))
