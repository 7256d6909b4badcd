"""Tool calls in the forms that the families of models write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_support import make_tokenizer
from tunewise.data.tool_calls import parse_tool_calls
from tunewise.models.tool_calls import decode_answer
from tunewise.scoring.calls import calls_in
from tunewise.server.inference.text import TextStream

QUOTE = '<|"|>'
Calls = list[tuple[str, dict[str, Any]]]


def _objects(calls: Calls, key: str = "arguments") -> list[str]:
    return [json.dumps({"name": n, key: a}, ensure_ascii=False) for n, a in calls]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _coder(calls: Calls) -> str:
    return "\n".join(
        f"<tool_call>\n<function={n}>\n"
        + "".join(f"<parameter={k}>\n{_value(v)}\n</parameter>\n" for k, v in a.items())
        + "</function>\n</tool_call>"
        for n, a in calls
    )


def _gemma(value: Any, quote: str) -> str:
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_gemma(v, quote)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_gemma(v, quote) for v in value) + "]"
    return json.dumps(value)


FORMS: dict[str, Callable[[Calls], str]] = {
    "hermes": lambda c: "\n".join(f"<tool_call>\n{o}\n</tool_call>" for o in _objects(c)),
    "coder": _coder,
    "mistral": lambda c: f"[TOOL_CALLS] [{', '.join(_objects(c))}]",
    "mistral-new": lambda c: "".join(f"[TOOL_CALLS]{n}[ARGS]{json.dumps(a)}" for n, a in c),
    "mistral-v11": lambda c: "".join(f"[TOOL_CALLS]{n}{json.dumps(a)}" for n, a in c),
    "phi-functools": lambda c: "functools[\n  " + ",\n  ".join(_objects(c)) + "\n]",
    "llama": lambda c: "<|python_tag|>" + "; ".join(_objects(c, "parameters")),
    "phi": lambda c: f"<|tool_call|>[{', '.join(_objects(c))}]<|/tool_call|>",
    "deepseek": lambda c: (
        "<｜tool▁calls▁begin｜>"
        + "\n".join(
            f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{n}\n```json\n{json.dumps(a)}\n```"
            "<｜tool▁call▁end｜>"
            for n, a in c
        )
        + "<｜tool▁calls▁end｜>"
    ),
    "deepseek-new": lambda c: (
        "<｜tool▁calls▁begin｜>"
        + "".join(
            f"<｜tool▁call▁begin｜>{n}<｜tool▁sep｜>{json.dumps(a)}<｜tool▁call▁end｜>"
            for n, a in c
        )
        + "<｜tool▁calls▁end｜>"
    ),
    "kimi": lambda c: (
        "<|tool_calls_section_begin|>"
        + "".join(
            f"<|tool_call_begin|>functions.{n}:{i}<|tool_call_argument_begin|>{json.dumps(a)}"
            "<|tool_call_end|>"
            for i, (n, a) in enumerate(c)
        )
        + "<|tool_calls_section_end|>"
    ),
    "kimi-spaced": lambda c: (
        "<|tool_calls_section_begin|> "
        + " ".join(
            f"<|tool_call_begin|>\nfunctions.{n}:{i} <|tool_call_argument_begin|> {json.dumps(a)} "
            "<|tool_call_end|>"
            for i, (n, a) in enumerate(c)
        )
        + " <|tool_calls_section_end|>"
    ),
    "harmony": lambda c: "<|start|>assistant".join(
        f"<|channel|>commentary to=functions.{n} <|constrain|>json<|message|>"
        f"{json.dumps(a)}<|call|>"
        for n, a in c
    ),
    "harmony-head": lambda c: "<|start|>assistant".join(
        f" to=functions.{n}<|channel|>commentary json<|message|>{json.dumps(a)}<|call|>"
        for n, a in c
    ),
    "functiongemma": lambda c: "".join(
        f"<start_function_call>call:{n}{_gemma(a, '<escape>')}<end_function_call>" for n, a in c
    ),
    "gemma4": lambda c: "".join(
        f"<|tool_call>call:{n}{_gemma(a, QUOTE)}<tool_call|>" for n, a in c
    ),
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "number": {"type": "integer"},
                    "list": {"type": "array"},
                },
            },
        },
    }
    for name in ("find", "get_weather")
]
# An XML value has no escapes: one that holds a mark cannot be told from the end of itself.
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda t: "<" not in t
)
_ARGUMENTS = st.fixed_dictionaries(
    {}, optional={"text": _TEXT, "number": st.integers(), "list": st.lists(_TEXT, max_size=2)}
)
_CALLS = st.lists(st.tuples(st.sampled_from(["find", "get_weather"]), _ARGUMENTS), min_size=1)


def _read(text: str) -> tuple[str, Calls]:
    rest, calls = parse_tool_calls(text, TOOLS)
    return rest, [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(calls=_CALLS)
def test_each_form_gives_its_calls_back(form: str, calls: Calls) -> None:
    assert _read("Let me look.\n" + FORMS[form](calls)) == ("Let me look.", calls)


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_call_stays_text(form: str) -> None:
    text = FORMS[form]([("find", {"text": "x"})])
    cut = text[: text.rindex("x") + 1]
    assert _read(cut) == (cut, [])


def test_gemma_s_values_are_read_at_any_depth() -> None:
    nested = {"at": {"hours": [7, 8.5], "exact": True, "zone": None}, "rows": [], "tags": [["a"]]}
    text = f"<start_function_call>call:plan{_gemma(nested, '<escape>')}<end_function_call>"
    assert _read(text) == ("", [("plan", nested)])
    quoted = "<start_function_call>call:f{a:{<escape>k<escape>:1}}<end_function_call>"
    assert _read(quoted) == ("", [("f", {"a": {"k": 1}})])
    bare = "<start_function_call>call:f{city:Rome, days: 3}<end_function_call>"
    assert _read(bare) == ("", [("f", {"city": "Rome", "days": 3})])
    for broken in ("{a:", "{a}", "{" * 500, "{a:[1,]}", "{:1}"):
        text = f"<start_function_call>call:f{broken}<end_function_call>"
        assert _read(text) == (text, [])


def test_channels_that_are_no_calls_give_their_text() -> None:
    thought = "<|channel|>analysis<|message|>to=functions.find would do<|end|><|start|>assistant"
    said = "<|channel|>final<|message|>It rains.<|return|>"
    assert _read(thought + said) == ("It rains.", [])
    call = FORMS["harmony"]([("find", {"text": "x"})])
    assert _read(thought + call) == ("", [("find", {"text": "x"})])


def test_schemas_give_the_types_of_xml_parameters() -> None:
    call = ("find", {"text": "7", "number": 7})
    assert _read(_coder([call])) == ("", [call])


def test_bare_objects_are_calls_where_there_is_nothing_else() -> None:
    calls: Calls = [("find", {"text": "a; {b}"}), ("get_weather", {}), ("find", {"number": 7})]
    for between in ("; ", " ;", ";\n"):
        text = between.join(_objects(calls, "parameters"))
        assert _read(text) == ("", calls)
        for plain in (f"{text}; and more", f"See: {text}", f"{text};"):
            assert _read(plain) == (plain, [])


@pytest.mark.parametrize("form", FORMS)
def test_calls_in_any_form_are_scored(form: str) -> None:
    found = calls_in(FORMS[form]([("find", {"number": 7})]))
    assert [(c.name, c.arguments) for c in found] == [("find", {"number": 7})]


def test_a_call_without_its_end_counts_in_scoring_beside_a_whole_one() -> None:
    text = "<tool_call>" + _objects([("f", {})])[0]
    whole = FORMS["hermes"]([("find", {"number": 7})])
    assert [c.name for c in calls_in(whole + text)] == ["find", "f"]


def test_marks_that_are_special_tokens_are_read() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[TOOL_CALLS]"]})
    text = 'Yes. [TOOL_CALLS][{"name": "find", "arguments": {"number": 7}}]'
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    assert "[TOOL_CALLS]" not in tokenizer.decode(ids, skip_special_tokens=True)
    assert _read(decode_answer(tokenizer, ids, calls=True)) == ("Yes.", [("find", {"number": 7})])
    stream = TextStream(tokenizer, (), tuple(TOOLS))
    assert "".join(stream.add(token) for token in ids).strip() == "Yes."
    rest, calls = stream.finish()
    assert rest == "" and [c["function"]["name"] for c in calls] == ["find"]
