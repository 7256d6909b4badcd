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
from tunewise.models.tool_calls import decode_calls
from tunewise.scoring.calls import calls_in
from tunewise.server.inference.text import TextStream

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


FORMS: dict[str, Callable[[Calls], str]] = {
    "hermes": lambda c: "\n".join(f"<tool_call>\n{o}\n</tool_call>" for o in _objects(c)),
    "coder": _coder,
    "mistral": lambda c: f"[TOOL_CALLS] [{', '.join(_objects(c))}]",
    "mistral-new": lambda c: "".join(f"[TOOL_CALLS]{n}[ARGS]{json.dumps(a)}" for n, a in c),
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


def test_schemas_give_the_types_of_xml_parameters() -> None:
    call = ("find", {"text": "7", "number": 7})
    assert _read(_coder([call])) == ("", [call])


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
    assert _read(decode_calls(tokenizer, ids)) == ("Yes.", [("find", {"number": 7})])
    stream = TextStream(tokenizer, (), tuple(TOOLS))
    assert "".join(stream.add(token) for token in ids).strip() == "Yes."
    rest, calls = stream.finish()
    assert rest == "" and [c["function"]["name"] for c in calls] == ["find"]
