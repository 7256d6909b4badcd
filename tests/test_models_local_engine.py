"""The local engine answers as plain one-by-one generation does, whatever it shares and batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from models_support import lora, save_model, sentence
from tunewise.data.chat import Request
from tunewise.models.chat_format import render_prompt
from tunewise.models.constraint import closed
from tunewise.models.loading import LoadedModel, load_local
from tunewise.models.local_engine import LocalEngine
from tunewise.models.names import parse_model


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(save_model(tmp_path_factory.mktemp("llama")))


def load(folder: Path) -> LoadedModel:
    return load_local(parse_model(str(folder)))


def few_shot(question: str, shots: int = 6, style: int = 0, **options: Any) -> Request:
    messages: list[dict[str, str]] = [{"role": "system", "content": sentence(1000, 20)}]
    for shot in range(shots):
        messages.append({"role": "user", "content": sentence(100 * style + shot, 10)})
        messages.append({"role": "assistant", "content": sentence(500 + 100 * style + shot, 3)})
    messages.append({"role": "user", "content": question})
    return Request(messages=tuple(messages), **{"max_tokens": 12, **options})


def one_by_one(loaded: LoadedModel, request: Request) -> str:
    """transformers' own greedy generation, one prompt at a time, without anything shared."""
    text = render_prompt(loaded.tokenizer, request.messages, request.tools)
    ids = torch.tensor([loaded.tokenizer(text, add_special_tokens=False)["input_ids"]])
    output = loaded.model.generate(
        ids.to(loaded.device),
        attention_mask=torch.ones_like(ids),
        max_new_tokens=request.max_tokens,
        do_sample=False,
        eos_token_id=list(loaded.end_ids),
        pad_token_id=loaded.pad_id,
    )
    answer = str(loaded.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    ends = [answer.find(s) for s in (*request.stop, *loaded.stop) if s in answer]
    return answer[: min(ends)] if ends else answer


def mixed_requests() -> list[Request]:
    """Two groups of shots below one system prompt, loners, and questions of many lengths."""
    grouped = [few_shot(sentence(i, 3 + i % 17), style=i % 2) for i in range(24)]
    return [*grouped, *(few_shot(sentence(90 + i, 4), shots=0) for i in range(3))]


def test_batches_with_shared_prefixes_answer_as_generate_does(llama: LoadedModel) -> None:
    requests = mixed_requests()
    engine = LocalEngine(llama)
    answers = engine.answer(requests)
    assert engine._decoder.can_share(100)
    assert [a.text for a in answers] == [one_by_one(llama, r) for r in requests]
    # The two groups share their shots, the loners only what all share.
    shared = [a.cached_tokens or 0 for a in answers]
    assert len(set(shared[0:24:2])) == len(set(shared[1:24:2])) == 1
    assert min(shared[:24]) > 3 * max(shared[24:])
    # A model that says the same to everything would prove nothing.
    assert len({a.text for a in answers}) > 10
    assert {a.request_key for a in answers} == {r.key for r in requests}
    assert all(a.latency_s and a.prompt_tokens and a.completion_tokens for a in answers)


def test_rows_that_end_leave_the_others_as_they_are(llama: LoadedModel) -> None:
    requests = [few_shot(sentence(i, 2 + i % 5), max_tokens=1 + 7 * i % 15) for i in range(20)]
    answers = LocalEngine(llama).answer(requests)
    assert [a.text for a in answers] == [one_by_one(llama, r) for r in requests]
    assert len({a.completion_tokens for a in answers}) > 10


def test_sixteen_bits_share_prefixes_too(llama: LoadedModel) -> None:
    loaded = load_local(parse_model(str(llama.folder)), dtype="bfloat16")
    engine = LocalEngine(loaded)
    assert engine._decoder.can_share(100)
    answers = engine.answer([few_shot(sentence(i, 5)) for i in range(6)])
    assert all(a.text and a.cached_tokens for a in answers)


@pytest.mark.parametrize(
    ("kind", "shares", "changes"),
    [
        ("qwen3", True, {}),
        ("mistral", True, {"sliding_window": None}),
        ("mistral", False, {"sliding_window": 40}),
        ("gpt_oss", False, {"num_local_experts": 2, "num_experts_per_tok": 1}),
        (
            "qwen3_next",
            False,
            {"num_experts": 2, "num_experts_per_tok": 1, "linear_num_value_heads": 2,
             "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
             "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
             "num_hidden_layers": 4},
        ),
    ],
)  # fmt: skip
def test_other_architectures_share_or_say_no(
    kind: str, shares: bool, changes: dict[str, Any], tmp_path: Path
) -> None:
    loaded = load(save_model(tmp_path / kind, kind, **changes))
    engine = LocalEngine(loaded)
    requests = [few_shot(sentence(i, 3 + i), shots=2) for i in range(6)]
    assert engine._decoder.can_share(200) is shares
    assert [a.text for a in engine.answer(requests)] == [one_by_one(loaded, r) for r in requests]


def test_a_real_pretrained_model_and_its_plain_template(shared: Path) -> None:
    loaded = load(shared / "models" / "stories260k-hf")
    assert loaded.plain_template
    requests = [
        Request(messages=({"role": "user", "content": f"Tell me about {w}."},), max_tokens=30)
        for w in ("a cat", "Lily and her red ball", "the sun", "mom")
    ]
    answers = LocalEngine(loaded).answer(requests)
    assert [a.text for a in answers] == [one_by_one(loaded, r) for r in requests]


def test_repeated_runs_agree_and_progress_reaches_the_end(llama: LoadedModel) -> None:
    requests = [few_shot(sentence(i, 5), temperature=1.0, seed=i % 3) for i in range(8)]
    steps: list[tuple[int, int]] = []
    first = LocalEngine(llama).answer(
        requests, lambda done, total, failed=0: steps.append((done, total))
    )
    again = LocalEngine(llama, batch_tokens=64).answer(list(reversed(requests)))
    # Sampled answers depend on request and seed alone, not on the batch they stood in.
    assert [a.text for a in first] == [a.text for a in reversed(again)]
    assert steps[0] == (0, 8) and steps[-1] == (8, 8)
    other = LocalEngine(llama).answer([few_shot(sentence(0, 5), temperature=1.0, seed=77)])
    assert other[0].text != first[0].text


def test_counting_a_long_text_says_nothing_of_its_own(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import tokenization_utils_base

    said: list[object] = []
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", said.append)
    monkeypatch.setattr(llama.tokenizer, "deprecation_warnings", {})  # each is said once
    monkeypatch.setattr(llama.tokenizer, "model_max_length", 1024)
    engine = LocalEngine(llama)
    asked = {"role": "user", "content": sentence(0, 3000)}
    assert engine.count_tokens([asked]) > 1024
    assert engine.answer([Request((asked,))])[0].error
    assert said == []


def test_too_long_a_prompt_fails_and_says_why(llama: LoadedModel) -> None:
    long = Request(messages=({"role": "user", "content": sentence(0, 2000)},))
    nearly = few_shot(sentence(1, 5), max_tokens=100_000)
    failed, answered = LocalEngine(llama).answer([long, nearly])
    assert failed.error is not None and "context is 1,024" in failed.error and failed.text == ""
    assert answered.error is None
    total = (answered.prompt_tokens or 0) + (answered.completion_tokens or 0)
    assert answered.finish_reason == "stop" or total == llama.context_length


def test_stop_strings_cut_the_answer(llama: LoadedModel) -> None:
    request = few_shot(sentence(3, 6))
    whole = LocalEngine(llama).answer([request])[0].text
    stop = whole[4:6]
    cut = LocalEngine(llama).answer([few_shot(sentence(3, 6), stop=(stop,))])[0]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2},
    },
    "required": ["colour", "count", "tags"],
    "additionalProperties": False,
}


def test_a_json_schema_is_always_kept(llama: LoadedModel) -> None:
    constrained = [
        few_shot(sentence(i, 6), json_schema=SCHEMA, max_tokens=120, temperature=(i % 2) * 1.5)
        for i in range(10)
    ]
    free = few_shot(sentence(99, 6))
    answers = LocalEngine(llama).answer([*constrained, free])
    for answer in answers[:-1]:
        assert (answer.error, answer.finish_reason) == (None, "stop")
        jsonschema.validate(json.loads(answer.text), SCHEMA)
    assert len({a.text for a in answers[:-1]}) > 3
    assert answers[-1].text == one_by_one(llama, free)


@pytest.mark.parametrize(
    ("schema", "is_closed"),
    [
        ({"type": "object", "properties": {"a": {}}}, True),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, False),
        ({"type": "object"}, False),
        ({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}, False),
        ({"properties": {"a": {}}, "patternProperties": {"^x": {}}}, False),
    ],
)
def test_objects_are_closed_unless_the_schema_opens_them(
    schema: dict[str, Any], is_closed: bool
) -> None:
    assert (closed(schema).get("additionalProperties") is False) is is_closed
    nested = {"properties": {"inner": schema}, "$defs": {"d": schema}, "items": [schema]}
    found = closed(nested)
    for place in (found["properties"]["inner"], found["$defs"]["d"], found["items"][0]):
        assert (place.get("additionalProperties") is False) is is_closed
    assert closed({"allOf": [schema]}) == {"allOf": [schema]}


def test_an_answer_has_no_keys_that_its_schema_does_not_name(llama: LoadedModel) -> None:
    schema = {
        "type": "object",
        "properties": {"cat": {"type": "integer"}, "dog": {"type": "boolean"}},
        "required": ["cat", "dog"],
    }
    requests = [few_shot(sentence(i, 6), json_schema=schema, max_tokens=80) for i in range(6)]
    for answer in LocalEngine(llama).answer(requests):
        assert set(json.loads(answer.text)) == {"cat", "dog"}, answer


def test_a_schema_that_cannot_be_enforced_fails_alone(llama: LoadedModel) -> None:
    bad = few_shot("Hello", json_schema={"type": "object", "dependentSchemas": {"a": 3}})
    answers = LocalEngine(llama).answer([bad, few_shot("Hello")])
    assert answers[0].error is not None and "cannot be enforced" in answers[0].error
    assert answers[1].error is None


def test_adapters_share_one_base_and_switch_on_and_off(tmp_path: Path) -> None:
    loaded = load(save_model(tmp_path / "base"))
    requests = [few_shot(sentence(i, 6)) for i in range(6)]
    untouched = [one_by_one(loaded, r) for r in requests]
    one = LocalEngine(loaded, adapter=lora(loaded, tmp_path / "one", 1))
    two = LocalEngine(loaded, adapter=lora(loaded, tmp_path / "two", 2))
    base = LocalEngine(loaded)
    assert one.loaded is two.loaded is base.loaded
    assert len({one.revision, two.revision, base.revision}) == 3
    first = [a.text for a in one.answer(requests)]
    second = [a.text for a in two.answer(requests)]
    assert [a.text for a in base.answer(requests)] == untouched
    assert first != untouched and second != untouched and first != second
    with loaded.using(one._adapter):
        assert first == [one_by_one(loaded, r) for r in requests]
    # Engines that take turns inside one another do not disturb each other either.
    tuned, plain = one.iterate(requests), base.iterate(requests)
    pairs = list(zip(tuned, plain, strict=True))
    assert sorted((i, a.text) for (i, a), _ in pairs) == list(enumerate(first))
    assert sorted((i, a.text) for _, (i, a) in pairs) == list(enumerate(untouched))


def test_nothing_is_printed(llama: LoadedModel, capfd: pytest.CaptureFixture[str]) -> None:
    again = load(llama.folder)
    LocalEngine(again).answer([few_shot("Hello")])
    assert capfd.readouterr() == ("", "")


THINKING = {
    # The head opens a thought (DeepSeek R1), or a special token does (Magistral).
    "head": "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    "token": "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{# [/THINK] #}",
}


def _thinking(folder: Path, kind: str) -> LocalEngine:
    from transformers import AutoTokenizer

    save_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    turns = (
        "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    tokenizer.chat_template = turns + THINKING[kind]
    tokenizer.save_pretrained(folder)
    return LocalEngine(load(folder))


def _written(engine: LocalEngine, text: str, request: Request) -> Any:
    """The completion of an answer whose tokens are known."""
    from tunewise.models.decoding import Row

    (prompt,) = engine._texts([request])
    assert isinstance(prompt, str)
    ids = engine.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    row = Row(prompt=[1], budget=99, ids=ids, generated=len(ids))
    opened = prompt.rstrip().endswith("<think>")
    return engine._completion(request, row, 0.0, 0, opened=opened)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("head", "It is odd.\n</think>\n\nno"),
        ("token", "[THINK]It is odd.[/THINK]no"),
    ],
)
def test_thoughts_are_taken_out_of_local_answers(tmp_path: Path, kind: str, text: str) -> None:
    engine = _thinking(tmp_path, kind)
    question = Request(({"role": "user", "content": "Odd?"},), max_tokens=4)
    assert engine.thinks
    assert engine.revision.endswith("+thoughts")
    answer = _written(engine, text, question)
    assert (answer.text, answer.thoughts, answer.unfinished) == ("no", "It is odd.", False)
    assert answer.completion_tokens > 4
    if kind == "head":
        assert _written(engine, "It is", question).unfinished
        # What a random model writes in four tokens closes no thought.
        assert engine.answer([question])[0].unfinished


def test_an_answer_held_to_a_schema_has_no_thoughts(tmp_path: Path) -> None:
    engine = _thinking(tmp_path, "head")
    schema = {"enum": ["yes", "no"]}
    question = Request(({"role": "user", "content": "Odd?"},), json_schema=schema)
    (prompt,) = engine._texts([question])
    assert isinstance(prompt, str)
    assert prompt.endswith("<think>\n\n</think>\n\n")
    answer = engine.answer([question])[0]
    assert json.loads(answer.text) in ("yes", "no")
    assert not answer.unfinished


def test_a_model_that_thinks_has_room_for_it(tmp_path: Path, llama: LoadedModel) -> None:
    from tunewise.models.engine import room_for_thoughts

    assert room_for_thoughts(LocalEngine(llama)) == 0
    engine = _thinking(tmp_path, "head")
    assert engine.context_length is not None
    assert room_for_thoughts(engine) == min(1024, engine.context_length // 4)
