"""What a study has finished: one JSON file a stage, one JSONL file of items a candidate.

A stage file names the hash of all that the stage depends on, and the item files that it wrote. A
rerun takes the stage where that hash still fits and its items are there as written, and runs it
again where not. Items are the only source of the numbers in a report.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunewise.data.chat import canonical_hash
from tunewise.errors import WorkspaceError
from tunewise.report.document import Points
from tunewise.workspace import StudyFolder, read_json, write_json_atomic, write_text_atomic


@dataclass(frozen=True, slots=True)
class Item:
    """One answer to one example by one candidate, with its score (0..1).

    Attributes:
        answer: without thoughts; in items of earlier releases they stand before it.
        thoughts: what the model thought before it answered, where it did.
    """

    id: str
    candidate: str
    split: str
    score: float
    answer: str = ""
    seed: int | None = None
    request: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    static_tokens: int | None = None
    latency_s: float | None = None
    error: str | None = None
    advice: str | None = None
    thoughts: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    data: Any = None

    @property
    def points(self) -> Points:
        """The score as documents and pages have it, 0..100."""
        return Points(100 * self.score)


class Store:
    """Stage files and item files of one study folder."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self._written: list[str] = []

    def stage(
        self, name: str, gate: str, depends_on: object, work: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The result of stage ``name``: what stands on disk, or what ``work`` makes now.

        Args:
            name: of the stage; its file is ``stages/<name>.json``.
            gate: ``G0`` … ``G5``, for the report.
            depends_on: JSON values; a stage file whose hash of them differs is made again.
            work: makes the result, JSON values.
        """
        path = self.folder.stages / f"{name}.json"
        key = canonical_hash(depends_on)
        if path.exists():
            stands = read_json(path)
            if isinstance(stands, dict) and stands.get("key") == key and not self._lost(stands):
                result: dict[str, Any] = stands["result"]
                return result
        started = time.monotonic()
        outer, self._written = self._written, []
        try:
            result = work()
            written = sorted(set(self._written))
        finally:
            self._written = outer
        record = {
            "stage": name,
            "gate": gate,
            "key": key,
            "seconds": round(time.monotonic() - started, 3),
            "items": written,
            "result": result,
        }
        write_json_atomic(path, record)
        return result

    def stages(self) -> list[dict[str, Any]]:
        """All stage records (``stage``, ``gate``, ``seconds``, ``result``), by gate and age.

        Raises:
            WorkspaceError: items of a finished stage are gone or changed.
        """
        paths = sorted(self.folder.stages.glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
        records = sorted((read_json(p) for p in paths), key=lambda r: str(r["gate"]))
        for lost in (name for record in records for name in self._lost(record)):
            raise WorkspaceError(
                "the items behind a finished stage are gone, or were changed",
                where=str(self.folder.items / lost),
                hint="Measure them again: tunewise run STUDY. Answers are kept elsewhere.",
            )
        return records

    def forget_lost(self) -> None:
        """Remove the record of every stage whose items are gone or changed: it runs again."""
        for path in self.folder.stages.glob("*.json"):
            if self._lost(read_json(path)):
                path.unlink()

    def drop(self, *names: str) -> None:
        """Remove stages with their items, where they stand."""
        for path in (self.folder.stages / f"{name}.json" for name in names):
            if not path.exists():
                continue
            gone = list(read_json(path).get("items", []))
            path.unlink()
            digests = self._digests()
            for name in gone:
                (self.folder.items / name).unlink(missing_ok=True)
                digests.pop(name, None)
            if gone:
                write_json_atomic(self._manifest, digests)

    def stands(self, name: str, depends_on: object) -> bool:
        """Whether a stage is finished with these inputs."""
        path = self.folder.stages / f"{name}.json"
        return path.exists() and read_json(path).get("key") == canonical_hash(depends_on)

    def _lost(self, record: Mapping[str, Any]) -> list[str]:
        names = record.get("items", [])
        written = self._digests() if names else {}
        return [n for n in names if written.get(n) != _digest(self.folder.items / n)]

    @property
    def _manifest(self) -> Path:
        return self.folder.items / "manifest.json"

    def _digests(self) -> dict[str, str]:
        """The SHA-256 of each item file as it was written last."""
        return dict(read_json(self._manifest)) if self._manifest.exists() else {}

    def key(self, name: str) -> str | None:
        """What identifies a finished stage's inputs, or None."""
        path = self.folder.stages / f"{name}.json"
        return str(read_json(path)["key"]) if path.exists() else None

    def result(self, name: str) -> dict[str, Any] | None:
        """The result of a finished stage, or None."""
        path = self.folder.stages / f"{name}.json"
        if not path.exists():
            return None
        result: dict[str, Any] = read_json(path)["result"]
        return result

    def _items_path(self, candidate: str, split: str) -> Path:
        return self.folder.items / f"{candidate}.{split}.jsonl"

    def write_items(self, candidate: str, split: str, items: Iterable[Item]) -> None:
        """Write all items of a candidate on a split, atomically."""
        path = self._items_path(candidate, split)
        lines = (json.dumps(asdict(item), ensure_ascii=False) for item in items)
        write_text_atomic(path, "".join(f"{s}\n" for s in lines))
        write_json_atomic(self._manifest, {**self._digests(), path.name: _digest(path)})
        self._written.append(path.name)

    def items(self, candidate: str, split: str) -> list[Item]:
        """The items of a candidate on a split; empty where it was not asked.

        Raises:
            WorkspaceError: when the file was damaged from outside.
        """
        path = self._items_path(candidate, split)
        if not path.exists():
            return []
        items = []
        text = path.read_text("utf-8", "surrogatepass")
        for number, line in enumerate(text.split("\n"), 1):
            if not line:
                continue
            try:
                items.append(Item(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise WorkspaceError(
                    f"damaged item line: {error}",
                    where=f"{path}:{number}",
                    hint="Delete the file and run the study again; answers are kept elsewhere.",
                ) from error
        return items


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
