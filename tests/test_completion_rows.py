"""Rows of a prompt and its completion are trained in the form in which the model is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from openai import OpenAI

pytest.importorskip("peft")

from models_support import save_model
from server_support import Running, chats, client, finished, running_server, upload_rows
from tunewise.data.chat import Request
from tunewise.data.formats import to_example, to_row
from tunewise.models.chat_format import render_prompt
from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.models.opening import open_engine
from tunewise.models.raw_form import RAW_STOP, has_chat_template, is_completions_name
from tunewise.models.trained_as import trained_as
from tunewise.pipeline.alone import train_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import run_study
from tunewise.routes.base import open_route
from tunewise.study.fine_tune import Hosted
from tunewise.study.loading import load_study
from tunewise.study.schema import FineTune
from tunewise.training.encode import Encoder
from tunewise.training.job import TrainingJob
from tunewise.workspace import Workspace

BASE, CHAT = "babbage-002", "gpt-4o-mini-2024-07-18"
ANSWERS = ("red", "green", "blue", "seven", "Tom")
ROWS = [
    {"prompt": f"Item {chr(65 + n)}{n * 7 % 10} ->", "completion": f" {ANSWERS[n % 5]}"}
    for n in range(20)
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {BASE: "tunewise/tiny", CHAT: "tunewise/tiny"}
    home = tmp_path_factory.mktemp("completions")
    with running_server(home, models=models, worker_threads=1) as running:
        yield running


def tuned(api: OpenAI, model: str, rows: Sequence[dict[str, Any]] = ROWS, **values: Any) -> Any:
    """A job that is over; by default it learns the rows by heart."""
    given = {"n_epochs": 25, "batch_size": 4, "learning_rate_multiplier": 2, **values}
    job = api.fine_tuning.jobs.create(
        model=model,
        training_file=upload_rows(api, list(rows)),
        validation_file=upload_rows(api, list(rows)),
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": given}},  # type: ignore[typeddict-item]
    )
    return finished(api, job.id)


def messages(api: OpenAI, job: Any) -> list[str]:
    return [e.message for e in api.fine_tuning.jobs.list_events(job.id, limit=100)]


def right(api: OpenAI, model: str) -> int:
    """How many rows are answered right at ``/v1/completions``, to the end of the answer."""
    found = api.completions.create(
        model=model, prompt=[row["prompt"] for row in ROWS], max_tokens=8, temperature=0
    )
    assert found.usage is not None
    return sum(
        choice.text == row["completion"] and choice.finish_reason == "stop"
        for choice, row in zip(found.choices, ROWS, strict=True)
    )


def right_in_chat(api: OpenAI, model: str) -> int:
    answers = [
        api.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": row["prompt"]}],
            max_tokens=8,
            temperature=0,
        )
        .choices[0]
        .message.content
        for row in ROWS
    ]
    return sum(a == row["completion"] for a, row in zip(answers, ROWS, strict=True))


def test_a_model_of_completions_gives_what_it_learnt_at_completions(server: Running) -> None:
    with client(server) as api:
        job = tuned(api, BASE)
        assert right(api, job.fine_tuned_model) == len(ROWS)
        assert right_in_chat(api, job.fine_tuned_model) == len(ROWS), "asked as it was trained"
        told = messages(api, job)
        assert sum("ask the model at /v1/completions" in text for text in told) == 1
        # The validation file holds the same rows, in the same form, so its loss is as low.
        metrics = [e for e in api.fine_tuning.jobs.list_events(job.id, limit=100) if e.data]
        assert metrics[0].data["full_valid_loss"] < 0.05  # type: ignore[index]
        adapter = server.home / "jobs" / job.id / "run" / "adapter"
        assert trained_as(adapter).form == "raw"
        # Trained further, by a name of its own that says nothing of completions.
        child = tuned(api, job.fine_tuned_model, n_epochs=1, learning_rate_multiplier=0.01)
        assert right(api, child.fine_tuned_model) == len(ROWS)


@pytest.mark.soak
def test_a_model_of_chats_learns_them_by_its_template_unless_told_otherwise(
    server: Running,
) -> None:
    with client(server) as api:
        chat = tuned(api, CHAT)
        assert right_in_chat(api, chat.fine_tuned_model) == len(ROWS)
        assert any("ask the model at /v1/chat/completions" in m for m in messages(api, chat))
        raw = tuned(api, CHAT, form="raw")
        assert right(api, raw.fine_tuned_model) == len(ROWS)
        assert raw.method.supervised.hyperparameters.form == "raw"
        other = tuned(api, BASE, n_epochs=1, form="chat")
        assert any("ask the model at /v1/chat/completions" in m for m in messages(api, other))
        with pytest.raises(openai.BadRequestError, match=r"'form' must be 'auto' or one of chat"):
            tuned(api, CHAT, form="bare")
        rows = [json.loads(line) for line in chats(12).splitlines()]
        conversations = tuned(api, BASE, rows, n_epochs=1, form="raw")
        assert any("'form' has no effect" in m for m in messages(api, conversations))
        assert (
            trained_as(server.home / "jobs" / conversations.id / "run" / "adapter").form == "chat"
        )


def test_what_is_trained_is_what_completions_are_asked_with() -> None:
    loaded = load_local(parse_model("tunewise/tiny"), form="raw")
    tokenizer = loaded.tokenizer
    row = {"prompt": " Q: what?\nA:", "completion": " yes \n"}
    example, _ = to_example(row, "pair")
    assert example.completion and to_example(to_row(example), "pair")[0] == example
    encoded = Encoder(tokenizer, loaded.end_ids).encode(example)
    asked = list(tokenizer(row["prompt"])["input_ids"])
    assert encoded.ids[: len(asked)].tolist() == asked
    learnt = encoded.ids[encoded.weights > 0].tolist()
    assert learnt == encoded.ids[len(asked) :].tolist()
    assert tokenizer.decode(learnt) == row["completion"] + tokenizer.eos_token
    shown = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U1"},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": "U2"},
    ]
    assert render_prompt(tokenizer, shown) == f"S\n\nU1A1{RAW_STOP[0]}U2"


@pytest.mark.parametrize(
    ("row", "is_one"),
    [
        ({"prompt": "a", "completion": "b"}, True),
        ({"prompt": "a", "completion": "b", "id": "x", "topic": "y"}, True),
        ({"prompt": "a", "completion": "b", "system": "be brief"}, False),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": "b"}, False),
        ({"input": "a", "output": "b"}, False),
        ({"prompt": "a", "response": "b"}, False),
    ],
)
def test_which_rows_are_a_prompt_and_its_completion(row: dict[str, Any], is_one: bool) -> None:
    example, _ = to_example(row, "pair")
    assert example.completion is is_one
    again, _ = to_example(written := to_row(example), "pair" if is_one else "chat")
    assert again.messages == example.messages and ("completion" in written) is is_one


def test_names_of_models_of_completions() -> None:
    known = ["babbage-002", "davinci-002", "gpt-3.5-turbo-instruct", "text-davinci-003", "ada"]
    assert all(map(is_completions_name, known))
    chat = ["gpt-3.5-turbo", "gpt-4o-mini-2024-07-18", "Qwen2.5-0.5B-Instruct", "davinci-coder"]
    assert not any(map(is_completions_name, chat))


def test_a_hosted_model_of_completions_is_trained_and_asked_with_bare_text(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)
    examples = [to_example({"id": f"{n}", **row}, "pair")[0] for n, row in enumerate(ROWS)]
    job = TrainingJob(
        model=f"openai:{BASE}",
        examples=examples,
        dev=(),
        fine_tune=FineTune(
            route="openai",
            epochs=12,
            batch_size=4,
            hosted=Hosted(learning_rate_multiplier=4),
        ),
        learning_rate=1.0,
        epochs=12,
        seed=1,
        output=tmp_path / "job",
        form="raw",
    )
    result = open_route("openai").submit(job).result(timeout=100)
    with client(server) as api:
        sent = api.files.content(api.fine_tuning.jobs.list().data[0].training_file).text
    assert [json.loads(line) for line in sent.splitlines()] == ROWS
    assert result.remote is not None
    engine = open_engine(result.remote, form="raw")
    answers = engine.answer([Request(e.prompt, max_tokens=8) for e in examples])
    engine.close()
    assert [a.text for a in answers] == [row["completion"] for row in ROWS]


def test_a_fine_tune_alone_is_asked_as_it_was_trained(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    study: dict[str, Any] = {
        "name": "by-heart",
        "model": "tunewise/tiny",
        "metric": "exact_match",
        "data": {"train": str(rows), "form": "raw"},
        "candidates": ["fine_tuned"],
        "fine_tune": {"epochs": 12, "batch_size": 4, "learning_rate": 0.008, "seeds": [1]},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    workspace = Workspace(tmp_path / "workspace")
    raw = train_study(load_study(path), workspace, SilentReporter(), with_dev=False).adapter
    assert raw is not None and trained_as(raw).form == "raw"
    engine = open_engine("tunewise/tiny", adapter=raw)
    prompts = [({"role": "user", "content": row["prompt"]},) for row in ROWS]
    answers = engine.answer([Request(prompt, max_tokens=8) for prompt in prompts])
    assert [a.text for a in answers] == [row["completion"] for row in ROWS]
    # The model brings a chat template, so without the setting the same rows go through it.
    study["data"] = {"train": str(rows)}
    study["fine_tune"]["epochs"] = 1
    path.write_text(yaml.safe_dump(study))
    chat = train_study(load_study(path), workspace, SilentReporter(), with_dev=False).adapter
    assert chat is not None and chat != raw and trained_as(chat).form == "chat"


def test_a_study_of_a_model_without_a_template_asks_with_bare_text(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "base", chat=False)
    assert not has_chat_template(folder)
    assert has_chat_template(save_model(tmp_path / "chat"))
    words = ("fire", "ice", "sun", "snow", "soup", "frost", "stove", "hail")
    for name, count, start in (("train", 40, 0), ("dev", 16, 1000), ("test", 16, 2000)):
        lines = (
            {
                "prompt": f"Note {n}: {words[n % 8]}. It is",
                "completion": " hot" if n % 3 else " ice",
            }
            for n in range(start, start + count)
        )
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = tmp_path / "study.yaml"
    study: dict[str, Any] = {
        "name": "bare",
        "model": str(folder),
        "data": {name: f"{name}.jsonl" for name in ("train", "dev", "test")},
        "metric": "exact_match",
        "candidates": [
            "zero_shot",
            {"kind": "few_shot", "k": [2], "selection": ["fixed"], "orders": 1},
            "fine_tuned",
        ],
        "fine_tune": {"epochs": 1, "learning_rate": 0.005, "seeds": [1]},
        "forgetting": {"suite": None},
        "output": {"max_tokens": 4},
        "effort": "quick",
    }
    path.write_text(yaml.safe_dump(study))
    workspace = Workspace(tmp_path / "workspace")
    outcome = run_study(load_study(path), workspace, SilentReporter())
    assert outcome.verdict.ended_at == "G5"
    tokenizer = load_local(parse_model(str(folder)), form="raw").tokenizer
    tests = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    wanted = sorted(len(tokenizer(row["prompt"])["input_ids"]) for row in tests)
    (file,) = (outcome.folder / "items").glob("fine_tuned*.test.jsonl")
    items = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(item["prompt_tokens"] for item in items) == wanted
    assert trained_as(Path(outcome.verdict.training[0].tuned_model or "")).form == "raw"
    study["data"]["form"] = "chat"
    path.write_text(yaml.safe_dump(study))
    tuned_by_template = train_study(load_study(path), workspace, SilentReporter()).adapter
    assert tuned_by_template is not None and trained_as(tuned_by_template).form == "chat"
