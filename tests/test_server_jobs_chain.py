"""Training on top of tuned models: supervised, then dpo, then reinforcement, each real."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

pytest.importorskip("peft")

from server_support import (
    Running,
    call,
    client,
    envelope,
    finished,
    make_key,
    running_server,
    upload_rows,
)
from tunewise.errors import ModelError, TrainingError

MODEL = "gpt-4o-mini-2024-07-18"
AZURE = {"params": {"api-version": "2024-10-21"}}
ROWS = 12
GRADER = {
    "type": "text_similarity",
    "name": "close",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "evaluation_metric": "fuzzy_match",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("chain")
    with running_server(home, models={MODEL: "tunewise/tiny"}, worker_threads=1) as running:
        yield running


def question(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"What is {number} plus one?"}


def answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CHATS = [{"messages": [question(n), answer(f"It is {n + 1}.")]} for n in range(ROWS)]
PAIRS = [
    {
        "input": {"messages": [question(n)]},
        "preferred_output": [answer(f"It is {n + 1}.")],
        "non_preferred_output": [answer("No idea.")],
    }
    for n in range(ROWS)
]
QUESTIONS = [{"messages": [question(n)], "answer": f"It is {n + 1}."} for n in range(ROWS)]


def tune(api: OpenAI, model: str, kind: str, rows: list[dict[str, Any]], **values: Any) -> Any:
    """A job made; one step looks at all rows unless ``values`` say otherwise."""
    body: dict[str, Any] = {"hyperparameters": {"n_epochs": 1, "batch_size": ROWS, **values}}
    if kind == "reinforcement":
        body["grader"] = GRADER
    return api.fine_tuning.jobs.create(
        model=model,
        training_file=upload_rows(api, rows),
        validation_file=upload_rows(api, rows),
        suffix=kind,
        method={"type": kind, kind: body},  # type: ignore[arg-type,misc]
    )


def metrics(api: OpenAI, job_id: str) -> list[dict[str, Any]]:
    """The figures of each step, first step first."""
    events = api.fine_tuning.jobs.list_events(job_id, limit=100).data
    return [dict(e.data) for e in reversed(events) if e.type == "metrics"]  # type: ignore[call-overload]


def weights(running: Running, job_id: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    folder: Path = running.home / "jobs" / job_id / "run" / "adapter"
    return load_file(folder / "adapter_model.safetensors")


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    return math.sqrt(sum(float(((one[k] - other[k]) ** 2).sum()) for k in one))


@pytest.fixture(scope="module")
def first(server: Running) -> Any:
    """A supervised job on the base model."""
    with client(server) as api:
        made = tune(api, MODEL, "supervised", CHATS, n_epochs=6, learning_rate_multiplier=2)
        return finished(api, made.id)


def test_each_job_begins_where_its_parent_ended(server: Running, first: Any) -> None:
    with client(server, timeout=120) as api:
        assert first.model == MODEL
        before = metrics(api, first.id)
        # A full batch of the same rows: the first loss of the second job is the last of the first.
        second = tune(api, first.fine_tuned_model, "supervised", CHATS, n_epochs=2)
        assert second.model == first.fine_tuned_model
        second = finished(api, second.id)
        after = metrics(api, second.id)
        assert after[0]["train_loss"] == pytest.approx(before[-1]["full_valid_loss"], rel=1e-3)
        assert after[0]["train_loss"] < 0.5 * before[0]["train_loss"]
        assert after[-1]["full_valid_loss"] < before[-1]["full_valid_loss"]
        assert second.fine_tuned_model.startswith(f"ft:{MODEL}:tunewise:supervised:")
        assert second.fine_tuned_model != first.fine_tuned_model
        said = api.chat.completions.create(
            model=second.fine_tuned_model,
            messages=[question(4)],  # type: ignore[list-item]
            temperature=0,
            max_tokens=12,
        )
        assert (said.choices[0].message.content or "").startswith("It is")

        # Of dpo the reference is the parent: the first step sees no difference from it.
        preferred = tune(api, second.fine_tuned_model, "dpo", PAIRS)
        preferred = finished(api, preferred.id)
        begun = metrics(api, preferred.id)[0]
        assert begun["train_loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert begun["train_reward_margin"] == pytest.approx(0, abs=1e-4)

        # Of reinforcement, hardly a step away from the parent's weights, far from fresh ones.
        rewarded = tune(
            api,
            preferred.fine_tuned_model,
            "reinforcement",
            QUESTIONS,
            compute_multiplier=0.25,
            learning_rate_multiplier=1e-4,
        )
        rewarded = finished(api, rewarded.id)
        assert rewarded.model == preferred.fine_tuned_model
        parents, own = weights(server, preferred.id), weights(server, rewarded.id)
        zero = {name: tensor * 0 for name, tensor in parents.items()}
        assert distance(own, parents) < 1e-3 * distance(parents, zero)
        messages = [e.message for e in api.fine_tuning.jobs.list_events(rewarded.id, limit=100)]
        text = f"Training begins with the weights of {preferred.fine_tuned_model}"
        assert text in messages


def test_checkpoints_and_azures_names_are_trained_on_too(server: Running, first: Any) -> None:
    with client(server) as api:
        checkpoints = api.fine_tuning.jobs.checkpoints.list(first.id).data
        names = [c.fine_tuned_model_checkpoint for c in checkpoints]
        prefix = f"ft:{MODEL}:tunewise:supervised:"
        tails = {name.removeprefix(prefix).partition(":")[0] for name in names}
        assert len(tails | {first.fine_tuned_model.removeprefix(prefix)}) == 4, "each has its own"
        earlier = min(checkpoints, key=lambda c: c.step_number)
        job = tune(api, earlier.fine_tuned_model_checkpoint, "supervised", CHATS)
        finished(api, job.id)
        loss = metrics(api, job.id)[0]["train_loss"]
        assert loss == pytest.approx(earlier.metrics.full_valid_loss, rel=1e-3)

        shown = call(server, "GET", f"/openai/fine_tuning/jobs/{first.id}", **AZURE).json()
        name = shown["fine_tuned_model"]
        assert ".ft-" in name
        made = call(
            server,
            "POST",
            "/openai/fine_tuning/jobs",
            json={"model": name, "training_file": first.training_file, "trainingType": "Standard"},
            **AZURE,
        )
        assert made.status_code == 201 and made.json()["model"] == name, made.text
        api.fine_tuning.jobs.cancel(made.json()["id"])


def test_a_parent_stays_while_a_job_begins_with_it(server: Running, first: Any) -> None:
    with client(server) as api:
        long = tune(api, MODEL, "supervised", CHATS, n_epochs=50, batch_size=1)
        waiting = tune(api, first.fine_tuned_model, "supervised", CHATS)
        answered = call(server, "DELETE", f"/v1/models/{first.fine_tuned_model}")
        error = envelope(answered, 409, "model_in_use")
        assert waiting.id in error["message"]
        api.fine_tuning.jobs.cancel(long.id)
        finished(api, waiting.id)


def test_models_of_others_and_models_that_are_gone(server: Running, first: Any) -> None:
    key = make_key(server.home, project="others")
    with client(server, key=key) as theirs, client(server) as api:
        with pytest.raises(openai.NotFoundError, match="not available for fine-tuning") as caught:
            tune(theirs, first.fine_tuned_model, "supervised", CHATS)
        assert caught.value.code == "model_not_found" and caught.value.param == "model"
        project = _project(server, key)
        api.post(
            f"/fine_tuning/checkpoints/{first.fine_tuned_model}/permissions",
            body={"project_ids": [project]},
            cast_to=object,
        )
        permitted = tune(theirs, first.fine_tuned_model, "supervised", CHATS)
        refused = call(server, "DELETE", f"/v1/models/{first.fine_tuned_model}")
        error = envelope(refused, 409, "model_in_use")
        assert permitted.id not in error["message"], "nothing of another project is told"
        tuned = finished(theirs, permitted.id)
        theirs.models.delete(tuned.fine_tuned_model)
        with pytest.raises(openai.NotFoundError):
            tune(theirs, tuned.fine_tuned_model, "supervised", CHATS)


def _project(running: Running, key: str) -> str:
    from tunewise.server.database import open_engine
    from tunewise.server.settings import load_settings

    settings = load_settings(None, {"home": running.home})
    engine = open_engine(settings.database_url)
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT id FROM projects WHERE name = 'others'")
            return str(found.scalar_one())
    finally:
        engine.dispose()


def test_adapters_that_do_not_fit_are_refused_in_words(
    server: Running, first: Any, tmp_path: Path
) -> None:
    from tunewise.data.chat import Example
    from tunewise.study.schema import FineTune
    from tunewise.training.job import TrainingJob
    from tunewise.training.loop import train

    adapter = server.home / "jobs" / first.id / "run" / "adapter"
    examples = [Example(str(n), tuple(row["messages"])) for n, row in enumerate(CHATS)]

    def begin(start: Path, **options: Any) -> None:
        train(
            TrainingJob(
                model="tunewise/tiny",
                examples=examples,
                dev=(),
                fine_tune=FineTune(**options),
                learning_rate=1e-3,
                epochs=1,
                seed=1,
                output=tmp_path / "run",
                threads=1,
                start=start,
            )
        )

    with pytest.raises(TrainingError, match="r is 16 there and 8 here; lora_alpha is 32"):
        begin(adapter, lora={"rank": 8})
    with pytest.raises(TrainingError, match="use_dora is False there and True here"):
        begin(adapter, lora={"dora": True})
    with pytest.raises(TrainingError, match="for other layers or another model"):
        begin(adapter, lora={"target_modules": ["q_proj"]})
    with pytest.raises(TrainingError, match="all weights cannot begin with an adapter"):
        begin(adapter, adapter="full")
    with pytest.raises(TrainingError, match="divergence"):
        begin(adapter, method="grpo", grpo={"beta": 0.1}, reward="exact_match")
    with pytest.raises(ModelError, match="no adapter"):
        begin(tmp_path)
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "adapter_config.json").write_text("{}")
    (tmp_path / "pickle" / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="can run any program"):
        begin(tmp_path / "pickle")
