"""``/v1/completions`` and ``/v1/embeddings`` through the official client."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from server_support import Running, call, client, envelope

pytest.importorskip("torch")

MODEL = "tunewise/tiny"
PROMPT = "<|im_start|>user\nKelor lives in Draimere.\n\nWhere does Kelor live?<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def api(server: Running) -> Iterator[OpenAI]:
    with client(server, timeout=300) as opened:  # the first answer waits for torch
        yield opened


def test_text_goes_on_from_its_prompt(api: OpenAI) -> None:
    made = api.completions.create(
        model=MODEL, prompt=PROMPT + ASSISTANT, temperature=0, max_tokens=30
    )
    assert (made.object, made.choices[0].finish_reason) == ("text_completion", "stop")
    assert made.choices[0].text == "Draimere"
    assert made.usage is not None and made.usage.prompt_tokens > 10


def test_several_prompts_with_several_answers_each(api: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "max_tokens": 4, "temperature": 0}
    made = api.completions.create(prompt=["one two", "Kelor"], n=2, echo=True, **options)
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    starts = ["one two", "one two", "Kelor", "Kelor"]
    for choice, start in zip(made.choices, starts, strict=True):
        assert choice.text.startswith(start)
    alone = [api.completions.create(prompt=p, **options) for p in ("one two", "Kelor")]
    assert made.usage is not None
    assert made.usage.prompt_tokens == sum(a.usage.prompt_tokens for a in alone if a.usage)


def test_a_prompt_of_token_ids(api: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "max_tokens": 0, "echo": True, "logprobs": 0}
    text = api.completions.create(prompt="seven towns", **options).choices[0]
    assert text.logprobs is not None and text.text == "seven towns"
    one = api.completions.create(prompt=[300, 301, 302], **options)
    many = api.completions.create(prompt=[[300, 301, 302], [303]], **options)
    assert one.choices[0].text == many.choices[0].text
    assert one.usage is not None and one.usage.prompt_tokens == 3
    assert len(many.choices) == 2


def test_log_probabilities_of_prompt_and_answer(api: OpenAI) -> None:
    made = api.completions.create(
        model=MODEL, prompt="Kelor lives in", echo=True, logprobs=2, max_tokens=3, temperature=0
    )
    [choice] = made.choices
    found = choice.logprobs
    assert found is not None
    assert found.tokens and found.token_logprobs and found.top_logprobs and found.text_offset
    lengths = {len(one) for one in (found.tokens, found.token_logprobs, found.text_offset)}
    assert lengths == {len(found.top_logprobs)}
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    assert "".join(found.tokens).startswith(choice.text)
    assert [choice.text[at:][:1] for at in found.text_offset[:3]] == [
        token[:1] for token in found.tokens[:3]
    ]
    for top in found.top_logprobs[1:]:
        assert 1 <= len(top) <= 2


def test_the_best_of_several(api: OpenAI) -> None:
    options: dict[str, Any] = {
        "model": MODEL,
        "prompt": "Once",
        "max_tokens": 6,
        "seed": 3,
        "logprobs": 0,
    }
    drawn = api.completions.create(n=4, **options).choices
    best = api.completions.create(best_of=4, **options).choices

    def mean(choice: Any) -> float:
        return math.fsum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    assert [choice.text for choice in best] == [max(drawn, key=mean).text]


def test_a_stream_says_the_same(api: OpenAI) -> None:
    options: dict[str, Any] = {
        "model": MODEL, "prompt": ["Once", "Twice"], "max_tokens": 5, "temperature": 0,
        "logprobs": 1,
    }  # fmt: skip
    whole = api.completions.create(**options)
    texts = {0: "", 1: ""}
    offsets: dict[int, list[int]] = {0: [], 1: []}
    for chunk in api.completions.create(**options, stream=True):
        [choice] = chunk.choices
        texts[choice.index] += choice.text
        assert choice.logprobs is not None
        offsets[choice.index] += choice.logprobs.text_offset or []
    assert list(texts.values()) == [choice.text for choice in whole.choices]
    assert [choice.logprobs and choice.logprobs.text_offset for choice in whole.choices] == list(
        offsets.values()
    )


@pytest.mark.parametrize(
    ("changes", "param"),
    (
        ({"suffix": "end"}, "suffix"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": "word " * 9000}, "prompt"),
    ),
)
def test_what_cannot_be_done_is_refused(
    server: Running, changes: dict[str, Any], param: str
) -> None:
    body = {"model": MODEL, "prompt": "a", "max_tokens": 2, **changes}
    assert envelope(call(server, "POST", "/v1/completions", json=body), 400)["param"] == param


def test_a_token_that_the_model_does_not_have(api: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        api.completions.create(model=MODEL, prompt=[2**30], max_tokens=1)


def test_vectors_have_length_one_in_both_encodings(api: OpenAI, server: Running) -> None:
    texts = ["the river", "the mountain"]
    made = api.embeddings.create(model=MODEL, input=texts)
    assert [one.index for one in made.data] == [0, 1]
    for one in made.data:
        assert math.fsum(x * x for x in one.embedding) == pytest.approx(1, abs=1e-4)
    plain = call(server, "POST", "/v1/embeddings", json={"model": MODEL, "input": texts})
    floats = plain.json()["data"][0]["embedding"]
    assert floats == pytest.approx(made.data[0].embedding, abs=1e-5)
    body = {"model": MODEL, "input": texts, "encoding_format": "base64"}
    raw = base64.b64decode(
        call(server, "POST", "/v1/embeddings", json=body).json()["data"][0]["embedding"]
    )
    assert struct.unpack(f"<{len(floats)}f", raw) == pytest.approx(floats, abs=1e-5)
    assert made.usage.prompt_tokens == made.usage.total_tokens > 2


def test_shorter_vectors_and_token_ids(api: OpenAI) -> None:
    whole = api.embeddings.create(model=MODEL, input=[[300, 301], [302]])
    short = api.embeddings.create(model=MODEL, input=[[300, 301], [302]], dimensions=8)
    for long, cut in zip(whole.data, short.data, strict=True):
        length = math.sqrt(math.fsum(x * x for x in long.embedding[:8]))
        assert cut.embedding == pytest.approx([x / length for x in long.embedding[:8]], abs=1e-4)
    assert whole.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    ("changes", "param"),
    (
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"dimensions": 10**6}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"what": 1}, "what"),
        ({"input": "word " * 9000}, "input"),
    ),
)
def test_what_cannot_be_embedded_is_refused(
    server: Running, changes: dict[str, Any], param: str
) -> None:
    body = {"model": MODEL, "input": "a", **changes}
    assert envelope(call(server, "POST", "/v1/embeddings", json=body), 400)["param"] == param
