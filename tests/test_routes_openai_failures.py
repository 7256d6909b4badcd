"""Hosted fine-tuning when things go wrong: against a strict stub that misbehaves on demand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hosted_stub import KEY, Stub, Trouble, running_stub
from tunewise.data.chat import Example
from tunewise.errors import StudyError, TrainingError
from tunewise.models.retry import Patience
from tunewise.routes.hosted_calls import UnknownOutcome
from tunewise.routes.openai import OpenAIRoute
from tunewise.study.prices import Prices
from tunewise.study.schema import FineTune, Server
from tunewise.training.job import TrainingJob

FILES, JOBS = "POST /files", "POST /fine_tuning/jobs"
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CLOSED = {
    "message": "Fine-tuning is not available for this organization.",
    "type": "invalid_request_error",
    "param": None,
    "code": "training_not_available",
}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running_stub() as running:
        monkeypatch.setenv("STUB_KEY", KEY)
        monkeypatch.setenv("STUB_KEY_HOST", running.url.partition("//")[2])
        yield running


@pytest.fixture
def route(stub: Stub) -> OpenAIRoute:
    return new_route(stub)


def new_route(stub: Stub, *, prices: Prices | None = None) -> OpenAIRoute:
    server = Server(base_url=f"{stub.url}/v1", api_key="${STUB_KEY}", timeout_s=0.5)
    patience = Patience(attempts=4, total_s=20, first_s=0.05)
    return OpenAIRoute({"stub": server}, prices, patience=patience, poll_seconds=0.0)


def rows(n: int, start: int = 0) -> list[Example]:
    return [
        Example(
            f"row {i}",
            (
                {"role": "user", "content": f"What is {i} plus one?"},
                {"role": "assistant", "content": str(i + 1)},
            ),
        )
        for i in range(start, start + n)
    ]


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(
        model="stub:gpt-4o-mini-2024-07-18",
        examples=rows(12),
        dev=rows(4, 100),
        fine_tune=FineTune(route="openai", epochs=2, hosted={"suffix": "sums"}),
        learning_rate=1.0,
        epochs=2,
        seed=7,
        output=tmp_path / "job",
    )


def test_what_is_sent(stub: Stub, route: OpenAIRoute, job: TrainingJob) -> None:
    handle = route.submit(job)
    (body,) = stub.bodies
    mark = body.pop("metadata")["tunewise_job"]
    assert len(mark) == 32
    assert body == {
        "model": "gpt-4o-mini-2024-07-18",
        "training_file": "file-0000",
        "validation_file": "file-0001",
        "suffix": "sums",
        "seed": 7,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    }
    first = json.loads(stub.contents["file-0000"].splitlines()[0])
    assert first == {"messages": [dict(m) for m in job.examples[0].messages]}
    assert len(stub.contents["file-0000"].splitlines()) == 12
    assert handle.id == "stub:ftjob-0000" and handle.status().state == "queued"
    assert not (job.output / "upload").exists(), "no copy of the rows stays behind"
    kept = (job.output / "hosted.json").read_text()
    assert "ftjob-0000" in kept and KEY not in kept


def test_the_same_job_is_one_job(stub: Stub, job: TrainingJob, tmp_path: Path) -> None:
    handle = new_route(stub).submit(job)
    assert new_route(stub).submit(job).id == handle.id
    elsewhere = replace(job, output=tmp_path / "another machine")
    assert new_route(stub).submit(elsewhere).id == handle.id
    assert len(stub.jobs) == 1 and stub.count(FILES) == 2
    other = new_route(stub).submit(replace(job, seed=8, output=tmp_path / "seed 8"))
    assert other.id != handle.id and stub.count(FILES) == 2, "the same files serve both"


def test_a_failed_job_says_why_and_may_be_made_anew(
    stub: Stub, route: OpenAIRoute, job: TrainingJob
) -> None:
    handle = route.submit(job)
    stub.jobs[handle.job_id] |= {
        "status": "failed",
        "error": {
            "code": "invalid_n_examples",
            "message": "too few rows",
            "param": "training_file",
        },
    }
    with pytest.raises(TrainingError, match=r"too few rows \(invalid_n_examples\)"):
        handle.result(timeout=5)
    assert route.submit(job).id != handle.id


@pytest.mark.parametrize(
    "troubles",
    [
        pytest.param([Trouble(done=True, status=200, seconds=1.0)], id="answered too late"),
        pytest.param([Trouble(done=True)], id="cut after it was made"),
        pytest.param([Trouble()], id="cut before it was made"),
        pytest.param([Trouble(status=500, error={"message": "oops"})] * 2, id="faults"),
        pytest.param([Trouble(status=429, error={"message": "slow down"})], id="too fast"),
        pytest.param([Trouble(done=True, status=502, seconds=0.1)], id="a proxy gave up"),
    ],
)
@pytest.mark.parametrize("call", [FILES, JOBS])
def test_nothing_is_made_twice(
    stub: Stub, route: OpenAIRoute, job: TrainingJob, call: str, troubles: list[Trouble]
) -> None:
    stub.trouble[call] = list(troubles)
    handle = route.submit(job)
    assert list(stub.jobs) == [handle.job_id]
    assert len(stub.contents) == 2
    made_at_first = troubles[0].done
    assert stub.count(JOBS) == (1 + (len(troubles) if call == JOBS and not made_at_first else 0))


def test_a_job_that_shows_up_late_is_not_doubled(
    stub: Stub, route: OpenAIRoute, job: TrainingJob
) -> None:
    stub.trouble[JOBS] = [Trouble(done=True)]
    stub.hidden_lists = 2  # before the first attempt, and after it
    handle = route.submit(job)
    assert {i: j["status"] for i, j in stub.jobs.items()} == {
        "ftjob-0000": "queued",
        "ftjob-0001": "cancelled",
    }
    assert handle.job_id == "ftjob-0000"


def test_training_not_available(stub: Stub, route: OpenAIRoute, job: TrainingJob) -> None:
    stub.trouble[JOBS] = [Trouble(status=403, error=CLOSED)]
    with pytest.raises(TrainingError) as caught:
        route.submit(job)
    text = str(caught.value)
    assert "cannot start fine-tuning jobs there any more" in text
    for road in ("route: local", "tunewise serve", "route: azure", "2027-01-06"):
        assert road in text
    assert stub.count(JOBS) == 1 and not stub.files, "what was uploaded for it is removed"
    assert route.submit(job).status().state == "queued", "the folder remembers no lost files"


def test_files_of_other_jobs_stay(
    stub: Stub, route: OpenAIRoute, job: TrainingJob, tmp_path: Path
) -> None:
    route.submit(job)
    stub.trouble[JOBS] = [Trouble(status=403, error=CLOSED)]
    with pytest.raises(TrainingError):
        route.submit(replace(job, seed=9, output=tmp_path / "other"))
    assert len(stub.files) == 2


def test_a_lasting_fault_leaves_nothing(stub: Stub, route: OpenAIRoute, job: TrainingJob) -> None:
    stub.trouble[JOBS] = [Trouble(status=503, error={"message": "down for repairs"})] * 9
    with pytest.raises(TrainingError, match=r"503.*down for repairs") as caught:
        route.submit(job)
    assert "nothing is made twice" in str(caught.value.hint)
    assert stub.count(JOBS) == 4 and not stub.files


def test_silence_keeps_the_files(stub: Stub, route: OpenAIRoute, job: TrainingJob) -> None:
    stub.trouble[JOBS] = [Trouble()] * 9
    with pytest.raises(UnknownOutcome, match="does not answer"):
        route.submit(job)
    assert len(stub.files) == 2, "a job that was made after all needs them"
    stub.trouble.clear()
    route.submit(job)
    assert stub.count(FILES) == 2 and len(stub.jobs) == 1


@pytest.mark.parametrize("code", ["insufficient_quota", "too_many_jobs"])
def test_what_waiting_does_not_mend(
    stub: Stub, route: OpenAIRoute, job: TrainingJob, code: str
) -> None:
    stub.trouble[JOBS] = [Trouble(status=429, error={"message": "no more", "code": code})]
    with pytest.raises(TrainingError, match=r"429.*no more"):
        route.submit(job)
    assert stub.count(JOBS) == 1


def test_keys_stay_out_of_errors(
    stub: Stub, route: OpenAIRoute, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "sk-wrong-9876543210abcdef"
    monkeypatch.setenv("STUB_KEY", wrong)
    with pytest.raises(TrainingError, match="401") as caught:
        route.submit(job)  # the stub's answer repeats the key
    assert wrong not in str(caught.value) and "Check the key" in str(caught.value)
    monkeypatch.delenv("STUB_KEY_HOST")
    with pytest.raises(StudyError, match="is not sent to"):
        new_route(stub).submit(job)


@pytest.mark.parametrize("as_base64", [False, True])
def test_result_files_in_both_forms(
    stub: Stub, route: OpenAIRoute, job: TrainingJob, as_base64: bool
) -> None:
    handle = route.submit(job)
    stub.tell(handle.job_id, "Step 1/3: training loss=2.50", step=1, total_steps=3, train_loss=2.5)
    stub.finish(handle.job_id, as_base64=as_base64)
    result = handle.result(timeout=5)
    assert result.train_loss == [2.5, 1.5] and result.dev_loss == [(2, 2.0)]
    assert result.remote == "stub:ft:gpt-4o-mini-2024-07-18:acme::abc"
    assert result.tokens == 4321 and result.rows == 12 and result.steps == 3
    assert result.adapter is None and result.model is None
    assert result.config["epochs"] == 2
    assert (job.output / "results.csv").is_file()
    assert result.metrics["train_accuracy"] == 0.5


def test_a_broken_result_file_is_said(stub: Stub, route: OpenAIRoute, job: TrainingJob) -> None:
    handle = route.submit(job)
    stub.finish(handle.job_id)
    stub.contents[stub.jobs[handle.job_id]["result_files"][0]] = b"<html>gone</html>"
    with pytest.raises(TrainingError, match="no column `step`"):
        handle.result(timeout=5)


def test_events_come_in_order_and_once(stub: Stub, route: OpenAIRoute, job: TrainingJob) -> None:
    handle = route.submit(job)
    for n in range(1, 251):
        stub.tell(handle.job_id, f"Step {n}/600: training loss=0.50", step=n, train_loss=0.5)
    seen = handle.events()
    assert [e["step"] for e in seen[1:]] == list(range(1, 251))
    assert seen[0]["event"] == "message" and seen[1]["total_steps"] == 600
    for n in range(251, 600):
        stub.tell(handle.job_id, f"Step {n}/600: training loss=0.50", step=n, train_loss=0.5)
    assert [e["step"] for e in handle.events(since=len(seen))] == list(range(251, 600))
    assert handle.status().step == 599 and handle.status().total_steps == 600
    another = route.attach(handle.id)
    assert another.events() == handle.events()


def test_pause_resume_cancel(stub: Stub, route: OpenAIRoute, job: TrainingJob) -> None:
    handle = route.submit(job)
    stub.jobs[handle.job_id]["status"] = "running"
    handle.pause()
    assert handle.status().state == "paused" and handle.status().over
    with pytest.raises(TrainingError, match="training was paused"):
        handle.result(timeout=5)
    handle.resume()
    handle.resume()
    assert handle.status().state == "running"
    with pytest.raises(TrainingError, match="not finished after"):
        handle.result(timeout=0.05)
    handle.cancel()
    handle.cancel()
    assert handle.status().state == "cancelled"
    calls = [c.rpartition("/")[2] for c in stub.calls if c.endswith(("pause", "resume", "cancel"))]
    assert calls == ["pause", "resume", "cancel"]


def test_attaching_to_nothing(stub: Stub, route: OpenAIRoute) -> None:
    with pytest.raises(TrainingError, match="404"):
        route.attach("stub:ftjob-none")


def codes(route: OpenAIRoute, job: TrainingJob) -> dict[str, str]:
    return {f.code: f.severity for f in route.check(job)}


def tuned(job: TrainingJob, **options: Any) -> TrainingJob:
    return replace(job, fine_tune=FineTune(route="openai", **options))


def test_check_before_anything_is_sent(
    stub: Stub, route: OpenAIRoute, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert codes(route, job) == {}
    assert codes(route, replace(job, examples=rows(9))) == {"invalid_n_examples": "error"}
    bare = Example("bare", ({"role": "user", "content": "no answer"},))
    assert codes(route, replace(job, examples=[*rows(12), bare])) == {"no_answer": "error"}
    assert codes(route, tuned(job, learning_rate=1e-4)) == {"learning_rate_not_hosted": "error"}
    assert codes(route, tuned(job, epochs=1.5)) == {"epochs_not_hosted": "error"}
    assert codes(route, tuned(job, trained_rows="all")) == {"trained_rows_not_hosted": "error"}
    assert codes(route, tuned(job, lora={"rank": 4}, epochs=1)) == {"options_not_hosted": "warning"}
    assert codes(route, replace(job, model="tunewise/tiny")) == {"model": "error"}
    odd = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0.5})
    assert codes(route, replace(job, examples=[*rows(12), Example("odd", odd)])) == {
        "fractional_weight": "error"
    }
    with pytest.raises(TrainingError, match="the job has 9 training rows"):
        route.submit(replace(job, examples=rows(9)))
    assert not stub.calls, "nothing was sent"

    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    long = Example("long", ({"role": "user", "content": "word " * 90_000}, rows(1)[0].messages[1]))
    real = replace(job, model="openai:gpt-4o-mini-2024-07-18", examples=[*rows(12), long])
    assert codes(route, real) == {"row_too_long": "error", "training_not_available": "warning"}


def test_forecast_of_tokens_and_money(stub: Stub, job: TrainingJob) -> None:
    unknown = new_route(stub).forecast(job)
    assert unknown.usd is None and "price unknown" in unknown.basis
    prices = Prices.model_validate(
        {
            "date": "2025-10-01",
            "source": "https://example.com/prices",
            "training": {job.model: {"per_1m_tokens": 3.0}},
        }
    )
    known = new_route(stub, prices=prices).forecast(job)
    assert known.tokens == unknown.tokens and known.tokens % 2 == 0
    assert known.usd == pytest.approx(known.tokens * 3e-6)
    assert "2025-10-01 from https://example.com/prices" in known.basis
    by_rule = new_route(stub).forecast(tuned(job))
    assert by_rule.tokens == known.tokens // 2 * 8, "12 rows: 8 epochs by OpenAI's heuristic"


def test_only_the_last_answer_is_learnt(stub: Stub, route: OpenAIRoute, job: TrainingJob) -> None:
    talk = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "reasoning_content": "e"},
    )
    two_turns = replace(job, examples=[*rows(12), Example("talk", talk)], prompt="Be brief.")
    assert codes(route, two_turns) == {"message_keys_left_out": "warning"}
    route.submit(two_turns)
    sent = json.loads(stub.contents["file-0000"].splitlines()[-1])["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert [m.get("weight") for m in sent] == [None, None, 0, None, None]
    assert "reasoning_content" not in sent[-1]


def test_preferences_and_graded_questions(
    stub: Stub, route: OpenAIRoute, job: TrainingJob, tmp_path: Path
) -> None:
    wrong = {"role": "assistant", "content": "no idea"}
    pairs = [replace(row, rejected=wrong, tools=(TOOL,)) for row in rows(12)]
    dpo = {"method": "dpo", "epochs": 1, "dpo": {"beta": 0.2}}
    assert codes(route, tuned(job, **dpo)) == {"no_rejected_answer": "error"}
    route.submit(replace(tuned(job, **dpo), examples=pairs, dev=()))
    assert stub.bodies[-1]["method"] == {
        "type": "dpo",
        "dpo": {"hyperparameters": {"n_epochs": 1, "beta": 0.2}},
    }
    first = json.loads(stub.contents["file-0000"].splitlines()[0])
    assert first == {
        "input": {"messages": [dict(pairs[0].messages[0])], "tools": [TOOL]},
        "preferred_output": [dict(pairs[0].messages[1])],
        "non_preferred_output": [wrong],
    }

    grader = {
        "type": "string_check",
        "name": "same",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
    }
    assert codes(route, tuned(job, method="grpo")) == {"no_grader": "error"}
    graded = replace(tuned(job, method="grpo", grader=grader), output=tmp_path / "graded", dev=())
    route.submit(graded)
    method = stub.bodies[-1]["method"]
    assert method["type"] == "reinforcement" and method["reinforcement"]["grader"] == grader
    first = json.loads(stub.contents["file-0001"].splitlines()[0])
    assert first == {"messages": [dict(job.examples[0].messages[0])], "answer": "1"}
