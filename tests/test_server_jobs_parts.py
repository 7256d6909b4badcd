"""The parts of jobs by themselves: files, hyper-parameters, events, turns, results."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from server_support import chats
from tunewise.server.blobs import BlobStore
from tunewise.server.database import Sessions, now, open_database, writing
from tunewise.server.jobs import hyperparameters, service
from tunewise.server.jobs.checking import check
from tunewise.server.jobs.graders import local_grader
from tunewise.server.jobs.ingest import EventFile, ingest
from tunewise.server.jobs.queue import next_job
from tunewise.server.jobs.refused import JobRefused
from tunewise.server.jobs.results import COLUMNS, results_csv
from tunewise.server.jobs.schema import job_object
from tunewise.server.jobs.story import model_name
from tunewise.server.jobs.tables import Job, JobEvent, TunedModel
from tunewise.server.jobs.training_files import (
    TrainingFileError,
    check_for_method,
    check_upload,
    examples,
)

CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
}
PAIR: dict[str, Any] = {
    "input": {"messages": [{"role": "user", "content": "Hi"}]},
    "preferred_output": [{"role": "assistant", "content": "Hello"}],
    "non_preferred_output": [{"role": "assistant", "content": "What?"}],
}
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": "2+2?"}], "answer": "4"}


def written(tmp_path: Path, *rows: Any, times: int = 1) -> Path:
    path = tmp_path / "blob"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) * times)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(TrainingFileError) as caught:
        check_upload(path)
    assert str(path) not in str(caught.value), "places on the server's disk are not told"
    return caught.value.message


@pytest.mark.parametrize(
    ("row", "format"),
    [
        (CHAT, "chat"),
        (PAIR, "preference"),
        (QUESTION, "reinforcement"),
        ({"prompt": "2+2?", "completion": "4"}, "completion"),
        (
            {
                "messages": [
                    {"role": "developer", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "id": "call_1",
                                "type": "function",
                                "function": {"name": "weather", "arguments": "{}"},
                            }
                        ],
                        "weight": 0,
                    },
                    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
                    {"role": "assistant", "content": "Rain.", "name": "bot", "weight": 1},
                ],
                "tools": [{"type": "function", "function": {"name": "weather"}}],
                "parallel_tool_calls": False,
            },
            "chat",
        ),
    ],
)
def test_formats(tmp_path: Path, row: Any, format: str) -> None:
    found = check_upload(written(tmp_path, row, times=3))
    assert (found.rows, found.format) == (3, format)
    assert [e.id for e in examples(tmp_path / "blob")] == ["line 1", "line 2", "line 3"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b"i am no json\n",
            ("JSONL format", "Line 1 is not a dictionary (HINT:", "not valid JSON"),
        ),
        (b'[\n{"a": 1}]', ("Line 1 is not a dictionary", "JSON array")),
        (b"[1]\n", ("Line 1 is not a dictionary", "holds a list")),
        (json.dumps(CHAT).encode()[:-9], ("Line 1", "middle of a row")),
        (b"\n\n", ("empty",)),
        (b"", ("empty",)),
        (b"\x00\n", ("Line 1", "NUL")),
        ("{'ä'}".encode("latin-1") + b"\n", ("Line 1", "not UTF-8", "byte-order mark")),
        (b'{"a": 1}\n', ("Line 1", "'a'", "preferred_output")),
        (b'{"messages": []}\n', ("Line 1", "empty list")),
        (b'{"messages": ' + b"[" * 100_000 + b"\n", ("Line 1", "nested")),
        (b'{"messages": "' + b"x" * 11_000_000 + b'"}\n', ("Line 1", "longer than 10 MB")),
    ],
)
def test_refused_files(tmp_path: Path, data: bytes, words: tuple[str, ...]) -> None:
    path = tmp_path / "blob"
    path.write_bytes(data)
    message = refusal(path)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "boss", "content": "x"}, "'boss'"),
        ({"content": "x"}, "no `role`"),
        ({"role": "user"}, "no `content`"),
        ({"role": "user", "content": 3}, "no text"),
        ({"role": "user", "content": "x", "colour": "red"}, "unknown keys: 'colour'"),
        ({"role": "assistant", "content": "x", "weight": 2}, "`weight`"),
        ("hello", "not an object"),
    ],
)
def test_refused_messages_name_their_line(tmp_path: Path, message: Any, words: str) -> None:
    bad = {"messages": [message, *CHAT["messages"]]}
    text = refusal(written(tmp_path, CHAT, bad, CHAT, bad))
    assert text.startswith("Invalid file format. Line 2: ")
    assert words in text and "2 lines are wrong; the others are 4" in text


_ASKED = {"role": "user", "content": "what?"}
_SAID = {"role": "assistant", "content": "cat"}
_PARTS = [{"type": "text", "text": "see"}, {"type": "KIND", "KIND": {"url": "x"}}]
_SHOWN, _DRAWN = ({"role": role, "content": _PARTS} for role in ("user", "assistant"))
PARTS_IN: dict[str, tuple[Any, str]] = {
    "question": ({"messages": [_SHOWN, _SAID]}, "message 1 (user), part 2"),
    "answer": ({"messages": [_ASKED, _DRAWN]}, "message 2 (assistant), part 2"),
    "reinforcement": ({"messages": [_SHOWN], "wanted": "cat"}, "message 1 (user), part 2"),
    "rejected": (
        {
            "input": {"messages": [_ASKED]},
            "preferred_output": [_SAID],
            "non_preferred_output": [_DRAWN],
        },
        "the answer that is not wanted, part 2",
    ),
}


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
@pytest.mark.parametrize("row, place", [PARTS_IN[k] for k in PARTS_IN], ids=list(PARTS_IN))
def test_parts_beside_text_are_refused_with_line_message_and_part(
    tmp_path: Path, row: Any, place: str, kind: str
) -> None:
    text = json.dumps(row).replace("KIND", kind)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{text}\n" for _ in range(10)))
    with pytest.raises(TrainingFileError) as caught:
        check_upload(path)
    message = str(caught.value)
    assert "Line 1: " in message and place in message and repr(kind) in message
    assert "10 lines are wrong" in message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_welcome(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "blob"
    path.write_text(json.dumps(CHAT) + "\n", encoding=encoding)
    assert check_upload(path).rows == 1


def test_files_of_methods(tmp_path: Path) -> None:
    with pytest.raises(TrainingFileError) as few:
        check_for_method(written(tmp_path, CHAT, times=3), "supervised")
    assert few.value.code == "invalid_n_examples" and few.value.param == "training_file"
    assert few.value.message == "Training file has 3 example(s), but must have at least 10 examples"
    with pytest.raises(TrainingFileError, match="non_preferred_output"):
        check_for_method(written(tmp_path, CHAT, times=10), "dpo")
    with pytest.raises(TrainingFileError, match="end with a user message"):
        check_for_method(written(tmp_path, CHAT, times=10), "reinforcement")
    assert check_for_method(written(tmp_path, PAIR, times=10), "dpo").rows == 10
    assert check_for_method(written(tmp_path, QUESTION, times=10), "reinforcement").rows == 10
    (question, *_) = examples(tmp_path / "blob")
    assert question.metadata == {"answer": "4"} and question.target is None
    (pair, *_) = examples(written(tmp_path, PAIR))
    assert pair.rejected == {"role": "assistant", "content": "What?"}


@pytest.mark.parametrize(
    ("rows", "epochs"), [(5, 20), (10, 10), (101, 3), (3, 25), (20_000, 1), (8_333, 3), (12_000, 2)]
)
def test_epochs_as_published(rows: int, epochs: int) -> None:
    assert hyperparameters.default_epochs(rows) == epochs


def test_hyperparameters() -> None:
    values = hyperparameters.requested("dpo", {"n_epochs": -1, "batch_size": 4.0, "beta": None})
    assert values["batch_size"] == 4 and values["n_epochs"] == "auto"
    assert hyperparameters.resolved(values, 101) == {
        "n_epochs": 3,
        "batch_size": 4,
        "learning_rate_multiplier": 1.0,
        "beta": 0.1,
    }
    values = hyperparameters.requested("reinforcement", {"eval_interval": 5})
    looks = hyperparameters.resolved(values, 101, 7)
    assert (looks["eval_interval"], looks["eval_samples"]) == (5, 7)
    assert hyperparameters.resolved(values, 101, 5000)["eval_samples"] == 100
    assert list(hyperparameters.remarks(values, 7)) == []
    ((name, text),) = hyperparameters.remarks({**values, "reasoning_effort": "high"}, 7)
    assert name == "reasoning_effort" and "no effect on this model" in text
    ((name, text),) = hyperparameters.remarks(values, 0)
    assert name == "eval_interval" and "without a validation_file" in text
    assert [hyperparameters.default_batch_size(n) for n in (10, 1_000, 10**6)] == [1, 2, 256]
    for bad in (
        {"n_epochs": 0},
        {"n_epochs": 51},
        {"n_epochs": 1.5},
        {"n_epochs": True},
        {"batch_size": 257},
        {"learning_rate_multiplier": 0},
        {"learning_rate_multiplier": float("inf")},
        {"learning_rate_multiplier": "many"},
    ):
        with pytest.raises(hyperparameters.HyperparameterError):
            hyperparameters.requested("supervised", bad)


def test_misspelt_hyperparameters_have_no_effect_and_are_told() -> None:
    given = {"n_epoch": 3, "reasoning_effort": "low", "prompt_loss_weight": 0.1, "colour": "red"}
    values = hyperparameters.requested("supervised", given)
    assert set(values) == {"n_epochs", "batch_size", "learning_rate_multiplier"}
    assert values["n_epochs"] == "auto"
    told = dict(hyperparameters.unknown("supervised", given))
    assert set(told) == {"n_epoch", "reasoning_effort", "colour"}
    assert "did you mean n_epochs?" in told["n_epoch"] and "it knows n_epochs" in told["colour"]
    assert not list(hyperparameters.unknown("reinforcement", {"reasoning_effort": "low"}))


def test_graders_ask_only_models_of_the_server() -> None:
    judge = {
        "type": "score_model",
        "name": "judge",
        "model": "gpt-4o-mini",
        "input": [{"role": "user", "content": "Good? {{sample.output_text}}"}],
    }
    both = {"type": "multi", "name": "m", "graders": {"judge": judge}, "calculate_output": "judge"}
    local = local_grader(both, {"gpt-4o-mini": "tunewise/tiny"})
    assert local["graders"]["judge"]["model"] == "tunewise/tiny"
    with pytest.raises(Exception, match="not on this server"):
        local_grader(both, {"other": "tunewise/tiny"})
    with pytest.raises(Exception, match="not on this server"):
        local_grader(judge | {"model": "openai:gpt-4o"}, {"other": "tunewise/tiny"})


def test_results_hold_both_families_of_columns() -> None:
    text = results_csv(
        [
            {"step": 1, "total_steps": 2, "train_loss": 0.5, "train_mean_token_accuracy": 0.25},
            {"step": 2, "train_loss": -1e-7, "train_reward_mean": 1.0, "valid_loss": 2.0},
        ]
    ).decode()
    lines = [line.split(",") for line in text.splitlines()]
    assert lines[0] == [*COLUMNS, "train_reward_mean"]
    first = dict(zip(lines[0], lines[1], strict=True))
    assert first["train_accuracy"] == first["train_mean_token_accuracy"] == "0.25"
    assert first["valid_loss"] == first["train_reward_mean"] == ""
    assert lines[2][1] == "-1e-07" and lines[2][-1] == "1.0"


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return open_database(f"sqlite:///{tmp_path / 'jobs.db'}")


def add_job(session: Session, number: int, project: str = "p", **fields: Any) -> Job:
    given = {"status": "queued", "has_worker": False, **fields}
    job = Job(
        id=f"ftjob-{number}",
        project=project,
        model="m",
        base="tunewise/tiny",
        method={"type": "supervised"},
        requested={},
        seed=0,
        tail=f"tail{number}",
        training_file="file-1",
        result_files=[],
        **given,
    )
    session.add(job)
    session.flush()
    return job


def test_a_clock_that_was_wrong_keeps_nobody_waiting(sessions: Sessions) -> None:
    """What was started in the future, before the clock was set back, does not count as the last."""
    with writing(sessions) as session:
        ahead = now() + 10**8
        add_job(session, 1, "once ahead", status="succeeded", started_at=ahead)
        add_job(session, 2, "once ahead")
        add_job(session, 3, "calm", status="succeeded", started_at=now())
        add_job(session, 4, "calm")
        job = next_job(session, workers=1, per_project=1)
        assert job is not None and job.id == "ftjob-2"


def test_turns(sessions: Sessions) -> None:
    """Priority first, then the project with less running, then who waited longest."""
    with writing(sessions) as session:
        for number in (1, 2, 3):
            add_job(session, number, "busy", started_at=None)
        add_job(session, 4, "calm")
        turns = []
        for at in range(1, 6):
            job = next_job(session, workers=9, per_project=9)
            if job is None:
                break
            turns.append(job.id)
            job.status, job.has_worker, job.started_at = "succeeded", False, at
            session.flush()
        assert turns == ["ftjob-1", "ftjob-4", "ftjob-2", "ftjob-3"]
        add_job(session, 5, "busy")
        add_job(session, 6, "busy", priority=1)
        add_job(session, 7, "calm")
        job = next_job(session, workers=2, per_project=1)
        assert job is not None and job.id == "ftjob-6"
        job.status, job.has_worker = "running", True
        session.flush()
        job = next_job(session, workers=2, per_project=1)
        assert job is not None and job.id == "ftjob-7"
        job.status, job.has_worker = "running", True
        session.flush()
        assert next_job(session, workers=2, per_project=1) is None
        assert next_job(session, workers=9, per_project=1) is None
        job = next_job(session, workers=9, per_project=2)
        assert job is not None and job.id == "ftjob-5"


def test_a_job_pauses_while_its_files_are_checked_and_is_checked_when_it_goes_on(
    tmp_path: Path, sessions: Sessions
) -> None:
    blobs = BlobStore(tmp_path / "files", sessions)
    state: Any = SimpleNamespace(sessions=sessions, blobs=blobs)
    with blobs.receive() as incoming, writing(sessions) as session:
        incoming.write(chats(10))
        rows = blobs.store(incoming.finish())
        add_job(session, 1, status="validating_files")
        job = service.pause(session, "p", "ftjob-1")
        assert job.status == "paused" and service.pause(session, "p", "ftjob-1").status == "paused"
        values = hyperparameters.requested("supervised", None)
        shown = job_object(add_job(session, 2, status="paused", resolved=values), "acme")
        assert (shown["status"], shown["paused"]) == ("queued", True)
    assert not check(state, job, rows, None), "what was being checked meanwhile changes nothing"
    with writing(sessions) as session:
        assert service.resume(session, "p", "ftjob-1").status == "validating_files"
        assert service.resume(session, "p", "ftjob-1").status == "validating_files"
        assert service.resume(session, "p", "ftjob-2").status == "queued"
        service.find(session, "p", "ftjob-1").requested = values
    assert check(state, job, rows, None)
    with writing(sessions) as session:
        job = service.find(session, "p", "ftjob-1")
        assert (job.status, job.rows) == ("queued", [10, 0])
        job.status = "succeeded"
        for change in (service.pause, service.resume):
            with pytest.raises(JobRefused, match="has succeeded"):
                change(session, "p", "ftjob-1")


def line(event: str, step: int, **more: Any) -> str:
    value = {"time": step, "event": event, "step": step, "total_steps": 8, **more}
    return json.dumps(value) + "\n"


def step(number: int) -> str:
    return line("step", number, epoch=number / 2, loss=number / 10, seconds_left=1.0)


def test_events_are_told_once(tmp_path: Path, sessions: Sessions) -> None:
    """Steps done again, a torn line, a server that reads from the start, a look at dev to come."""
    path = tmp_path / "events.jsonl"
    file = EventFile(path)

    def take(reader: EventFile, *, last: bool = False) -> list[str]:
        with writing(sessions) as session:
            job = session.scalars(select(Job)).one()
            place, freed = ingest(session, job, reader.read(), "acme", last=last)
            if place:
                reader.told(place)
        return freed

    with writing(sessions) as session:
        add_job(session, 1, status="running", validation_file="file-2")
    assert take(file) == []
    path.write_text(step(1) + step(2) + '{"ev')
    take(file)
    with writing(sessions) as session:
        assert len(session.scalars(select(JobEvent)).all()) == 1, "step 2 waits for its look at dev"
    with path.open("a") as out:  # killed there; the next process does all again
        out.write("\n" + line("resume", 0) + step(1) + step(2) + line("eval", 2, dev_loss=0.7))
        for epoch in (2, 4, 6, 8):
            if epoch > 2:
                out.write(step(epoch - 1) + step(epoch) + line("eval", epoch, dev_loss=0.1))
            out.write(line("epoch_saved", epoch))
    freed = take(file)
    again = take(EventFile(path), last=True)
    assert freed == ["jobs/ftjob-1/run/epochs/2"] and again == []
    with writing(sessions) as session:
        events = session.scalars(select(JobEvent).order_by(JobEvent.seq)).all()
        steps = [e for e in events if e.type == "metrics"]
        assert [e.data["step"] for e in steps] == list(range(1, 9))
        assert steps[1].data["full_valid_loss"] == 0.7
        assert steps[1].message == "Step 2/8: training loss=0.20, full validation loss=0.70"
        listed = select(TunedModel).where(TunedModel.deleted_at.is_(None))
        models = session.scalars(listed.order_by(TunedModel.step)).all()
        job = session.scalars(select(Job)).one()
        names = [m.name for m in models]
        assert names == [model_name(job, "acme", n) for n in (4, 6, 8)]
        assert all(
            name.endswith(f":ckpt-step-{n}") for name, n in zip(names, (4, 6, 8), strict=True)
        )
        assert len({name.split(":")[4] for name in [*names, model_name(job, "acme")]}) == 4


def test_looks_between_epochs_are_told_with_their_step(tmp_path: Path, sessions: Sessions) -> None:
    path = tmp_path / "events.jsonl"
    with writing(sessions) as session:
        add_job(session, 1, status="running", validation_file="file-2")

    def seen(number: int, **more: Any) -> str:
        return line("step", number, epoch=number / 9, loss=0.1, seconds_left=1.0, **more)

    def look(number: int, rows: int) -> str:
        return line("look", number, rows=rows, dev_rows=4, dev_loss=0.25, valid_reward_mean=0.75)

    path.write_text(
        seen(1, train_reward_mean=0.5)
        + seen(2, look=True)
        + look(2, 3)
        + seen(3, look=True)
        + look(3, 4)
        + seen(4, look=True)
    )
    with writing(sessions) as session:
        job = session.scalars(select(Job)).one()
        ingest(session, job, EventFile(path).read(), "acme", last=False)
        events = session.scalars(select(JobEvent).order_by(JobEvent.seq)).all()
        first, part, whole = (e.data for e in events)  # the fourth waits for its look
        assert first["train_mean_reward"] == first["train_reward_mean"] == 0.5
        assert part["valid_loss"] == 0.25 and part["valid_mean_reward"] == 0.75
        assert not any(name.startswith("full_") for name in part)
        assert whole["full_valid_loss"] == 0.25 and whole["full_valid_mean_reward"] == 0.75
        assert [e.message.partition(", ")[2] for e in events] == [
            "",
            "validation loss=0.25",
            "full validation loss=0.25",
        ]
