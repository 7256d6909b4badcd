"""One project floods a server; how long another one waits for a chat, a file and a list.

First the quiet project alone, then beside each flood of the loud one: graders that sleep, long
chats, embeddings, uploads, lists, and all of them at once. Everything runs on this machine, so what
the flood computes is computed beside the quiet project's own requests.

    python benchmarks/neighbours.py                  # 40 rounds of each
    python benchmarks/neighbours.py --rounds 200
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
from serve_http import BIN, free_port, started

MODEL = "tunewise/tiny"
SAY = {"model": MODEL, "messages": [{"role": "user", "content": "What is 1 plus one?"}]}
SLEEPS = "import time\n\n\ndef grade(sample, item):\n    time.sleep(20)\n    return 1.0\n"
GRADER = {"type": "python", "name": "sleeps", "source": SLEEPS}
Ask = tuple[str, str, Mapping[str, Any]]
FLOODS: Mapping[str, tuple[int, Ask]] = {
    "120 graders that sleep": (
        120,
        ("POST", "/fine_tuning/alpha/graders/run",
         {"json": {"grader": GRADER, "model_sample": "a"}}),
    ),
    "64 uploads": (
        64, ("POST", "/files", {"files": {"file": ("a.txt", b"x" * 200_000)},
                                "data": {"purpose": "user_data"}}),
    ),
    "64 lists": (64, ("GET", "/files", {})),
    "64 embeddings": (64, ("POST", "/embeddings", {"json": {"model": MODEL, "input": "One"}})),
    "64 long chats": (64, ("POST", "/chat/completions", {"json": {**SAY, "max_tokens": 200}})),
}  # fmt: skip


def key(home: Path, project: str) -> str:
    """A new key of ``project``."""
    command = [BIN / "tunewise", "server", "key", "create", "--home", home, "--project", project]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def client(url: str, key: str) -> httpx2.AsyncClient:
    """A client of its own connections."""
    return httpx2.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300, verify=False,
        limits=httpx2.Limits(max_connections=None),
    )  # fmt: skip


async def loud(api: httpx2.AsyncClient, ask: Ask, seen: Counter[int]) -> None:
    """Ask again and again; wait a moment after a refusal, as clients do."""
    method, path, options = ask
    while True:
        with suppress(httpx2.TransportError):
            status = (await api.request(method, path, **options)).status_code
            seen[status] += 1
            await asyncio.sleep(0.5 if status in (429, 503) else 0)


async def quiet(api: httpx2.AsyncClient, root: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind of request, one after the other."""
    asks: Sequence[Ask] = (
        ("GET", f"{root}/healthz", {}),
        ("POST", "/chat/completions", {"json": {**SAY, "max_tokens": 4}}),
        ("POST", "/files", {"files": {"file": ("a.txt", b"x")}, "data": {"purpose": "user_data"}}),
        ("GET", "/files?limit=1", {}),
    )
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for method, path, options in asks:
            began = time.monotonic()
            answer = await api.request(method, path, **options)
            took[f"{method} {path.removeprefix(root)}"].append(time.monotonic() - began)
            assert answer.status_code == 200, answer.text
    return took


async def measure(url: str, keys: Sequence[str], floods: Sequence[str], rounds: int) -> None:
    """One line a kind of request: median and 95th percentile beside these floods."""
    seen: Counter[int] = Counter()
    async with client(url, keys[0]) as noisy, client(url, keys[1]) as calm:
        tasks = [
            asyncio.create_task(loud(noisy, FLOODS[name][1], seen))
            for name in floods
            for _ in range(FLOODS[name][0])
        ]
        await asyncio.sleep(2 if tasks else 0)
        took = await quiet(calm, url.removesuffix("/v1"), rounds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(f"\n{' + '.join(floods) or 'quiet'}" + (f"   answered: {dict(seen)}" if seen else ""))
    for kind, times in took.items():
        ordered = sorted(times)
        most = ordered[int(0.95 * (len(ordered) - 1))]
        print(f"  {kind:<28} median {statistics.median(ordered) * 1e3:7.0f} ms"
              f"   95 % {most * 1e3:7.0f} ms")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", help="floods whose names hold this text")
    args = parser.parse_args()
    rounds = args.rounds
    single = [(name,) for name in FLOODS if args.only is None or args.only in name]
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder, "server"), free_port()
        keys = [key(home, name) for name in ("loud", "quiet")]
        command = [str(BIN / "tunewise"), "serve", "--home", str(home), "--port", str(port)]
        with started(command, port, "/healthz") as url:
            asyncio.run(measure(url, keys, (), 5))  # the engine starts
            for floods in ((), *single, *([tuple(FLOODS)] if args.only is None else [])):
                asyncio.run(measure(url, keys, floods, rounds))


if __name__ == "__main__":
    sys.exit(main())
