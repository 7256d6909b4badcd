"""Which tokens are learnt, and the audit that checks it before step 0."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st

from training_support import small_tokenizer, word_examples
from tunewise.data.chat import Example
from tunewise.errors import DataError, TrainingError
from tunewise.models.chat_format import PLAIN_TEMPLATE, render_prompt
from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.training.encode import Encoder
from tunewise.training.label_audit import encode_and_audit, gate, show_tokens

MARKED = small_tokenizer()
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen3 does: thoughts of earlier turns disappear once another question follows.
_FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content.split('</think>')[-1] if not loop.last else m.content }}{{ '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def encoder(template=None, **options) -> Encoder:
    tokenizer = MARKED if template is None else small_tokenizer(template)
    return Encoder(tokenizer, [tokenizer.eos_token_id], **options)


def example(*messages, id="r1", **more) -> Example:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    out = []
    for message in messages:
        role, text, *rest = message
        out.append({"role": roles[role], "content": text, **(rest[0] if rest else {})})
    return Example(id, tuple(out), source="rows.jsonl:7", **more)


def trained_text(e: Encoder, row: Example) -> list[str]:
    """Runs of learnt tokens as text."""
    runs, inside = [], False
    for token in show_tokens(e, row):
        if token.weight > 0:
            runs = [*runs[:-1], runs[-1] + token.text] if inside else [*runs, token.text]
        inside = token.weight > 0
    return runs


CONVERSATION = example(("s", "Be brief."), ("u", "one?"), ("a", "uno"), ("u", "two?"), ("a", "due"))


@pytest.mark.parametrize("template", [None, _CHATML, _FORGETFUL])
def test_answers_and_their_end_are_learnt_and_nothing_else(template):
    assert trained_text(encoder(template), CONVERSATION) == ["due<|im_end|>"]
    every = encoder(template, trained="all_assistant")
    assert trained_text(every, CONVERSATION) == ["uno<|im_end|>", "due<|im_end|>"]


def test_everything_is_learnt_but_the_first_token():
    row = encoder(trained="all").encode(CONVERSATION)
    assert row.weights[0] == 0 and row.trained == len(row.ids) - 1


def test_a_base_model_learns_to_stop_after_its_last_answer():
    assert trained_text(encoder(PLAIN_TEMPLATE), CONVERSATION) == ["due<|im_end|>"]
    every = encoder(PLAIN_TEMPLATE, trained="all_assistant")
    assert trained_text(every, CONVERSATION) == ["uno", "due<|im_end|>"]


def test_thoughts_that_a_template_drops_later_are_found_by_marks():
    row = example(("u", "one?"), ("a", "hm</think>uno"), ("u", "two?"), ("a", "so</think>due"))
    every = encoder(_FORGETFUL, trained="all_assistant")
    assert trained_text(every, row) == ["uno<|im_end|>", "so</think>due<|im_end|>"]
    unmarked = _FORGETFUL.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    with pytest.raises(DataError, match=r"rows\.jsonl:7: row 'r1': .* cannot be told apart"):
        encoder(unmarked, trained="all_assistant").encode(row)
    assert trained_text(encoder(unmarked), row) == ["so</think>due<|im_end|>"]


@pytest.mark.parametrize(
    "answer",
    [
        ("a", "<think>\nlong\n</think>\n\ndue"),
        ("a", "due", {"reasoning_content": "long"}),
    ],
)
def test_thoughts_are_trained_or_left_out(answer):
    row = example(("u", "two?"), answer)
    assert "long" in trained_text(encoder(_FORGETFUL), row)[0]
    assert trained_text(encoder(_FORGETFUL, thoughts="drop"), row) == ["due<|im_end|>"]
    for thoughts in ("keep", "drop"):
        assert codes(encoder(_FORGETFUL, thoughts=thoughts), [row]) == {}


def test_weights_of_messages():
    row = example(("u", "a"), ("a", "b", {"weight": 0}), ("u", "c"), ("a", "d", {"weight": 0.5}))
    every = encoder(trained="all_assistant")
    assert trained_text(every, row) == ["d<|im_end|>"]
    assert set(every.encode(row).weights) == {0.0, 0.5}
    for bad in ("1", True, -1, float("nan")):
        with pytest.raises(DataError, match="weight"):
            every.encode(example(("u", "a"), ("a", "b", {"weight": bad})))


def test_the_study_prompt_goes_where_a_row_has_none():
    with_prompt = encoder(prompt="Translate.")
    text = "".join(t.text for t in show_tokens(with_prompt, example(("u", "a"), ("a", "b"))))
    assert "system\nTranslate." in text
    text = "".join(t.text for t in show_tokens(with_prompt, CONVERSATION))
    assert "Translate." not in text


@settings(max_examples=60, deadline=None)
@given(asked=st.text(min_size=1), answer=st.text())
def test_the_prompt_is_token_for_token_what_scoring_sends(asked, answer):
    e = encoder()
    row = example(("u", asked), ("a", answer))
    encoded = e.encode(row)
    prompt = render_prompt(e.tokenizer, row.prompt, ask=True)
    ids = e.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    first = int((encoded.weights > 0).argmax())
    assert encoded.ids[:first].tolist() == ids
    if "<" not in asked + answer:  # text that spells a special token is read as one
        trained = e.tokenizer.decode(encoded.ids[first:][encoded.weights[first:] > 0])
        assert trained == answer + "<|im_end|>"


def test_tool_calls_are_learnt():
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<tool_call>"
        "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}"
        "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    row = example(("u", "go"), ("a", None, {"tool_calls": [call]}))
    text = trained_text(encoder(template), row)
    assert text == ['<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call><|im_end|>']


def codes(e: Encoder, rows: list[Example], limit: int | None = None) -> dict[str, int]:
    return {f.code: f.count for f in encode_and_audit(e, rows, limit)[1]}


def test_the_audit_is_silent_on_good_rows():
    rows, findings = encode_and_audit(encoder(), word_examples(20), 256)
    assert findings == [] and len(rows) == 20
    gate(findings, rows)


def test_the_audit_names_rows_without_an_answer():
    rows, findings = encode_and_audit(
        encoder(), [*word_examples(2), example(("u", "no answer"), id="lone")], None
    )
    assert [(f.code, f.severity, f.rows) for f in findings] == [
        ("no_trained_token", "error", ("lone",))
    ]
    with pytest.raises(TrainingError, match="row 'lone'"):
        gate(findings, rows)


def test_the_audit_stops_when_the_end_is_not_learnt():
    endless = _CHATML.replace("+ '<|im_end|>\n'", "+ '\n\n'")
    assert codes(encoder(endless), word_examples(3)) == {"end_of_turn_not_trained": 3}


def test_an_end_outside_the_marks_is_learnt_all_the_same():
    outside = _FORGETFUL.replace(
        "{{ '<|im_end|>' }}{% endgeneration %}", "{% endgeneration %}{{ '<|im_end|>' }}"
    )
    every = encoder(outside, trained="all_assistant")
    row = example(("u", "one?"), ("a", "hm</think>uno"), ("u", "two?"), ("a", "due"))
    assert trained_text(every, row) == ["uno<|im_end|>", "due<|im_end|>"]


def test_the_audit_finds_a_template_that_changes_the_answer():
    loud = _CHATML.replace("m.content", "(m.content | upper)")
    assert codes(encoder(loud), word_examples(3)) == {"not_rendered": 3}


def test_the_audit_finds_the_prompt_in_the_loss():
    # An answer's head that repeats the question would be learnt.
    echo = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'Q: ' + messages[-2].content + "
        "' A: ' + m.content + '<|im_end|>' }}{% else %}{{ m.content + '\n' }}{% endif %}"
        "{% endfor %}"
    )
    row = example(("u", "a long question about cats"), ("a", "yes"))
    assert codes(encoder(echo), [row]) == {"prompt_in_loss": 1}


def test_long_rows_are_counted_and_never_cut():
    rows = [*word_examples(3), example(("u", "word " * 200), ("a", "yes"), id="long")]
    encoded, findings = encode_and_audit(encoder(), rows, 100)
    assert [(f.code, f.severity, f.rows) for f in findings] == [("too_long", "warning", ("long",))]
    assert [r.id for r in encoded] == ["row-0", "row-1", "row-2"]
    gate(findings, encoded)
    none, findings = encode_and_audit(encoder(), rows[3:], 100)
    with pytest.raises(TrainingError, match="no row is left"):
        gate(findings, none)


def test_the_first_long_row_and_empty_answers_are_told():
    (finding,) = encode_and_audit(encoder(), [example(("u", "a " * 99), ("a", "b"))], 40)[1]
    assert "limit is 40" in finding.message and "tokens" in finding.message
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    rows = [
        example(("u", "a"), ("a", " ")),
        example(("u", "a"), ("a", None, {"tool_calls": [call]})),
    ]
    assert codes(encoder(), rows[:1]) == {"empty_answer": 1}
    assert "empty_answer" not in codes(encoder(), rows[1:])


def test_tokens_within_a_character_show_their_bytes():
    shown = [t.text for t in show_tokens(encoder(), example(("u", "a"), ("a", "\N{SNOWMAN}")))]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(shown)
    assert "\\xe2" in "".join(shown) or "\N{SNOWMAN}" in "".join(shown)


def test_a_sentencepiece_tokenizer_keeps_its_spaces(shared):
    folder = shared / "models" / "stories260k-hf"
    loaded = load_local(parse_model(str(folder)))
    e = Encoder(loaded.tokenizer, loaded.end_ids)
    row = example(("u", "one two"), ("a", "three four"))
    assert "three four" in "".join(t.text for t in show_tokens(e, row))


def test_a_row_that_the_template_refuses_is_named():
    strict = "{{ raise_exception('roles must alternate') if messages | length > 1 }}" + _CHATML
    with pytest.raises(DataError, match=r"row 'r1'.*roles must alternate"):
        encoder(strict).encode(example(("u", "a"), ("a", "b")))


def test_a_sentencepiece_tokenizer(shared):
    from tunewise.models.loading import load_local
    from tunewise.models.names import parse_model

    loaded = load_local(parse_model(str(shared / "models" / "stories260k-hf")))
    e = Encoder(loaded.tokenizer, loaded.end_ids)
    row = e.encode(word_examples(1)[0])
    learnt = e.tokenizer.decode(row.ids[row.weights > 0])
    assert learnt.strip() == word_examples(1)[0].answer + "</s>"
    assert codes(e, word_examples(5)) == {}
