"""Serving: tokens a second of the engine under concurrent streams, with and without adapters.

Sixteen clients stream answers of a fixed length at the same time through ``InferenceClient``, each
several times, all from one model or spread over eight LoRA adapters of it. The first tokens' times
are those that a client sees. On a machine that does other work too, look at the processor time a
token, which hardly depends on it.

    python benchmarks/serve.py                      # the model that ships with Tunewise
    python benchmarks/serve.py --model FOLDER --clients 16 --rounds 4 --tokens 128
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.server.inference.client import InferenceClient
from tunewise.server.inference.limits import EngineLimits
from tunewise.server.inference.protocol import Done, Failed, Generate, ModelRef, Piece

TOPICS = ["the sea", "a red house", "two dogs", "the moon", "bread", "a long road", "rain", "Anna"]


@dataclass(frozen=True)
class Measured:
    """One load: tokens written, seconds, the first tokens' delays, processor seconds."""

    tokens: int
    seconds: float
    first: list[float]
    processor: float

    def line(self, name: str) -> str:
        first = sorted(self.first)
        return (
            f"{name:<24} {self.tokens / self.seconds:8.0f} tokens/s   "
            f"first token {statistics.median(first) * 1e3:6.0f} ms, "
            f"95 % {first[int(0.95 * (len(first) - 1))] * 1e3:6.0f} ms   "
            f"processor {self.processor / self.tokens * 1e3:.3f} ms/token"
        )


def endless(spec: str, folder: Path) -> Path:
    """A copy of a model that never ends an answer by itself, so that all answers are as long."""
    import torch

    loaded = load_local(parse_model(spec))
    with torch.no_grad():
        head = loaded.model.get_output_embeddings().weight
        head[list(loaded.end_ids)] = 0
    shutil.copytree(loaded.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    loaded.model.save_pretrained(folder)
    return folder


def make_adapters(base: Path, folder: Path, count: int) -> list[Path]:
    """Random LoRA adapters on all linear layers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    paths = []
    for number in range(count):
        config = LoraConfig(
            r=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        paths.append(folder / f"adapter-{number}")
        model.save_pretrained(paths[-1])
    return paths


def processor_seconds(pid: int | None) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(
    client: InferenceClient, models: list[ModelRef], clients: int, rounds: int, tokens: int
) -> Measured:
    """Let ``clients`` streams run at once, each ``rounds`` times."""
    first: list[float] = []

    async def one(number: int) -> int:
        written = 0
        for turn in range(rounds):
            topic = TOPICS[(number + turn) % len(TOPICS)]
            request = Generate(
                f"{time.monotonic_ns()}-{number}-{turn}",
                models[number % len(models)],
                ({"role": "user", "content": f"Tell me something about {topic}, please."},),
                None,
                max_tokens=tokens,
                temperature=0.0,
            )
            began, heard = time.perf_counter(), False
            async for event in client.generate(request):
                if isinstance(event, Piece) and not heard:
                    first.append(time.perf_counter() - began)
                    heard = True
                if isinstance(event, Failed):
                    raise SystemExit(event.message)
                if isinstance(event, Done):
                    written += event.completion_tokens
        return written

    used, began = processor_seconds(client.pid), time.perf_counter()
    written = await asyncio.gather(*(one(number) for number in range(clients)))
    seconds = time.perf_counter() - began
    return Measured(sum(written), seconds, first, processor_seconds(client.pid) - used)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tunewise/tiny")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = endless(arguments.model, Path(temporary) / "model")
        adapters = make_adapters(base, Path(temporary), 8)
        plain = ModelRef(str(base), None, "base")
        tuned = [ModelRef(str(base), str(path), path.name) for path in adapters]
        client = InferenceClient(EngineLimits(threads=arguments.threads))
        client.start()
        try:
            load = (arguments.clients, arguments.rounds, arguments.tokens)
            for name, models, shape in [
                ("warm-up", [plain, *tuned], (9, 1, 8)),
                ("one client", [plain], (1, *load[1:])),
                (f"{load[0]} clients", [plain], load),
                (f"{load[0]} clients, 8 adapters", tuned, load),
            ]:
                print(asyncio.run(measure(client, models, *shape)).line(name), flush=True)
        finally:
            client.stop()


if __name__ == "__main__":
    main()
