"""Whatever a row holds is in its tokens, proved by reading them back, or the row is refused.

The templates in ``chat_templates/`` are written anew from what the families document; each keeps
the properties of its family in which fields get lost.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models_support import make_tokenizer
from tunewise.data.chat import Example
from tunewise.data.formats import to_example
from tunewise.errors import DataError, ModelError
from tunewise.models.chat_format import render_prompt, template_forms
from tunewise.server.chat.conversation import engine_messages
from tunewise.training.encode import Encoder

FOLDER = Path(__file__).parent / "chat_templates"
TEMPLATES = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
FAMILIES = sorted(set(TEMPLATES) - {"cuts_answers", "leaves_out_system"})
TOOL = {
    "type": "function",
    "function": {"name": "w", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    found = {}
    for name, template in TEMPLATES.items():
        found[name] = make_tokenizer()
        found[name].chat_template = template
    return found


def encoded(tokenizer: Any, *messages: dict[str, Any], tools: tuple[Any, ...] = ()) -> list[str]:
    """All of the row's text, and the text that is trained, both read back from the tokens."""
    row = Encoder(tokenizer, [1]).encode(Example("r", messages, tools=tools, source="rows:7"))
    trained = row.ids[row.weights > 0]
    return [tokenizer.decode(row.ids), tokenizer.decode(trained)]


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def says(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(name: str, arguments: Any, id: str = "c1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "arguments", ['{"city": "Rome"}', {"city": "Rome"}], ids=["text", "object"]
)
def test_a_call_is_learnt_whatever_the_template(
    tokenizers: dict[str, Any], name: str, arguments: Any
) -> None:
    answer = says(None, tool_calls=[call("weather", arguments)])
    whole, trained = encoded(tokenizers[name], user("Is it raining?"), answer, tools=(TOOL,))
    assert "weather" in trained and "city" in trained and "Rome" in trained
    assert "raining" in whole and "raining" not in trained


@pytest.mark.parametrize("name", FAMILIES)
def test_a_call_and_its_result_stay_in_the_middle(tokenizers: dict[str, Any], name: str) -> None:
    whole, trained = encoded(
        tokenizers[name],
        {"role": "system", "content": "Be brief."},
        user("Is it raining?"),
        says(None, tool_calls=[call("weather", '{"city": "Rome"}')]),
        {"role": "tool", "tool_call_id": "c1", "content": "12 mm"},
        says("Yes."),
        tools=(TOOL,),
    )
    for part in ("Be brief.", "raining", "weather", "Rome", "12 mm"):
        assert part in whole and part not in trained, part
    assert "Yes." in trained


@pytest.mark.parametrize("name", FAMILIES)
def test_a_name_and_a_system_message_are_kept(tokenizers: dict[str, Any], name: str) -> None:
    whole, _ = encoded(
        tokenizers[name],
        {"role": "system", "content": "Be brief."},
        user("Hi", name="Marta"),
        says("Hello."),
    )
    assert "Marta" in whole and "Be brief." in whole


@pytest.mark.parametrize("name", FAMILIES)
def test_thoughts_are_learnt_or_the_row_is_refused(tokenizers: dict[str, Any], name: str) -> None:
    row = [user("3 + 4?"), says("7", reasoning_content="three and four make seven")]
    if template_forms(tokenizers[name]).thoughts is None and name != "deepseek_r1":
        with pytest.raises(DataError, match="thoughts"):
            encoded(tokenizers[name], *row)
        return
    _, trained = encoded(tokenizers[name], *row)
    assert "three and four make seven" in trained and trained.index("7") > trained.index("seven")


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_parts_that_are_no_text_are_refused(tokenizers: dict[str, Any], kind: str) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "x"}}]
    with pytest.raises(
        DataError, match=rf"message 1 \(user\): part 2 is of the type '{kind}'"
    ) as e:
        encoded(tokenizers["smollm2"], {"role": "user", "content": parts}, says("a cat"))
    assert e.value.where == "rows:7"


def test_an_answer_that_a_template_cuts_is_refused(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["cuts_answers"]
    assert "one line" in encoded(tokenizer, user("Hi"), says("one line"))[1]
    with pytest.raises(DataError, match=r"message 2 \(assistant\).*text"):
        encoded(tokenizer, user("Hi"), says("one line\nand another"))


def test_a_turn_that_is_left_out_is_missed_though_another_says_the_same() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.index0 == 0 or loop.last or m.role == 'assistant' or "
        "m.content != messages[0].content %}<{{ m.role }}>{{ m.content }}</s>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    render_prompt(tokenizer, [user("go on"), says("one"), user("and then?")])
    with pytest.raises(ModelError, match=r"message 3 \(user\).*text"):
        render_prompt(
            tokenizer, [user("go on"), says("one"), user("go on"), says("two"), user("stop")]
        )


@pytest.mark.parametrize("value", ["7", "true", "null", "2.5"])
def test_arguments_that_are_no_text_are_looked_for_too(value: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}"
        "{% for k, v in c.function.arguments.items() %}{{ k }}"
        "{% if v is string or loop.first %}={{ v }}{% endif %}{% endfor %}"
        "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    kept = says(None, tool_calls=[call("set", f'{{"to": {value}}}')])
    lost = says(None, tool_calls=[call("set", f'{{"name": "x", "to": {value}}}')])
    after = [{"role": "tool", "tool_call_id": "c1", "content": "done"}, says("Yes.")]
    render_prompt(tokenizer, [user("Go"), kept, *after], ask=False)
    with pytest.raises(ModelError, match=r"message 2 \(assistant\).*tool call"):
        render_prompt(tokenizer, [user("Go"), lost, *after], ask=False)


def test_an_answer_s_own_name_is_not_learnt_as_its_text(tokenizers: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"message 2 \(assistant\).*name"):
        encoded(tokenizers["smollm2"], user("Hi"), says("Hello.", name="Bot"))
    whole, trained = encoded(
        tokenizers["smollm2"], user("Hi"), says("Hello.", name="Bot"), user("Bye"), says("Bye.")
    )
    assert "Bot: Hello." in whole and "Bot" not in trained


def test_a_head_that_opens_a_thought_is_gone_on_with(tokenizers: dict[str, Any]) -> None:
    """DeepSeek R1's head: what the model is asked with is what it was trained to go on from."""
    tokenizer = tokenizers["deepseek_r1"]
    asked = render_prompt(tokenizer, [user("3 + 4?")])
    assert asked.endswith("<think>\n")
    whole, trained = encoded(tokenizer, user("3 + 4?"), says("7"))
    assert whole.startswith(asked) and trained.startswith("</think>") and "7" in trained


@pytest.mark.parametrize(
    "answer",
    [says("<think>\nlong\n</think>\n\n7"), says("7", reasoning_content="long")],
    ids=["in the text", "beside it"],
)
def test_such_a_head_is_gone_on_with_by_the_answer_s_own_thoughts(
    tokenizers: dict[str, Any], answer: dict[str, Any]
) -> None:
    whole, trained = encoded(tokenizers["deepseek_r1"], user("3 + 4?"), answer)
    assert whole.count("<think>") == 1
    assert trained.startswith("long\n</think>\n\n7")


def test_earlier_thoughts_are_dropped_by_design(tokenizers: dict[str, Any]) -> None:
    thought = says("<think>\nlong\n</think>\n\nHello.")
    whole, _ = encoded(tokenizers["qwen3"], user("Hi"), thought, user("Bye"), says("Bye."))
    assert "Hello." in whole and "long" not in whole


@pytest.mark.parametrize("name", FAMILIES)
def test_arguments_that_are_no_json_do_not_break_the_template(
    tokenizers: dict[str, Any], name: str
) -> None:
    messages = [
        user("Hi"),
        says(None, tool_calls=[call("weather", '{"city": "Ro')]),
        {"role": "tool", "tool_call_id": "c1", "content": "unreadable"},
    ]
    text = render_prompt(tokenizers[name], messages, [TOOL])
    assert "weather" in text and "city" in text and "unreadable" in text


words = count(1)
texts = st.sampled_from(
    ["3", "a b", 'say "x"', "a\nb", "ünïcode 漢字", "<b> & 'c'", "{{ x }}", "</s>", "  spaced  "]
)


@st.composite
def fields(draw: st.DrawFn) -> str:
    """Some text with a word in it that stands nowhere else."""
    return f"{draw(texts)} w{next(words)}q"


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    value = st.recursive(
        fields() | st.integers(0, 9) | st.booleans() | st.none(),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.just("k"), inner, max_size=1)
        ),
        max_leaves=3,
    )
    arguments: Any = draw(st.dictionaries(st.sampled_from(["a", "b"]), value, max_size=2))
    if draw(st.booleans()):
        arguments = json.dumps(arguments, ensure_ascii=draw(st.booleans()))
    return call(f"f{next(words)}q", arguments, id=draw(st.sampled_from(["c1", "abcdefghi"])))


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(fields())})
    for turn in range(turns := draw(st.integers(1, 3))):
        named = {"name": f"n{next(words)}q"} if draw(st.integers(0, 4)) == 0 else {}
        messages.append(user(draw(fields()), **named))
        kind = draw(st.sampled_from(["text", "text", "call", "both"]))
        if kind == "text":
            messages.append(says(draw(fields())))
            continue
        made = [draw(calls()) for _ in range(draw(st.integers(1, 2)))]
        messages.append(says(draw(fields()) if kind == "both" else None, tool_calls=made))
        if turn < turns - 1 or draw(st.booleans()):
            for one in made:
                result = {"role": "tool", "tool_call_id": one["id"], "content": draw(fields())}
                messages.append(result)
            messages.append(says(draw(fields())))
    return messages


def own_words(value: Any) -> set[str]:
    """The words of ``fields``, ``calls`` and names in a message."""
    return {w for w in _split(json.dumps(value)) if w[:1] in "wfn" and w.endswith("q")}


def _split(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text).split()


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=conversations(), offered=st.booleans())
def test_a_row_is_kept_whole_or_refused(
    tokenizers: dict[str, Any], name: str, messages: list[dict[str, Any]], offered: bool
) -> None:
    try:
        whole, trained = encoded(tokenizers[name], *messages, tools=(TOOL,) if offered else ())
    except DataError as error:
        assert error.where == "rows:7" and error.hint
        assert "message " in error.message or "refuses this conversation" in error.message
        return
    kept = set(_split(whole))
    for message in messages:
        assert own_words(message) <= kept, message
    learnt = {w for w in _split(trained) if w.endswith("q")}
    assert own_words(messages[-1]) <= learnt
    assert not any(own_words(m) & learnt for m in messages[:-1])


@pytest.mark.parametrize("file", ["tools_null", "tools_dict", "sharegpt"])
@pytest.mark.parametrize("name", ["smollm2", "gemma", "mistral", "llama3"])
def test_files_that_went_wrong(
    tokenizers: dict[str, Any], shared: Path, file: str, name: str
) -> None:
    from tunewise.data.read import read_examples

    for row in read_examples(str(shared / "cases" / f"{file}.jsonl")):
        whole, trained = encoded(tokenizers[name], *row.messages, tools=row.tools)
        for message in row.messages:
            for made in message.get("tool_calls") or ():
                assert made["function"]["name"] in _split(whole)
        assert len(_split(trained)) > 1


def test_a_real_template_learns_real_calls(real_models: Path, shared: Path) -> None:
    from transformers import AutoTokenizer

    from tunewise.data.read import read_examples

    tokenizer = AutoTokenizer.from_pretrained(real_models / "smollm2-135m-instruct")
    rows = list(read_examples(str(shared / "cases" / "tools_null.jsonl")))
    for row in rows:
        _, trained = encoded(tokenizer, *row.messages, tools=row.tools)
        city = json.loads(row.messages[-1]["tool_calls"][0]["function"]["arguments"])["city"]
        assert (
            f'<tool_call>{{"name": "w", "arguments": {{"city": "{city}"}}}}</tool_call>' in trained
        )


def test_the_server_s_prompt_is_refused_in_words(tokenizers: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="roles must alternate"):
        render_prompt(tokenizers["gemma"], [user("a"), user("b")])


_REFUSED = "I cannot help with that."


@pytest.mark.parametrize(
    "said",
    [
        {"content": "", "refusal": _REFUSED},
        {"content": None, "refusal": _REFUSED},
        {"refusal": _REFUSED},
        {"content": [{"type": "refusal", "refusal": _REFUSED}]},
        {"content": "Sorry.", "refusal": _REFUSED},
    ],
    ids=["empty text", "no text", "no content", "part", "after text"],
)
def test_a_refusal_is_an_answer_and_is_trained(
    tokenizers: dict[str, Any], said: dict[str, Any]
) -> None:
    row = {"messages": [user("how?"), {"role": "assistant", **said}]}
    example, _ = to_example(row, "chat", warn=lambda code, message: pytest.fail(message))
    assert example.answer.endswith(_REFUSED)
    for name in FAMILIES:
        trained = encoded(tokenizers[name], *example.messages)[1]
        assert trained.count(_REFUSED) == 1, name
        assert ("Sorry." in trained) == (said.get("content") == "Sorry."), name
        later = render_prompt(tokenizers[name], [*example.messages, user("why?")])
        assert later.count(_REFUSED) == 1, name


def test_a_refusal_in_a_chat_s_history_is_what_the_assistant_said() -> None:
    said = [{"content": ""}, {"content": None}, {}, {"content": [{"type": "text", "text": "So."}]}]
    for content in said:
        message = {"role": "assistant", "refusal": _REFUSED, **content}
        (_, kept) = engine_messages([user("how?"), message])
        assert kept["content"].endswith(_REFUSED) and "refusal" not in kept
