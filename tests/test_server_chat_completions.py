"""``/v1/chat/completions`` through the official client, against a real server and model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from server_support import Running, async_client, call, client, envelope

pytest.importorskip("torch")

MODEL = "tunewise/tiny"
MAPPED = "gpt-4o-mini-2024-07-18"
QUESTION = "Kelor lives in Draimere.\n\nWhere does Kelor live?"
ASK: list[Any] = [{"role": "user", "content": QUESTION}]
# Where a test needs an answer to end in time: sampled strings may be of any length.
GREEDY: Any = {"temperature": 0}
LONG: list[Any] = [{"role": "user", "content": "Tell a long story."}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
            "required": ["unit"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Place(BaseModel):
    kind: Literal["town", "river"]
    small: bool


@pytest.fixture(scope="module")
def api(server: Running) -> Iterator[OpenAI]:
    with client(server, timeout=300) as opened:  # the first answer waits for torch
        yield opened


def _refused(api: OpenAI, **changes: Any) -> dict[str, Any]:
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(**{"model": MODEL, "messages": ASK, "max_tokens": 4, **changes})
    body = caught.value.body
    assert isinstance(body, dict) and set(body) == {"message", "type", "param", "code"}
    return body


def test_an_answer_with_its_usage(api: OpenAI) -> None:
    made = api.chat.completions.create(model=MAPPED, messages=ASK, temperature=0, max_tokens=30)
    assert made.model == MAPPED and made.id.startswith("chatcmpl-")
    assert made.system_fingerprint and made.system_fingerprint.startswith("fp_")
    [choice] = made.choices
    assert (choice.message.content, choice.finish_reason) == ("Draimere", "stop")
    assert made.usage is not None and made.usage.prompt_tokens > 5
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    assert made.usage.prompt_tokens_details is not None
    assert made.usage.prompt_tokens_details.cached_tokens is not None


def test_a_stream_says_the_same(api: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 30}
    whole = api.chat.completions.create(**options)
    chunks = list(
        api.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    )
    *pieces, last = chunks
    assert pieces[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in pieces]
    assert reasons == [None] * (len(pieces) - 1) + ["stop"]
    assert last.choices == [] and last.usage is not None and whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in pieces)
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_stream_on_the_wire(server: Running) -> None:
    body = {"model": MODEL, "messages": ASK, "max_tokens": 3, "stream": True}
    answer = call(server, "POST", "/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = answer.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    for line in lines[:-2]:
        chunk = json.loads(line.removeprefix("data: "))
        assert chunk["object"] == "chat.completion.chunk" and "usage" not in chunk


def test_the_asynchronous_client_and_its_stream_helper(server: Running) -> None:
    async def several() -> list[str | None]:
        async with async_client(server) as api:

            async def one() -> str | None:
                async with api.chat.completions.stream(
                    model=MODEL, messages=ASK, temperature=0, max_tokens=30
                ) as stream:
                    done = await stream.get_final_completion()
                return done.choices[0].message.content

            return await asyncio.gather(*(one() for _ in range(6)))

    assert asyncio.run(several()) == ["Draimere"] * 6


def test_a_pydantic_model_comes_back_filled(api: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": ASK, "response_format": Place, **GREEDY}
    made = api.chat.completions.parse(**options, max_tokens=60)
    assert isinstance(made.choices[0].message.parsed, Place)
    with api.chat.completions.stream(**options, max_tokens=60) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Place)


def test_json_of_any_shape(api: OpenAI) -> None:
    made = api.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Write JSON."}],
        response_format={"type": "json_object"},
        max_tokens=400,
        temperature=0,
    )
    [choice] = made.choices
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content or ""), dict)
    else:
        assert (choice.message.content or "").lstrip().startswith("{")


def test_a_tool_is_called_and_its_result_taken(api: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "tools": [WEATHER], "max_tokens": 80, **GREEDY}
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    made = api.chat.completions.create(messages=ASK, tool_choice=choice, **options)
    message = made.choices[0].message
    assert made.choices[0].finish_reason == "tool_calls" and message.content is None
    assert message.tool_calls is not None
    called: Any = message.tool_calls[0]
    assert called.id.startswith("call_") and called.function.name == "weather"
    assert json.loads(called.function.arguments)["unit"] in ("celsius", "kelvin")
    result: Any = {"role": "tool", "tool_call_id": called.id, "content": "20 degrees"}
    after = api.chat.completions.create(
        messages=[*ASK, message, result], tool_choice="none", **options
    )
    assert after.choices[0].message.tool_calls is None


def test_tool_calls_in_a_stream(api: OpenAI) -> None:
    with api.chat.completions.stream(
        model=MODEL, messages=ASK, tools=[WEATHER], tool_choice="required", max_tokens=80, **GREEDY
    ) as stream:
        for _ in stream:
            pass
        [choice] = stream.get_final_completion().choices
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls
    arguments: Any = choice.message.tool_calls[0].function.parsed_arguments
    assert arguments["unit"] in ("celsius", "kelvin")


def test_the_older_functions(api: OpenAI) -> None:
    made = api.chat.completions.create(
        model=MODEL,
        messages=ASK,
        functions=[WEATHER["function"]],
        function_call={"name": "weather"},
        max_tokens=80,
        **GREEDY,
    )
    [choice] = made.choices
    assert choice.finish_reason == "function_call" and choice.message.function_call is not None
    assert choice.message.function_call.name == "weather"


def test_log_probabilities_of_every_token(api: OpenAI) -> None:
    made = api.chat.completions.create(
        model=MODEL, messages=ASK, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3
    )
    [choice] = made.choices
    assert choice.logprobs is not None and choice.logprobs.content
    for token in choice.logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        best = [top.logprob for top in token.top_logprobs]
        assert best == sorted(best, reverse=True) and token.logprob == pytest.approx(best[0])
    text = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content).decode()
    assert text.startswith(choice.message.content or "?")


def test_several_answers_and_a_seed(api: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": LONG, "max_tokens": 12, "n": 3}
    options["temperature"] = 2.0  # at 1 a small model may be sure of its words
    one, same, other = (api.chat.completions.create(**options, seed=seed) for seed in (1, 1, 2))
    texts = [[choice.message.content for choice in made.choices] for made in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) > 1
    assert [choice.index for choice in one.choices] == [0, 1, 2]


def test_a_stop_string_is_left_out(api: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 30}
    made = api.chat.completions.create(**options, stop=["mere"])
    assert (made.choices[0].message.content, made.choices[0].finish_reason) == ("Drai", "stop")
    assert api.chat.completions.create(**options, stop="Drai").choices[0].message.content == ""


def test_the_end_of_the_budget_is_told(api: OpenAI) -> None:
    made = api.chat.completions.create(model=MODEL, messages=LONG, max_completion_tokens=2)
    assert made.choices[0].finish_reason in ("length", "stop")
    assert made.usage is not None and made.usage.completion_tokens <= 2


def test_a_banned_token_is_not_written(api: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 30}
    plain = api.completions.create(model=MODEL, prompt=QUESTION, max_tokens=1, temperature=0)
    assert plain.choices[0].text is not None
    bias = dict.fromkeys(map(str, range(400, 2048)), -100)
    made = api.chat.completions.create(**options, logit_bias=bias)
    assert made.choices[0].message.content != "Draimere"


def test_what_vllm_calls_by_its_names(api: OpenAI) -> None:
    free: Any = [{"role": "user", "content": "Tell me a story."}]

    def said(**options: Any) -> list[str | None]:
        made = api.chat.completions.create(
            model=MODEL, messages=free, max_tokens=20, seed=3, n=4, **options
        )
        return [choice.message.content for choice in made.choices]

    greedy = said(temperature=0)
    wild = said(temperature=2)
    assert wild != greedy
    for narrow in ({"top_k": 1}, {"min_p": 1.0}):
        assert said(temperature=2, extra_body=narrow) == greedy
    assert said(temperature=2, extra_body={"top_k": -1, "min_p": 0}) == wild
    assert said(temperature=0, extra_body={"repetition_penalty": 1.0}) == greedy
    assert said(temperature=0, extra_body={"repetition_penalty": 50.0}) != greedy
    kinds: Any = ((0, {}), (2, {"top_k": 1}), (2, {}))
    texts = [
        api.completions.create(model=MODEL, prompt="K", temperature=t, seed=3, extra_body=more)
        for t, more in kinds
    ]
    first, narrowed, other = (made.choices[0].text for made in texts)
    assert first == narrowed != other


@pytest.mark.parametrize("stream", (False, True))
def test_what_has_no_effect_is_told_in_a_header(api: OpenAI, stream: bool) -> None:
    def told(**options: Any) -> str | None:
        answer = api.chat.completions.with_raw_response.create(
            model=MODEL, messages=ASK, max_tokens=2, stream=stream, **options
        )
        return answer.headers.get("x-tunewise-warning")

    assert told() is None
    assert told(reasoning_effort="none", verbosity="medium") is None
    assert "reasoning effort" in str(told(reasoning_effort="high"))
    assert "verbosity" in str(told(verbosity="low"))
    thinking = {"chat_template_kwargs": {"enable_thinking": False}}
    assert "enable_thinking" in str(told(extra_body=thinking))
    odd = told(verbosity="high", extra_body={"chat_template_kwargs": {"g\u00fcte\n": 1}})
    assert odd is not None and "verbosity" in odd and odd.isascii()


@pytest.mark.parametrize("older", (False, True))
def test_a_call_that_the_budget_cuts_is_no_text(api: OpenAI, older: bool) -> None:
    forced: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required"}
    if older:
        forced = {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}}
    options = {"model": MODEL, "messages": ASK, "temperature": 0, **forced}

    def calls(message: Any) -> list[Any]:
        if older:
            return [message.function_call] if message.function_call else []
        return [call.function for call in message.tool_calls or ()]

    [choice] = api.chat.completions.create(**options).choices
    [whole] = calls(choice.message)
    assert choice.finish_reason == ("function_call" if older else "tool_calls")
    parts = set()
    for tokens in range(4, 30):
        [choice] = api.chat.completions.create(**options, max_tokens=tokens).choices
        for made in calls(choice.message):
            assert choice.message.content is None and choice.finish_reason == "length"
            assert made.name == "weather" and whole.arguments.startswith(made.arguments)
            parts.add((made.arguments, tokens))
    part, tokens = min(parts)
    assert part != whole.arguments
    streamed = api.chat.completions.create(**options, max_tokens=tokens, stream=True)
    deltas = [chunk.choices[0] for chunk in streamed]
    assert deltas[-1].finish_reason == "length"
    assert not any(delta.delta.content for delta in deltas)
    [made] = [call for delta in deltas for call in calls(delta.delta)]
    assert (made.name, made.arguments) == ("weather", part)


def test_all_roles_and_content_in_parts(api: OpenAI) -> None:
    call_: Any = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[Any] = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call_]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "1"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "function", "name": "f", "content": "2"},
        {"role": "user", "content": QUESTION, "name": "Anna"},
    ]
    made = api.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
    assert made.choices[0].finish_reason in ("stop", "length")


IMAGE = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    (
        ({"messages": []}, "messages", "empty"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "no `content`"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role", "assistant"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, "messages[0].content[0].type", "text"),
        ({"messages": [*ASK, {"role": "tool", "content": "1"}]}, "messages[1].tool_call_id", "cal"),
        ({"messages": ASK * 900}, "messages", "token"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"stop": list("abcde")}, "stop", "1 to 4"),
        ({"stop": ""}, "stop", "empty"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
            "weather",
        ),
        ({"extra_body": {"topp": 1}}, "topp", "Unknown parameter"),
        ({"extra_body": {"max_tokens": "4"}}, "max_tokens", "whole number"),
        ({"metadata": {"a": "b"}}, "metadata", "store"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "medium"),
        ({"extra_body": {"top_k": -2}}, "top_k", "-1"),
        ({"extra_body": {"min_p": 1.5}}, "min_p", "1"),
        ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty", "greater than 0"),
        ({"extra_body": {"chat_template_kwargs": {"tokenize": True}}}, None, "tokenize"),
        ({"modalities": ["audio"]}, "modalities", "not supported"),
        ({"logit_bias": {"the": 5}}, "logit_bias", "token"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "needed"),
    ),
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_done_is_refused(
    api: OpenAI, changes: dict[str, Any], param: str | None, says: str
) -> None:
    body = _refused(api, **changes)
    assert body["param"] == param and says in body["message"], body


def test_a_schema_that_cannot_be_held_names_its_keyword(api: OpenAI) -> None:
    for schema, named in (
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"type": "string", "pattern": "(?=a)b"}, ""),
    ):
        shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = _refused(api, response_format=shape)
        assert body["code"] == "invalid_schema" and named in body["message"], body


def test_a_model_that_is_not_there(api: OpenAI, server: Running) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        api.chat.completions.create(model="gpt-9", messages=ASK)
    assert caught.value.code == "model_not_found" and MAPPED in str(caught.value)
    answer = call(server, "POST", "/v1/chat/completions", json={"messages": ASK})
    assert envelope(answer, 400, "missing_required_parameter")["param"] == "model"


@pytest.mark.parametrize(
    "messages",
    (
        "[" * 5000 + "]" * 5000,
        '[{"role": "user", "content": ' + "[" * 200 + "]" * 200 + "}]",
        '[{"role": "user", "content": "\\ud83d"}]',
        '[{"role": "user", "content": NaN}]',
        "{",
    ),
)
def test_hostile_json(server: Running, messages: str) -> None:
    answer = call(
        server,
        "POST",
        "/v1/chat/completions",
        content=f'{{"model": "{MODEL}", "messages": {messages}}}',
        headers={"Content-Type": "application/json"},
    )
    envelope(answer, 400)


@pytest.mark.parametrize("stream", (True, False))
def test_a_client_that_goes_away_ends_its_answer(
    api: OpenAI, server: Running, stream: bool
) -> None:
    """Fifty long answers at once fill the engine; once their callers are gone, it is free."""
    banned = {"logit_bias": {"0": -100, "1": -100, "2": -100}}
    options: dict[str, Any] = {"model": MODEL, "messages": LONG, "n": 50, **banned}
    if stream:
        chunks = iter(api.chat.completions.create(**options, stream=True))
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
    else:
        with pytest.raises(openai.APITimeoutError):
            api.with_options(timeout=1).chat.completions.create(**options)
    began = time.monotonic()
    api.chat.completions.create(model=MODEL, messages=ASK, max_tokens=30)
    assert time.monotonic() - began < 5
