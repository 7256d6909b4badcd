"""Peak memory of preparing and starting a fine-tune, by the number of rows.

python benchmarks/train_memory.py --rows 10000 100000 1000000

A tiny random model learns three steps from short rows. Two processes are looked at, as
`tunewise train ROWS` has them: one reads the rows, cuts dev off, audits the labels and writes the
job; the other encodes, plans, and trains. Both hold torch, which is most of the first line; what
matters is how little the lines below it add.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

STEPS = 3
_WORDS = [
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "sun",
    "moon",
    "tree",
    "river",
    "stone",
    "cloud",
    "leaf",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--method", default="sft")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=["prepare", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        part = prepare if options.part == "prepare" else train
        print(json.dumps(part(options.folder, options.method)))
        return
    found = [measure(count, options.method) for count in options.rows]
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'rows':>10} {'data':>8} {'prepare':>9} {'train':>9} {'seconds':>14}")
    for one in found:
        seconds = f"{one['prepare']['seconds']:.0f} + {one['train']['seconds']:.0f}"
        print(
            f"{one['rows']:>10,} {one['data_mb']:>5.0f} MB {one['prepare']['peak_mb']:>6.0f} MB "
            f"{one['train']['peak_mb']:>6.0f} MB {seconds:>14}"
        )


def measure(count: int, method: str) -> dict[str, Any]:
    """The peaks of both processes for ``count`` rows."""
    with tempfile.TemporaryDirectory(prefix="tunewise-memory-") as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", count, method)
        save_model(folder / "model")
        size = (folder / "rows.jsonl").stat().st_size / 1e6
        parts = {part: _run(part, folder, method) for part in ("prepare", "train")}
    return {"rows": count, "data_mb": size, **parts}


def _run(part: str, folder: Path, method: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, "--folder", str(folder), "--method", method],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    value: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return value


def prepare(folder: Path, method: str) -> dict[str, float]:
    """What the command does before the training process starts."""
    from tunewise.pipeline.quick import training_study
    from tunewise.pipeline.reporter import SilentReporter
    from tunewise.pipeline.training_rows import read_training_rows
    from tunewise.pipeline.tuning import Tuner
    from tunewise.training.job_files import write_job
    from tunewise.training.surroundings import peak_memory

    begun = time.monotonic()
    flags = {
        "--model": ("model", str(folder / "model")),
        "--method": ("fine_tune.method", method),
    }
    study = training_study(str(folder / "rows.jsonl"), flags).study
    (spec,) = study.candidates or ()
    reporter = SilentReporter()
    rows = read_training_rows(study, spec, folder / "work", reporter)
    tuner = Tuner(study, spec, rows.train, rows.dev, folder / "work", reporter)
    tuner.check()
    job = replace(tuner.job(1e-3, 0, rows.train), max_steps=STEPS, output=folder / "run")
    write_job(job, folder / "job")
    return {"peak_mb": peak_memory() / 1e6, "seconds": time.monotonic() - begun}


def train(folder: Path, method: str) -> dict[str, float]:
    """What the training process does, with the look at dev left out of the time it would take."""
    from tunewise.training.job_files import read_job
    from tunewise.training.loop import train as run
    from tunewise.training.surroundings import peak_memory

    begun = time.monotonic()
    job = read_job(folder / "job")
    result = run(job)
    assert result.steps == STEPS
    return {"peak_mb": peak_memory() / 1e6, "seconds": time.monotonic() - begun}


def write_rows(path: Path, count: int, method: str) -> None:
    """Short rows, a line each, none like the other; pairs for preference methods."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            words = [draw.choice(_WORDS) for _ in range(4)]
            question = f"Say in the other order, {number}: {' '.join(words)}"
            row: dict[str, Any] = {"prompt": question, "completion": " ".join(reversed(words))}
            if method in ("dpo", "orpo", "kto", "reward"):
                row = {"prompt": question, "chosen": row["completion"], "rejected": words[0]}
            file.write(json.dumps(row) + "\n")


def save_model(folder: Path) -> None:
    """A random Llama of 30,000 parameters with a byte-level tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(
        [" ".join(_WORDS), "Say in the other order, User: Assistant:"], trainer
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="<|end|>", pad_token="<pad>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    transformers.utils.logging.disable_progress_bar()
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
