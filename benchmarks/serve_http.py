"""Serving over HTTP: `tunewise serve` beside `transformers serve`, the same model and clients.

Sixteen clients stream chats of a fixed length with the official client, first from one server,
then from the other, in turns. Then Tunewise alone: eight tuned models at once, and the same chats
while a fine-tuning job trains and files are uploaded. No server runs while another is measured.

    python benchmarks/serve_http.py                    # the model that ships with Tunewise
    python benchmarks/serve_http.py --model FOLDER --clients 16 --rounds 2 --tokens 128 --turns 2
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from openai import AsyncOpenAI, OpenAI
from serve import TOPICS, endless

BIN = Path(sys.executable).parent
START_SECONDS = 180


@dataclass
class Load:
    """What the clients of one run saw."""

    tokens: int = 0
    seconds: float = 0.0
    errors: int = 0
    first: list[float] = field(default_factory=list)

    def line(self, name: str, beside: float | None = None) -> str:
        ratio = "" if beside is None else f"   {self.tokens / self.seconds / beside:5.1f} times"
        first = sorted(self.first) or [float("nan")]
        return (
            f"{name:<44} {self.tokens / self.seconds:7.0f} tokens/s   first token "
            f"{statistics.median(first) * 1e3:6.0f} ms, "
            f"95 % {first[int(0.95 * (len(first) - 1))] * 1e3:6.0f} ms   "
            f"errors {self.errors}{ratio}"
        )


@contextmanager
def started(command: Sequence[str], port: int, path: str) -> Iterator[str]:
    """A server in a child process, from its first answer on ``path`` until the block ends."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GOMP_SPINCOUNT": "10000"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + START_SECONDS
            while True:
                try:
                    urllib.request.urlopen(address + path, timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    if process.poll() is not None or time.monotonic() > end:
                        log.seek(0)
                        raise SystemExit(log.read().decode(errors="replace")[-3000:]) from None
                    time.sleep(0.2)
            yield f"{address}/v1"
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def tunewise(model: Path, home: Path) -> Iterator[str]:
    """Our server, without keys; ``base`` is the model."""
    config = home.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"models": {"base": str(model)}, "worker_threads": 1}))
    port = free_port()
    command = [BIN / "tunewise", "serve", "--no-auth", "--home", home, "--config", config]
    with started([*map(str, command), "--port", str(port)], port, "/healthz") as url:
        yield url


@contextmanager
def transformers(model: Path, *options: str) -> Iterator[str]:
    """The peer, with the model loaded at its start."""
    port = free_port()
    command = [str(BIN / "transformers"), "serve", str(model), "--host", "127.0.0.1"]
    with started([*command, "--port", str(port), *options], port, "/health") as url:
        yield url


async def chats(url: str, models: Sequence[str], clients: int, rounds: int, tokens: int) -> Load:
    """Let ``clients`` streams run at once, each ``rounds`` times."""
    load = Load()

    async def one(client: AsyncOpenAI, number: int) -> None:
        for turn in range(rounds):
            topic = TOPICS[(number + turn) % len(TOPICS)]
            began, heard = time.perf_counter(), False
            try:
                stream = await client.chat.completions.create(
                    model=models[number % len(models)],
                    messages=[
                        {"role": "user", "content": f"Tell me something about {topic}, please."}
                    ],
                    max_tokens=tokens,
                    temperature=0,
                    stream=True,
                )
                async for chunk in stream:
                    if not heard and chunk.choices and chunk.choices[0].delta.content:
                        load.first.append(time.perf_counter() - began)
                        heard = True
                load.tokens += tokens  # the model never ends an answer by itself
            except Exception as error:
                load.errors += 1
                print(f"  {type(error).__name__}: {error}", file=sys.stderr)

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600) as client:
        began = time.perf_counter()
        await asyncio.gather(*(one(client, number) for number in range(clients)))
        load.seconds = time.perf_counter() - began
    return load


def run(url: str, models: Sequence[str], shape: tuple[int, int, int]) -> Load:
    """One measured load, after a short one that loads and warms up."""
    asyncio.run(chats(url, models, max(2, len(models)), 1, 8))
    return asyncio.run(chats(url, models, *shape))


def rows(count: int) -> bytes:
    """A small training file."""
    lines = (
        {
            "messages": [
                {"role": "user", "content": f"Say {word} {number}."},
                {"role": "assistant", "content": f"{word} {number}"},
            ]
        }
        for number, word in ((n, TOPICS[n % len(TOPICS)]) for n in range(count))
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def tune(client: OpenAI, count: int, epochs: int, *, wait: bool) -> list[str]:
    """Start ``count`` jobs; the names of their models where they are waited for."""
    file = client.files.create(
        file=("rows.jsonl", rows(64 if not wait else 10)), purpose="fine-tune"
    )
    method = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 8}},
    }
    ids = [
        client.fine_tuning.jobs.create(
            model="base",
            training_file=file.id,
            seed=seed,
            method=method,  # type: ignore[arg-type]
        ).id
        for seed in range(count)
    ]
    names = []
    for job_id in ids if wait else ():
        while (job := client.fine_tuning.jobs.retrieve(job_id)).finished_at is None:
            time.sleep(1)
        if job.fine_tuned_model is None:
            raise SystemExit(f"a job failed: {job.error}")
        names.append(job.fine_tuned_model)
    return names


async def with_uploads(url: str, shape: tuple[int, int, int]) -> tuple[Load, int]:
    """The chats, while files are uploaded one after another; and how many were."""
    done = asyncio.Event()
    sent = 0

    async def upload() -> None:
        nonlocal sent
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            while not done.is_set():
                await client.files.create(file=("rows.jsonl", rows(2000)), purpose="fine-tune")
                sent += 1
                await asyncio.sleep(0.5)

    uploading = asyncio.create_task(upload())
    load = await chats(url, ["base"], *shape)
    done.set()
    await uploading
    return load, sent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tunewise/tiny")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--turns", type=int, default=2, help="alternating runs of each server")
    parser.add_argument("--adapters", type=int, default=8)
    arguments = parser.parse_args()
    shape = (arguments.clients, arguments.rounds, arguments.tokens)
    with tempfile.TemporaryDirectory() as temporary:
        model = endless(arguments.model, Path(temporary) / "model")
        home = Path(temporary) / "home"
        plain: list[float] = []
        batching: list[float] = []
        for _ in range(arguments.turns):
            with transformers(model) as url:
                load = run(url, [str(model)], shape)
                plain.append(load.tokens / load.seconds)
                print(load.line("transformers serve"), flush=True)
            with transformers(model, "--continuous-batching") as url:
                load = run(url, [str(model)], shape)
                batching.append(load.tokens / load.seconds)
                print(load.line("transformers serve --continuous-batching"), flush=True)
            with tunewise(model, home) as url:
                load = run(url, ["base"], shape)
                print(load.line("tunewise serve", plain[-1]), flush=True)
                ratio = load.tokens / load.seconds / batching[-1]
                print(f"{'':<44} {ratio:.1f} times continuous batching", flush=True)
        with tunewise(model, home) as url:
            client = OpenAI(base_url=url, api_key="none")
            names = tune(client, arguments.adapters, 1, wait=True)
            load = run(url, names, shape)
            print(load.line(f"tunewise serve, {len(names)} adapters", statistics.mean(plain)))
            tune(client, 1, 50, wait=False)
            time.sleep(15)  # until it trains
            load, sent = asyncio.run(with_uploads(url, shape))
            print(
                load.line(f"tunewise serve, a job trains, {sent} uploads", statistics.mean(plain))
            )


if __name__ == "__main__":
    main()
