"""The checks of ``gpu_check.py``, each one function; what it returns becomes rows of the table.

python benchmarks/gpu_checks.py CHECK RESULT.json
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TREE / "tests"))  # random models and rows

Found = Iterator[tuple[str, str]]
"""Pairs of what is measured and its figure, as they come: a check cut short tells some."""


def machine() -> Found:
    import torch
    from sft import matrix_rate

    packages = ("transformers", "peft", "trl", "bitsandbytes", "liger-kernel")
    yield "GPU", torch.cuda.get_device_name()
    yield "torch", torch.__version__
    yield "other packages", ", ".join(f"{p} {_version(p)}" for p in packages)
    for precision in ("bfloat16", "float32"):
        rate = matrix_rate("cuda", precision) / 1e12
        yield f"{precision} products", f"{rate:.0f} TFLOP a second"


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "is not here"


def kernel() -> Found:
    """Attention over random tries by the compiled kernel and by blocks, against float64."""
    import torch

    worst: dict[str, list[float]] = {}
    for number, (query, key, value, sinks, batch, kept, options) in enumerate(_attentions()):
        inputs = [t for t in (query, key, value, sinks) if t is not None]
        direction = torch.randn(1, query.shape[2], query.shape[1], value.shape[3], device="cuda")

        def found(dtype: Any, flex: bool, inputs: Any = inputs, direction: Any = direction,
                  batch: Any = batch, kept: Any = kept, options: Any = options) -> Any:  # fmt: skip
            from tunewise.training import attention

            given = [t.to(dtype).requires_grad_() for t in inputs]
            q, k, v, *sink = given
            out, _ = attention.flat_attention(
                None, q, k, v, None, q.shape[3] ** -0.5, 0.0, options["window"],
                options["softcap"], sink[0] if sink else None,
                batch.layout.keeping(kept, flex=flex), options["only_kept"],
            )  # fmt: skip
            grads = torch.autograd.grad((out.to(dtype) * direction.to(dtype)).sum(), given)
            return [t.double() for t in (out.detach(), *grads)]

        exact = found(torch.float64, False)
        for dtype in (torch.float32, torch.bfloat16):
            for flex in (True, False):
                name = f"{'kernel' if flex else 'blocks'}, {str(dtype)[6:]}"
                for mine, theirs in zip(found(dtype, flex), exact, strict=True):
                    difference = (mine - theirs).norm() / theirs.norm()
                    worst.setdefault(name, []).append(float(difference))
        print(number, options, {n: f"{max(d):.1e}" for n, d in worst.items()}, flush=True)
    for name, d in worst.items():
        yield f"{name}: largest difference from float64", f"{max(d):.1e} of {len(d)} tensors"


def _attentions() -> Iterator[tuple[Any, ...]]:
    import numpy as np
    import torch

    from training_support import random_rows
    from tunewise.training.batches import flatten, sort_rows

    plain = {"window": None, "softcap": None, "only_kept": False}
    for seed, (heads, dim, sinks, options) in enumerate(
        [
            ((9, 3), 64, False, plain),
            ((8, 8), 128, False, plain | {"only_kept": True}),
            ((8, 4), 128, False, plain | {"window": 300, "softcap": 30.0}),
            ((8, 2), 64, True, plain | {"window": 128}),
            ((4, 1), 256, False, plain | {"window": 512}),
        ]
    ):
        batch = flatten(sort_rows(random_rows(seed, 12, longest=400)), min_shared=16)
        kept = np.unique(batch.keep)
        tokens = batch.layout.tokens
        generator = torch.Generator("cuda").manual_seed(seed)

        def normal(*shape: int, generator: Any = generator) -> Any:
            return torch.randn(*shape, generator=generator, device="cuda")

        queries = len(kept) if options["only_kept"] else tokens
        yield (
            normal(1, heads[0], queries, dim), normal(1, heads[1], tokens, dim),
            normal(1, heads[1], tokens, dim), normal(heads[0]) if sinks else None,
            batch, kept, options,
        )  # fmt: skip


def models() -> Found:
    """Whether small models of each family take the fast path and its kernel, by their probes."""
    import torch

    from training_support import random_rows, setup_of, small_model
    from tunewise.training import fast_path, kernels

    for name in ("llama", "qwen3", "gemma2", "gemma3", "gpt_oss"):
        changes = {"hidden_size": 256, "head_dim": 64, "initializer_range": 0.05}
        model = small_model(name, **changes).to("cuda", torch.bfloat16)
        rows = random_rows(1, 12, longest=60)
        setup = setup_of(model)
        reason = fast_path.enable(setup, rows) or kernels.choose(setup, rows, passes=10**6)
        yield f"fast path and its kernel, {name}, bfloat16", reason or "yes"


def learning() -> Found:
    """The embedded model learns the same rows in three precisions."""
    from tunewise.errors import TunewiseError

    for name, precision, adapter in (
        ("float32", "float32", "lora"),
        ("bfloat16", "bfloat16", "lora"),
        ("4 bits", "bfloat16", "qlora"),
    ):
        events: list[dict[str, Any]] = []
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                result = _train(Path(folder) / "job", "tunewise/tiny", precision, adapter, events)
        except TunewiseError as error:
            yield f"learning, {name}", str(error)
            continue
        seconds = time.monotonic() - began
        path = next(e for e in events if e["event"] == "path")
        after = min(loss for _, loss in result.dev_loss)
        yield (
            f"dev loss before and after, {name}",
            f"{result.metrics['dev_loss_before']:.4f}, {after:.4f} ({path['kernel']}, "
            f"{seconds:.0f} s){path['kernel_reason'] and ': ' + path['kernel_reason']}",
        )


def _train(
    output: Path,
    model: str,
    precision: str,
    adapter: str,
    events: list[Any],
    checkpoint_seconds: float = 120.0,
) -> Any:
    from tunewise.data.chat import Example
    from tunewise.study.schema import FineTune
    from tunewise.synthetic.demo import generate as demonstration
    from tunewise.training.job import TrainingJob
    from tunewise.training.loop import train

    files = demonstration("format", 0).files
    texts = [text for name, text in files.items() if name.endswith(".jsonl")]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    rows = [row for row in rows if "messages" in row]
    examples = {
        split: [Example(r["id"], tuple(r["messages"])) for r in rows if r["split"] == split]
        for split in ("train", "dev")
    }
    job = TrainingJob(
        model=model,
        examples=examples["train"],
        dev=examples["dev"],
        fine_tune=FineTune(
            batch_size=8, adapter=adapter, precision=precision, lora={"rank": 16, "dropout": 0.05}
        ),
        learning_rate=2e-3,
        epochs=2,
        seed=0,
        output=output,
        threads=1,
        checkpoint_seconds=checkpoint_seconds,
        dev_before=True,
    )
    return train(job, events.append)


def resume() -> Found:
    """Two undisturbed runs, and one that is killed after a checkpoint and goes on: equal bits?"""
    from training_support import save_small_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_small_model(
            folder / "model", hidden_size=256, head_dim=64, initializer_range=0.05
        )
        runs = [_start(model, folder / run) for run in ("first", "second", "killed")]
        victim = runs.pop()
        while victim.poll() is None and not list((folder / "killed").glob("checkpoints/step-*")):
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        killed = victim.wait() == -signal.SIGKILL
        runs.append(_start(model, folder / "killed"))
        ended = [run.wait() for run in runs]
        if any(ended) or not killed:
            raise SystemExit(f"runs ended with {ended}; killed: {killed}")
        weights = {
            run: (folder / run / "adapter" / "adapter_model.safetensors").read_bytes()
            for run in ("first", "second", "killed")
        }
        events = (folder / "killed" / "events.jsonl").read_text("utf-8").splitlines()
    steps = [e for e in map(json.loads, events) if e["event"] in ("resume", "path")]
    went_on = [e["step"] for e in steps if e["event"] == "resume"]
    same = weights["first"] == weights["second"]
    yield "two undisturbed runs, bfloat16", "equal bits" if same else "they differ"
    same = weights["first"] == weights["killed"]
    yield f"killed, and on from step {went_on}", "equal bits" if same else "it differs"
    yield "path and kernel", ", ".join(str(steps[0][k]) for k in ("path", "reason", "kernel"))


def _start(model: Path, output: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "train-one", str(model), str(output)])


def kernel_speed() -> Found:
    """Attention over a step's trie, forward and backward: kernel, blocks, padded rows by SDPA."""
    import torch
    import torch.nn.functional as F
    from sft import rows as lengths

    from tunewise.training import attention
    from tunewise.training.batches import flatten, sort_rows
    from tunewise.training.rows import EncodedRow

    for shape in ("task", "documents"):
        import numpy as np

        pairs = lengths(shape, 32, 50000)
        encoded = [
            EncodedRow(str(i), np.array([*p, *a], np.int32), np.ones(len(p) + len(a), np.float32))
            for i, (p, a) in enumerate(pairs)
        ]
        batch = flatten(sort_rows(encoded), min_shared=16)
        tokens, longest = batch.layout.tokens, max(len(r.ids) for r in encoded)

        def made(rows: int, heads: int, tokens: int) -> Any:
            options = {"device": "cuda", "dtype": torch.bfloat16}
            return torch.randn(rows, heads, tokens, 128, **options).requires_grad_()

        q, k, v = made(1, 32, tokens), made(1, 8, tokens), made(1, 8, tokens)
        padded = [made(len(encoded), 32, longest)] + [made(len(encoded), 8, longest) for _ in "kv"]
        layouts = {f: batch.layout.keeping(np.arange(tokens), flex=f) for f in (True, False)}

        def flat(flex: bool, q: Any = q, k: Any = k, v: Any = v, layouts: Any = layouts) -> None:
            given, scale = layouts[flex], 128**-0.5
            value, _ = attention.flat_attention(
                None, q, k, v, None, scale, 0.0, None, None, None, given
            )
            value.sum().backward()

        def rows_apart(padded: Any = padded) -> None:
            value = F.scaled_dot_product_attention(*padded, is_causal=True, enable_gqa=True)
            value.sum().backward()

        times = {
            "kernel": _milliseconds(lambda flat=flat: flat(True)),
            "blocks": _milliseconds(lambda flat=flat: flat(False)),
            "padded rows by SDPA": _milliseconds(rows_apart),
        }
        yield (
            f"{shape}, 32 rows, {tokens} of {32 * longest} places, one layer of 8B",
            ", ".join(f"{name} {value:.2f} ms" for name, value in times.items()),
        )


def _milliseconds(call: Callable[[], None]) -> float:
    import torch

    for _ in range(3):
        call()
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def generate() -> Found:
    """The local engine against transformers' ``generate``: equal in float32, and how fast."""
    from generate import compare, few_shot_requests, random_model

    from tunewise.models.loading import load_local
    from tunewise.models.names import parse_model

    shape = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12}
    shape |= {"num_attention_heads": 16, "num_key_value_heads": 4}
    requests = few_shot_requests(200, 8, 32)
    with tempfile.TemporaryDirectory() as folder:
        model = parse_model(str(random_model(Path(folder), shape)))
        for dtype in ("float32", "bfloat16"):
            loaded = load_local(model, dtype=dtype)  # type: ignore[arg-type]
            found = compare(loaded, requests, 64, 1)
            yield (
                f"200 answers of at most 32 tokens, 0.2B parameters, {dtype}",
                f"{found['plain']:.2f} s by generate, {found['engine']:.2f} s here, "
                f"{found['ratios'][0]:.1f} times ({found['tokens']} tokens); "
                f"{found['same']} identical",
            )


def _sft(shape: str, arms: tuple[str, ...], steps: int) -> Found:
    for arm in arms:
        with tempfile.TemporaryDirectory() as folder:
            figures = Path(folder) / "figures.jsonl"
            subprocess.run(
                [
                    sys.executable, str(TREE / "benchmarks" / "sft.py"), "--device", "cuda",
                    "--precision", "bfloat16", "--size", "8B", "--shape", shape, "--steps",
                    str(steps), "--json", str(figures), "--arms", arm,
                ],
                check=False,  # an arm that fails is a finding, told in the figures
            )  # fmt: skip
            run = json.loads(figures.read_text("utf-8"))["runs"][0]
        seconds = " ".join(f"{s:.2f}" for s in run.get("step_seconds", ()))
        yield (
            f"8B, {shape}, {arm}",
            run.get("failed")
            or f"{run['tokens_per_second']:.0f} tokens a second, {run['peak_bytes'] / 1e9:.1f} GB, "
            f"losses {run['losses'][0]:.4f} … {run['losses'][-1]:.4f}{run['kernel']}; "
            f"first step after {run['seconds_to_first_step']:.0f} s; seconds of steps: {seconds}",
        )


def sft_task() -> Found:
    yield from _sft("task", ("tunewise", "trl-best", "trl"), 8)


def sft_chat() -> Found:
    yield from _sft("chat", ("tunewise", "trl-best"), 8)


def sft_documents() -> Found:
    yield from _sft("documents", ("tunewise", "trl"), 5)


def main() -> None:
    name, *rest = sys.argv[1:]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if name == "train-one":
        model, output = rest
        _train(Path(output), model, "bfloat16", "lora", [], checkpoint_seconds=0.0)
        return
    found: dict[str, str] = {}
    for what, figure in globals()[name.replace("-", "_")]():
        print(f"{what}: {figure}", flush=True)
        found[what] = figure
        Path(rest[0]).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main()
