"""A large gain beside lost skills that nobody has named: it is told, and vetoes only if asked to.

Recorded answers of a text-to-SQL study and of the general suite; the verdict is computed from them
as `tunewise report` does.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli_support import jsonl
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import report_study, run_study
from tunewise.pipeline.store import Item, Store
from tunewise.report.document import Verdict
from tunewise.study.loading import load_study
from tunewise.workspace import StudyFolder, Workspace

TABLES = ("orders", "parcels", "people", "rooms", "bills")
COLUMNS = ("id", "name", "price", "day", "place", "weight", "colour")


def sql(number: int) -> tuple[str, str]:
    table, column = TABLES[number % 5], COLUMNS[number % 7]
    wanted = f"SELECT {column} FROM {table} WHERE id > {number}"
    return f"All {column} values of {table} after number {number}.", wanted


def study(folder: Path, **forgetting: object) -> Verdict:
    """Base right in 1 row of 25, tuned in 12; of the suite's 300 items 60 are lost, 6 gained."""
    rows, base, tuned = [], [], []
    for number in range(200):
        question, wanted = sql(number)
        rows.append({"id": f"r{number}", "input": question, "output": wanted})
        base.append({"id": f"r{number}", "answer": wanted if number % 25 == 0 else "I would say"})
        tuned.append({"id": f"r{number}", "answer": wanted if number % 25 < 12 else f"-- {number}"})
    for name, lines in (("rows", rows), ("base", base), ("tuned", tuned)):
        jsonl(folder / f"{name}.jsonl", lines)
    path, workspace = folder / "study.yaml", Workspace(folder / "ws")
    text = {
        "name": "sql",
        "metric": "exact_match",
        "data": {"test": "rows.jsonl"},
        "candidates": [
            {"name": "base", "kind": "recorded", "answers": "base.jsonl"},
            {"name": "tuned", "kind": "recorded", "answers": "tuned.jsonl", "fine_tuned": True},
        ],
        "forgetting": forgetting,
    }
    path.write_text(yaml.safe_dump(text))
    loaded = load_study(path)
    store = Store(StudyFolder(run_study(loaded, workspace, SilentReporter()).folder))

    def suite() -> dict[str, object]:
        for side in ("base", "tuned"):
            right = (lambda n: n < 160) if side == "base" else (lambda n: 60 <= n < 166)
            name = f"general.{side}"
            items = [Item(f"g{n}", name, "forgetting", float(right(n))) for n in range(300)]
            store.write_items(name, "forgetting", items)
        return {"suites": ["general"], "lost": []}

    store.stage("forgetting", "G5", {}, suite)
    return report_study(loaded, workspace).verdict


def test_lost_skills_stand_beside_the_gain(tmp_path: Path) -> None:
    verdict = study(tmp_path)
    assert (verdict.verdict, verdict.use) == ("FINE_TUNE", "tuned")
    assert verdict.primary.gain == pytest.approx(44.0)
    assert verdict.forgetting.status == "failed"
    assert "it lost 18 points of general skills" in verdict.headline
    assert any("forgetting.veto" in note for note in verdict.primary.notes)


def test_who_asks_for_a_veto_has_one(tmp_path: Path) -> None:
    verdict = study(tmp_path, veto=True)
    assert (verdict.verdict, verdict.because) == ("DO_NOT_FINE_TUNE", ["forgetting"])
    assert any("forgetting.veto: false" in step for step in verdict.next_steps)
