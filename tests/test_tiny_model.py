"""The shipped base model: it loads fast, repeats its answers, and does what its card says."""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "src" / "tunewise" / "models" / "tiny"
sys.path.append(str(ROOT / "scripts"))


@cache
def loaded() -> tuple[Any, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(FOLDER)


def answer(question: str, most: int = 24) -> str:
    model, tokenizer = loaded()
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    made = model.generate(**ids, max_new_tokens=most, do_sample=False)
    return str(tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def test_it_is_small_and_loads_fast() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 16_000_000
    loaded()  # the first load pays for imports
    begin = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER)
    transformers.AutoTokenizer.from_pretrained(FOLDER)
    assert time.perf_counter() - begin < 2
    assert sum(p.numel() for p in model.parameters()) <= 8_000_000
    assert model.dtype == torch.float32
    assert model.config.max_position_embeddings >= 2048


def test_the_special_tokens_are_told_apart() -> None:
    model, tokenizer = loaded()
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == tokenizer.bos_token == "<|endoftext|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize(
    "text",
    ("Kelor lives in Draimere.", ' {"a": [1, 23]}\n\n  x', "naïve – 東京 🙂", "tab\there\n"),
)
def test_any_text_survives_the_tokenizer(text: str) -> None:
    _, tokenizer = loaded()
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_stand_alone() -> None:
    _, tokenizer = loaded()
    assert [t for t in tokenizer.tokenize("4812") if t.isdigit()] == ["4", "8", "1", "2"]


def test_the_template_marks_what_the_assistant_says() -> None:
    _, tokenizer = loaded()
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Kelor"},
        {"role": "tool", "content": "ok"},
        {"role": "assistant", "content": "Draimere, 12"},
    ]
    made = tokenizer.apply_chat_template(
        turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [i for i, m in zip(made["input_ids"], made["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "Kelor<|im_end|>Draimere, 12<|im_end|>"
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert tokenizer.decode(made["input_ids"]) == text
    prompt = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    alone = tokenizer.apply_chat_template(turns[1:2], tokenize=False)
    assert alone == "<|im_start|>user\nWho?<|im_end|>\n"


def test_tools_and_their_calls_are_written_as_json() -> None:
    _, tokenizer = loaded()
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "Kelor"}}}
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    text = tokenizer.apply_chat_template(turns, tools=[tool], tokenize=False)
    assert text.count("<|im_start|>system") == 1
    assert '"name": "look"' in text.split("<|im_end|>")[0]
    assert '<tool_call>{"name": "look", "arguments": {"at": "Kelor"}}</tool_call>' in text


def test_greedy_answers_repeat() -> None:
    question = "Kelor lives in Draimere. Where does Kelor live?"
    assert answer(question) == answer(question)


def test_padding_changes_nothing() -> None:
    model, tokenizer = loaded()
    ids = tokenizer("Kelor lives in Draimere.", return_tensors="pt")["input_ids"]
    padded = torch.cat([torch.full((1, 5), tokenizer.pad_token_id), ids], 1)
    mask = (torch.arange(padded.shape[1]) >= 5).long()[None]
    with torch.no_grad():
        alone = model(ids).logits[0, -1]
        beside = model(padded, attention_mask=mask).logits[0, -1]
    assert torch.allclose(alone, beside, atol=1e-3)


REACHED = {
    "first patterns": 0.8,
    "extract a value": 0.7,
    "answer from 1-6 statements": 0.42,
    "refuse what is not stated": 0.45,
    "two-way pattern, 8 shots as turns": 0.6,
}
"""What the shipped model does at the least, below its card so that small samples do not fail it."""


@pytest.mark.parametrize("name", REACHED)
def test_held_out_scores_are_what_the_card_says(name: str) -> None:
    tiny = pytest.importorskip("tiny.evaluate")
    from tokenizers import Tokenizer

    from tiny.tokens import Encoder

    model, _ = loaded()
    encoder = Encoder(Tokenizer.from_file(str(FOLDER / "tokenizer.json")), 0.25)
    assert tiny.score(model, encoder, name, 60, "cpu") >= REACHED[name]
    model.eval()


def test_it_copies_what_the_only_statement_says() -> None:
    assert answer("Kelor lives in Draimere.\n\nWhere does Kelor live?") == "Draimere"
