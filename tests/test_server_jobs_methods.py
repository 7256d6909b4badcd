"""The methods dpo and reinforcement, each a real job with the official client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from server_support import Running, client, finished, running_server, upload_rows

MODEL = "gpt-4o-mini-2024-07-18"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("jobs")
    models = {MODEL: "tunewise/tiny"}
    with running_server(home, models=models, workers=2, worker_threads=1) as running:
        yield running


def question(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"What is {number} plus one?"}


def test_dpo_and_reinforcement(server: Running) -> None:
    pairs = [
        {
            "input": {"messages": [question(n)]},
            "preferred_output": [{"role": "assistant", "content": str(n + 1)}],
            "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
        }
        for n in range(10)
    ]
    questions = [{"messages": [question(n)], "answer": str(n + 1)} for n in range(10)]
    grader = {
        "type": "text_similarity",
        "name": "close",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "evaluation_metric": "fuzzy_match",
    }
    with client(server) as api:
        dpo = api.fine_tuning.jobs.create(
            model=MODEL,
            training_file=upload_rows(api, pairs),
            method={
                "type": "dpo",
                "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1, "batch_size": 5}},
            },
        )
        values = {"n_epochs": 1, "batch_size": 5, "compute_multiplier": 0.25}
        reinforcement = api.fine_tuning.jobs.create(
            model=MODEL,
            training_file=upload_rows(api, questions),
            method={
                "type": "reinforcement",
                "reinforcement": {"grader": grader, "hyperparameters": values},
            },
        )
        assert reinforcement.method.reinforcement.grader.name == "close"

        dpo = finished(api, dpo.id)
        assert dpo.method.dpo.hyperparameters.beta == 0.2
        metrics = [e for e in api.fine_tuning.jobs.list_events(dpo.id) if e.type == "metrics"]
        assert [e.data["step"] for e in metrics] == [2, 1]
        assert metrics[1].data["train_loss"] == pytest.approx(0.693, abs=1e-3), "log 2 at the start"

        reinforcement = finished(api, reinforcement.id)
        events = api.fine_tuning.jobs.list_events(reinforcement.id, limit=100)
        rewards = [e.data["train_reward_mean"] for e in events if e.type == "metrics"]
        assert len(rewards) == 2 and all(0 <= r <= 1 for r in rewards)
        (result,) = reinforcement.result_files
        assert "train_reward_mean" in api.files.content(result).text.splitlines()[0]
        assert api.models.retrieve(reinforcement.fine_tuned_model)


def test_graders_are_checked_when_the_job_is_made(server: Running) -> None:
    with client(server) as api:
        training = upload_rows(api, [{"messages": [question(n)]} for n in range(10)])
        for grader, words in (
            (None, "needs a grader"),
            ({"type": "magic", "name": "x"}, "magic"),
            (
                {
                    "type": "score_model",
                    "name": "judge",
                    "model": "openai:gpt-4o",
                    "input": [{"role": "user", "content": "Good?"}],
                },
                "not on this server",
            ),
        ):
            with pytest.raises(openai.BadRequestError, match=words) as caught:
                api.fine_tuning.jobs.create(
                    model=MODEL,
                    training_file=training,
                    method={"type": "reinforcement", "reinforcement": {"grader": grader}},  # type: ignore[typeddict-item]
                )
            assert str(caught.value.param).startswith("method.reinforcement.grader")
