"""Code that a study names runs only where its user allows it, by its content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cli_support import jsonl, tunewise
from training_support import WORDS, save_small_model
from tunewise.data.chat import Example
from tunewise.errors import StudyError, UntrustedCodeError, WorkspaceError
from tunewise.study.fine_tune import FineTune
from tunewise.study.trusted_code import find_code, require_trusted
from tunewise.training.job import TrainingJob

SOURCE = """\
from dataclasses import dataclass
from pathlib import Path
Path({mark!r}).touch()

@dataclass
class Share:
    value: float

def score(example, completion, times=1.0):
    return Share(times * completion.text.count("e") / max(1, len(completion.text))).value
"""


def grpo(reward: str) -> FineTune:
    return FineTune.model_validate({"method": "grpo", "reward": reward})


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Touched by the code in the folder where we are, ``mine.py``, when it runs."""
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    mark = tmp_path / "mark"
    Path("mine.py").write_text(SOURCE.format(mark=str(mark)))
    return mark


def test_code_runs_only_where_it_is_allowed_and_until_it_changes(mark: Path) -> None:
    digest = hashlib.sha256(Path("mine.py").read_bytes()).hexdigest()
    for refused in (lambda: require_trusted(grpo("mine:score")), find_code("mine:score").load):
        with pytest.raises(UntrustedCodeError, match=digest) as error:
            refused()
        assert str(Path("mine.py").absolute()) in str(error.value)
        assert "--allow-code" in str(error.value)
    assert not mark.exists()
    require_trusted(grpo("mine:score"), allow=True)
    require_trusted(grpo("mine:score"))
    assert not mark.exists()  # looked at, not run
    assert find_code("mine:score").load()
    assert mark.exists()
    with Path("mine.py").open("a") as file:
        file.write("# one more line\n")
    with pytest.raises(UntrustedCodeError):
        require_trusted(grpo("mine:score"))


def test_other_code_is_another_training(mark: Path, tmp_path: Path) -> None:
    rows = [Example("a", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])]
    save_small_model(tmp_path / "model")
    options = {"learning_rate": 1e-3, "epochs": 1, "seed": 0, "output": tmp_path, "dev": []}

    def key() -> str:
        tuned = grpo("mine:score")
        return TrainingJob(str(tmp_path / "model"), rows, fine_tune=tuned, **options).key

    before = key()
    assert key() == before
    with Path("mine.py").open("a") as file:
        file.write("# one more line\n")
    assert key() != before
    assert not mark.exists()


def test_what_runs_are_the_bytes_that_were_allowed(mark: Path) -> None:
    code = find_code("mine:score")
    code.trust()
    Path("mine.py").write_text("raise SystemExit('another file by now')")
    assert code.load().__name__ == "score"


def test_the_folder_of_a_study_cannot_bring_its_own_trust(
    mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_code("mine:score").trust()
    given = next((tmp_path / "config").rglob("*.json"))
    for place in (
        ".config/tunewise/trusted-code",
        ".tunewise/trusted-code",
        "tunewise/trusted-code",
    ):
        Path(place).mkdir(parents=True)
        Path(place, given.name).write_bytes(given.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    for relative in (".config", ".", "", None):
        if relative is None:
            monkeypatch.delenv("XDG_CONFIG_HOME")
        else:
            monkeypatch.setenv("XDG_CONFIG_HOME", relative)
        with pytest.raises(UntrustedCodeError):
            require_trusted(grpo("mine:score"))
    monkeypatch.setenv("HOME", ".")
    with pytest.raises(WorkspaceError, match="no home directory"):
        require_trusted(grpo("mine:score"))
    assert not mark.exists()


def test_packages_are_looked_into_and_not_run(mark: Path) -> None:
    Path("pack/inner").mkdir(parents=True)
    for name in ("pack/__init__.py", "pack/inner/__init__.py"):
        Path(name).write_text("raise SystemExit('run')")
    Path("pack/inner/mine.py").write_bytes(Path("mine.py").read_bytes())
    code = find_code("pack.inner.mine:score")
    assert code.path == Path("pack/inner/mine.py").absolute()
    Path("nameless").mkdir()
    Path("nameless/mine.py").write_bytes(Path("mine.py").read_bytes())
    assert find_code("nameless.mine:score").sha256 == code.sha256
    # An installed one is code as well.
    assert find_code("operator:add").path.name == "operator.py"
    for name in (
        "nothing:here",
        "pack.nothing:here",
        "mine.inner:f",
        "../mine:f",
        ":f",
        "sys:exit",
    ):
        with pytest.raises(StudyError, match="cannot be found"):
            find_code(name)


def test_metrics_and_other_methods_need_no_leave() -> None:
    require_trusted(grpo("exact_match"))
    require_trusted(FineTune.model_validate({"method": "sft", "reward": "nothing:here"}))


def test_the_commands_ask_and_remember(mark: Path, tmp_path: Path) -> None:
    here = Path.cwd()
    save_small_model(here / "model")
    rows = [{"prompt": f"{w} {k}", "completion": w} for k, w in enumerate([*WORDS, *WORDS][:12])]
    jsonl(here / "rows.jsonl", rows)
    study = {
        "name": "theirs",
        "use_case": "words",
        "data": {"examples": "rows.jsonl"},
        "model": "./model",
        "metric": "exact_match",
        "fine_tune": {
            "method": "grpo",
            "reward": "mine:score",
            "learning_rate": 1e-3,
            "epochs": 1,
            "grpo": {"samples": 2, "max_tokens": 2},
        },
    }
    Path("study.yaml").write_text(json.dumps(study))
    for command in (
        ["run"],
        ["run", "--dry-run"],
        ["forecast"],
        ["train"],
        ["train", "--forecast"],
    ):
        refused = tunewise(*command, "study.yaml", cwd=here, code=2)
        assert "mine.py" in refused.err and "SHA-256" in refused.err
        assert " ".join(["tunewise", *command, "study.yaml", "--allow-code"]) in refused.err
    assert not mark.exists()
    tunewise("train", "study.yaml", "--allow-code", cwd=here)
    assert mark.exists()  # in a process of its own, which asks what is trusted
