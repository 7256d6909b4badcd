"""Runs training jobs in forked children and kills them at random moments.

    python training_crash_driver.py MODEL_FOLDER WORK_FOLDER KILLS SEED METHOD

The libraries are imported once, before any fork, so that a run takes a fraction of a second.
Prints one JSON object. torch does no arithmetic in this process, so forking it is safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import peft  # noqa: F401
import torch
import transformers  # noqa: F401

from training_support import word_examples
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob
from tunewise.training.loop import train


def job(model: str, output: Path, method: str) -> TrainingJob:
    examples = word_examples(36)
    if method == "dpo":
        other = {"role": "assistant", "content": "I do not know any words."}
        examples = [replace(e, rejected=other) for e in examples]
    return TrainingJob(
        model=model,
        examples=examples[:28],
        dev=examples[28:],
        fine_tune=FineTune(method=method, batch_size=4, lora={"rank": 4, "dropout": 0.1}),
        learning_rate=5e-3,
        epochs=2,
        seed=3,
        output=output,
        threads=1,
        checkpoint_seconds=0.0,  # after every step: the most moments at which it can hurt
    )


def start(model: str, output: Path, method: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        train(job(model, output, method))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def finish(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"a run ended with status {status}")


def digest(output: Path) -> str:
    weights = (output / "adapter" / "adapter_model.safetensors").read_bytes()
    losses = json.loads((output / "training.json").read_text())
    text = json.dumps([losses["train_loss"], losses["dev_loss"], losses["best_step"]])
    return hashlib.sha256(weights + text.encode()).hexdigest()


def main(model: str, work: Path, kills: int, seed: int, method: str) -> None:
    r = random.Random(seed)
    begin = time.monotonic()
    finish(start(model, work / "undisturbed", method))
    whole = time.monotonic() - begin
    expected = digest(work / "undisturbed")
    found, delivered, resumed, run = [], 0, 0, 0
    while delivered < kills:
        run += 1
        output = work / f"run-{run}"
        while True:
            pid = start(model, output, method)
            time.sleep(r.uniform(0, whole) if delivered < kills else 0)
            if delivered < kills and os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                delivered += 1
                continue
            if delivered >= kills:
                finish(pid)
            break
        events = (output / "events.jsonl").read_text().splitlines()
        resumed += sum('"event": "resume"' in line for line in events)
        found.append(digest(output))
    print(
        json.dumps(
            {
                "seconds_undisturbed": whole,
                "kills": delivered,
                "resumed": resumed,
                "runs": run,
                "equal": all(f == expected for f in found),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
