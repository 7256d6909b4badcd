"""AutoTrain's configurations of language models, trained on a small model with local rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli_support import jsonl, tunewise
from training_support import WORDS, save_small_model

WORD = [*WORDS][:8]
TALKS = [
    [
        {"role": "user", "content": f"{WORD[n % 8]} {WORD[n % 5]} {n}"},
        {"role": "assistant", "content": WORD[n % 3]},
    ]
    for n in range(12)
]
PAIRS = [
    {"q": f"{WORD[n % 8]} {n}", "good": WORD[n % 3], "bad": f"{WORD[n % 3]} {WORD[4]}"}
    for n in range(12)
]
MAPPED = {"prompt_text_column": "q", "text_column": "good", "rejected_text_column": "bad"}


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _said(row: dict[str, str], answer: str) -> str:
    return f"\n\nHuman: {row['q']}\n\nAssistant: {row[answer]}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autotrain")
    save_small_model(folder / "owner" / "small")
    for name in ("talks", "literal", "texts", "pairs", "whole", "hh"):
        (folder / name).mkdir()
    jsonl(folder / "talks" / "train.jsonl", [{"messages": t} for t in TALKS])
    jsonl(folder / "talks" / "held.jsonl", [{"messages": t} for t in TALKS[:4]])
    # As pandas writes lists into a CSV.
    _csv(folder / "literal" / "train.csv", [{"text": str(talk)} for talk in TALKS])
    _csv(folder / "texts" / "train.csv", [{"body": " ".join(WORD * 3), "n": n} for n in range(9)])
    _csv(folder / "pairs" / "train.csv", PAIRS)
    whole = [
        {
            "prompt": p["q"],
            "chosen": [{"role": "user", "content": p["q"]}, _answer(p["good"])],
            "rejected": [{"role": "user", "content": p["q"]}, _answer(p["bad"])],
        }
        for p in PAIRS
    ]
    jsonl(folder / "whole" / "train.jsonl", whole)
    hh = [{"chosen": _said(p, "good"), "rejected": _said(p, "bad")} for p in PAIRS]
    jsonl(folder / "hh" / "train.jsonl", hh)
    return folder


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _write(
    place: Path, name: str, task: str, data: str, columns: dict[str, str], **more: Any
) -> Path:
    template = more.pop("chat_template", None)
    valid = more.pop("valid_split", None)
    config = {
        "task": task,
        "base_model": "owner/small",  # found as a folder before it is taken as a hub id
        "project_name": name,
        "log": "none",
        "backend": "local",
        "data": {
            "path": data,
            "train_split": "train",
            "valid_split": valid,
            "chat_template": template,
            "column_mapping": columns,
        },
        "params": {"lr": 1e-3, "batch_size": 4, "gradient_accumulation": 1, **more},
        "hub": {"username": "${HF_USERNAME}", "token": "${HF_TOKEN}", "push_to_hub": False},
    }
    file = place / f"{name}.yml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    return file


CASES: dict[str, tuple[str, str, dict[str, str], dict[str, Any]]] = {
    "sft": (
        "llm-sft",
        "talks",
        {"text_column": "messages"},
        {"chat_template": "tokenizer", "peft": True, "merge_adapter": True, "valid_split": "held"},
    ),
    "sft-csv": ("llm-sft", "literal", {}, {"chat_template": "chatml", "peft": True}),
    "sft-text": ("llm-sft", "texts", {"text_column": "body"}, {"block_size": 16}),
    "generic": ("llm", "texts", {"text_column": "body"}, {"peft": True, "quantization": None}),
    "dpo": ("llm-dpo", "pairs", MAPPED, {"peft": True, "dpo_beta": 0.2}),
    "orpo": (
        "llm-orpo",
        "whole",
        {
            "prompt_text_column": "prompt",
            "text_column": "chosen",
            "rejected_text_column": "rejected",
        },
        {"peft": True},
    ),
    "reward": (
        "llm-reward",
        "hh",
        {"text_column": "chosen", "rejected_text_column": "rejected"},
        {"peft": True, "merge_adapter": True},
    ),
}
METHODS = {
    "sft-csv": "sft",
    "sft-text": "pretrain",
    "generic": "pretrain",
}


_SOAK = ("sft-csv", "generic", "orpo")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.soak) if n in _SOAK else n for n in CASES]
)
def test_language_models_train_and_leave_what_autotrain_leaves(name: str, place: Path) -> None:
    task, data, columns, params = CASES[name]
    file = _write(place, name, task, data, columns, **params)
    run = tunewise("autotrain", "--config", file.name, "--json", cwd=place).json
    assert run["run"]["method"] == METHODS.get(name, name)
    assert run["run"]["steps"] >= 1
    out = place / name
    whole = params.get("merge_adapter") or not params.get("peft")
    assert (out / "model.safetensors").is_file() == bool(whole)
    assert (out / "adapter_config.json").is_file() != bool(whole)
    assert (out / "tokenizer.json").is_file()
    assert "base_model: owner/small" in (out / "README.md").read_text("utf-8")
    kept = json.loads((out / "training_params.json").read_text("utf-8"))
    assert kept["lr"] == 1e-3
    assert "token" not in kept
    assert str(place) not in (out / "study.yaml").read_text("utf-8")
    assert {row["state"] for row in run["told"]} >= {"mapped", "defaulted", "no meaning here"}


@pytest.mark.soak
def test_a_merged_model_answers_as_its_adapter_did(place: Path) -> None:
    from tunewise.data.chat import Request
    from tunewise.models.opening import open_engine

    answers = []
    for name, merged in (("apart", False), ("merged", True)):
        file = _write(
            place, name, "llm-sft", "talks", {"text_column": "messages"},
            chat_template="tokenizer", peft=True, merge_adapter=merged, epochs=6,
        )  # fmt: skip
        tunewise("autotrain", "--config", file.name, "--quiet", cwd=place)
        model = str(place / (name if merged else "owner/small"))
        engine = open_engine(model, adapter=None if merged else place / name)
        asked = [Request((talk[0],), max_tokens=8) for talk in TALKS[:6]]
        answers.append([answer.text for answer in engine.answer(asked)])
    assert answers[0] == answers[1]
    assert any(answers[0])


def test_columns_that_are_not_there_are_told_with_the_line(place: Path) -> None:
    file = _write(place, "wrong", "llm-sft", "talks", {"text_column": "message"})
    run = tunewise("autotrain", "--config", file.name, cwd=place, code=2)
    assert "the rows have no column 'message'" in run.err
    assert "Found in" in run.err and "messages" in run.err
    assert "wrong.yml:" in run.err


def test_a_folder_without_the_split_says_what_it_holds(place: Path) -> None:
    file = _write(place, "split", "llm-sft", "talks", {}, valid_split="validation")
    file.write_text(file.read_text("utf-8").replace("train_split: train", "train_split: trian"))
    run = tunewise("autotrain", "--config", file.name, "--quiet", cwd=place, code=3)
    assert "data.train_split: the folder has no file for the split 'trian'" in run.err
    assert "held.jsonl, train.jsonl" in run.err
