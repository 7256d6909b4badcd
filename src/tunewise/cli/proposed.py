"""The command as it was typed, with the option that would make it work."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tunewise.errors import DataError, TunewiseError, UntrustedCodeError

_TAKE_ROWS = ("audit", "init", "train")


def with_command(error: TunewiseError, arguments: Sequence[str]) -> TunewiseError:
    """The error with a command to copy, where options would mend what is wrong with the rows.

    Args:
        arguments: of the command line, without the program's name.
    """
    if isinstance(error, UntrustedCodeError):
        command = shlex.join(["tunewise", *arguments, "--allow-code"])
        hint = f"{error.hint}\n{command}"
        return UntrustedCodeError(error.message, where=error.where, hint=hint)
    if not isinstance(error, DataError) or not error.options or arguments[0] not in _TAKE_ROWS:
        return error
    added = [part for option in error.options.items() for part in option]
    if any(a.partition("=")[0] in error.options for a in arguments):
        return error  # it was given, and was not right
    command = shlex.join(["tunewise", *arguments, *added])
    hint = f"Probably this reads it: {command}"
    return DataError(error.message, where=error.where, hint=hint)
