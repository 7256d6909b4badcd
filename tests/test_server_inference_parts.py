"""The engine's parts, each by itself: text, sampling, kept prompts, memory, adapters' layers."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from inference_support import save_adapter
from models_support import make_tokenizer, save_model, sentence
from tunewise.errors import ModelError
from tunewise.models.quiet import quiet
from tunewise.server.inference import wire
from tunewise.server.inference.adapters import replaces_modules
from tunewise.server.inference.backend import Part
from tunewise.server.inference.memory import Arenas, Budget, OutOfMemory, Shape
from tunewise.server.inference.prefixes import BLOCK, PrefixCache
from tunewise.server.inference.prepare import prepare
from tunewise.server.inference.protocol import (
    Done,
    Embedded,
    Event,
    Failed,
    Generate,
    ModelRef,
    Piece,
    TokenLogprob,
)
from tunewise.server.inference.runner import Runner
from tunewise.server.inference.sampling import choose
from tunewise.server.inference.sequence import RequestState, Sampling, Sequence
from tunewise.server.inference.serving import Serving, load_adapter, load_serving
from tunewise.server.inference.text import TextStream, TokenTexts

TOKENIZER = make_tokenizer()
TOOLS = ({"type": "function", "function": {"name": "f"}},)
SHAPE = Shape(2, 3, 4, torch.float32, torch.device("cpu"))


def stream_of(text: str, stop: tuple[str, ...] = (), tools: bool = False) -> tuple[list[str], Any]:
    stream = TextStream(TOKENIZER, stop, TOOLS if tools else ())
    out = []
    for token in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
        out.append(stream.add(token))
        if stream.stopped:
            break
    return out, stream.finish()


def test_characters_of_several_tokens_come_whole() -> None:
    text = "Tom 😀 sees 日本語 é."
    out, (rest, calls) = stream_of(text)
    assert "".join(out) + rest == text
    assert not calls
    assert all("\ufffd" not in piece for piece in out)
    # Cut in the middle of a character, the rest is told as the whole text would show it.
    ids = TOKENIZER("a😀", add_special_tokens=False)["input_ids"][:-1]
    stream = TextStream(TOKENIZER, ())
    given = "".join(stream.add(i) for i in ids)
    assert given == "a"
    assert given + stream.finish()[0] == TOKENIZER.decode(ids)


@pytest.mark.parametrize("stop", [("the cat",), ("x", "sees the"), ("Anna",), ("s", "e")])
def test_no_beginning_of_a_stop_string_is_given_out(stop: tuple[str, ...]) -> None:
    text = "Tom sees th. Tom sees the. Anna likes the cat of the dog."
    out, (rest, _) = stream_of(text, stop)
    at = min(text.find(s) for s in stop if s in text)
    assert "".join(out) + rest == text[:at]
    given = ""
    for piece in out:
        given += piece
        assert text[:at].startswith(given)


def test_calls_are_held_back_and_text_is_not() -> None:
    call = '{"name": "go", "arguments": {"to": "Rome"}}'
    out, (rest, calls) = stream_of(f"I go. <tool_call>{call}</tool_call>", tools=True)
    assert "".join(out) == "I go. "
    assert rest == ""
    assert json.loads(calls[0]["function"]["arguments"]) == {"to": "Rome"}
    out, (rest, calls) = stream_of(call, tools=True)
    assert "".join(out) + rest == ""
    assert calls[0]["function"]["name"] == "go"
    out, (rest, calls) = stream_of('{"no": "call"} <b>', tools=True)
    assert "".join(out) + rest == '{"no": "call"} <b>'
    assert not calls


@pytest.mark.parametrize(
    ("text", "before", "name", "arguments"),
    (
        ('Well. <tool_call>\n{"name": "f", "arguments": {"to": "Ro', "Well.", "f", '{"to": "Ro'),
        ('<tool_call>{"name": "f", "arguments": {"to": "Rome"}}', "", "f", '{"to": "Rome"}'),
        ('<tool_call>{"name": "f", "argum', "", "f", ""),
        ('{"name": "f", "parameters": {"a": [1, 2', "", "f", '{"a": [1, 2'),
        ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1', "", "f", '{"a": 1'),
        ('[TOOL_CALLS]f[ARGS]{"a": 1', "", "f", '{"a": 1'),
        ('<|python_tag|>{"name": "f", "parameters": {"a"', "", "f", '{"a"'),
        ('<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a"', "", "f", '{"a"'),
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
            '<|tool_call_argument_begin|>{"a"',
            "",
            "f",
            '{"a"',
        ),
        (
            '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a"',
            "",
            "f",
            '{"a"',
        ),
        (
            "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nRo",
            "",
            "f",
            '{"a": 1, "b": "Ro',
        ),
    ),
)
def test_a_call_that_the_budget_cuts_is_a_call(
    text: str, before: str, name: str, arguments: str
) -> None:
    places = {"properties": {"b": {"type": "string"}}}
    tools = ({"type": "function", "function": {"name": "f", "parameters": places}},)
    stream = TextStream(TOKENIZER, (), tools)
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    given = "".join(stream.add(token) for token in ids)
    rest, calls = stream.finish(cut=True)
    assert (given + rest).strip() == before
    assert [call["function"] for call in calls] == [{"name": name, "arguments": arguments}]
    assert stream.cut_in_call
    # The end of an answer is no cut: what was written is what the model said.
    stream = TextStream(TOKENIZER, (), tools)
    given = "".join(stream.add(token) for token in ids)
    rest, calls = stream.finish()
    assert given + rest == text
    assert not calls
    assert not stream.cut_in_call


@pytest.mark.parametrize("text", ['{"name": "g", "arguments": {"a', '{"no": 1', "a <tool_call>{"])
def test_what_may_be_no_call_stays_text(text: str) -> None:
    stream = TextStream(TOKENIZER, (), TOOLS)
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    given = "".join(stream.add(token) for token in ids)
    assert stream.finish(cut=True) == (text[len(given) :], ())


def test_a_token_has_its_own_bytes() -> None:
    texts = TokenTexts(TOKENIZER)
    ids = TOKENIZER(" é😀 the", add_special_tokens=False)["input_ids"]
    assert b"".join(bytes(texts(i)[1]) for i in ids) == " é😀 the".encode()
    assert texts(1)[0] == "</s>"


def row_with(
    temperature: float = 1.0, top_p: float = 1.0, seed: int = 0, **more: float
) -> Sequence:
    sampling = Sampling(temperature, top_p, 0.0, 0.0, {}, None, **more)  # type: ignore[arg-type]
    request: Any = RequestState("r", None, 0, "", [0], 9, sampling, None)  # type: ignore[arg-type]
    text: Any = None
    return Sequence(request, 0, text, random.Random(seed), [0])


def test_sampling_follows_the_distribution_and_the_nucleus() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    free = row_with()
    counts = Counter(choose(logits.expand(1, 4).clone(), [free])[0] for _ in range(4000))
    assert [counts[i] / 4000 for i in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    narrow = row_with(top_p=0.7)
    counts = Counter(choose(logits.expand(1, 4).clone(), [narrow])[0] for _ in range(2000))
    assert set(counts) == {0, 1}  # the token that crosses the line is in
    assert counts[0] / 2000 == pytest.approx(0.625, abs=0.04)
    # A row draws the same among others as alone.
    rows = [row_with(seed=i, top_p=0.9 if i % 2 else 1.0) for i in range(6)]
    together = choose(logits.expand(6, 4).clone(), rows)
    alone = [
        choose(logits.expand(1, 4).clone(), [row_with(seed=i, top_p=0.9 if i % 2 else 1.0)])[0]
        for i in range(6)
    ]
    assert together == alone


def test_what_vllm_leaves_out_is_never_drawn() -> None:
    logits = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04]))

    def drawn(**options: float) -> Counter[int]:
        row = row_with(**options)
        return Counter(choose(logits.expand(1, 5).clone(), [row])[0] for _ in range(2000))

    assert set(drawn(top_k=2)) == {0, 1}
    assert drawn(top_k=2)[0] / 2000 == pytest.approx(4 / 7, abs=0.04)
    assert set(drawn(min_p=0.4)) == {0, 1, 2}
    assert set(drawn(min_p=0.05)) == {0, 1, 2, 3, 4}
    # Each narrows what the one before has left: of 0.4 and 0.3 the first has more than 0.5.
    assert set(drawn(top_k=2, top_p=0.5)) == {0}
    assert set(drawn(top_p=0.5)) == {0, 1}
    assert set(drawn(min_p=1.0)) == set(drawn(top_k=1)) == {0}
    rows = [row_with(), row_with(top_k=1), row_with(min_p=0.9)]
    for _ in range(50):
        assert choose(logits.expand(3, 5).clone(), rows)[1:] == [0, 0]


def test_a_penalty_for_repetition_weakens_what_was_said() -> None:
    row = row_with(temperature=0.0, repetition_penalty=2.0)
    logits = torch.tensor([[3.0, 2.0, -1.0]])
    assert choose(logits.clone(), [row]) == [0]
    row.seen = {0}
    assert choose(logits.clone(), [row]) == [1]
    changed = logits.clone()
    row.seen = {0, 2}
    choose(changed, [row])
    assert changed.tolist() == [[1.5, 2.0, -2.0]]


def test_a_certain_token_is_always_drawn_and_an_impossible_one_never() -> None:
    logits = torch.full((1, 50), -torch.inf)
    logits[0, 49] = 0.0
    assert {choose(logits.clone(), [row_with(seed=s)])[0] for s in range(50)} == {49}


def test_kept_prompts_are_shared_by_blocks_and_leave_by_use() -> None:
    budget = Budget(2 * 8 * BLOCK * SHAPE.bytes_per_token)
    cache = PrefixCache(SHAPE, budget)  # eight blocks: half of the budget
    data = torch.randn(2, 2, 3, 4 * BLOCK, 4)
    tokens = list(range(4 * BLOCK))
    cache.keep("a", tokens, data)
    assert torch.equal(torch.cat(cache.find("a", tokens), dim=3), data)
    assert cache.find("b", tokens) == []
    assert len(cache.find("a", [*tokens[: 2 * BLOCK], *[7] * BLOCK])) == 2
    other = [*tokens[: 2 * BLOCK], *range(500, 500 + 2 * BLOCK)]
    cache.keep("a", other, data)
    assert budget.used == 6 * BLOCK * SHAPE.bytes_per_token  # the first two blocks lie there once
    cache.find("a", tokens)
    cache.keep("c", list(range(900, 900 + 4 * BLOCK)), data)
    assert len(cache.find("a", tokens)) == 4  # what was used last stays
    assert len(cache.find("a", other)) == 2
    while cache.shrink():
        pass
    assert budget.used == 0
    assert cache.find("a", tokens) == []


def test_rows_keep_their_numbers_through_every_move() -> None:
    budget = Budget(1 << 30)
    arenas = Arenas(SHAPE, budget, 1000)
    generator = random.Random(3)
    held: dict[int, tuple[Sequence, torch.Tensor]] = {}
    for step in range(300):
        if len(held) < 12 and generator.random() < 0.5:
            row, length = row_with(), generator.randint(1, 500)
            row.fed = length
            data = torch.randn(2, 2, 3, length, 4)
            arenas.admit(row, data)
            held[step] = (row, data)
        elif held:
            key = generator.choice(sorted(held))
            row, data = held[key]
            if generator.random() < 0.5:
                row.held.remove(row)
                del held[key]
            else:  # grow past the arena's end
                more = row.held.capacity - row.fed
                row.held.view(row)[:, :, :, row.fed :] = 1.5
                data = torch.cat([data, torch.full((2, 2, 3, more, 4), 1.5)], dim=3)
                if row.fed + more < 900:
                    row.fed += more
                    arenas.make_room(row)
                    held[key] = (row, data)
        for row, data in held.values():
            assert torch.equal(row.held.view(row)[:, :, :, : row.fed], data[:, :, :, : row.fed])
    for row, _ in held.values():
        row.held.remove(row)
    assert budget.used == 0
    small = Arenas(SHAPE, Budget(10), 1000)
    with pytest.raises(OutOfMemory):
        small.admit(row_with(), torch.zeros(2, 2, 3, 4, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_model(tmp_path_factory.mktemp("llama"))


def answer(serving: Serving, requests: list[Generate], rows: int = 16) -> list[str]:
    """Answer all requests together, in this process."""
    events: dict[str, list[Event]] = {r.id: [] for r in requests}
    runner = Runner(
        serving, lambda id, e: events[id].append(e), lambda r: None, lambda: False, rows, 64
    )
    with torch.inference_mode():
        for request in requests:
            runner.add(prepare(request, serving, 0))
        steps = 0
        while runner.busy:
            runner.step()
            steps += 1
            assert steps < 5000
    for got in events.values():
        assert isinstance(got[-1], Done), got[-1]
    return ["".join(e.text for e in events[r.id] if isinstance(e, Piece)) for r in requests]


def question(number: int, tokens: int = 60) -> Generate:
    messages = ({"role": "user", "content": sentence(number, 5 + 3 * number)},)
    return Generate(
        f"q{number}", ModelRef("m", None, "m"), messages, None, max_tokens=tokens, temperature=0.0
    )


def test_rows_that_were_put_back_for_want_of_memory_answer_the_same(folder: Path) -> None:
    requests = [question(i) for i in range(8)]
    wanted = answer(load_serving(str(folder), Budget(1 << 30)), requests)
    token = 3 * 2 * 2 * 12 * 4
    # Room for a few rows only, so that some are put back in the middle of their answer.
    tight = Budget(800 * token)
    serving = load_serving(str(folder), tight)
    assert answer(serving, requests) == wanted
    serving.backend.forget()
    assert tight.used == 0


@pytest.mark.parametrize("kind", ["qwen3", "mistral", "gpt_oss", "qwen3_next"])
def test_other_kinds_of_models_answer_as_generate_does(kind: str, tmp_path: Path) -> None:
    several: dict[str, dict[str, Any]] = {
        "mistral": {"sliding_window": 24},
        "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1},
        "qwen3_next": {
            "layer_types": ["linear_attention", "linear_attention", "full_attention"],
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    }
    changes = several.get(kind, {})
    serving = load_serving(str(save_model(tmp_path / kind, kind, **changes)), Budget(1 << 30))
    ragged = type(serving.backend).__name__ == "RaggedBackend"
    assert ragged == (kind in ("qwen3", "mistral"))
    requests = [question(i, 20) for i in range(4)]
    loaded = serving.loaded
    fresh = load_serving(str(tmp_path / kind), Budget(1 << 30)).loaded
    fresh.model.set_attn_implementation("eager")
    for request, got in zip(requests, answer(serving, requests), strict=True):
        state = prepare(request, serving, 0)
        ids = torch.tensor([state.prompt])
        output = fresh.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=list(loaded.end_ids),
            pad_token_id=loaded.pad_id,
        )
        assert got == loaded.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_adapters_that_cannot_be_served_say_why(folder: Path, tmp_path: Path) -> None:
    serving = load_serving(str(folder), Budget(1 << 30))
    good = save_adapter(folder, tmp_path / "good")

    def changed(name: str, **config: Any) -> Path:
        copy = shutil.copytree(good, tmp_path / name)
        path = copy / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        return copy

    for adapter, why in [
        (changed("ia3", peft_type="IA3"), "IA3"),
        (changed("bias", bias="all"), "bias"),
        (changed("saved", modules_to_save=["lm_head"]), "modules_to_save(.|\\n)*merge_and_unload"),
        (changed("dora", use_dora=True), "magnitude"),
        (changed("regex", alpha_pattern={"(.*.*)*x(": 1}), "makes no sense"),
        (tmp_path, "no adapter_config.json"),
    ]:
        with pytest.raises(ModelError, match=why):
            load_adapter(serving, str(adapter))
    slow = changed("slow", alpha_pattern={r"(\w|[a-z._]|.)*(?!.)[A-Z]": 1})
    with pytest.raises(ModelError, match="makes no sense"):
        load_adapter(serving, str(slow))
    other = save_model(tmp_path / "other", hidden_size=24)
    wide = save_adapter(other, tmp_path / "wide")
    with pytest.raises(ModelError, match="in the model, and"):
        load_adapter(serving, str(wide))
    from safetensors.torch import load_file, save_file

    weights = load_file(good / "adapter_model.safetensors")
    first = next(iter(weights))
    save_file({**weights, first: weights[first] * torch.inf}, good / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="no finite"):
        load_adapter(serving, str(good))


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}])
@pytest.mark.parametrize("module", ["lm_head", "embed_tokens", "norm"])
def test_adapters_with_modules_of_their_own_give_the_logits_of_peft(
    module: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "base", **changes)
    place = save_adapter(folder, tmp_path / "adapter", modules_to_save=[module])
    assert replaces_modules(place) and not replaces_modules(folder)
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(folder)
        model = PeftModel.from_pretrained(base, str(place)).eval()
    serving = load_serving(str(folder), Budget(1 << 30), str(place))
    assert type(serving.backend).__name__ == "RaggedBackend"
    updates, *_ = load_adapter(serving, str(place))
    serving.table.add(1, updates)
    ids = torch.tensor([[3, 5, 8, 13, 21]])
    with torch.inference_mode():
        wanted = model(ids).logits[0, -1]
        for number, differs in ((1, False), (0, True)):
            asked = Generate("r", ModelRef("m", None, "m"), None, tuple(ids[0].tolist()))
            state = prepare(asked, serving, number)
            row = state.sequences[0]
            row.end = len(row.tokens)
            serving.backend.begin(row, reuse=False)
            found = serving.backend.step([Part(row, len(row.tokens), "last")]).parts[0][-1]
            assert torch.allclose(found, wanted, atol=1e-5) is not differs
    # What does not fit is refused before anybody is answered.
    config = place / "adapter_config.json"
    config.write_text(config.read_text().replace(f'"{module}"', '"score"'))
    with pytest.raises(ModelError, match="no weights of score"):
        load_serving(str(folder), Budget(1 << 30), str(place))


def test_messages_cross_unchanged() -> None:
    request = Generate(
        "r",
        ModelRef("b", "a", "n"),
        ({"role": "user", "content": "\ud800 lone"},),
        None,
        stop=("x",),
        logit_bias={5: -1.5},
        schema={"type": "object"},
    )
    token = TokenLogprob("é", (195, 169), -0.5, (("a", (97,), -1.0),))
    events: list[Event | Embedded] = [
        Piece(1, "t", (token,), "stop", ({"id": "call_0"},)),
        Done(1, 2, 3),
        Failed("m", "c"),
        Embedded(((0.5, 0.25),), 4),
    ]
    pipe = io.BytesIO()
    wire.send(pipe, {"generate": wire.pack_request(request)})
    wire.send(pipe, {"events": [wire.pack_event(e) for e in events]})
    pipe.seek(0)
    first, second = wire.receive(pipe), wire.receive(pipe)
    assert first is not None
    assert second is not None
    assert wire.unpack_generate(first["generate"]) == request
    assert [wire.unpack_event(e) for e in second["events"]] == events
    assert wire.receive(pipe) is None
    assert wire.receive(io.BytesIO(b"\0\0\0\x09{}")) is None  # broken off
