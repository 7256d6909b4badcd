"""Few-shot scoring: the local engine against transformers' batched ``generate``, side by side.

Both answer the same questions below one 8-shot prompt with the same float32 model, greedily; the
answers must be identical. Plain ``generate`` pads on the left and recomputes the shared prompt in
every row, as scoring scripts do.

    python benchmarks/generate.py                    # 200 rows, a random model of 3.5M parameters
    python benchmarks/generate.py --model FOLDER     # a real one
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tunewise.data.chat import Request
from tunewise.models.chat_format import render_prompt
from tunewise.models.loading import LoadedModel, load_local
from tunewise.models.local_engine import LocalEngine
from tunewise.models.names import parse_model

SYLLABLES = ["ba", "do", "ki", "lo", "mu", "ne", "pa", "ri", "so", "tu", "ve", "zan"]


def words(chance: random.Random, count: int) -> str:
    return " ".join(
        "".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(count)
    )


SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def random_model(folder: Path, shape: dict[str, int] | None = None) -> Path:
    """Random weights of a Llama, with a tokenizer trained on made-up words.

    Args:
        shape: what to change of ``SHAPE``.
    """
    chance = random.Random(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=["<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator((words(chance, 30) for _ in range(500)), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        **(SHAPE | (shape or {})),
        max_position_embeddings=4096,
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def few_shot_requests(rows: int, shots: int, answer_tokens: int) -> list[Request]:
    chance = random.Random(1)
    head: list[dict[str, str]] = [{"role": "system", "content": words(chance, 25)}]
    for _ in range(shots):
        head.append({"role": "user", "content": words(chance, 20)})
        head.append({"role": "assistant", "content": words(chance, 4)})
    questions = [words(chance, chance.randint(8, 30)) for _ in range(rows)]
    return [
        Request(messages=(*head, {"role": "user", "content": question}), max_tokens=answer_tokens)
        for question in questions
    ]


@torch.no_grad()
def plain_generate(loaded: LoadedModel, requests: list[Request], batch: int) -> list[str]:
    tokenizer = loaded.tokenizer
    tokenizer.padding_side = "left"
    answers: list[str] = []
    for start in range(0, len(requests), batch):
        texts = [render_prompt(tokenizer, r.messages) for r in requests[start : start + batch]]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        output = loaded.model.generate(
            input_ids=inputs["input_ids"].to(loaded.device),
            attention_mask=inputs["attention_mask"].to(loaded.device),
            max_new_tokens=requests[0].max_tokens,
            do_sample=False,
            eos_token_id=list(loaded.end_ids),
            pad_token_id=loaded.pad_id,
        )
        tails = output[:, inputs["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(tails, skip_special_tokens=True)
    return [_cut(answer, loaded.stop) for answer in answers]


def _cut(answer: str, stop: tuple[str, ...]) -> str:
    ends = [answer.index(s) for s in stop if s in answer]
    return answer[: min(ends)] if ends else answer


def compare(
    loaded: LoadedModel, requests: list[Request], batch: int, repeats: int
) -> dict[str, Any]:
    """Both answer all requests, in turns.

    Returns:
        Median seconds of each (``plain``, ``engine``); ``ratios`` of each run; ``cpu_ratio``;
        ``same``, the number of identical answers; ``prompt`` and ``cached`` tokens of the first
        row, ``tokens`` that the engine answered.
    """
    engine = LocalEngine(loaded)
    engine.answer(requests[:4])
    plain_generate(loaded, requests[:4], 4)
    plain_times, engine_times, cpu_ratios = [], [], []
    for _ in range(repeats):
        began, cpu_began = time.perf_counter(), time.process_time()
        plain = plain_generate(loaded, requests, batch)
        middle, cpu_middle = time.perf_counter(), time.process_time()
        completions = engine.answer(requests)
        end, cpu_end = time.perf_counter(), time.process_time()
        plain_times.append(middle - began)
        engine_times.append(end - middle)
        cpu_ratios.append((cpu_middle - cpu_began) / (cpu_end - cpu_middle))
    return {
        "plain": statistics.median(plain_times),
        "engine": statistics.median(engine_times),
        "ratios": [a / b for a, b in zip(plain_times, engine_times, strict=True)],
        "cpu_ratio": statistics.median(cpu_ratios),
        "same": sum(a.text == b for a, b in zip(completions, plain, strict=True)),
        "prompt": completions[0].prompt_tokens,
        "cached": completions[0].cached_tokens,
        "tokens": sum(c.completion_tokens for c in completions),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or hub id; a random small Llama by default")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--answer-tokens", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32, help="of plain generate")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        spec = options.model or str(random_model(Path(folder)))
        loaded = load_local(parse_model(spec), dtype="float32")
    requests = few_shot_requests(options.rows, options.shots, options.answer_tokens)
    found = compare(loaded, requests, options.batch, options.repeats)
    print(
        f"{options.rows} rows, {options.shots} shots: {found['prompt']} prompt tokens in the first "
        f"row, {found['cached']} of them shared; {options.threads} thread(s)"
    )
    print(f"plain generate, batches of {options.batch}: {found['plain']:.2f} s")
    print(f"local engine:                 {found['engine']:.2f} s")
    ratios = found["ratios"]
    print(f"ratio: {statistics.median(ratios):.1f} (of each run: {[round(r, 1) for r in ratios]})")
    # Steadier than the clock when others use the machine too.
    print(f"ratio of processor time: {found['cpu_ratio']:.1f}")
    print(f"identical answers: {found['same']} of {options.rows}")
    if found["same"] < options.rows:
        raise SystemExit("the answers differ")


if __name__ == "__main__":
    main()
