"""Runs training jobs in forked children and kills them at random moments.

    python training_crash_driver.py MODEL_FOLDER WORK_FOLDER KILLS SEED METHOD...

The libraries are imported once, before any fork, so that a run takes a fraction of a second.
A kill comes at any moment of a run's life; a single one after its first checkpoint, so that there
is something to go on from. Prints one JSON object a method. torch does no arithmetic in this
process, so forking it is safe.
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
from typing import Any

import peft  # noqa: F401
import torch
import transformers  # noqa: F401

from training_support import small_tokenizer, word_examples
from tunewise.models.token_bytes import TokenBytes
from tunewise.study.schema import FineTune
from tunewise.training.job import TrainingJob
from tunewise.training.loop import train


def job(model: str, output: Path, method: str) -> TrainingJob:
    examples = word_examples(36)
    if method in ("dpo", "orpo", "kto", "reward"):
        other = {"role": "assistant", "content": "I do not know any words."}
        examples = [replace(e, rejected=other) for e in examples]
    if method == "distill":
        examples = [replace(e, metadata={"teacher": taught(e.answer)}) for e in examples]
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


def taught(answer: str) -> dict[str, Any]:
    """A choice of a chat completion, of a teacher that is rather sure of each token."""
    tokenizer = small_tokenizer()
    of = TokenBytes(tokenizer)
    pieces = [of(token) for token in tokenizer(answer, add_special_tokens=False)["input_ids"]]
    other = {"token": " cow", "logprob": -3.0}
    content = [
        {"token": "", "bytes": list(p), "logprob": -0.2, "top_logprobs": [other]} for p in pieces
    ]
    return {"message": {"content": answer}, "logprobs": {"content": content}}


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


def wait_for_checkpoint(pid: int, output: Path) -> None:
    """Until there is one, or the process ends (which is then still to be waited for)."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, pid, ended) is None:
        if list(output.glob("checkpoints/step-*")):
            return
        time.sleep(0.001)


def main(model: str, work: Path, kills: int, seed: int, method: str) -> None:
    r = random.Random(seed)
    work.mkdir()
    begin = time.monotonic()
    finish(start(model, work / "undisturbed", method))
    whole = time.monotonic() - begin
    expected = digest(work / "undisturbed")
    found, delivered, resumed, saving, run = [], 0, 0, 0, 0
    while delivered < kills:
        run += 1
        output = work / f"run-{run}"
        while True:
            pid = start(model, output, method)
            if kills == 1 and delivered < kills:
                wait_for_checkpoint(pid, output)
            elif delivered < kills:
                time.sleep(r.uniform(0, whole))
            if delivered < kills and os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                delivered += 1
                saving += any(output.rglob(f".*.{pid}"))
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
                "method": method,
                "seconds_undisturbed": whole,
                "kills": delivered,
                "resumed": resumed,
                "while_saving": saving,
                "runs": run,
                "equal": all(f == expected for f in found),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    for name in sys.argv[5:]:
        main(sys.argv[1], Path(sys.argv[2]) / name, int(sys.argv[3]), int(sys.argv[4]), name)
