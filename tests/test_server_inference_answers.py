"""What the engine's process answers, compared with transformers, peft and the local engine."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from inference_support import ask, pieces, reason_of, save_adapter, text_of
from models_support import save_model, sentence
from tunewise.data.chat import Request
from tunewise.models.loading import LoadedModel, load_local
from tunewise.models.local_engine import LocalEngine
from tunewise.models.names import parse_model
from tunewise.models.quiet import quiet
from tunewise.server.inference.client import InferenceClient
from tunewise.server.inference.limits import EngineLimits
from tunewise.server.inference.protocol import Done, Embed, Failed, Generate, ModelRef
from tunewise.server.inference.text import TokenTexts

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "r": 6},
    "dora": {"use_dora": True},
    "patterns": {
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 3},
    },
    "head": {"modules_to_save": ["lm_head"]},
    "embedding and norms": {"modules_to_save": ["embed_tokens", "norm"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def adapters(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        kind: save_adapter(folder, root / kind, seed=i, **options)
        for i, (kind, options) in enumerate(KINDS.items())
    }


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_local(parse_model(str(folder)))


@pytest.fixture(scope="module")
def client() -> Iterator[InferenceClient]:
    engine = InferenceClient(EngineLimits(threads=1, chunk=64, rows=24))
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def model(folder: Path) -> ModelRef:
    return ModelRef(str(folder), None, "test")


def at_once(client: InferenceClient, requests: list[Generate]) -> list[list[Any]]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(client.generate_sync, requests))


def merged(folder: Path, adapter: Path, loaded: LoadedModel) -> LoadedModel:
    """The model with an adapter worked into its weights by peft."""
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(folder)
        model = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    return replace(loaded, model=model.eval())


def test_base_and_adapters_of_every_kind_in_one_batch_answer_as_the_local_engine_does(
    client: InferenceClient, folder: Path, adapters: dict[str, Path], loaded: LoadedModel
) -> None:
    jobs = []
    for i in range(20):
        kind = [None, *KINDS][i % (1 + len(KINDS))]
        jobs.append((kind, sentence(i, 3 + (i * 7) % 60)))
    answers = at_once(
        client,
        [
            ask(
                ModelRef(str(folder), str(adapters[kind]) if kind else None, "test"),
                text,
                max_tokens=10 + i,
            )
            for i, (kind, text) in enumerate(jobs)
        ],
    )
    seen = set()
    for kind in [None, *KINDS]:
        local = LocalEngine(merged(folder, adapters[kind], loaded) if kind else loaded)
        chosen = [i for i, job in enumerate(jobs) if job[0] == kind]
        wanted = local.answer(
            [
                Request(messages=({"role": "user", "content": jobs[i][1]},), max_tokens=10 + i)
                for i in chosen
            ]
        )
        for i, completion in zip(chosen, wanted, strict=True):
            assert text_of(answers[i]) == completion.text, kind
            assert reason_of(answers[i]) == completion.finish_reason
            done = answers[i][-1]
            assert (done.prompt_tokens, done.completion_tokens) == (
                completion.prompt_tokens,
                completion.completion_tokens,
            )
            seen.add(completion.text)
    assert len(seen) > 15  # the adapters change the answers


def test_a_kept_prompt_is_reused_and_changes_nothing(
    client: InferenceClient, model: ModelRef, folder: Path, adapters: dict[str, Path]
) -> None:
    text = sentence(77, 40)
    first = client.generate_sync(ask(model, text))
    again = client.generate_sync(ask(model, text))
    assert first[-1].cached_tokens == 0
    assert again[-1].cached_tokens > again[-1].prompt_tokens - 17
    assert text_of(first) == text_of(again)
    longer = client.generate_sync(ask(model, text + " Anna likes the cat."))
    assert longer[-1].cached_tokens >= 16
    # Neither another adapter's prompts nor another project's.
    other = ModelRef(model.base, str(adapters["lora"]), "tuned")
    assert client.generate_sync(ask(other, text))[-1].cached_tokens == 0
    assert client.generate_sync(ask(model, text, scope="p2"))[-1].cached_tokens == 0


def test_several_choices_share_the_prompt_and_differ_by_seed(
    client: InferenceClient, model: ModelRef
) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "seed": 11, "n": 4}
    one = client.generate_sync(ask(model, **options))
    two = client.generate_sync(ask(model, **options))
    texts = [text_of(one, choice) for choice in range(4)]
    assert texts == [text_of(two, choice) for choice in range(4)]
    assert len(set(texts)) == 4
    assert one[-1].prompt_tokens == client.generate_sync(ask(model))[-1].prompt_tokens
    # The same answer again among others that come and go.
    crowd = [ask(model, sentence(i, 20), temperature=1.0, seed=i) for i in range(8)]
    answers = at_once(client, [ask(model, **options), *crowd])
    assert [text_of(answers[0], choice) for choice in range(4)] == texts
    other = client.generate_sync(ask(model, **{**options, "seed": 12}))
    assert text_of(other) != texts[0]


def test_a_tiny_nucleus_and_a_tiny_temperature_are_greedy(
    client: InferenceClient, model: ModelRef
) -> None:
    wanted = text_of(client.generate_sync(ask(model)))
    for options in ({"temperature": 2.0, "top_p": 1e-6}, {"temperature": 1e-6}):
        assert text_of(client.generate_sync(ask(model, **options))) == wanted


def test_log_probabilities_are_those_of_a_direct_forward(
    client: InferenceClient, model: ModelRef, loaded: LoadedModel
) -> None:
    prompt = sentence(3, 100)
    answer = client.generate_sync(ask(model, prompt=prompt, echo=True, logprobs=3, max_tokens=5))
    told = [t for piece in pieces(answer) for t in piece.logprobs]
    ids = loaded.tokenizer(prompt)["input_ids"]
    assert len(ids) > 64  # so that the prompt is read in more than one step
    assert math.isnan(told[0].logprob)
    assert text_of(answer).startswith(prompt)
    texts = TokenTexts(loaded.tokenizer)
    by_bytes = {texts(i)[1]: i for i in loaded.tokenizer.get_vocab().values()}
    written = [by_bytes[t.bytes] for t in told[len(ids) :]]
    with torch.inference_mode(), loaded.using(None):
        logits = loaded.model(input_ids=torch.tensor([[*ids, *written]])).logits[0]
    wanted = torch.log_softmax(logits.float(), -1)
    for place, token in enumerate([*ids, *written][1:], start=1):
        row = wanted[place - 1]
        assert told[place].logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert bytes(told[place].bytes).decode("utf-8", "replace") == told[place].token
        values = [value for _, _, value in told[place].top]
        assert values == pytest.approx(row.topk(3).values.tolist(), abs=1e-3)
    assert reason_of(answer) == "length"


def test_echo_without_an_answer_reads_the_prompt_only(
    client: InferenceClient, model: ModelRef
) -> None:
    events = client.generate_sync(
        ask(model, prompt="Tom sees Anna.", echo=True, logprobs=0, max_tokens=0)
    )
    assert text_of(events) == "Tom sees Anna."
    assert events[-1].completion_tokens == 0
    assert len(pieces(events)[0].logprobs) == events[-1].prompt_tokens
    ids = client.generate_sync(ask(model, prompt=(5, 6, 7), echo=True, max_tokens=1))
    assert ids[-1].prompt_tokens == 3


def test_a_stop_string_ends_the_answer_and_no_part_of_it_is_seen(
    client: InferenceClient, model: ModelRef
) -> None:
    whole = text_of(client.generate_sync(ask(model, max_tokens=40)))
    stop = whole[9:14]
    assert len(stop) == 5
    events = client.generate_sync(ask(model, max_tokens=40, stop=("never there", stop)))
    assert text_of(events) == whole[: whole.find(stop)]
    assert reason_of(events) == "stop"
    # A string that only begins to come is given out in the end.
    almost = client.generate_sync(ask(model, max_tokens=40, stop=(whole[-3:] + "\0",)))
    assert text_of(almost) == whole


def test_bias_and_penalties(client: InferenceClient, model: ModelRef, loaded: LoadedModel) -> None:
    token = loaded.tokenizer("cat", add_special_tokens=False)["input_ids"][-1]
    forced = client.generate_sync(ask(model, logit_bias={token: 100}, max_tokens=4))
    word = loaded.tokenizer.decode([token])
    assert text_of(forced) == word * 4
    banned = client.generate_sync(
        ask(model, logit_bias={token: 100}, frequency_penalty=2.0, presence_penalty=2.0)
    )
    assert text_of(banned) == word * 12  # forced is forced
    free = text_of(client.generate_sync(ask(model, max_tokens=60)))
    held = client.generate_sync(
        ask(model, max_tokens=60, frequency_penalty=2.0, presence_penalty=2.0, logprobs=0)
    )
    tokens = [t.token for p in pieces(held) for t in p.logprobs]
    assert text_of(held) != free
    assert len(set(tokens)) > 0.5 * len(tokens)
    refused = client.generate_sync(ask(model, logit_bias={10**6: 1}))
    assert isinstance(refused[-1], Failed)
    assert refused[-1].code == "invalid_request"


def test_a_prompt_is_counted_and_not_answered(client: InferenceClient, model: ModelRef) -> None:
    answered = client.generate_sync(ask(model, max_tokens=1))[-1]
    counted = client.generate_sync(ask(model, count_only=True))
    assert isinstance(answered, Done)
    assert counted == [Done(answered.prompt_tokens, 0, 0)]
    too_much = client.generate_sync(ask(model, "the cat " * 300, count_only=True))
    assert isinstance(too_much[-1], Done)
    fitting = client.generate_sync(ask(model, max_tokens=10**6, fitting=True))
    assert isinstance(fitting[-1], Done)


def test_variables_reach_the_chat_template(client: InferenceClient, tmp_path: Path) -> None:
    reading = save_model(tmp_path / "reading")
    file = reading / "chat_template.jinja"
    assert file.is_file()
    file.write_text(
        file.read_text()
        + "{%- if enable_thinking is defined and not enable_thinking %}Do not think.{% endif %}"
        + "{%- generation %}{{ place }}{% endgeneration %}"
    )
    model = ModelRef(str(reading), None, "test")

    def asked(**options: Any) -> tuple[int, str]:
        events = client.generate_sync(ask(model, max_tokens=1, **options))
        assert isinstance(events[-1], Done), events[-1]
        first = pieces(events)[0]
        assert not any(piece.warning for piece in pieces(events)[1:])
        return events[-1].prompt_tokens, first.warning

    plain, none = asked()
    assert not none
    off = asked(template={"enable_thinking": False})
    assert off[0] > plain
    assert not off[1]
    assert asked(effort="none") == off
    assert asked(effort="high") == (plain, "")
    assert asked(effort="none", template={"enable_thinking": True}) == (plain, "")
    assert asked(template={"place": "Draimere"})[0] > plain
    tokens, warning = asked(template={"enable_thinkin": False})
    assert tokens == plain
    assert "enable_thinkin" in warning
    for name in ("tokenize", "messages", "chat_template"):
        refused = client.generate_sync(ask(model, template={name: "x"}))[-1]
        assert isinstance(refused, Failed)
        assert name in refused.message


SCHEMA = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2]}, "s": {"type": "string", "maxLength": 8}},
    "required": ["n", "s"],
    "additionalProperties": False,
}


def test_a_schema_is_kept_beside_free_answers(client: InferenceClient, model: ModelRef) -> None:
    held = [ask(model, sentence(i, 5), schema=SCHEMA, max_tokens=80) for i in range(4)]
    hot = [ask(model, schema=SCHEMA, max_tokens=80, temperature=2.0, seed=i) for i in range(3)]
    answers = at_once(client, [*held, *hot, ask(model)])
    for events in answers[:-1]:
        jsonschema.validate(json.loads(text_of(events)), SCHEMA)
        assert reason_of(events) == "stop"
    assert text_of(answers[-1]) == text_of(client.generate_sync(ask(model)))
    some = client.generate_sync(ask(model, json_object=True, max_tokens=3))
    assert text_of(some).startswith("{")


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "object", "if": {"required": ["a"]}, "then": False}, '"if"'),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
        ({"type": "frob"}, "frob"),
        ({"$ref": "#"}, "NoExtension"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "127.0.0.1:1/schema"),
    ],
)
def test_what_a_schema_asks_in_vain_is_named(
    client: InferenceClient, model: ModelRef, schema: dict[str, Any], named: str
) -> None:
    (failed,) = client.generate_sync(ask(model, schema=schema))
    assert isinstance(failed, Failed)
    assert failed.code == "invalid_schema"
    assert named in failed.message
    assert "output.json_schema" not in failed.message  # a study's place, not the API's


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "(a|a)*(a|a)*(b|c){1000,100000}",
        "((((a{100}){100}){100}){100}){100}",
        "(.*a){20}",
    ],
)
def test_a_pattern_that_never_ends_does_not_hold_up_others(
    client: InferenceClient, model: ModelRef, pattern: str
) -> None:
    hostile = ask(model, schema={"type": "string", "pattern": pattern}, max_tokens=30)
    answers = at_once(client, [hostile, ask(model)])
    assert isinstance(answers[0][-1], Done | Failed)
    assert text_of(answers[1])


TOOLS = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"place": {"$ref": "#/$defs/place"}},
                "required": ["place"],
                "additionalProperties": False,
                "$defs": {"place": {"enum": places}},
            },
        },
    }
    for name, places in (("go", ["Rome", "Oslo"]), ("see", ["sea"]))
)


@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"go", "see"}), ({"type": "function", "function": {"name": "see"}}, {"see"})],
)
def test_a_call_that_must_be_made_is_made(
    client: InferenceClient, model: ModelRef, choice: Any, names: set[str]
) -> None:
    events = client.generate_sync(ask(model, tools=TOOLS, tool_choice=choice, max_tokens=80))
    assert text_of(events) == ""
    last = pieces(events)[-1]
    assert last.finish_reason == "tool_calls"
    (call,) = last.tool_calls
    assert call["function"]["name"] in names
    assert set(json.loads(call["function"]["arguments"])) == {"place"}


def test_tools_that_are_not_to_be_called(client: InferenceClient, model: ModelRef) -> None:
    plain = text_of(client.generate_sync(ask(model)))
    assert text_of(client.generate_sync(ask(model, tools=TOOLS, tool_choice="none"))) == plain
    assert text_of(client.generate_sync(ask(model, tools=TOOLS))) != plain  # the prompt has them
    wrong = {"type": "function", "function": {"name": "fly"}}
    (failed,) = client.generate_sync(ask(model, tools=TOOLS, tool_choice=wrong))
    assert isinstance(failed, Failed)
    assert "'fly'" in failed.message


def test_what_does_not_fit_in_the_context(client: InferenceClient, model: ModelRef) -> None:
    for options in ({"text": sentence(1, 2000)}, {"max_tokens": 1024}):
        (failed,) = client.generate_sync(ask(model, **options))
        assert isinstance(failed, Failed)
        assert failed.code == "context_length_exceeded"
        assert "1024" in failed.message
    # Without a limit an answer goes on to the end of the context, if nothing ends it before.
    events = client.generate_sync(
        ask(model, max_tokens=None, logit_bias={20: 100}, temperature=0.0)
    )
    assert reason_of(events) == "length"
    assert events[-1].prompt_tokens + events[-1].completion_tokens == 1024


def test_streams_come_in_pieces_and_a_closed_one_is_cancelled(
    client: InferenceClient, model: ModelRef
) -> None:
    async def read(limit: int | None) -> list[Any]:
        got = []
        request = ask(model, max_tokens=400, logit_bias={20: 100})
        stream = client.generate(request)
        async for event in stream:
            got.append(event)
            if limit is not None and len(got) == limit:
                await stream.aclose()
                break
        return got

    async def all_of_them() -> list[list[Any]]:
        return await asyncio.gather(*(read(limit) for limit in (3, 5, None)))

    short, _, whole = asyncio.run(all_of_them())
    assert len(short) == 3
    assert isinstance(whole[-1], Done)
    assert len(whole) > 100
    for _ in range(100):
        # An adapter that brings whole modules has a copy of the base of its own.
        running = [m.running for m in client.loaded() if m.base == model.base]
        if not any(running):
            break
        time.sleep(0.02)
    assert running and not any(running)


def test_cancelling_from_outside_ends_the_wait(client: InferenceClient, model: ModelRef) -> None:
    request = ask(model, max_tokens=450, logit_bias={20: 100}, n=4)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.generate_sync, request)
        while request.id not in client._sinks:
            assert not answer.done()
        client.cancel(request.id)
        last = answer.result(20)[-1]
    assert isinstance(last, Failed)
    assert last.code == "cancelled"
    client.cancel("nobody")


def test_embeddings_are_mean_pooled_unit_vectors(
    client: InferenceClient, model: ModelRef, adapters: dict[str, Path], loaded: LoadedModel
) -> None:
    texts = [sentence(i, 4 + 9 * i) for i in range(7)]
    got = client.embed_sync(Embed("e1", model, (*texts, (4, 5, 6))))
    ids = [*loaded.tokenizer(texts)["input_ids"], [4, 5, 6]]
    assert got.tokens == sum(map(len, ids))
    with torch.inference_mode(), loaded.using(None):
        for vector, tokens in zip(got.vectors, ids, strict=True):
            hidden = loaded.model.get_decoder()(input_ids=torch.tensor([tokens])).last_hidden_state
            wanted = torch.nn.functional.normalize(hidden[0].mean(0), dim=0)
            assert torch.allclose(torch.tensor(vector), wanted, atol=1e-4)
    tuned = ModelRef(model.base, str(adapters["dora"]), "tuned")
    assert client.embed_sync(Embed("e2", tuned, (texts[0],))).vectors[0] != got.vectors[0]
