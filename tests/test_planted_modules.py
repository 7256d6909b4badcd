"""A stranger's folder with a module of every name that could be imported: none of them is.

Each planted module writes its name down and fails. They stand for what a process of ours might take
from where it is started: our libraries, Python's own, parts that packages bring by entry points.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cli_support import COMMAND, jsonl
from models_support import save_model
from server_support import chats, client, start_server

PLANTED = """\
import sys
with open({mark!r}, "a") as file:
    file.write(__name__ + " in " + repr(sys.argv) + "\\n")
raise ImportError("planted: " + __name__)
"""
GROUPS = ("candidates", "metrics", "scorers", "trackers", "routes")
SCHEMA = {
    "type": "object",
    "properties": {"state": {"enum": ["warm", "cold"]}},
    "required": ["state"],
    "additionalProperties": False,
}


def names() -> set[str]:
    """Every top-level name: of Python, of all that is installed, and of what may be added."""
    installed = {
        name for name in importlib.metadata.packages_distributions() if name.isidentifier()
    }
    loaded = {name.partition(".")[0] for name in sys.modules}
    optional = {"bitsandbytes", "llguidance", "model2vec", "sentence_transformers", "trackio"}
    hooks = {"sitecustomize", "usercustomize", "__main__"}
    return {*sys.stdlib_module_names, *installed, *loaded, *optional, *hooks} - {"_pytest"}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stranger")
    text = PLANTED.format(mark=str(folder / "mark"))
    for name in names():
        (folder / f"{name}.py").write_text(text)
    planted = folder / "planted-1.0.dist-info"
    planted.mkdir()
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    parts = [f"[tunewise.{group}]\nplanted = planted:Part\n" for group in GROUPS]
    (planted / "entry_points.txt").write_text("\n".join(parts))
    (folder / "planted.py").write_text(text)
    save_model(folder / "model")
    rows = [_row(k) for k in range(60)]
    jsonl(folder / "rows.jsonl", rows)
    study = {
        "name": "theirs",
        "use_case": "Tell warm from cold.",
        "model": "./model",
        "data": {"examples": "rows.jsonl"},
        "metric": "json_fields",
        "candidates": ["zero_shot", "fine_tuned"],
        "fine_tune": {"epochs": 1, "learning_rate": 0.005},
        "forgetting": {"suite": None},
        "output": {"max_tokens": 16, "json_schema": SCHEMA},
        "effort": "quick",
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder


def _row(number: int) -> dict[str, str]:
    word = ("sun", "ice")[number % 2]
    state = ("warm", "cold")[number % 2 if number % 7 else 1 - number % 2]
    return {"input": f"Note {number}: {word}.", "output": json.dumps({"state": state})}


@pytest.fixture(autouse=True)
def _nothing_planted_ran(
    stranger: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    # An empty entry of PYTHONPATH is the working directory again: many profiles have one.
    given = [str(Path(p).absolute()) for p in os.environ.get("PYTHONPATH", "").split(":") if p]
    monkeypatch.setenv("PYTHONPATH", ":".join(["", *given]))
    yield
    mark = stranger / "mark"
    assert not mark.exists(), mark.read_text()


def command(folder: Path, *arguments: str, start: tuple[str, ...] = (str(COMMAND),)) -> str:
    env = {**os.environ, "COLUMNS": "100", "TUNEWISE_HOME": str(folder / "workspace")}
    done = subprocess.run(
        [*start, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_planting_works(stranger: Path) -> None:
    """Else nothing here would fail, whatever was imported."""
    for name in ("peft", "json", "safetensors", "llguidance", "torch", "tunewise"):
        assert (stranger / f"{name}.py").is_file()
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    started = [sys.executable, "-c", "import peft"]
    done = subprocess.run(started, cwd=stranger, env=env, capture_output=True, text=True)
    assert "planted: " in done.stderr
    (stranger / "mark").unlink()


def test_a_training_takes_nothing_from_its_folder(stranger: Path) -> None:
    """The command, the fork server, the forked training."""
    options = ("--set", "fine_tune.learning_rate=0.001", "--epochs", "0.2", "--dev", "none")
    command(stranger, "train", "rows.jsonl", "--model", "./model", *options)


def test_a_server_takes_nothing_from_where_it_is_started(stranger: Path) -> None:
    """The server, its engine, and the trial of a schema, which is a process of its own."""
    server = start_server(stranger / "short", models={"mine": "tunewise/tiny"}, auth=False)
    try:
        with client(server.running) as api:
            answer = api.chat.completions.create(
                model="mine",
                messages=[{"role": "user", "content": "ice"}],
                max_tokens=16,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "state", "schema": SCHEMA, "strict": True},
                },
            )
        assert answer.choices[0].message.content
    finally:
        server.stop()


def test_python_m_drops_the_folder_first(tmp_path: Path) -> None:
    """What Python itself and our package's first lines import cannot be saved; the rest is."""
    for name in ("typer", "yaml", "peft", "rich", "pydantic", "numpy"):
        (tmp_path / f"{name}.py").write_text(PLANTED.format(mark=str(tmp_path / "mark")))
    for start in ((sys.executable, "-m", "tunewise"), (sys.executable, "-P", "-m", "tunewise")):
        command(tmp_path, "schema", start=start)
    assert not (tmp_path / "mark").exists()


@pytest.mark.soak
@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "rows.jsonl"),
        ("audit", "study.yaml"),
        ("init", "rows.jsonl", "--out", "proposed.yaml", "--force"),
        ("forecast", "study.yaml"),
        ("run", "study.yaml"),
        ("report", "study.yaml"),
        ("chat", "./model", "--message", "ice", "--max-tokens", "4"),
        ("doctor",),
        ("routes",),
        ("schema",),
        ("clean",),
        ("fsck",),
        ("train", "study.yaml", "--out", "tuned"),
    ],
    ids=" ".join,
)
def test_no_command_takes_anything_from_where_it_is_run(
    stranger: Path, arguments: tuple[str, ...]
) -> None:
    command(stranger, *arguments)


@pytest.mark.soak
def test_no_job_takes_anything_from_where_the_server_is_started(stranger: Path) -> None:
    grader = {
        "type": "python",
        "name": "length",
        "source": "def grade(sample, item): return len(sample['output_text'])",
    }
    server = start_server(stranger / "long", models={"mine": "tunewise/tiny"}, auth=False)
    try:
        with client(server.running) as api:
            file = api.files.create(file=("rows.jsonl", chats(12)), purpose="fine-tune").id
            job = api.fine_tuning.jobs.create(
                model="mine", training_file=file, hyperparameters={"n_epochs": 1}
            )
            deadline = time.monotonic() + 240
            while job.status not in ("succeeded", "failed", "cancelled"):
                assert time.monotonic() < deadline, job
                time.sleep(0.5)
                job = api.fine_tuning.jobs.retrieve(job.id)
            assert job.status == "succeeded", job
            api.fine_tuning.alpha.graders.run(grader=grader, model_sample="ice", item={})
            api.embeddings.create(model="mine", input="ice")
    finally:
        server.stop()
