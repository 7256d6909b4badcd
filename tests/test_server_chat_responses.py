"""``/v1/responses`` through the official client: text, tools, streams, going on."""

from __future__ import annotations

import asyncio
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
        ({"truncation": "auto"}, "truncation"),
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
