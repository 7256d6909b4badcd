"""Files of a training that changed on disk: told, and never taken for what was written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")

from cli_support import change_a_bit
from training_support import save_small_model, word_examples
from tunewise.digests import DamagedError
from tunewise.pipeline.fsck import Damage, look
from tunewise.pipeline.kept_trainings import bring
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob, TrainingStopped
from tunewise.training.loop import train
from tunewise.workspace import Workspace, write_json_atomic

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("model") / "model")


def job(model: Path, output: Path) -> TrainingJob:
    examples = word_examples(20)
    return TrainingJob(
        model=str(model),
        examples=examples[:16],
        dev=examples[16:],
        fine_tune=FineTune(batch_size=4, lora={"rank": 4}),
        learning_rate=5e-3,
        epochs=2,
        seed=3,
        output=output,
        threads=1,
        checkpoint_seconds=0.0,
    )


def stopped(model: Path, output: Path) -> None:
    """A run that was stopped after its sixth step of eight."""
    steps = 0

    def count(event: Mapping[str, Any]) -> None:
        nonlocal steps
        steps += event["event"] == "step"

    with pytest.raises(TrainingStopped):
        train(job(model, output), count, stop=lambda: steps >= 6)


def weights(output: Path) -> bytes:
    return (output / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(job(model, folder))
    return weights(folder)


@pytest.mark.parametrize(
    "name", ["step-*/state.safetensors", "step-*/state.json", "best-*/*.safetensors"]
)
def test_a_damaged_checkpoint_is_told_and_training_ends_in_the_same_weights(
    model: Path, undisturbed: bytes, tmp_path: Path, name: str
) -> None:
    output = tmp_path / "run"
    stopped(model, output)
    (damaged,) = (output / "checkpoints").glob(name)
    if damaged.suffix == ".json":
        damaged.write_text(damaged.read_text()[:40])
    else:
        change_a_bit(damaged)
    told: list[Mapping[str, Any]] = []
    train(job(model, output), told.append)
    (event,) = (e for e in told if e["event"] == "damaged")
    assert event["file"] == damaged.name and "checkpoint" in event["what"]
    assert [e["event"] for e in told if e["event"] in ("start", "resume")] == ["start"]
    assert weights(output) == undisturbed


def test_a_checkpoint_of_an_earlier_release_is_gone_on_from(
    model: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    stopped(model, output)
    for noted in output.glob("checkpoints/*/*.sha256"):
        noted.unlink()
    told: list[Mapping[str, Any]] = []
    train(job(model, output), told.append)
    assert "resume" in [e["event"] for e in told]
    assert weights(output) == undisturbed


def test_changed_weights_are_not_taken_for_a_finished_training(model: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home")
    training = workspace.root / "studies" / "words" / "training"
    output = training / "one"
    train(job(model, output))
    write_json_atomic(output / "status.json", {"state": "succeeded"})
    whole = list(look(workspace))
    assert output in whole and not [d for d in whole if isinstance(d, Damage)]
    other = workspace.root / "studies" / "renamed" / "training" / "one"
    other.mkdir(parents=True)
    bring(job(model, other))
    assert weights(other) == weights(output), "an unchanged one is taken over"

    changed = training / "one" / "adapter" / "adapter_model.safetensors"
    content = changed.read_bytes()
    changed.unlink()  # the other study has the same file under its own name
    changed.write_bytes(content)
    change_a_bit(changed)
    with pytest.raises(DamagedError, match=r"has changed.*\n.*train again") as caught:
        train(job(model, output))
    assert str(output) in str(caught.value)
    third = workspace.root / "studies" / "third" / "training" / "one"
    third.mkdir(parents=True)
    bring(job(model, third))
    assert weights(third) == content, "of two that are alike the whole one is taken"
    (damage,) = (d for d in look(workspace) if isinstance(d, Damage))
    assert (damage.belongs_to, damage.where) == ("words", output / "adapter")
    assert "trained again" in damage.again
