"""What a study has finished: one JSON file a stage, one JSONL file of items a candidate.

A stage file names the hash of all that the stage depends on. A rerun takes the file where that
hash still fits and runs the stage again where it does not. Items are the only source of the
numbers in a report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunewise.data.chat import canonical_hash
from tunewise.errors import WorkspaceError
from tunewise.workspace import StudyFolder, read_json, write_json_atomic, write_text_atomic


@dataclass(frozen=True, slots=True)
class Item:
    """One answer to one example by one candidate, with its score (0..1)."""

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
    latency_s: float | None = None
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    data: Any = None


class Store:
    """Stage files and item files of one study folder."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder

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
            if isinstance(stands, dict) and stands.get("key") == key:
                result: dict[str, Any] = stands["result"]
                return result
        started = time.monotonic()
        result = work()
        record = {
            "stage": name,
            "gate": gate,
            "key": key,
            "seconds": round(time.monotonic() - started, 3),
            "result": result,
        }
        write_json_atomic(path, record)
        return result

    def stages(self) -> list[dict[str, Any]]:
        """All stage records (``stage``, ``gate``, ``seconds``, ``result``), by gate and age."""
        paths = sorted(self.folder.stages.glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
        return sorted((read_json(p) for p in paths), key=lambda r: str(r["gate"]))

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
        lines = (json.dumps(asdict(item), ensure_ascii=False) for item in items)
        write_text_atomic(self._items_path(candidate, split), "".join(f"{s}\n" for s in lines))

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
