"""Studies side by side: what compares, what differs, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tunewise as tw
from report_support import hostile
from tunewise.cli.app import app
from tunewise.errors import UsageError, WorkspaceError
from tunewise.pipeline.compare import compare_studies
from tunewise.report.comparison import Compared, compare, render_comparison
from tunewise.workspace import Workspace


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two studies of the same test rows, run: another tuned model, and another gain asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    wanted = ["yes" if i % 3 else "no" for i in range(120)]
    rows = [
        {"id": f"r{i}", "messages": [
            {"role": "user", "content": f"Is {i} not a multiple?"},
            {"role": "assistant", "content": answer},
        ]}
        for i, answer in enumerate(wanted)
    ]  # fmt: skip
    _write(tmp_path / "test.jsonl", rows)
    for name, wrong in (("prompted", 4), ("good", 20), ("bad", 2)):
        answers = [
            {"id": f"r{i}", "answer": answer if i % wrong else "neither"}
            for i, answer in enumerate(wanted)
        ]
        _write(tmp_path / f"{name}.jsonl", answers)
    paths = []
    for name, tuned, gain in (("small", "good", 2), ("large", "bad", 5)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"name: {name}\nmetric: accuracy\ndata: {{test: test.jsonl}}\ncandidates:\n"
            "  - {name: prompted, kind: recorded, answers: prompted.jsonl}\n"
            f"  - {{name: tuned, kind: recorded, answers: {tuned}.jsonl, fine_tuned: true}}\n"
            f"target: {{minimal_gain: {gain}}}\n"
        )
        tw.run(path, progress=False)
        paths.append(path)
    return paths


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_two_studies_of_the_same_rows(studies: list[Path]) -> None:
    found = compare_studies(studies, Workspace())
    assert [s.verdict for s in found.studies] == ["FINE_TUNE", "DO_NOT_FINE_TUNE"]
    assert [s.use for s in found.studies] == ["tuned", "prompted"]
    assert found.studies[0].score == 95.0
    assert {d.key: d.values for d in found.differences} == {
        "candidates.tuned.answers": ["good.jsonl", "bad.jsonl"],
        "target.minimal_gain": [2.0, 5.0],
    }
    assert found.candidates == ["tuned", "prompted", "constant"]
    assert any("scores compare" in note for note in found.notes)


def test_the_command_prints_writes_and_names_what_is_wrong(studies: list[Path]) -> None:
    run = CliRunner().invoke
    told = run(app, ["compare", *map(str, studies), "--html", "side.html"])
    assert told.exit_code == 0
    for part in ("FINE TUNE", "95.0 (89.5 to 97.7)", "target.minimal_gain", "Wrote side.html"):
        assert part in told.output
    assert "good.jsonl" in Path("side.html").read_text()
    as_json = run(app, ["compare", *map(str, studies), "--json"])
    assert json.loads(as_json.output)["studies"][0]["label"] == "small"
    # The library's function prints the same.
    assert "target.minimal_gain" in str(tw.compare(studies))

    with pytest.raises(UsageError, match="two studies"):
        compare_studies(studies[:1], Workspace())
    studies[1].write_text(studies[1].read_text().replace("bad.jsonl", "prompted.jsonl"))
    with pytest.raises(WorkspaceError, match="has not been run"):
        compare_studies(studies, Workspace())
    with pytest.raises(WorkspaceError, match=r"no verdict\.json"):
        compare_studies([studies[0], studies[0].parent], Workspace())


def test_verdict_files_compare_without_their_study_files(studies: list[Path]) -> None:
    files = sorted(Workspace().root.glob("studies/*/*/verdict.json"))
    found = compare_studies([*files, files[0].parent], Workspace())
    assert len(found.studies) == 3
    assert not found.differences
    assert any("name the study file" in note for note in found.notes)
    assert compare_studies([studies[0], studies[0]], Workspace()).studies[1].label == "small (2)"


def test_other_rows_are_no_contest_and_hostile_text_stays_text() -> None:
    one, other = hostile(), hostile()
    one.test.sha256, other.test.sha256 = "a" * 64, "b" * 64
    found = compare([Compared("<script>", one, {"model": "<b>x"}), Compared("b", other, {})])
    assert any("different rows" in note for note in found.notes)
    page = render_comparison(found)
    assert "<script>" not in page
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page
