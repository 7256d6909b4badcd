"""Supervised fine-tuning: Tunewise against TRL's SFTTrainer, side by side.

Same random Llama, same rows in the same order, same adapter, same rows per optimiser step, same
precision. Each arm runs in a process of its own, in turns, so that peak memory is its own and a
busy machine hits all alike. CPU seconds are printed beside wall seconds for the same reason.

    python benchmarks/sft.py                         # all three shapes, 28M-parameter body
    python benchmarks/sft.py --size small --steps 3  # some minutes on a busy machine
    python benchmarks/sft.py --shape task --ladder   # each technique's own gain
    python benchmarks/sft.py --device cuda --precision bfloat16 --size 8B

Arms: ``trl`` is SFTTrainer's defaults (it recomputes activations), ``trl-best`` the fastest of its
settings that needs no kernel from elsewhere (no recomputing; on a GPU with Liger's kernels where
they are installed), ``tunewise`` what ``tunewise train`` runs. Tokens are counted as the rows hold
them. On a GPU, memory is what its tensors take, and rates are of wall seconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "vocab_size": 16384,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "28M": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    # The shape of Llama 3.2 1B.
    "1B": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    # The shape of Llama 3 8B, for a GPU: 16 GB of weights in bfloat16.
    "8B": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
# Prompt that all rows share; tokens asked (median, least, most); tokens answered; most in a row.
SHAPES = {
    "task": (180, (120, 40, 400), (15, 60)),
    "chat": (0, (150, 40, 600), (60, 250)),
    "documents": (0, (1100, 700, 1700), (50, 200)),
}
RANK, BATCH, RATE = 16, 8, 2e-4
BEGAN = time.perf_counter()


def rows(shape: str, count: int, vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """Random (prompt, answer) pairs of token numbers."""
    shared, (median, least, most), (short, long) = SHAPES[shape]
    r = random.Random(shape)

    def tokens(n: int) -> list[int]:
        return [r.randrange(10, vocabulary) for _ in range(n)]

    prefix = tokens(shared)
    out = []
    for _ in range(count):
        asked = int(min(most, max(least, median * r.lognormvariate(0, 0.5))))
        out.append((prefix + tokens(asked), tokens(r.randrange(short, long))))
    return out


def make_model(folder: Path, size: str, device: str) -> None:
    """A Llama, and a tokenizer whose words are ``t3``, ``t4``…

    Its random weights are written for a CPU only; for a GPU see ``random_weights_on_gpu``.
    """
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    shape = SIZES[size]
    # Special tokens are found inside words too, so they must not look like the start of one.
    words = {"<unk>": 0, "<pad>": 1, "<end>": 2}
    words |= {f"t{i}": i for i in range(3, shape["vocab_size"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="<end>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ ' ' + m.content }}{% if m.role == 'assistant' %}{{ ' <end>' }}"
        "{% endif %}{% endfor %}"
    )
    options = {"tie_word_embeddings": True, **shape}
    config = LlamaConfig(
        **options, max_position_embeddings=4096, eos_token_id=2, architectures=["LlamaForCausalLM"]
    )
    if device == "cuda":
        config.save_pretrained(folder)
        save_file({}, folder / "model.safetensors")  # a model's folder must have one
    else:
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def random_weights_on_gpu() -> None:
    """Let models of this process be made from their configuration, where they would be read."""
    import torch
    import transformers

    def from_pretrained(folder: Any, *, dtype: Any, **_: Any) -> Any:
        config = transformers.AutoConfig.from_pretrained(folder)
        torch.manual_seed(0)
        with torch.device("cuda"):
            return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)

    transformers.AutoModelForCausalLM.from_pretrained = from_pretrained  # type: ignore[method-assign]


def order_of(count: int) -> list[int]:
    """The order in which Tunewise draws the rows, so that TRL can take the same."""
    from tunewise.training.batches import BatchPlan

    return [int(i) for i in BatchPlan(count, BATCH, 1.0, 0).order(0)]


def run_tunewise(model: Path, data: list[Any], precision: str, threads: int, ladder: str) -> Any:
    from tunewise.data.chat import Example
    from tunewise.study.schema import FineTune
    from tunewise.training import kernels
    from tunewise.training.job import TrainingJob
    from tunewise.training.loop import train

    _without(ladder)
    kernels.WORTH_COMPILING = 0  # few steps are run, and those of a long run are meant
    examples = []
    for number, (prompt, answer) in enumerate(data):
        user = {"role": "user", "content": " ".join(f"t{i}" for i in prompt)}
        wanted = {"role": "assistant", "content": " ".join(f"t{i}" for i in answer)}
        examples.append(Example(str(number), (user, wanted)))
    marks: list[tuple[float, float, int]] = []
    kernel: list[str] = []

    def on_event(event: Any) -> None:
        if event["event"] in ("start", "step"):
            marks.append(_mark())
        if event["event"] == "path":
            kernel.append(f" ({event['kernel']}) {event['kernel_reason']}".rstrip())

    with tempfile.TemporaryDirectory() as out:
        job = TrainingJob(
            model=str(model),
            examples=examples,
            dev=[],
            fine_tune=FineTune(
                batch_size=BATCH, lora={"rank": RANK}, precision=precision, warmup_ratio=0.0
            ),
            learning_rate=RATE,
            epochs=1,
            seed=0,
            output=Path(out),
            threads=threads,
        )
        result = train(job, on_event)
    expected = sum(len(p) + len(a) + 1 for p, a in data)
    assert result.tokens == expected, (result.tokens, expected)
    assert ladder == "plain" or result.path == "flat", result.path_reason
    return marks, result.train_loss, kernel[0]


def _mark() -> tuple[float, float, int]:
    """Wall seconds, CPU seconds, and bytes in memory now: of this process, or on its GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter(), time.process_time(), torch.cuda.memory_allocated()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return time.perf_counter(), time.process_time(), resident


def _without(ladder: str) -> None:
    """Switch techniques off, for the ladder; "" leaves everything on."""
    from tunewise.training import fast_path, items, lora_linear

    if ladder:
        turn_on = fast_path.turn_on
        fast_path.turn_on = lambda setup, fused: turn_on(setup, fused=False)  # type: ignore[assignment]
    if ladder in ("plain", "flat", "shared"):
        lora_linear.fuse = lambda _: 0  # type: ignore[assignment]
    if ladder == "plain":
        fast_path.ALLOWED = set()
    if ladder == "flat":
        split = items.split_by_budget
        flatten = items.flatten
        items.split_by_budget = lambda r, b, **o: split(r, b, share=False, **o)  # type: ignore[assignment]
        items.flatten = lambda r: flatten(r, share=False)  # type: ignore[assignment]


def run_trl(model: Path, data: list[Any], precision: str, best: bool) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    in_order = [data[i] for i in order_of(len(data))]
    table = [{"input_ids": [*p, *a, 2], "labels": [-100] * len(p) + [*a, 2]} for p, a in in_order]
    marks: list[tuple[float, float, int]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not marks:
                marks.append(_mark())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(_mark())

    with tempfile.TemporaryDirectory() as out:
        gpu = torch.cuda.is_available()
        options: dict[str, Any] = {"gradient_checkpointing": False} if best else {}
        if best and gpu:
            options["use_liger_kernel"] = importlib.util.find_spec("liger_kernel") is not None
        args = SFTConfig(
            output_dir=out,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.1},
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            bf16=precision == "bfloat16",
            use_cpu=not gpu,
            disable_tqdm=True,
            max_length=4096,
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            **options,
        )
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, precision)),
            args=args,
            train_dataset=Dataset.from_list(table),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    return marks, [s["loss"] for s in trainer.state.log_history if "loss" in s], ""


def arm(options: dict[str, Any]) -> dict[str, Any]:
    """Run one arm in this process. The first step warms up and is not counted."""
    import torch

    from tunewise.training.surroundings import peak_memory

    torch.set_num_threads(options["threads"])
    gpu = torch.cuda.is_available()
    if gpu:
        random_weights_on_gpu()
    data = rows(options["shape"], options["steps"] * BATCH, SIZES[options["size"]]["vocab_size"])
    model = Path(options["model"])
    if options["arm"].startswith("trl"):
        marks, losses, kernel = run_trl(
            model, data, options["precision"], options["arm"] == "trl-best"
        )
    else:
        ladder = options["arm"].partition(":")[2]
        marks, losses, kernel = run_tunewise(
            model, data, options["precision"], options["threads"], ladder
        )
    counted = [data[i] for i in order_of(len(data))][BATCH:]
    tokens = sum(len(p) + len(a) + 1 for p, a in counted)
    wall, cpu = marks[-1][0] - marks[1][0], marks[-1][1] - marks[1][1]
    peak = torch.cuda.max_memory_allocated() if gpu else peak_memory()
    return {
        "seconds_to_first_step": marks[0][0] - BEGAN,
        "step_seconds": [b[0] - a[0] for a, b in pairwise(marks)],
        "tokens_per_second": tokens / wall,
        "tokens_per_cpu_second": tokens / cpu,
        "peak_bytes": peak,
        "peak_above_start": peak - marks[0][2],
        "losses": losses,
        "kernel": kernel,
    }


def matrix_rate(device: str, precision: str) -> float:
    """Multiplications and additions of a large matrix product per CPU second, or of a GPU."""
    import torch

    if device == "cuda":
        return _matrix_rate_of_gpu(getattr(torch, precision))
    torch.set_num_threads(1)
    a, b = torch.randn(2048, 1024), torch.randn(1024, 1536)
    best = 0.0
    for _ in range(5):
        begin = time.process_time()
        for _ in range(4):
            a @ b
        best = max(best, 4 * 2 * 2048 * 1024 * 1536 / (time.process_time() - begin))
    return best


def _matrix_rate_of_gpu(dtype: Any) -> float:
    import torch

    n, products = 8192, 20
    a, b = (torch.randn(n, n, dtype=dtype, device="cuda") for _ in range(2))
    best = 0.0
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(products):
            a @ b
        torch.cuda.synchronize()
        best = max(best, products * 2 * n**3 / (time.perf_counter() - begin))
    return best


def useful_work(shape: str, size: str, count: int) -> tuple[float, int]:
    """Operations that the frozen matrices need for ``count`` rows, and the rows' tokens.

    Two for each weight and token forward and two backward, shared prompts once per step, the
    output layer on trained tokens only; attention and adapter are not counted.
    """
    s = SIZES[size]
    h, kv = (
        s["hidden_size"],
        s["hidden_size"] // s["num_attention_heads"] * s["num_key_value_heads"],
    )
    layer = 2 * h * h + 2 * h * kv + 3 * h * s["intermediate_size"]
    data = rows(shape, count, s["vocab_size"])
    shared = SHAPES[shape][0]
    computed = sum(len(p) + len(a) + 1 for p, a in data) - shared * (count - count // BATCH)
    trained = sum(len(a) + 1 for _, a in data)
    work = 4 * (layer * s["num_hidden_layers"] * computed + h * s["vocab_size"] * trained)
    return work, sum(len(p) + len(a) + 1 for p, a in data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all")
    parser.add_argument("--size", choices=list(SIZES), default="28M")
    parser.add_argument("--steps", type=int, default=6, help="the first is not counted")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--ladder", action="store_true", help="technique by technique")
    parser.add_argument("--arms", nargs="*", help="only these")
    parser.add_argument("--limit", type=float, help="seconds an arm may take; all by default")
    parser.add_argument("--json", type=Path, help="write the figures of each arm to this file too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cpu":  # before torch looks, here and in the arms
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if args.one:
        print("\n" + json.dumps(arm(json.loads(args.one))))
        return
    arms = args.arms or (
        [
            "trl-best",
            "tunewise:plain",
            "tunewise:flat",
            "tunewise:shared",
            "tunewise:adapter",
            "tunewise",
        ]
        if args.ladder
        else ["trl", "trl-best", "tunewise"]
    )
    rate = matrix_rate(args.device, args.precision)
    print(
        f"{args.size}, {args.device}, {args.precision}, {args.threads} threads; matrix rate "
        f"{rate / 1e9:.0f} GFLOP per {'CPU ' if args.device == 'cpu' else ''}second"
    )
    any_failed = False
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), args.size, args.device)
        for shape in SHAPES if args.shape == "all" else [args.shape]:
            found: dict[str, list[dict[str, Any]]] = {a: [] for a in arms}
            for _ in range(args.repeats):
                for name in arms:
                    found[name].append(_in_process(args, folder, shape, name))
            failed = {a: f["failed"] for a, runs in found.items() for f in runs if "failed" in f}
            done = {a: runs for a, runs in found.items() if a not in failed}
            if done:
                _print(args, shape, done, rate)
            for name, why in failed.items():
                print(f"{name} failed: {why}")
            any_failed |= bool(failed)
            if args.json:
                with args.json.open("a", encoding="utf-8") as file:
                    for name, runs in found.items():
                        line = {"size": args.size, "shape": shape, "arm": name, "runs": runs}
                        print(json.dumps(line), file=file)
    if any_failed:
        raise SystemExit(1)


def _in_process(args: argparse.Namespace, folder: str, shape: str, name: str) -> dict[str, Any]:
    options = {
        "arm": name,
        "model": folder,
        "shape": shape,
        "size": args.size,
        "steps": args.steps,
        "threads": args.threads,
        "precision": args.precision,
    }
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--device", args.device, "--one", json.dumps(options)],
            capture_output=True,
            text=True,
            check=False,
            timeout=args.limit,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {args.limit:g} s"}
    if done.returncode:
        # Standard error ends with the exception; memory that is wanting is a finding too.
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        print(done.stderr[-2000:], file=sys.stderr)
        return {"failed": lines[-1][:200]}
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


def _print(
    args: argparse.Namespace, shape: str, found: dict[str, list[dict[str, Any]]], rate: float
) -> None:
    last = list(found)[-1]
    per = "tokens_per_cpu_second" if args.device == "cpu" else "tokens_per_second"
    work, tokens = useful_work(shape, args.size, args.steps * BATCH)

    def middle(name: str, key: str) -> float:
        return statistics.median(r[key] for r in found[name])

    print(f"\n{shape}: {args.steps} steps of {BATCH} rows, {tokens} tokens")
    print(
        f"{'':18}{'tok/s':>8}{'tok/CPU-s':>11}{'× less time':>12}{'peak MB':>9}{'+MB':>7}  losses"
    )
    for name in found:
        losses = found[name][0]["losses"]
        print(
            f"{name:18}{middle(name, 'tokens_per_second'):8.0f}"
            f"{middle(name, 'tokens_per_cpu_second'):11.0f}"
            f"{middle(last, per) / middle(name, per):12.2f}"
            f"{middle(name, 'peak_bytes') / 1e6:9.0f}"
            f"{middle(name, 'peak_above_start') / 1e6:7.0f}"
            f"  {losses[0]:.4f} … {losses[-1]:.4f}"
        )
    share = middle(last, per) / tokens * work / rate
    print(f"{last} reaches {100 * share:.0f} % of the matrix rate in frozen products alone")


if __name__ == "__main__":
    main()
