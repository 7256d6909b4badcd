"""Hosted fine-tuning against the real server: a study from file to verdict, and its job again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

pytest.importorskip("peft")
pytest.importorskip("fastapi")

from server_support import Running, client, running_server
from tunewise.data.chat import Example
from tunewise.errors import BudgetError, StudyError, TrainingError
from tunewise.pipeline.alone import train_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import Outcome, plan_study, run_study
from tunewise.routes.base import ROUTES, open_route
from tunewise.study.loading import load_study
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob
from tunewise.workspace import Workspace

MODEL = "gpt-4o-mini-2024-07-18"
WORDS = ("fire", "sun", "soup", "ice", "snow", "frost")


def rows(n: int, start: int = 0) -> str:
    lines = []
    for i in range(start, start + n):
        word = WORDS[i % 6]
        # Some labels are wrong: a perfect baseline would end the study before training.
        warm = (word in WORDS[:3]) != (i % 7 == 0)
        answer = "warm" if warm else "cold"
        lines.append(json.dumps({"input": f"Note {i}: there is {word}.", "output": answer}))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("hosted"), models={MODEL: "tunewise/tiny"}) as it:
        yield it


@pytest.fixture(autouse=True)
def environment(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)


class Done(NamedTuple):
    study: Path
    workspace: Workspace
    outcome: Outcome


@pytest.fixture(scope="module")
def done(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("study")
    for name, n, start in (("train", 24, 0), ("dev", 10, 1000), ("test", 12, 2000)):
        (folder / f"{name}.jsonl").write_text(rows(n, start))
    prices = {
        "date": "2025-10-01",
        "source": "https://example.com/prices",
        "models": {
            f"openai:{MODEL}": {"input": 0.15, "output": 0.6},
            f"openai:ft:{MODEL}": {"input": 0.3, "output": 1.2},
        },
        "training": {f"openai:{MODEL}": {"per_1m_tokens": 3.0}},
    }
    (folder / "prices.yaml").write_text(yaml.safe_dump(prices))
    study = {
        "name": "hosted",
        "model": f"openai:{MODEL}",
        "prompt": "Is it warm or cold?",
        "data": {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
        "metric": "accuracy",
        "candidates": ["zero_shot", "fine_tuned"],
        "fine_tune": {"route": "openai", "epochs": 1, "batch_size": 8, "hosted": {"suffix": "w"}},
        "forgetting": {"suite": None},
        "output": {"max_tokens": 4},
        "costs": {"prices": "prices.yaml", "max_usd": 1.0},
        "traffic": {"requests_per_month": 1000},
        "effort": "quick",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        patch.setenv("OPENAI_API_KEY", server.key)
        outcome = run_study(load_study(path), workspace, SilentReporter())
    return Done(path, workspace, outcome)


def test_a_study_runs_to_its_verdict(done: Done, server: Running) -> None:
    verdict = done.outcome.verdict
    assert verdict.ended_at == "G5"
    assert {(c.name, c.n, c.failures) for c in verdict.candidates} == {
        ("constant", 12, 0),
        ("zero_shot", 12, 0),
        ("fine_tuned", 12, 0),
    }
    (run,) = verdict.training
    assert run.route == "openai" and run.steps == 3 and run.epochs == 1
    assert run.tuned_model is not None
    assert run.tuned_model.startswith(f"openai:ft:{MODEL}:tunewise:w:")
    assert run.learning_rate is None and run.peak_memory_mb is None
    assert len(run.train_loss) == 3 and run.dev_loss
    assert verdict.cost.spent_usd is not None and 0 < verdict.cost.spent_usd < 0.1
    assert verdict.cost.usd_per_request_with is not None
    with client(server) as api:
        (job,) = api.fine_tuning.jobs.list().data
        assert job.status == "succeeded" and job.trained_tokens == run.tokens
        sent = api.files.content(job.training_file).text
        first = json.loads(sent.splitlines()[0])["messages"]
        assert [m["role"] for m in first] == ["system", "user", "assistant"]
    texts = [p.read_text() for p in done.workspace.root.rglob("*.json*")]
    assert texts and not any(server.key in text for text in texts)


def test_a_second_run_trains_nothing(done: Done, server: Running) -> None:
    train_study(load_study(done.study), done.workspace, SilentReporter())
    with client(server) as api:
        assert len(api.fine_tuning.jobs.list().data) == 1
        assert len(api.files.list(purpose="fine-tune").data) == 2


def test_attached_from_elsewhere(done: Done, server: Running) -> None:
    with client(server) as api:
        job_id = api.fine_tuning.jobs.list().data[0].id
    handle = open_route("openai").attach(f"openai:{job_id}")
    result = handle.result(timeout=10)
    assert result.remote == done.outcome.verdict.training[0].tuned_model
    assert handle.status().state == "succeeded"
    steps = [e for e in handle.events() if e["event"] == "step"]
    assert [e["step"] for e in steps] == [1, 2, 3]
    assert handle.status().step == 3
    assert handle.checkpoints()[0]["name"].endswith(":ckpt-step-3")
    with pytest.raises(TrainingError, match="Could not find"):
        open_route("openai").attach("openai:ftjob-none")


def test_a_running_job_is_cancelled(server: Running, tmp_path: Path) -> None:
    talk = [
        Example(
            str(i),
            ({"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": str(i + 1)}),
        )
        for i in range(12)
    ]
    job = TrainingJob(
        model=f"openai:{MODEL}",
        examples=talk,
        dev=(),
        fine_tune=FineTune(route="openai", epochs=50, batch_size=1),
        learning_rate=1.0,
        epochs=50,
        seed=1,
        output=tmp_path / "job",
    )
    handle = open_route("openai").submit(job)
    assert not handle.status().over
    handle.cancel()
    assert handle.status().state == "cancelled"
    with pytest.raises(TrainingError, match="cancelled"):
        handle.result(timeout=5)


def test_money_is_not_spent_beyond_its_limit(done: Done, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    tight = load_study(done.study, overrides=["costs.max_usd=0.000001", "candidates=[fine_tuned]"])
    with pytest.raises(BudgetError, match="fine-tuning would cost"):
        train_study(tight, workspace, SilentReporter())
    unknown = (
        (done.study.parent / "prices.yaml").read_text().replace("training:", "training: {}\n#")
    )
    (tmp_path / "prices.yaml").write_text(unknown.partition("#")[0])
    blind = load_study(done.study, overrides=[f"costs.prices={tmp_path / 'prices.yaml'}"])
    with pytest.raises(StudyError, match="what training costs is unknown"):
        train_study(blind, workspace, SilentReporter())


def test_the_plan_shows_money(done: Done, tmp_path: Path) -> None:
    plan = plan_study(load_study(done.study), Workspace(tmp_path / "w"), SilentReporter())
    training = plan.candidates[1].training
    assert training is not None and training["usd"] > 0 and training["tokens"] > 0
    assert "2025-10-01" in training["basis"]


def test_models_and_routes_that_do_not_fit(done: Done, tmp_path: Path) -> None:
    assert {"local", "openai", "azure"} <= set(ROUTES.names())
    workspace = Workspace(tmp_path / "w")
    mixed = load_study(done.study, overrides=["fine_tune.route=local"])
    with pytest.raises(StudyError, match="cannot be fine-tuned by the route 'local'"):
        train_study(mixed, workspace, SilentReporter())
    with pytest.raises(StudyError, match="stay with the provider"):
        train_study(load_study(done.study), workspace, SilentReporter(), tmp_path / "out")
