"""What ``tunewise fsck`` and ``tunewise server fsck`` say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunewise.cli.output import put
from tunewise.pipeline.fsck import Damage, look
from tunewise.words import plural, verb
from tunewise.workspace import Workspace

if TYPE_CHECKING:
    from tunewise.server.settings import ServerSettings


def show_damage(workspace: Workspace) -> int:
    """Look through a workspace; how much of it is damaged."""
    read = wrong = 0
    for found in look(workspace):
        if isinstance(found, Damage):
            wrong += 1
            whose = f"study {found.belongs_to}" if found.belongs_to else "all studies"
            _tell(found.what, _within(found.where, workspace.root), [whose], found.again)
        else:
            read += 1
    put(f"{workspace.root}: {plural(read + wrong, 'file')} read; {_damaged(wrong)}.\n")
    return wrong


def show_server_damage(settings: ServerSettings) -> int:
    """Look through what a server has stored; how much of it is damaged."""
    from tunewise.server.fsck import Looked
    from tunewise.server.fsck import look as look_at_server

    looked, wrong = Looked(), 0
    for found in look_at_server(settings, looked):
        wrong += 1
        _tell(found.what, found.where, found.belongs_to, found.again)
    put(f"{settings.home}: {looked}; {_damaged(wrong)}.\n")
    return wrong


def _tell(what: str, where: object, belongs_to: Sequence[str], again: str) -> None:
    put(f"damaged: {where}\n  {what}\n")
    put("".join(f"  belongs to {name}\n" for name in belongs_to))
    put(f"  {again}\n")


def _within(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _damaged(count: int) -> str:
    return f"{count} {verb(count, 'is', 'are')} damaged" if count else "nothing is damaged"
