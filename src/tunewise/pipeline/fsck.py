"""Does a workspace hold what was written there? Every file is read, nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunewise.digests import DamagedError, complaints, hold
from tunewise.workspace import Workspace

_AGAIN = "delete the file and run the study again: what it held is made again"
_TRAIN = "delete the folder and run the study again: it is trained again"
_ASK = "delete the file: the answers are asked for again, which may cost money"


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is gone or does not hold what was written there.

    Attributes:
        what: what is wrong with it.
        where: the file or folder.
        belongs_to: the study, by name; None where all of them use it.
        again: how to have it again, or that it cannot be had.
    """

    what: str
    where: Path
    belongs_to: str | None
    again: str


def look(workspace: Workspace) -> Iterator[Damage | Path]:
    """Read everything in a workspace; each file or folder that was read, or what is wrong with it.

    Not read: a training that goes on, whose files change.
    """
    answers = workspace.root / "answers" / "answers.sqlite"
    if answers.is_file():
        yield _base(answers) or answers
    ledger = workspace.root / "test-ledger.jsonl"
    if ledger.is_file():
        yield _lines(ledger, None, _LEDGER) or ledger
    for name in workspace.names():
        folder = workspace.root / "studies" / name
        dates = [path for path in [folder / "dates.json"] if path.is_file()]
        documents = sorted([*folder.glob("*/stages/*.json"), *folder.glob("*/verdict.json")])
        for path in [*dates, *documents]:
            yield _json(path, name) or path
        for path in sorted(folder.glob("*/items/*.jsonl")):
            yield _lines(path, name, _AGAIN) or path
        for path in sorted(folder.glob("training/*/training.json")):
            yield _training(path, name) or path.parent


_LEDGER = (
    "the lines that can be read count; a look that stood in another is forgotten, so say in the "
    "report that the test was opened before"
)


def _json(path: Path, study: str) -> Damage | None:
    try:
        json.loads(path.read_text("utf-8", "surrogatepass"))
    except OSError as error:
        return Damage(f"it cannot be read: {error.strerror}", path, study, _AGAIN)
    except ValueError as error:
        return Damage(f"it is no JSON: {error}", path, study, _AGAIN)
    return None


def _lines(path: Path, study: str | None, again: str) -> Damage | None:
    try:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                json.loads(line or b"null")
            except ValueError:
                return Damage(f"line {number} is no JSON", path, study, again)
    except OSError as error:
        return Damage(f"it cannot be read: {error.strerror}", path, study, again)
    return None


def _base(path: Path) -> Damage | None:
    found = complaints(path, "integrity_check")
    return Damage(f"it is damaged: {found[0]}", path, None, _ASK) if found else None


def _training(path: Path, study: str) -> Damage | None:
    wrong = _json(path, study)
    if wrong is not None:
        return Damage(wrong.what, path, study, _TRAIN)
    result = json.loads(path.read_text("utf-8"))
    kept = result.get("adapter") or result.get("model")
    if not kept or result.get("remote"):
        return None
    place = path.parent / str(kept)
    try:
        if result.get("sha256"):
            hold(place, result["sha256"], "the trained weights' folder")
        elif not place.is_dir():
            return Damage("the trained weights are not there any more", place, study, _TRAIN)
    except DamagedError as error:
        return Damage(error.message, place, study, _TRAIN)
    return None
