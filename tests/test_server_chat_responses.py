"""``/v1/responses`` through the official client: text, tools, streams, going on."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from server_support import Running, async_client, call, client, envelope, make_key

pytest.importorskip("torch")

MODEL = "tunewise/tiny"
QUESTION = "Kelor lives in Draimere.\n\nWhere does Kelor live?"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
        "required": ["unit"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Place(BaseModel):
    kind: Literal["town", "river"]


@pytest.fixture(scope="module")
def api(server: Running) -> Iterator[OpenAI]:
    with client(server, timeout=300) as opened:  # the first answer waits for torch
        yield opened


def _ask(api: OpenAI, **changes: Any) -> Any:
    options = {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 30}
    return api.responses.create(**{**options, **changes})


def test_a_text_is_answered(api: OpenAI) -> None:
    made = _ask(api)
    assert (made.output_text, made.status, made.error) == ("Draimere", "completed", None)
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    cut = _ask(api, input="Tell a story.", max_output_tokens=1)
    if cut.status != "completed":
        assert cut.status == "incomplete"
        assert cut.incomplete_details.reason == "max_output_tokens"


def test_the_events_of_a_stream(api: OpenAI) -> None:
    events = list(_ask(api, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events[4:-4]) == "Draimere"
    assert events[-1].response.output_text == "Draimere"
    assert api.responses.retrieve(events[-1].response.id).output_text == "Draimere"


def test_the_stream_helpers_of_both_clients(api: OpenAI, server: Running) -> None:
    with api.responses.stream(model=MODEL, input=QUESTION, text_format=Place) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Place)

    async def answer() -> str:
        async with (
            async_client(server) as opened,
            opened.responses.stream(model=MODEL, input=QUESTION, temperature=0) as stream,
        ):
            return (await stream.get_final_response()).output_text

    assert asyncio.run(answer()) == "Draimere"


def test_a_pydantic_model_comes_back_filled(api: OpenAI) -> None:
    made = api.responses.parse(model=MODEL, input=QUESTION, text_format=Place)
    assert isinstance(made.output_parsed, Place)
    assert made.text is not None and made.text.format is not None
    assert made.text.format.type == "json_schema"


def test_a_tool_is_called_and_its_result_goes_back(api: OpenAI) -> None:
    made = _ask(api, tools=[WEATHER], tool_choice="required", max_output_tokens=80)
    [called] = [item for item in made.output if item.type == "function_call"][:1]
    assert called.name == "weather"
    assert json.loads(called.arguments)["unit"] in ("celsius", "kelvin")
    results: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "20 degrees"}
        for item in made.output
        if item.type == "function_call"
    ]
    after = _ask(
        api, input=results, previous_response_id=made.id, tools=[WEATHER], tool_choice="none"
    )
    assert after.previous_response_id == made.id
    assert [item.type for item in after.output] == ["message"]
    by_hand = [{"role": "user", "content": QUESTION}, *made.output, *results]
    same = _ask(api, input=by_hand, tools=[WEATHER], tool_choice="none")
    assert same.output_text == after.output_text


def test_tool_calls_in_a_stream(api: OpenAI) -> None:
    with api.responses.stream(
        model=MODEL,
        input=QUESTION,
        tools=[WEATHER],
        tool_choice="required",
        max_output_tokens=80,
        temperature=0,
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    assert any(item.type == "function_call" for item in final.output)


def test_going_on_from_an_earlier_response(api: OpenAI) -> None:
    first = _ask(api, input="Kelor lives in Draimere.", instructions="Be brief.")
    second = _ask(api, input="Where does Kelor live?", previous_response_id=first.id)
    whole = _ask(
        api,
        input=[
            {"role": "user", "content": "Kelor lives in Draimere."},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": [{"type": "input_text", "text": "Where does Kelor live?"}]},
        ],
    )
    assert second.output_text == whole.output_text
    assert second.usage.input_tokens == whole.usage.input_tokens  # instructions are not carried on
    items = list(api.responses.input_items.list(second.id))
    assert len(items) == 1 and items[0].type == "message"


def test_what_is_kept_and_deleted(api: OpenAI, server: Running) -> None:
    kept, left = _ask(api), _ask(api, store=False)
    assert api.responses.retrieve(kept.id).output == kept.output
    foreign = make_key(server.home, project="another")
    for id, key in ((left.id, None), (kept.id, foreign)):
        answer = call(server, "GET", f"/v1/responses/{id}", key=key)
        envelope(answer, 404, "not_found")
    api.responses.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        api.responses.retrieve(kept.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        _ask(api, previous_response_id=kept.id)


def test_a_stored_response_is_streamed_again(api: OpenAI) -> None:
    options: Any = {"top_logprobs": 1, "include": ["message.output_text.logprobs"]}
    for more in ({}, options, {"tools": [WEATHER], "tool_choice": "required"}):
        first = [event.model_dump() for event in _ask(api, stream=True, **more)]
        id = first[-1]["response"]["id"]
        again = [event.model_dump() for event in api.responses.retrieve(id, stream=True)]
        assert [event["type"] for event in again] == [event["type"] for event in first]
        assert again == first
        for after in (0, 3, len(first) - 2):
            rest = api.responses.retrieve(id, stream=True, starting_after=after)
            assert [event.model_dump() for event in rest] == first[after + 1 :]
    made = _ask(api)
    told = list(api.responses.retrieve(made.id, stream=True))
    assert told[-1].response == made
    assert "".join(e.delta for e in told if e.type == "response.output_text.delta") == "Draimere"


def test_input_is_counted_and_not_answered(api: OpenAI, server: Running) -> None:
    first = _ask(api, instructions="Be brief.", tools=[WEATHER])
    options: Any = {"model": MODEL, "instructions": "Be brief.", "tools": [WEATHER]}
    counted = api.responses.input_tokens.count(input=QUESTION, **options)
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == first.usage.input_tokens
    assert api.responses.input_tokens.count(model=MODEL, input=QUESTION).input_tokens < (
        counted.input_tokens
    )
    again = _ask(api, previous_response_id=first.id)
    more = api.responses.input_tokens.count(
        model=MODEL, input=QUESTION, previous_response_id=first.id
    )
    assert more.input_tokens == again.usage.input_tokens
    refused = call(server, "POST", "/v1/responses/input_tokens", json={"input": "a"})
    assert envelope(refused, 400)["param"] == "model"


def test_a_conversation_is_made_short_and_gone_on_from(api: OpenAI, server: Running) -> None:
    talk: Any = [
        {"role": "developer", "content": "Answer with a name."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "Draimere " * 200},
        {"role": "user", "content": "And who lives there?"},
    ]
    made = api.responses.compact(model=MODEL, input=talk)
    assert made.object == "response.compaction"
    assert [item.type for item in made.output] == ["message", "message", "compaction"]
    assert made.usage.output_tokens > 0
    window: Any = [item.to_dict(warnings=False) for item in made.output]
    then: Any = {"role": "user", "content": QUESTION}
    went_on = _ask(api, input=[*window, then])
    assert went_on.status in ("completed", "incomplete")
    longer = api.responses.input_tokens.count(model=MODEL, input=[*talk, then]).input_tokens
    assert went_on.usage.input_tokens < longer
    # What the operator said is not lost: without it the same window is shorter.
    bare = api.responses.compact(model=MODEL, input=talk[1:])
    opaque = [item.encrypted_content for made_ in (made, bare) for item in made_.output[-1:]]
    told = json.loads(base64.urlsafe_b64decode(opaque[0].split(".")[-1]))["operator"]
    assert told == ["Answer with a name."]
    assert json.loads(base64.urlsafe_b64decode(opaque[1].split(".")[-1]))["operator"] == []
    first = _ask(api)
    chained = api.responses.compact(model=MODEL, previous_response_id=first.id)
    assert [item.type for item in chained.output] == ["message", "compaction"]
    empty = call(server, "POST", "/v1/responses/compact", json={"model": MODEL})
    envelope(empty, 400)


@pytest.mark.parametrize("stream", (False, True))
def test_what_has_no_effect_is_told_in_a_header(api: OpenAI, stream: bool) -> None:
    def told(**options: Any) -> str | None:
        answer = api.responses.with_raw_response.create(
            model=MODEL, input=QUESTION, max_output_tokens=2, stream=stream, **options
        )
        return answer.headers.get("x-tunewise-warning")

    assert told() is None
    assert told(reasoning={"effort": "none"}, truncation="disabled") is None
    for options, name in (
        ({"reasoning": {"effort": "high"}}, "reasoning effort"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["reasoning.encrypted_content"]}, "reasoning.encrypted_content"),
    ):
        assert name in str(told(**options)), options


def test_a_call_that_the_budget_cuts_is_incomplete(api: OpenAI) -> None:
    options: Any = {"tools": [WEATHER], "tool_choice": "required"}
    whole = _ask(api, **options).output[0].arguments
    seen = set()
    for tokens in range(8, 30):
        made = _ask(api, **options, max_output_tokens=tokens)
        for item in made.output:
            if item.type == "function_call":
                assert item.status == made.status
                assert item.name == "weather" and whole.startswith(item.arguments)
                seen.add((made.status, item.arguments == whole))
    assert ("incomplete", False) in seen


def test_log_probabilities(api: OpenAI) -> None:
    made = _ask(api, top_logprobs=2, include=["message.output_text.logprobs"])
    part = made.output[0].content[0]
    assert part.logprobs and len(part.logprobs[0].top_logprobs) == 2


@pytest.mark.parametrize(
    ("changes", "param"),
    (
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
         "input[0].content[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "middle"}, "truncation"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"input": [{"type": "compaction", "encrypted_content": "gAAAA"}]}, "input[0]"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"input": "word " * 9000}, "input"),
        ({"model": 5}, "model"),
    ),
)  # fmt: skip
def test_what_cannot_be_done_is_refused(
    server: Running, changes: dict[str, Any], param: str
) -> None:
    body = {"model": MODEL, "input": "a", "max_output_tokens": 2, **changes}
    assert envelope(call(server, "POST", "/v1/responses", json=body), 400)["param"] == param
