"""A tokenizer with tokens that its model has not: told wherever such a token is met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cli_support import tunewise
from models_support import save_model as save
from models_support import sentence
from tunewise.data.chat import Request
from tunewise.data.read import read_examples
from tunewise.errors import TrainingError
from tunewise.models.loading import load_local
from tunewise.models.local_engine import LocalEngine
from tunewise.models.names import parse_model
from tunewise.server.inference.memory import Budget
from tunewise.server.inference.prepare import RefusedError, prompt_ids
from tunewise.server.inference.serving import load_serving
from tunewise.study.fine_tune import FineTune
from tunewise.training.job import TrainingJob
from tunewise.training.loop import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer got tokens after it was made, more than its padding holds."""
    folder = save(tmp_path_factory.mktemp("larger"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<<new{i}>>" for i in range(9)])
    tokenizer.save_pretrained(folder)
    return folder


TOLD = r"'<<new8>>' is token \d+, and the embedding ends with \d+"


def rows(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    lines = [{"input": sentence(1, 4), "output": "x"}, {"input": "<<new8>>", "output": "y"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_studies(folder: Path) -> None:
    engine = LocalEngine(load_local(parse_model(str(folder))))
    good, bad = engine.answer(
        [
            Request(({"role": "user", "content": text},), max_tokens=4)
            for text in (sentence(1, 4), "Say <<new8>>.")
        ]
    )
    assert good.error is None
    assert bad.error is not None and "'<<new8>>' is token" in bad.error


def test_a_schema_on_answers(folder: Path) -> None:
    engine = LocalEngine(load_local(parse_model(str(folder))))
    schema = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}
    request = Request(
        ({"role": "user", "content": sentence(1, 4)},), max_tokens=40, json_schema=schema
    )
    (answer,) = engine.answer([request])
    assert answer.error is None and answer.text.startswith("{")


def test_training(folder: Path, tmp_path: Path) -> None:
    job = TrainingJob(
        output=tmp_path / "out",
        model=str(folder),
        examples=list(read_examples(str(rows(tmp_path)))),
        dev=(),
        fine_tune=FineTune(),
        learning_rate=1e-3,
        epochs=1,
        seed=0,
    )
    with pytest.raises(TrainingError, match=TOLD) as refused:
        train(job)
    assert "rows.jsonl:2" in str(refused.value)
    assert "resize_token_embeddings" in str(refused.value)


def test_the_tokens_of_a_row(folder: Path, tmp_path: Path) -> None:
    path = rows(tmp_path)
    shown = ("audit", str(path), "--model", str(folder), "--tokens")
    tunewise(*shown, "1", cwd=tmp_path)
    run = tunewise(*shown, "2", cwd=tmp_path, code=3)
    assert "'<<new8>>' is token" in run.err and "Traceback" not in run.err


def test_the_server(folder: Path) -> None:
    serving = load_serving(str(folder), Budget(1 << 30))
    assert prompt_ids(sentence(1, 4), serving)
    with pytest.raises(RefusedError, match=TOLD):
        prompt_ids("<<new8>>", serving)
    with pytest.raises(RefusedError, match="not one of the model's"):
        prompt_ids([serving.loaded.embedded], serving)
