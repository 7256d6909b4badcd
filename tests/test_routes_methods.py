"""A study by the hosted road with dpo and with reinforcement, against the real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("peft")
pytest.importorskip("fastapi")

from server_support import Running, client, running_server
from tunewise.data.chat import Example
from tunewise.errors import TrainingError
from tunewise.pipeline.alone import train_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import Outcome, run_study
from tunewise.routes.base import open_route
from tunewise.study.loading import load_study
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob
from tunewise.workspace import Workspace

MODEL = "gpt-4o-mini-2024-07-18"
WORDS = ("fire", "sun", "soup", "ice", "snow", "frost")
GRADER = {
    "type": "string_check",
    "name": "same",
    "operation": "ilike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}


def row(number: int, form: str) -> dict[str, Any]:
    word = WORDS[number % 6]
    # Some labels are wrong: a perfect baseline would end the study before training.
    warm = (word in WORDS[:3]) != (number % 7 == 0)
    answers = ("warm", "cold") if warm else ("cold", "warm")
    question = f"Note {number}: there is {word}."
    if form == "pair":
        return {"input": question, "output": answers[0]}
    good, bad = ([{"role": "assistant", "content": answer}] for answer in answers)
    messages = [{"role": "user", "content": question}]
    return {
        "input": {"messages": messages},
        "preferred_output": good,
        "non_preferred_output": bad,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("hosted")
    with running_server(home, models={MODEL: "tunewise/tiny"}, worker_threads=1) as it:
        yield it


@pytest.fixture(autouse=True)
def environment(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)


def study(folder: Path, fine_tune: dict[str, Any], form: str) -> Path:
    for name, count, start in (("train", 16, 0), ("dev", 8, 1000), ("test", 10, 2000)):
        lines = (json.dumps(row(start + n, form)) + "\n" for n in range(count))
        (folder / f"{name}.jsonl").write_text("".join(lines))
    described = {
        "name": "hosted",
        "model": f"openai:{MODEL}",
        "prompt": "Is it warm or cold?",
        "data": {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
        "metric": "accuracy",
        "candidates": ["zero_shot", "fine_tuned"],
        "fine_tune": {"route": "openai", "epochs": 1, "batch_size": 8, **fine_tune},
        "forgetting": {"suite": None},
        "output": {"max_tokens": 4},
        "effort": "quick",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(described))
    return path


def run(path: Path, tmp_path: Path) -> Outcome:
    return run_study(load_study(path), Workspace(tmp_path / "workspace"), SilentReporter())


def judged(outcome: Outcome) -> str:
    """The tuned model's name, of a study that was judged on all its test rows."""
    verdict = outcome.verdict
    assert verdict.ended_at == "G5"
    counted = {(c.name, c.n, c.failures) for c in verdict.candidates}
    assert counted == {("constant", 10, 0), ("zero_shot", 10, 0), ("fine_tuned", 10, 0)}
    (trained,) = verdict.training
    assert trained.route == "openai" and trained.steps == 2 and len(trained.train_loss) == 2
    assert trained.tuned_model is not None
    return trained.tuned_model.removeprefix("openai:")


def test_a_study_with_preferences(server: Running, tmp_path: Path) -> None:
    asked = {"method": "dpo", "dpo": {"beta": 0.3}, "hosted": {"suffix": "pairs"}}
    outcome = run(study(tmp_path, asked, "preference"), tmp_path)
    name = judged(outcome)
    assert name.startswith(f"ft:{MODEL}:tunewise:pairs:")
    with client(server) as api:
        (job,) = (j for j in api.fine_tuning.jobs.list() if j.fine_tuned_model == name)
        assert job.method is not None and job.method.type == "dpo"
        assert job.method.dpo.hyperparameters.beta == 0.3  # type: ignore[union-attr]
        sent = json.loads(api.files.content(job.training_file).text.splitlines()[0])
        assert set(sent) == {"input", "preferred_output", "non_preferred_output"}
        assert [m["role"] for m in sent["input"]["messages"]] == ["system", "user"]
    (trained,) = outcome.verdict.training
    assert trained.method == "dpo" and trained.train_loss[0][1] == pytest.approx(0.693, abs=1e-2)
    assert trained.dev_loss


def test_a_study_with_rewards(server: Running, tmp_path: Path) -> None:
    asked = {
        "method": "reinforcement",  # the hosted word for grpo
        "grader": GRADER,
        "hosted": {
            "compute_multiplier": 0.25,
            "reasoning_effort": "low",
            "eval_interval": 1,
            "eval_samples": 3,
        },
    }
    outcome = run(study(tmp_path, asked, "pair"), tmp_path)
    name = judged(outcome)
    assert outcome.verdict.training[0].method == "grpo"
    with client(server) as api:
        (job,) = (j for j in api.fine_tuning.jobs.list() if j.fine_tuned_model == name)
        assert job.method is not None and job.method.type == "reinforcement"
        chosen = job.method.reinforcement
        assert chosen is not None and chosen.grader.name == "same"  # type: ignore[union-attr]
        values = chosen.hyperparameters
        assert values is not None
        assert (values.compute_multiplier, values.eval_interval, values.eval_samples) == (
            0.25,
            1,
            3,
        )
        sent = json.loads(api.files.content(job.training_file).text.splitlines()[0])
        assert [m["role"] for m in sent["messages"]] == ["system", "user"]
        assert sent["answer"] in ("warm", "cold")
        events = api.fine_tuning.jobs.list_events(job.id, limit=100).data
        (warning,) = (e for e in events if "reasoning_effort" in e.message)
        assert warning.level == "warn" and "no effect on this model" in warning.message
        steps = [dict(e.data) for e in reversed(events) if e.type == "metrics"]  # type: ignore[call-overload]
        assert [s["step"] for s in steps] == [1, 2]
        looked, last = steps
        assert 0 <= looked["valid_mean_reward"] <= 1 and "full_valid_mean_reward" not in looked
        assert looked["valid_mean_reward"] * 3 == pytest.approx(
            round(looked["valid_mean_reward"] * 3)
        ), "three answers, each right or wrong"
        assert looked["valid_loss"] == pytest.approx(1 - looked["valid_reward_mean"])
        assert last["full_valid_mean_reward"] == last["valid_mean_reward"]
        assert looked["train_mean_reward"] == looked["train_reward_mean"]
        table = api.files.content(job.result_files[0]).text.splitlines()
        assert {"train_mean_reward", "full_valid_mean_reward"} <= set(table[0].split(","))
    attached = open_route("openai").attach(f"openai:{job.id}").result(timeout=10)
    assert attached.metrics["train_mean_reward"] == last["train_mean_reward"]


def test_what_a_study_cannot_ask_for(server: Running, tmp_path: Path) -> None:
    path = study(tmp_path, {"method": "dpo"}, "pair")
    with pytest.raises(TrainingError, match="no rejected answer"):
        train_study(load_study(path), Workspace(tmp_path / "w"), SilentReporter())
    path = study(tmp_path, {"method": "reinforcement"}, "pair")
    with pytest.raises(TrainingError, match="needs a grader"):
        train_study(load_study(path), Workspace(tmp_path / "w"), SilentReporter())
    path = study(tmp_path, {"hosted": {"eval_interval": 3}}, "pair")
    with pytest.raises(TrainingError, match=r"only reinforcement knows .* eval_interval"):
        train_study(load_study(path), Workspace(tmp_path / "w"), SilentReporter())
    with client(server) as api:
        before = {file.id for file in api.files.list()}
    magic = {
        "type": "string_check",
        "name": "x",
        "operation": "magic",
        "input": "",
        "reference": "",
    }
    path = study(tmp_path, {"method": "grpo", "grader": magic}, "pair")
    with pytest.raises(TrainingError, match=r"the service refused: .*ilike"):
        train_study(load_study(path), Workspace(tmp_path / "w"), SilentReporter())
    with client(server) as api:
        assert {file.id for file in api.files.list()} == before, "what was uploaded is removed"


def test_azure_wants_a_validation_file_for_reinforcement(tmp_path: Path) -> None:
    question = ({"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"})
    job = TrainingJob(
        model="azure:o4-mini",
        examples=[Example(str(n), question) for n in range(12)],
        dev=(),
        fine_tune=FineTune(route="azure", method="grpo", grader=GRADER),
        learning_rate=1.0,
        epochs=1,
        seed=1,
        output=tmp_path,
    )
    found = {f.code: f.severity for f in open_route("azure").check(job)}
    assert found["no_validation"] == "error" and "grader" not in found
