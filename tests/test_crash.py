"""A failure that nobody foresaw, in each kind of process: one sentence, and a report on disk."""

from __future__ import annotations

import json
import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cli_support import environment
from tunewise import crash
from tunewise.data.chat import Example
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob
from tunewise.training.job_files import write_job

SECRET = "sk-abcdefghijklmnopqrstuvwxyz0123456789ABCD"

WORKER = f"""
import sys
from pathlib import Path
import tunewise.training.loop as loop
from tunewise.training import forecast, worker

def broken(*args, **kwargs):
    raise KeyError("{SECRET} and more")

loop.train = forecast.calibrate = broken
sys.exit({{}}.main(Path(sys.argv[1])))
"""


def written_job(folder: Path, inside: str) -> None:
    messages = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    job = TrainingJob(
        model="tunewise/tiny",
        examples=[Example(id="a", messages=messages, source="rows.jsonl:1")],
        dev=(),
        fine_tune=FineTune(),
        learning_rate=1e-3,
        epochs=1,
        seed=0,
        output=folder,
    )
    write_job(job, folder / inside)


def the_report(folder: Path) -> str:
    (report,) = folder.iterdir()
    text = report.read_text()
    assert "Traceback (most recent call last)" in text and SECRET not in text
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    return text


@pytest.mark.parametrize(
    ("process", "inside", "outcome"),
    [("worker", "job", "status.json"), ("forecast", ".", "forecast.json")],
)
def test_children_of_a_command(tmp_path: Path, process: str, inside: str, outcome: str) -> None:
    written_job(tmp_path / "run", inside)
    done = subprocess.run(
        [sys.executable, "-c", WORKER.format(process), str(tmp_path / "run")],
        cwd=tmp_path,
        env=environment(TUNEWISE_CRASHES=str(tmp_path / "crashes")),
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stdout + done.stderr
    told = json.loads((tmp_path / "run" / outcome).read_text())["error"]
    assert "KeyError" in told["message"] and str(tmp_path / "crashes") in told["hint"]
    assert SECRET not in told["message"]
    the_report(tmp_path / "crashes")


def test_a_log_shows_a_sentence_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(crash.FOLDER, str(tmp_path / "crashes"))
    formatter = crash.LogFormatter("%(levelname)s %(name)s: %(message)s")
    try:
        raise KeyError("nobody foresaw")
    except KeyError:
        record = logging.LogRecord(
            "engine", logging.ERROR, "f", 1, "a step failed for %s", (SECRET,), sys.exc_info()
        )
    text = formatter.format(record)
    assert text.startswith("ERROR engine: a step failed for [secret]\n")
    assert "Traceback" not in text and "KeyError" in text and str(tmp_path / "crashes") in text
    assert "nobody foresaw" in the_report(tmp_path / "crashes")


ENGINE = """
import sys
sys.modules["torch"] = {torch}
from tunewise.server.inference import process
process.main()
"""


@pytest.mark.parametrize(
    ("torch", "told"),
    [("None", "It needs packages"), ("object()", "do not load together: cannot import name 'nn'")],
    ids=["not to be imported", "of another kind"],
)
def test_an_engine_that_cannot_start_says_why_in_a_line(
    tmp_path: Path, torch: str, told: str
) -> None:
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE.format(torch=torch), "{}"],
        env=environment(TUNEWISE_CRASHES=str(tmp_path / "crashes")),
        stdin=subprocess.PIPE,  # open: its end would end the engine
        stderr=subprocess.PIPE,
        text=True,
    )
    assert engine.stderr is not None
    with engine:
        said = engine.stderr.read()
        code = engine.wait(60)
    assert code == 1
    assert "Traceback" not in said and told in said
    assert said.startswith("engine: ERROR tunewise: the process ended")


def test_a_thread_that_ends_by_an_error_leaves_a_report(tmp_path: Path) -> None:
    code = (
        "import threading; from tunewise.crash import log_to_stderr; log_to_stderr('%(message)s')\n"
        "t = threading.Thread(target=lambda: {}['x']); t.start(); t.join()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(TUNEWISE_CRASHES=str(tmp_path / "crashes")),
        capture_output=True,
        text=True,
    )
    assert "a thread ended" in done.stderr and "Traceback" not in done.stderr
    assert "KeyError" in the_report(tmp_path / "crashes")


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (["run", "s.yaml", "--workspace", "w"], "w"),
        (["run", "s.yaml", "--workspace=w"], "w"),
        (["serve", "--home", "h"], "h"),
        (["audit", "rows.jsonl"], "default"),
    ],
)
def test_reports_lie_in_the_workspace_that_the_command_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWISE_HOME", str(tmp_path / "default"))
    found: dict[str, str] = {}
    crash.name_folder(command, found)
    assert found == {crash.FOLDER: str(tmp_path / folder / "crashes")}


def test_a_folder_that_cannot_be_written_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(crash.FOLDER, "/proc/none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = crash.write_crash_report(ValueError("x"), [])
    assert path is not None and path.parent == tmp_path


def test_a_thread_of_a_command_ends_in_a_sentence(tmp_path: Path) -> None:
    code = f"""
import sys, threading
import tunewise.cli as cli

def run(_):
    thread = threading.Thread(target=lambda: dict()[{SECRET!r}])
    thread.start()
    thread.join()
    return 0

cli._run = run
sys.argv = ["tunewise", "--workspace", {str(tmp_path)!r}, "routes"]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: A thread of this command met what should not happen")
    the_report(tmp_path / "crashes")
