"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import os
import sys
from typing import Any


def main() -> None:
    """Entry point of the ``tunewise`` command; turns known errors into words and exit codes."""
    import click

    from tunewise.cli.app import app
    from tunewise.errors import TunewiseError

    debug = bool(os.environ.get("TUNEWISE_DEBUG"))
    try:
        result: Any = app(standalone_mode=False)
    except TunewiseError as error:
        if debug:
            raise
        show_error(error)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        print("\nStopped. What was finished is kept; the same command goes on.", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("\nStopped. What was finished is kept; the same command goes on.", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output went away (`tunewise … | head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        import errno

        if error.errno == errno.ENOSPC:
            message = "the disk is full; what was finished before is intact"
        else:
            message = f"{error.strerror or error}"
        show_error(TunewiseError(message, where=str(error.filename or "")))
        sys.exit(3)
    sys.exit(result if isinstance(result, int) else 0)


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
