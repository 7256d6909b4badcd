"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any


def main() -> None:
    """Entry point of the ``tunewise`` command; turns known errors into words and exit codes."""
    from tunewise.crash import name_folder, tell_of_threads, unforeseen
    from tunewise.errors import TunewiseError
    from tunewise.processes import forget_working_directory, prepare_computing

    forget_working_directory()
    debug = bool(os.environ.get("TUNEWISE_DEBUG"))
    prepare_computing()
    name_folder(sys.argv[1:], os.environ)
    if not debug:
        tell_of_threads(show_error)
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
        from tunewise.cli.proposed import with_command

        show_error(with_command(error, sys.argv[1:]))
        code = error.exit_code
    except OSError as error:
        if debug:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        message = "the disk is full; what was finished before is intact" if full else error.strerror
        show_error(TunewiseError(message or str(error), where=str(error.filename or "")))
        _drop_stdout()
        code = 3
    except Exception as error:
        if debug:
            raise
        kept = "What was finished is kept; the same command goes on from there."
        told = unforeseen(error, "This command", kept)
        show_error(told)
        code = told.exit_code
    sys.exit(code)


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
