"""The library's public functions: what they are, what they take, how they show themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tunewise as tw
from tunewise.errors import DataError, StudyError, UsageError, WorkspaceError
from tunewise.python.notebook import NotebookReporter

ROOT = Path(__file__).parent.parent
WORDS = {"fire": "warm", "sun": "warm", "ice": "cold", "snow": "cold", "stove": "warm"}


def rows(n: int = 200) -> list[dict[str, Any]]:
    names = [*WORDS]
    return [
        {"input": f"Note {i}: {names[i % 5]} in room {i * 7 % 90}.", "output": WORDS[names[i % 5]]}
        for i in range(n)
    ]


STUDY = {
    "name": "warm",
    "metric": "accuracy",
    "candidates": ["classifier"],
    "effort": "quick",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_the_public_names() -> None:
    assert tw.__all__ == [
        "TunewiseError",
        "__version__",
        "audit",
        "compare",
        "forecast",
        "generate",
        "init",
        "load_study",
        "load_verdict",
        "run",
        "train",
    ]
    assert dir(tw) == sorted(tw.__all__)
    for name in tw.__all__:
        value = getattr(tw, name)
        assert not callable(value) or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tw.nothing  # type: ignore[attr-defined]


def test_using_one_function_loads_no_model_library() -> None:
    code = (
        "import sys, tunewise as tw;"
        "tw.audit([{'input': 'a', 'output': 'b'}], progress=False);"
        "sys.exit(str({'torch', 'transformers', 'fastapi'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() in ("", "set()"), done.stderr


def test_audit_takes_rows_and_prints_as_the_command() -> None:
    found = tw.audit([*rows(30), {"input": "x", "output": ""}], progress=False)
    assert "empty_answer" in [f.code for f in found.findings]
    assert "31 train rows" in str(found) and "empty" in str(found)
    page = found._repr_html_()
    assert "<pre" not in page and "<script" not in page
    assert '<span class="tag warn">warning</span>' in page or 'class="tag bad"' in page
    assert all(f.message.split()[0] in page for f in found.findings)
    assert 'tw.audit(rows, fix="clean.jsonl")' in str(found) and "tunewise audit" not in str(found)
    mended = tw.audit([*rows(30), {"input": "x", "output": ""}], fix="clean.jsonl", progress=False)
    assert Path("clean.jsonl").exists() and "Wrote" in mended._repr_html_()


def test_what_rows_say_is_text_in_a_notebook() -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e"
    found = tw.audit([{"input": f"{hostile}{i}", "output": hostile} for i in range(30)])
    study = tw.load_study({**STUDY, "use_case": hostile, "data": {"examples": rows(9)}})
    for page in (found._repr_html_(), study._repr_html_()):
        assert "<img" not in page and "\u202e" not in page
    assert "&lt;img" in study._repr_html_() and "⟨U+202E⟩" in study._repr_html_()


def test_a_loaded_study_and_verdict_show_themselves() -> None:
    study = tw.load_study({**STUDY, "data": {"examples": rows()}}, set=["fine_tune.epochs=2"])
    assert re.search(r"^metric +accuracy$", str(study), re.MULTILINE)
    assert re.search(r"^fine_tune\.epochs +2$", repr(study), re.MULTILINE)
    assert "fine_tune.epochs" in study._repr_html_()
    result = tw.run(study, progress=False)
    loaded = tw.load_verdict(result.folder)
    assert str(loaded) in str(result) and str(loaded) == repr(loaded)
    assert loaded._repr_html_() == result._repr_html_()
    assert loaded._repr_html_().startswith("<iframe sandbox")


def test_a_study_is_made_from_keywords_and_from_rows() -> None:
    as_mapping = tw.run({**STUDY, "data": {"examples": rows()}}, progress=False)
    by_keys = tw.run(**STUDY, data={"examples": rows()}, progress=False)
    assert by_keys.folder == as_mapping.folder
    path = tw.init(rows(), "study.yaml").path
    changed: dict[str, Any] = {"candidates": ["classifier"], "effort": "quick"}
    proposed = tw.forecast(rows=rows(), **changed, progress=False)
    planned = tw.forecast(path, **changed, progress=False)
    assert proposed.plan.rows == planned.plan.rows
    names = [c.name for c in proposed.plan.candidates]
    assert "classifier" in names and "few_shot" not in names
    assert names == [c.name for c in planned.plan.candidates]
    with pytest.raises(UsageError, match="not both"):
        tw.run(path, rows=rows())
    with pytest.raises(UsageError, match="what to run"):
        tw.run()
    with pytest.raises(StudyError, match="metrik"):
        tw.run(path, metrik="accuracy")


def test_progress_in_a_notebook_is_one_output_that_is_written_anew() -> None:
    reporter = NotebookReporter()
    reporter.draw = lambda: pages.append(reporter.html())  # type: ignore[method-assign]
    pages: list[str] = []
    reporter.gate("G0", "Data <b>")
    with reporter.task("audit") as update:
        update(3, 12)
        assert '<progress value="3" max="12"' in reporter.html()
        assert "3 of 12" in reporter.html()
    reporter.warn("few rows")
    assert "<progress" not in pages[-1] and "audit: " in pages[-1]
    assert "Data &lt;b&gt;" in pages[-1] and "few rows" in pages[-1]


def test_init_writes_a_study_that_loads() -> None:
    proposed = tw.init(rows(), "study.yaml")
    assert proposed.path.exists() and proposed.reasons and "metric" in proposed.text
    assert tw.load_study(proposed.path).study.metric.name == "accuracy"
    with pytest.raises(UsageError, match="there already"):
        tw.init(rows(), "study.yaml")


def test_run_takes_rows_in_the_study_and_a_rerun_is_the_same_study() -> None:
    study = {**STUDY, "data": {"examples": rows()}}
    result = tw.run(study, progress=False)
    assert result.verdict.study == "warm" and result.report.exists()
    assert tw.run(study, progress=False).folder == result.folder
    assert tw.load_verdict(result.folder).headline == result.verdict.headline
    assert "warm · accuracy" in str(result) and "Report:" in repr(result)
    result.report.unlink()  # as `tunewise clean` may have done since
    page = result._repr_html_()
    assert page.startswith("<iframe sandbox srcdoc=") and "<script" not in page
    changed = tw.run(study, set=["use_case=Tell warm from cold."], progress=False)
    assert changed.verdict.use_case == "Tell warm from cold."


def test_forecast_spends_nothing() -> None:
    plan = tw.forecast({**STUDY, "data": {"examples": rows()}}, progress=False)
    assert plan.plan.rows["test"] > 0 and "classifier" in str(plan)
    assert "<pre" not in plan._repr_html_() and "<table" in plan._repr_html_()


def test_train_and_generate() -> None:
    tuned = tw.train(
        rows(32), model="tunewise/tiny", epochs=1, learning_rate=1e-3, out="tuned", progress=False
    )
    assert tuned.adapter == Path("tuned") and tuned.run.steps > 0
    assert "tuned" in str(tuned)
    assert "<pre" not in tuned._repr_html_() and "learning rate" in tuned._repr_html_()
    one = tw.generate(tuned, "Note 3: snow in room 12.", max_tokens=4)
    again = tw.generate(
        "tunewise/tiny", ["Note 3: snow in room 12."], adapter="tuned", max_tokens=4
    )
    assert isinstance(one, str) and again == [one]
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    text = tw.generate("tunewise/tiny", "Yes?", json_schema=schema, max_tokens=20)
    assert set(json.loads(text)) == {"a"}
    with pytest.raises(UsageError, match="its own adapter"):
        tw.generate(tuned, "x", adapter="tuned")


def test_what_cannot_be_meant_says_so() -> None:
    with pytest.raises(DataError, match="row 2 is a str"):
        tw.audit([{"input": "a", "output": "b"}, "text"])  # type: ignore[list-item]
    with pytest.raises(StudyError, match="metrik"):
        tw.run({"name": "x", "metrik": "accuracy"})
    with pytest.raises(UsageError, match="which model"):
        tw.train(rows(8))
    with pytest.raises(WorkspaceError, match="no verdict"):
        tw.load_verdict("nowhere")


def test_the_page_s_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "{'train': 200}" in printed and "report.html" in printed
    assert names["tuned"].run.steps > 0
