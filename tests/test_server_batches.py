"""Files of requests, answered in the background, by the official client against real servers."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from server_support import (
    Running,
    call,
    client,
    envelope,
    make_key,
    running_server,
    start_server,
)
from tunewise.server.batches.work import Answers
from tunewise.server.keys import listed, revoke
from tunewise.server.settings import load_settings

MODEL = "tunewise/tiny"
CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "cancelled", "expired")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("batches")
    with running_server(folder, max_batches=3, max_batch_requests=100) as running:
        yield running


def chat(number: int, tokens: int = 4, **more: Any) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"What is {number} plus one?"}],
        "max_tokens": tokens,
        "temperature": 0,
        **more,
    }
    return {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": body}


def made(api: OpenAI, rows: list[Any], endpoint: str = CHAT, **more: Any) -> Any:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    file = api.files.create(file=("requests.jsonl", text.encode()), purpose="batch")
    return api.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
    )


def over(api: OpenAI, batch_id: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while (batch := api.batches.retrieve(batch_id)).status not in OVER:
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
    return batch


def lines(api: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in api.files.content(file_id or "").text.splitlines()]


def test_answers_and_errors_come_as_files(server: Running) -> None:
    wrong = chat(4, model="gpt-9")
    rows = [chat(1), chat(2), wrong, chat(3, temperature=9)]
    with client(server) as api:
        batch = made(
            api, rows, metadata={"team": "shop"},
            output_expires_after={"anchor": "created_at", "seconds": 3600},
        )  # fmt: skip
        assert batch.status == "validating" and batch.metadata == {"team": "shop"}
        batch = over(api, batch.id)
        assert (batch.status, batch.errors) == ("completed", None)
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (4, 2, 2)
        assert batch.created_at <= batch.in_progress_at <= batch.completed_at <= batch.expires_at
        answers = {line["custom_id"]: line for line in lines(api, batch.output_file_id)}
        assert set(answers) == {"row-1", "row-2"}
        asked = api.chat.completions.create(**chat(1)["body"])
        response = answers["row-1"]["response"]
        assert response["status_code"] == 200 and response["request_id"].startswith("req_")
        assert response["body"]["choices"][0]["message"]["content"] == (
            asked.choices[0].message.content
        )
        assert answers["row-1"]["error"] is None
        errors = {line["custom_id"]: line["response"] for line in lines(api, batch.error_file_id)}
        assert errors["row-4"]["status_code"] == 404
        assert errors["row-4"]["body"]["error"]["code"] == "model_not_found"
        assert errors["row-3"]["body"]["error"]["param"] == "temperature"
        used = sum(a["response"]["body"]["usage"]["total_tokens"] for a in answers.values())
        assert batch.usage.total_tokens == used
        output = api.files.retrieve(batch.output_file_id)
        assert output.purpose == "batch_output"
        assert output.expires_at == output.created_at + 3600
        assert [b.id for b in api.batches.list(limit=1).data] == [batch.id]
        with pytest.raises(openai.ConflictError, match="completed"):
            api.batches.cancel(batch.id)
    with client(server, key=make_key(server.home, project="other")) as other:
        assert other.batches.list().data == []
        with pytest.raises(openai.NotFoundError):
            other.batches.retrieve(batch.id)
        with pytest.raises(openai.NotFoundError):
            other.batches.create(
                input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
            )
    assert not list((server.home / "batches").iterdir()), "what lay there is in the files"


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/completions", {"model": MODEL, "prompt": "One two", "max_tokens": 2}),
        ("/v1/embeddings", {"model": MODEL, "input": "One two"}),
        ("/v1/responses", {"model": MODEL, "input": "One two", "max_output_tokens": 4}),
    ],
)
def test_every_endpoint(server: Running, endpoint: str, body: dict[str, Any]) -> None:
    row = {"custom_id": "one", "method": "POST", "url": endpoint, "body": body}
    with client(server) as api:
        batch = over(api, made(api, [row], endpoint).id)
        [answer] = lines(api, batch.output_file_id)
        assert answer["response"]["body"]["usage"]["total_tokens"] == batch.usage.total_tokens > 0


def test_files_that_cannot_be_a_batch(server: Running) -> None:
    rows: list[Any] = [
        chat(1), chat(1), "{", [1], {**chat(2), "method": "GET"},
        {**chat(3), "url": "/v1/embeddings"}, chat(4, stream=True), {**chat(5), "body": "x"},
        {**chat(6), "custom_id": 7},
    ]  # fmt: skip
    with client(server) as api:
        batch = over(api, made(api, rows).id)
        assert batch.status == "failed" and batch.failed_at
        found = [(error.line, error.code) for error in batch.errors.data]
        assert found == [
            (2, "duplicate_custom_id"), (3, "invalid_json_line"), (4, "invalid_request"),
            (5, "invalid_method"), (6, "mismatched_endpoint"), (7, "invalid_body"),
            (8, "invalid_body"), (9, "missing_custom_id"),
        ]  # fmt: skip
        [error] = over(api, made(api, [" "]).id).errors.data
        assert error.code == "empty_file"
        [error] = over(api, made(api, [chat(n) for n in range(101)]).id).errors.data
        assert error.code == "too_many_requests"
        file = api.files.create(file=("a.txt", b"x"), purpose="user_data")
        asked = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
        for change, says in (
            ({}, "uploaded for 'user_data'"),
            ({"endpoint": "/v1/images"}, "no endpoint of batches"),
            ({"completion_window": "1h"}, "24h"),
        ):
            answer = call(server, "POST", "/v1/batches", json={**asked, **change})
            assert says in envelope(answer, 400)["message"]


def test_a_long_batch_of_one_project_does_not_hold_up_another(server: Running) -> None:
    """Nor its own project's chats; when it is cancelled, what is answered is kept."""
    friend = make_key(server.home, project="friend")
    with client(server) as api, client(server, key=friend) as other:
        long = made(api, [chat(n, tokens=200) for n in range(100)])
        with pytest.raises(openai.BadRequestError, match="still uses the file"):
            api.files.delete(long.input_file_id)
        short = over(other, made(other, [chat(n) for n in range(5)]).id)
        assert short.request_counts.completed == 5
        assert api.chat.completions.create(**chat(1)["body"]).usage is not None
        assert api.batches.retrieve(long.id).status == "in_progress"
        more = [made(api, [chat(n, tokens=200) for n in range(100)]).id for _ in range(2)]
        with pytest.raises(openai.RateLimitError, match="3 batches"):
            made(api, [chat(1)])
        for batch_id in (*more, long.id):
            assert api.batches.cancel(batch_id).status == "cancelling"
            assert api.batches.cancel(batch_id).status in ("cancelling", "cancelled")
        ended = over(api, long.id)
        assert ended.status == "cancelled" and ended.request_counts.completed < 100
        kept = lines(api, ended.output_file_id) if ended.output_file_id else []
        assert len(kept) == ended.request_counts.completed
        assert {over(api, batch_id).status for batch_id in more} == {"cancelled"}


def test_a_killed_server_goes_on_after_the_last_answer(tmp_path: Path) -> None:
    first = start_server(tmp_path / "server")
    count = 40
    with client(first.running) as api:
        batch = made(api, [chat(n, tokens=40) for n in range(count)])
        answers = first.running.home / "batches" / batch.id / "answers.jsonl"
        deadline = time.monotonic() + 60
        while not answers.exists() or answers.read_text().count("\n") < 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    first.kill()
    before = answers.read_bytes()
    answers.write_bytes(before + b'{"line": 39, "fai')  # cut off by the kill
    second = start_server(tmp_path / "server", key=first.running.key)
    try:
        with client(second.running) as api:
            ended = over(api, batch.id)
            assert (ended.status, ended.request_counts.completed) == ("completed", count)
            told = [line["custom_id"] for line in lines(api, ended.output_file_id)]
            assert sorted(told) == sorted(f"row-{n}" for n in range(count))
            kept = [json.loads(line)["answer"]["id"] for line in before.splitlines()]
            assert [line["id"] for line in lines(api, ended.output_file_id)][: len(kept)] == kept

            late = made(api, [chat(n, tokens=200) for n in range(60)])
            with closing(sqlite3.connect(second.running.home / "tunewise.db")) as base, base:
                base.execute("UPDATE batches SET expires_at = 1 WHERE id = ?", (late.id,))
            late = over(api, late.id)
            assert late.status == "expired" and late.expired_at
            left = [e for e in lines(api, late.error_file_id) if e["error"]]
            assert left[0]["error"]["code"] == "batch_expired" and left[0]["response"] is None
            assert len(left) + late.request_counts.completed == 60

            key = make_key(second.running.home, project="gone")
            with client(second.running, key=key) as gone:
                stopped = made(gone, [chat(n, tokens=200) for n in range(60)])
            settings = load_settings(None, {"home": second.running.home})
            revoke(settings, next(k["id"] for k in listed(settings) if k["project"] == "gone"))
            friend = make_key(second.running.home, project="gone")
            with client(second.running, key=friend) as gone:
                assert over(gone, stopped.id).status == "cancelled"
    finally:
        assert second.stop() == 0
    assert "Traceback" not in second.log.read_text()


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_an_answer_that_finds_no_place_is_not_half_kept(small_disk: Path) -> None:
    answers = Answers(small_disk / "batch")
    answers.add(1, {"text": "x"}, failed=False)
    with pytest.raises(OSError, match="No space"):
        answers.add(2, {"text": "x" * 100_000}, failed=False)
    answers.add(3, {"text": "y"}, failed=True)
    answers.close()
    again = Answers(small_disk / "batch")
    assert (again.done, again.failed) == ({1, 3}, 1)
    again.close()
