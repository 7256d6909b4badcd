"""The pretraining script end to end at tiny sizes: train, write a model folder, repeat, resume."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

pytest.importorskip("transformers")

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "pretrain_tiny.py"


def command(out: Path, *more: str) -> list[str]:
    options = ["--smoke", "--device", "cpu", "--threads", "1"]
    return [str(SCRIPT), "--out", str(out), *options, *more]


def pretrain(out: Path, *more: str) -> None:
    """Run the script in this process, where torch is imported already."""
    with patch.object(sys, "argv", command(out, *more)), patch.object(sys, "path", [*sys.path]):
        runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smoke")
    run = [sys.executable, *command(out)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert '"scores"' in done.stdout
    return out


def test_the_folder_loads_with_transformers(made: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(made)
    tokenizer = AutoTokenizer.from_pretrained(made)
    assert model.config.tie_word_embeddings
    assert model.config.max_position_embeddings >= 2048
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**ids, max_new_tokens=4)
    assert answer.shape[1] > ids["input_ids"].shape[1]


def test_the_card_holds_what_was_measured(made: Path) -> None:
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "- steps: 6" in card
    assert "| answer from 1-6 statements |" in card
    assert "--device cuda" in card


def test_the_same_seed_and_steps_give_the_same_weights(made: Path, tmp_path: Path) -> None:
    pretrain(tmp_path)
    name = "model.safetensors"
    assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_a_run_goes_on_from_its_checkpoint(made: Path) -> None:
    import torch

    pretrain(made, "--resume", "--steps", "9")
    kept = torch.load(made / ".work" / "checkpoint.pt", weights_only=False)
    assert kept["state"]["step"] == 9
