"""Chats kept with ``store: true``: listed, filtered, tagged, read, deleted, forgotten in time."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from openai import OpenAI

from server_support import Running, call, client, envelope, make_key

pytest.importorskip("torch")

MODEL = "tunewise/tiny"
OTHER = "gpt-4o-mini-2024-07-18"


@pytest.fixture
def api(server: Running) -> Iterator[OpenAI]:
    """Of a project of its own, so that each test begins with nothing."""
    key = make_key(server.home, project=f"project-{time.monotonic_ns()}")
    with client(server, key=key, timeout=300) as opened:
        yield opened


def _keep(api: OpenAI, text: str, model: str = MODEL, **options: Any) -> Any:
    return api.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        max_tokens=2,
        store=True,
        **options,
    )


def test_only_what_was_asked_for_is_kept(api: OpenAI) -> None:
    kept = _keep(api, "one")
    assert not list(api.chat.completions.list(model=OTHER))
    api.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "two"}], max_tokens=2
    )
    for _ in _keep(api, "three", stream=True):
        pass
    assert len(list(api.chat.completions.list())) == 2
    again = api.chat.completions.retrieve(kept.id)
    assert again.choices == kept.choices and again.usage == kept.usage


def test_a_key_that_a_model_repeats_is_not_kept(server: Running, api: OpenAI) -> None:
    schema = {"type": "object", "properties": {"key": {"const": api.api_key}}, "required": ["key"]}
    asked = {"role": "user", "content": "My key?"}
    form = {"name": "key", "schema": schema}
    chat = api.chat.completions.create(
        model=MODEL,
        messages=[asked],
        response_format={"type": "json_schema", "json_schema": form},
        store=True,
    )
    answer = api.responses.create(
        model=MODEL, input="My key?", text={"format": {"type": "json_schema", **form}}
    )
    for text in (chat.choices[0].message.content, answer.output_text):
        assert api.api_key in str(text), "the caller is told what the model says"
    kept = api.chat.completions.retrieve(chat.id).choices[0].message.content
    assert json.loads(str(kept)) == {"key": "[secret]"}  # its spaces are the model's own
    assert "[secret]" in api.responses.retrieve(answer.id).output_text
    streamed = "".join(
        event.delta
        for event in api.responses.retrieve(answer.id, stream=True)
        if event.type == "response.output_text.delta"
    )
    assert "[secret]" in streamed
    for file in server.home.glob("tunewise.db*"):
        assert api.api_key.encode() not in file.read_bytes()


def test_lists_go_on_by_cursor_and_filter_by_metadata(api: OpenAI) -> None:
    ids = [_keep(api, str(n), metadata={"set": "odd" if n % 2 else "even"}).id for n in range(5)]
    assert [chat.id for chat in api.chat.completions.list(limit=2)] == ids
    assert [chat.id for chat in api.chat.completions.list(order="desc", limit=3)] == ids[::-1]
    odd = list(api.chat.completions.list(metadata={"set": "odd"}))
    assert [chat.id for chat in odd] == ids[1::2]
    last = _keep(api, "other", model=OTHER)
    assert [chat.id for chat in api.chat.completions.list(model=OTHER)] == [last.id]


def test_metadata_is_replaced(api: OpenAI) -> None:
    kept = _keep(api, "tag me", metadata={"a": "1"})
    hostile = """x"'] OR 1=1 --"""
    changed = api.chat.completions.update(kept.id, metadata={hostile: hostile})
    assert changed.metadata == {hostile: hostile}  # type: ignore[attr-defined]
    assert not list(api.chat.completions.list(metadata={"a": "1"}))
    assert [c.id for c in api.chat.completions.list(metadata={hostile: hostile})] == [kept.id]


def test_messages_come_back_as_they_were_sent(api: OpenAI) -> None:
    kept = api.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a part"}]},
        ],
        max_tokens=2,
        store=True,
    )
    sent = list(api.chat.completions.messages.list(kept.id, limit=1))
    assert [message.content for message in sent] == ["Be brief.", "a part"]
    assert sent[1].content_parts and sent[1].content_parts[0].type == "text"


def test_deleted_and_foreign_chats_are_not_found(api: OpenAI, server: Running) -> None:
    kept = _keep(api, "mine")
    path = f"/v1/chat/completions/{kept.id}"
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/messages")):
        envelope(call(server, method, path + rest), 404, "not_found")  # the admin's own project
    envelope(call(server, "POST", path, json={"metadata": {}}), 404, "not_found")
    assert api.chat.completions.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError):
        api.chat.completions.retrieve(kept.id)
    assert not list(api.chat.completions.list())


def test_chats_are_forgotten_in_time(api: OpenAI, server: Running) -> None:
    old, young = _keep(api, "old", metadata={"a": "b"}), _keep(api, "young")
    _age(server, "stored_chats", old.id)
    assert [chat.id for chat in api.chat.completions.list()] == [young.id]
    with pytest.raises(openai.NotFoundError):
        api.chat.completions.retrieve(old.id)


def test_the_sweep_counts_the_key_and_removes_what_expired(server: Running) -> None:
    key = make_key(server.home)
    with client(server, key=key, timeout=300) as api:
        made = _keep(api, "a", metadata={"sweep": "me"})
        again = api.responses.create(model=MODEL, input="a", max_output_tokens=2)
    _age(server, "stored_chats", made.id)
    _age(server, "stored_responses", again.id)
    assert again.usage is not None
    wanted = (
        made.usage.prompt_tokens + again.usage.input_tokens,
        made.usage.completion_tokens + again.usage.output_tokens,
        0,
    )
    deadline = time.monotonic() + 60
    while (found := _found(server, key, made.id, again.id)) != wanted:
        assert time.monotonic() < deadline, (found, wanted)
        time.sleep(0.5)
    assert 'tunewise_tokens_total{kind="prompt"}' in call(server, "GET", "/metrics").text


def _age(server: Running, table: str, id: str) -> None:
    """Let a row be older than it may become."""
    with closing(sqlite3.connect(server.home / "tunewise.db", timeout=30)) as database, database:
        database.execute(
            f"UPDATE {table} SET created_at = created_at - ? WHERE id = ?", (7 * 86400 + 60, id)
        )


def _found(server: Running, key: str, chat: str, response: str) -> Any:
    """The key's prompt and completion tokens, and how much is left of a chat and a response."""
    with closing(sqlite3.connect(server.home / "tunewise.db")) as database:
        return database.execute(
            "SELECT prompt_tokens, completion_tokens,"
            " (SELECT count(*) FROM stored_chats WHERE id = ?)"
            " + (SELECT count(*) FROM stored_responses WHERE id = ?)"
            " + (SELECT count(*) FROM stored_chat_tags WHERE key = 'sweep')"
            " FROM api_keys WHERE id = ?",
            (chat, response, key.split("-")[2]),
        ).fetchone()
