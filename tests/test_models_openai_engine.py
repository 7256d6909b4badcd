"""The OpenAI engine against a real server on loopback, driven by the real client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tunewise.data.chat import AnswerForm, Completion, Request
from tunewise.errors import BudgetError, ModelError, StudyError
from tunewise.models.engine import Engine
from tunewise.models.openai_engine import OpenAIEngine
from tunewise.models.opening import open_engine
from tunewise.models.retry import Patience, retry_after
from tunewise.study.keys import resolve_key
from tunewise.study.schema import Server

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, dict[str, str], bytes]


def chat_reply(text: str = "hello", **message: Any) -> Reply:
    """A chat completion as OpenAI's API reference documents it."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 3,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
    }
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def error_reply(
    status: int, message: str, headers: dict[str, str] | None = None, **more: Any
) -> Reply:
    body = {"error": {"message": message, "type": "error", "param": None, "code": None, **more}}
    return (
        status,
        {"Content-Type": "application/json", **(headers or {})},
        json.dumps(body).encode(),
    )


class FakeOpenAI:
    """A server on loopback; ``script`` gives the reply to the n-th chat request."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.script: Callable[[int, dict[str, Any]], Reply] = lambda n, body: chat_reply()
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                models = [{"id": "gpt-right", "object": "model", "created": 1, "owned_by": "x"}]
                self._send(200, {}, json.dumps({"object": "list", "data": models}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    number = len(outer.requests)
                    outer.requests.append(body)
                    outer.paths.append(self.path)
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    outer.busy += 1
                    outer.most_busy = max(outer.most_busy, outer.busy)
                try:
                    self._send(*outer.script(number, body))
                finally:
                    with outer.lock:
                        outer.busy -= 1

            def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *args: object) -> None: ...

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None: ...

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    fake = FakeOpenAI()
    yield fake
    fake.close()


@pytest.fixture
def engine(server: FakeOpenAI) -> Iterator[OpenAIEngine]:
    made = make(server)
    yield made
    made.close()


def make(server: FakeOpenAI, **options: Any) -> OpenAIEngine:
    fast = Patience(attempts=4, total_s=5, first_s=0.01, longest_s=0.02)
    return OpenAIEngine(server.url, "m", KEY, **{"timeout": 5.0, "patience": fast, **options})


def ask(text: str = "Hi", **options: Any) -> Request:
    return Request(messages=({"role": "user", "content": text, "weight": 1},), **options)


def test_answers_come_in_order_with_usage(server: FakeOpenAI, engine: OpenAIEngine) -> None:
    def slow_first(n: int, body: dict[str, Any]) -> Reply:
        text = body["messages"][0]["content"]
        time.sleep(0.2 if text == "0" else 0.02)
        return chat_reply(f"answer {text}")

    server.script = slow_first
    steps: list[tuple[int, int]] = []
    requests = [ask(str(i)) for i in range(20)]
    answers = engine.answer(requests, lambda done, total, failed=0: steps.append((done, total)))
    assert isinstance(engine, Engine)
    assert [a.text for a in answers] == [f"answer {i}" for i in range(20)]
    one = answers[3]
    assert (one.prompt_tokens, one.completion_tokens, one.cached_tokens) == (12, 3, 8)
    assert one.finish_reason == "stop" and one.request_key == requests[3].key
    assert (answers[0].latency_s or 0) >= 0.2
    assert steps == [(i, 20) for i in range(21)]
    assert 2 <= server.most_busy <= 8
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_what_is_sent(server: FakeOpenAI, engine: OpenAIEngine) -> None:
    open_schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    closed = {**open_schema, "required": ["a"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for schema in (open_schema, closed):
        engine.answer([ask(json_schema=schema, tools=(tool,), stop=("\n",), seed=3, max_tokens=7)])
    body = server.requests[0]
    assert body["messages"] == [{"role": "user", "content": "Hi"}]  # no training weight
    assert (body["max_tokens"], body["temperature"], body["seed"], body["stop"]) == (
        7,
        0,
        3,
        ["\n"],
    )
    assert body["tools"] == [tool]
    strict = [r["response_format"]["json_schema"]["strict"] for r in server.requests]
    assert strict == [False, True]


LABELS = AnswerForm({"type": "string", "enum": ["yes", "no"]}, bare=True)


def test_a_form_is_sent_as_a_schema_and_its_value_comes_back(
    server: FakeOpenAI, engine: OpenAIEngine
) -> None:
    replies = {
        '{"answer": "no"}': (LABELS, "no"),
        '{"answer": 7}': (AnswerForm({"type": "number"}, bare=True), "7"),
        '{"answer": ["a", "é"]}': (AnswerForm({"type": "array"}), '["a", "é"]'),
        '{"a": 1}': (AnswerForm({"type": "object", "properties": {"a": {}}}), '{"a": 1}'),
        "no": (LABELS, "no"),  # a server that does not enforce it
    }
    for number, (reply, (form, wanted)) in enumerate(replies.items()):
        server.script = lambda n, body, text=reply: chat_reply(text)  # type: ignore[misc]
        assert engine.answer([ask(f"{number}", form=form, max_tokens=16)])[0].text == wanted
    sent = server.requests[0]["response_format"]["json_schema"]
    assert sent["schema"]["properties"]["answer"]["enum"] == ["yes", "no"]
    assert sent["strict"]
    assert server.requests[0]["max_tokens"] > 16  # the object around it takes some too


def test_a_server_without_forms_is_asked_without_and_that_is_told(
    server: FakeOpenAI, engine: OpenAIEngine
) -> None:
    server.script = lambda n, body: (
        error_reply(400, "Unsupported parameter: 'response_format'", param="response_format")
        if "response_format" in body
        else chat_reply("no")
    )
    assert [a.text for a in engine.answer([ask(f"{n}", form=LABELS) for n in range(3)])] == [
        "no"
    ] * 3
    assert any("cannot be held to a form" in note for note in engine.notes)
    # What the study itself asks for is never left out in silence.
    assert engine.answer([ask("x", json_schema={"type": "object"})])[0].error is not None


def test_tool_calls_come_back(server: FakeOpenAI, engine: OpenAIEngine) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    server.script = lambda n, body: chat_reply(None, tool_calls=[call])  # type: ignore[arg-type]
    answer = engine.answer([ask()])[0]
    assert [dict(c) for c in answer.tool_calls] == [call]
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize(
    "message",
    [
        {"text": "no", "reasoning_content": "It is odd."},  # DeepSeek's API, SGLang
        {"text": "no", "reasoning": "It is odd."},  # vLLM, OpenRouter
        {"text": "<think>\nIt is odd.\n</think>\n\nno"},  # no parser at all
    ],
)
def test_thoughts_are_no_part_of_the_answer(
    server: FakeOpenAI, engine: OpenAIEngine, message: dict[str, Any]
) -> None:
    server.script = lambda n, body: chat_reply(**message)
    answer = engine.answer([ask()])[0]
    assert (answer.text, answer.thoughts, answer.unfinished) == ("no", "It is odd.", False)
    assert answer.completion_tokens == 3


def test_an_answer_that_was_only_thought_of_is_none(
    server: FakeOpenAI, engine: OpenAIEngine
) -> None:
    def cut(n: int, body: dict[str, Any]) -> Reply:
        status, headers, data = chat_reply("")
        reply = json.loads(data)
        reply["choices"][0]["finish_reason"] = "length"
        if n == 0:
            reply["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3}
        return status, headers, json.dumps(reply).encode()

    server.script = cut
    assert engine.answer([ask()])[0].unfinished
    assert not engine.answer([ask("Another")])[0].unfinished  # nothing says that it thought


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(server: FakeOpenAI, engine: OpenAIEngine, status: int) -> None:
    server.script = lambda n, body: error_reply(status, "busy") if n < 2 else chat_reply()
    assert engine.answer([ask()])[0].text == "hello"
    assert len(server.requests) == 3


def test_retry_after_is_kept(server: FakeOpenAI, engine: OpenAIEngine) -> None:
    server.script = lambda n, body: (
        error_reply(429, "slow down", {"Retry-After": "1"}) if n == 0 else chat_reply()
    )
    began = time.monotonic()
    assert engine.answer([ask()])[0].text == "hello"
    assert time.monotonic() - began >= 1.0


def test_retry_after_forms() -> None:
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_patience_ends(server: FakeOpenAI, engine: OpenAIEngine) -> None:
    server.script = lambda n, body: error_reply(429, f"no, {KEY}")
    answer = engine.answer([ask()])[0]
    assert answer.error is not None and "429" in answer.error and "4 attempts" in answer.error
    assert KEY not in answer.error and len(server.requests) == 4
    server.script = lambda n, body: error_reply(429, "later", {"Retry-After": "3600"})
    began = time.monotonic()
    assert engine.answer([ask()])[0].error is not None
    assert time.monotonic() - began < 2  # it would not come back in time, so it is not waited for


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error_reply(401, f"Incorrect API key provided: {KEY}"), "OFFICE_KEY"),
        (error_reply(403, "Country not supported"), "refused the key"),
        (error_reply(404, "The model `m` does not exist", code="model_not_found"), "gpt-right"),
        (error_reply(429, "You exceeded your quota", code="insufficient_quota"), "no credit"),
        ((307, {"Location": "http://localhost:1/v1/chat/completions"}, b""), "not followed"),
    ],
)
def test_hopeless_errors_stop_everything(server: FakeOpenAI, reply: Reply, said: str) -> None:
    server.script = lambda n, body: reply
    engine = make(server, key_name="OFFICE_KEY", concurrency=2)
    with pytest.raises(ModelError) as caught:
        engine.answer([ask(str(i)) for i in range(200)])
    text = str(caught.value)
    assert said in text and server.url in text and caught.value.hint
    assert KEY not in text and KEY not in repr(caught.value.__cause__)
    time.sleep(0.1)
    assert len(server.requests) < 20
    engine.close()


def test_a_bad_request_fails_alone(server: FakeOpenAI, engine: OpenAIEngine) -> None:
    def script(n: int, body: dict[str, Any]) -> Reply:
        if body["messages"][0]["content"] == "long":
            return error_reply(400, "maximum context length", code="context_length_exceeded")
        return chat_reply()

    server.script = script
    answers = engine.answer([ask("long"), ask("short")])
    assert answers[0].error is not None and "maximum context length" in answers[0].error
    assert answers[1].text == "hello" and len(server.requests) == 2


def test_a_server_that_answers_nothing_is_asked_no_more(
    server: FakeOpenAI, engine: OpenAIEngine
) -> None:
    server.script = lambda n, body: error_reply(400, "this model has no adapter", code="broken")
    seen: list[tuple[int, int, int]] = []
    with pytest.raises(ModelError, match="10 requests in a row failed, and none was answered") as e:
        engine.answer(
            [ask(str(n)) for n in range(200)],
            lambda done, total, failed=0: seen.append((done, total, failed)),
        )
    assert "this model has no adapter" in str(e.value) and "run again" in str(e.value)
    assert len(server.requests) < 40 and seen[-1] == (9, 200, 9)


def test_rows_that_a_server_refuses_stop_nothing(server: FakeOpenAI, engine: OpenAIEngine) -> None:
    refused = {str(n) for n in range(20, 40)}

    def script(n: int, body: dict[str, Any]) -> Reply:
        if body["messages"][0]["content"] in refused:
            return error_reply(400, "maximum context length", code="context_length_exceeded")
        return chat_reply()

    server.script = script
    requests = [ask(str(n)) for n in range(200)]
    assert sum(a.error is not None for a in engine.answer(requests)) == 20
    refused |= {str(n) for n in range(60, 200)}
    with pytest.raises(ModelError, match="50 requests in a row failed, after others"):
        engine.answer(requests)


def test_a_key_that_a_model_repeats_is_not_kept(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = server.url.removeprefix("http://").removesuffix("/v1")
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("A_KEY_HOST", host)
    key = resolve_key("${A_KEY}", server.url)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": f'["{KEY}"]'}}
    server.script = lambda n, body: chat_reply(
        f"You sent {KEY}, not sk-0123456789abcdefghij.", reasoning_content=KEY, tool_calls=[call]
    )
    engine = OpenAIEngine(server.url, "m", key)
    (answer,) = engine.answer([ask()])
    engine.close()
    assert answer.text == "You sent [secret], not sk-0123456789abcdefghij."
    assert KEY not in repr(answer)


@pytest.mark.parametrize(
    "garbage",
    [
        (200, {"Content-Type": "text/html"}, b"<html>welcome</html>"),
        (200, {}, b"{broken"),
        (200, {}, b"[]"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": {"content": 7}}]}'),
    ],
)
def test_garbage_is_a_failed_answer(
    server: FakeOpenAI, engine: OpenAIEngine, garbage: Reply
) -> None:
    server.script = lambda n, body: garbage
    answer = engine.answer([ask()])[0]
    assert answer.error is not None and "no chat completion" in answer.error


def test_slow_replies_time_out_and_are_tried_again(server: FakeOpenAI) -> None:
    def script(n: int, body: dict[str, Any]) -> Reply:
        time.sleep(1.5 if n == 0 else 0)
        return chat_reply()

    server.script = script
    engine = make(server, timeout=0.5)
    assert engine.answer([ask()])[0].text == "hello"
    engine.close()


def test_no_server_is_said_soon() -> None:
    engine = OpenAIEngine(
        "http://127.0.0.1:9/v1", "m", None, patience=Patience(first_s=0.01), timeout=2
    )
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        engine.answer([ask(str(i)) for i in range(5)])
    assert "http://127.0.0.1:9/v1" in str(caught.value)
    engine.close()


def test_models_that_take_less_are_adapted_to(server: FakeOpenAI, engine: OpenAIEngine) -> None:
    def script(n: int, body: dict[str, Any]) -> Reply:
        for field in ("max_tokens", "temperature"):
            if field in body:
                return error_reply(400, f"Unsupported parameter: '{field}'", param=field)
        return chat_reply()

    server.script = script
    answers = engine.answer([ask(str(i)) for i in range(12)])
    assert [a.text for a in answers] == ["hello"] * 12
    assert server.requests[-1]["max_completion_tokens"] == 256
    assert engine.notes == ["m does not take `temperature`; it was left out"]


def test_a_server_that_takes_no_limit_is_not_asked_without(
    server: FakeOpenAI, engine: OpenAIEngine
) -> None:
    def script(n: int, body: dict[str, Any]) -> Reply:
        field = next((f for f in body if f.startswith("max_")), None)
        return error_reply(400, "Unsupported", param=field) if field else chat_reply()

    server.script = script
    assert all(a.error for a in engine.answer([ask("a"), ask("b")]))
    assert all("max_tokens" in r or "max_completion_tokens" in r for r in server.requests)


def test_the_budget_stops(server: FakeOpenAI) -> None:
    spent: list[Completion] = []

    def spend(completion: Completion) -> None:
        spent.append(completion)
        if len(spent) == 5:
            raise BudgetError("enough")

    engine = make(server, spend=spend, concurrency=2)
    with pytest.raises(BudgetError):
        engine.answer([ask(str(i)) for i in range(100)])
    time.sleep(0.1)
    assert 5 <= len(server.requests) <= 20
    engine.close()


def test_azure_in_both_forms(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = server.url.removesuffix("/v1")
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    # `preview` is what Azure's documents write for a version of the address that has none.
    for path, version in (("", ""), ("/openai/", "preview"), ("/openai/v1", "2024-10-21")):
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", endpoint + path)
        monkeypatch.setenv("AZURE_OPENAI_API_VERSION", version)
        engine = open_engine("azure:dep", key_resolver=lambda reference, url: KEY)
        assert engine.answer([ask()])[0].text == "hello"
        engine.close()
    assert server.paths == [
        "/openai/v1/chat/completions",
        "/openai/v1/chat/completions",
        "/openai/deployments/dep/chat/completions?api-version=2024-10-21",
    ]
    assert server.headers[-1]["api-key"] == KEY


def test_a_study_server_through_open_engine(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFICE_KEY", KEY)
    monkeypatch.setenv("OFFICE_KEY_HOST", server.url.split("/")[2])
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    servers = {"office": Server(base_url=server.url, api_key="${OFFICE_KEY}")}
    engine = open_engine("office:m", servers=servers)
    assert engine.answer([ask()])[0].text == "hello"
    assert engine.model == "office:m" and KEY not in engine.revision
    assert not any("org-private" in v for v in server.headers[0].values())
    engine.close()


def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(StudyError, match="OPENAI_API_KEY is not set"):
        open_engine("openai:gpt-6-luna")
