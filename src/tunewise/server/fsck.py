"""Does the server's disk hold what was written there? Every stored byte is read.

Nothing is changed. The server may run meanwhile: what is deleted while it is looked at is not told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import Engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from tunewise import digests
from tunewise.digests import DamagedError
from tunewise.errors import UsageError, WorkspaceError
from tunewise.server.database import Sessions, load_tables, open_engine, reading
from tunewise.server.file_store import RESULTS
from tunewise.server.jobs.tables import Job, TunedModel
from tunewise.server.migrations.run import SCRIPTS, revision
from tunewise.server.settings import ServerSettings
from tunewise.server.tables import File, Project, UploadPart
from tunewise.words import plural, some_of

_SHOWN = 5
_RESTORE = "Restore a backup: tunewise server restore FILE --home FOLDER"


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is gone or has changed.

    Attributes:
        what: what is wrong, as one sentence without a full stop.
        where: the file or folder.
        belongs_to: what is useless without it, each as users know it.
        again: how to have it again.
    """

    what: str
    where: str
    belongs_to: tuple[str, ...]
    again: str


@dataclass(slots=True)
class Looked:
    """What was looked at so far."""

    contents: int = 0
    models: int = 0
    unknown: int = 0
    """Tuned models of earlier releases, whose digest nobody has noted."""

    def __str__(self) -> str:
        text = f"{plural(self.contents, 'content')} and {plural(self.models, 'tuned model')} read"
        if self.unknown:
            text += f"; of {some_of(self.unknown, self.models, 'model')} nobody noted a digest"
        return text


def require_whole_database(url: str) -> None:
    """Let SQLite look at its pages; of PostgreSQL that is the database's own business.

    Raises:
        WorkspaceError: the database is damaged.
    """
    place = _sqlite_file(url)
    if place is None or not place.is_file():
        return
    found = digests.complaints(place, "quick_check")
    if found:
        raise WorkspaceError(
            f"the database is damaged ({found[0]})",
            where=str(place),
            hint=f"{_RESTORE}\nWithout one, keep a copy of the file before anything else is tried.",
        )


def look(settings: ServerSettings, looked: Looked) -> Iterator[Damage]:
    """Read everything that the server has stored, and tell what is damaged.

    Args:
        looked: counts what was read.

    Raises:
        UsageError: there is no server's database here, or one of another release.
    """
    place = _sqlite_file(settings.database_url)
    if place is not None:
        if not place.is_file():
            raise UsageError(
                "there is no server's database here",
                where=str(place),
                hint="Name its folder with --home.",
            )
        found = digests.complaints(place, "integrity_check")
        if found:
            yield Damage(
                f"the database is damaged ({'; '.join(found[:_SHOWN])})",
                str(place),
                ("everything on the server",),
                _RESTORE,
            )
            return  # what it says of the rest cannot be trusted
    load_tables()
    engine = open_engine(settings.database_url)
    try:
        _require_this_release(engine)
        sessions: Sessions = sessionmaker(engine, expire_on_commit=False)
        yield from _contents(sessions, settings.home / "files", looked)
        yield from _models(sessions, settings.home, looked)
    finally:
        engine.dispose()


def _sqlite_file(url: str) -> Path | None:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database))


def _require_this_release(engine: Engine) -> None:
    shown = engine.url.render_as_string(hide_password=True)
    if revision(engine, shown) != ScriptDirectory(str(SCRIPTS)).get_current_head():
        raise UsageError(
            "the database is of another release of Tunewise",
            where=shown,
            hint="`tunewise serve` brings it to this one when it starts.",
        )


def _contents(sessions: Sessions, root: Path, looked: Looked) -> Iterator[Damage]:
    with reading(sessions) as session:
        needed = _needed(session)
    for digest, users in sorted(needed.items()):
        looked.contents += 1
        try:
            digests.hold(root / digest[:2] / digest, digest, "a stored content")
        except DamagedError as error:
            with reading(sessions) as session:
                users = _needed(session).get(digest, [])
            if users:  # else it was deleted meanwhile
                belongs = tuple(name for name, _ in users)
                again = "; ".join(dict.fromkeys(way for _, way in users))
                yield Damage(error.message, error.where or "", belongs, again)


def _needed(session: Session) -> dict[str, list[tuple[str, str]]]:
    """Digests of contents, with who needs each and how it can be had again."""
    projects = {row[0]: row[1] for row in session.execute(select(Project.id, Project.name))}
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in session.scalars(select(File).where(File.deleted_at.is_(None))):
        name = f"{file.id} ({file.filename}, project {projects.get(file.project, file.project)})"
        found[file.blob].append((name, _again(file)))
    for part in session.scalars(select(UploadPart)):
        found[part.blob].append((f"{part.id} of {part.upload_id}", "upload the part again"))
    return found


def _again(file: File) -> str:
    if file.purpose == RESULTS:
        return "the job's events hold the same figures"
    if file.purpose == "batch_output":
        return "run the batch again"
    return "delete the file and upload it again"


def _models(sessions: Sessions, home: Path, looked: Looked) -> Iterator[Damage]:
    with reading(sessions) as session:
        models = session.scalars(select(TunedModel).where(TunedModel.deleted_at.is_(None))).all()
        files = {row[0]: row[1] for row in session.execute(select(Job.id, Job.training_file))}
    for model in models:
        looked.models += 1
        place = home / model.folder
        try:
            if model.sha256 is not None:
                digests.hold(place, model.sha256, "the folder of a tuned model")
            else:
                looked.unknown += 1
                if not place.is_dir():
                    raise DamagedError("the folder of a tuned model is not there any more")
        except DamagedError as error:
            with reading(sessions) as session:
                gone = session.scalar(
                    select(TunedModel.deleted_at).where(TunedModel.seq == model.seq)
                )
            if gone is None:
                yield Damage(
                    error.message,
                    str(place),
                    (model.name,),
                    f"restore the folder from a backup, or train again: {model.job_id} learnt "
                    f"from {files.get(model.job_id, 'a file that is gone')}",
                )
