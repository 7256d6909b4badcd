"""`tunewise run`: its JSON, its exit codes, its speed; `tunewise report`: the same verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from cli_support import environment, no_halves, recorded, scores, steady, tunewise
from tunewise.report.schema import json_schema

GAIN = {"tuned": 0.9, "zero_shot": 0.5, "few_shot": 0.6}
TOP = {
    "schema", "study", "ended_at", "verdict", "use", "because", "headline", "test", "primary",
    "candidates", "cost", "audit",
}  # fmt: skip
PRIMARY = {
    "with", "without", "gain", "interval", "p_value", "method", "mde", "mde_decide", "n",
    "clusters", "seeds",
}  # fmt: skip
CANDIDATE = {
    "name", "kind", "score", "interval", "n", "failures", "tokens_per_request",
    "usd_per_1k_requests", "latency_ms",
}  # fmt: skip


def test_json_alone_on_stdout_with_all_keys_and_again_from_disk(tmp_path: Path) -> None:
    study = recorded(tmp_path, GAIN, prompt_tokens=90, completion_tokens=10, latency_s=0.2)
    run = tunewise("run", study, "--json", cwd=tmp_path, process=True)
    verdict = run.json
    assert verdict.keys() >= TOP
    assert verdict["primary"].keys() >= PRIMARY
    assert verdict["test"]["n"] == 400
    assert all(row.keys() >= CANDIDATE for row in verdict["candidates"])
    assert run.err == ""  # --json is for programs: progress only where something is wrong
    jsonschema.validate(verdict, json_schema())
    assert (verdict["verdict"], verdict["use"], verdict["ended_at"]) == ("FINE_TUNE", "tuned", "G5")
    row = verdict["candidates"][0]
    assert (row["tokens_per_request"], row["latency_ms"], row["n"]) == (100, 200, 400)
    assert row["chosen"]["missing"]["count"] == row["chosen"]["extra"]["count"] == 0

    home = tmp_path / "home"
    (on_disk,) = home.rglob("verdict.json")
    assert json.loads(on_disk.read_text()) == verdict
    again = tunewise("run", study, "--json", cwd=tmp_path).json
    assert steady(again) == steady(verdict)
    assert again["stages"] == verdict["stages"]  # nothing was measured a second time

    reported = tunewise("report", study, "--json", cwd=tmp_path).json
    assert {**reported, "created": None} == {**again, "created": None}
    no_halves(home)


def test_a_thousand_items_four_times_in_under_five_seconds_without_torch(tmp_path: Path) -> None:
    shares = {"tuned": 0.8, "zero_shot": 0.5, "few_shot": 0.6, "rag": 0.7}
    study = recorded(tmp_path, shares, dev=200, test=800)
    tunewise("--version", cwd=tmp_path, process=True)
    run = tunewise("run", study, "--json", cwd=tmp_path, process=True)
    assert run.json["test"]["n"] == 800
    # Processor time, since a busy machine stretches the clock; the work is single-threaded.
    assert run.cpu_seconds < 5
    program = (
        "import sys\nfrom tunewise.cli import main\n"
        f"sys.argv = ['tunewise', 'run', {str(study)!r}, '--json']\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'transformers', 'peft', 'pandas', 'datasets', 'openai'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_a_lost_or_damaged_item_file_is_noticed(tmp_path: Path) -> None:
    study = recorded(tmp_path, GAIN)
    first = tunewise("run", study, "--json", cwd=tmp_path).json
    (items,) = (tmp_path / "home").rglob("tuned.test.jsonl")
    kept = items.read_bytes()

    def cut() -> None:
        items.write_bytes(b"".join(kept.splitlines(keepends=True)[:200]))  # whole lines

    for damage in (cut, items.unlink):
        damage()
        run = tunewise("report", study, cwd=tmp_path, code=3)
        assert f"{items}: the items behind a finished stage are gone, or were changed" in run.err
        assert "tunewise run" in run.err
        again = tunewise("run", study, "--json", cwd=tmp_path).json
        assert steady(again) == steady(first)
        assert items.read_bytes() == kept


def test_an_answer_file_that_changed_is_another_study(tmp_path: Path) -> None:
    study = recorded(tmp_path, GAIN)
    first = tunewise("run", study, "--json", cwd=tmp_path).json
    scores(tmp_path / "tuned.jsonl", 0.4)
    run = tunewise("report", study, cwd=tmp_path, code=3)
    assert "has not been run as it stands now" in run.err
    second = tunewise("run", study, "--json", cwd=tmp_path).json
    assert second["study_hash"] != first["study_hash"]
    assert second["verdict"] == "DO_NOT_FINE_TUNE"
    assert second["test"]["opened"] == 2
    assert any("This is look 2" in warning for warning in second["warnings"])
    assert second["primary"]["level"] == pytest.approx(99.484, abs=0.001)


def test_progress_goes_to_stderr_and_people_get_words(tmp_path: Path) -> None:
    study = recorded(tmp_path, GAIN)
    run = tunewise("run", study, cwd=tmp_path)
    assert "FINE-TUNE" in run.out and "report.html" in run.out and "\x1b" not in run.out
    assert "G0" in run.err and "G5" in run.err
    quiet = tunewise("run", study, "--quiet", cwd=tmp_path)
    assert quiet.err == "" and "FINE-TUNE" in quiet.out
