"""Small random models, tokenizers and rows for the training tests."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tunewise.data.chat import Example
from tunewise.training.batches import FlatBatch
from tunewise.training.rows import EncodedRow
from tunewise.training.setup import Setup

VOCABULARY = 97

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 9}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "smollm_tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", {"sliding_window": 9}),
    "gemma2": (
        "Gemma2",
        {
            **_MIXED,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": ("Gemma3", {**_MIXED, "query_pre_attn_scalar": 8}),
    "qwen3_moe": ("Qwen3Moe", {**_MOE, "decoder_sparse_step": 1}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": ("GptOss", {**_MIXED, "num_local_experts": 4, "num_experts_per_tok": 2}),
}


def small_model(architecture: str, seed: int = 0, **changes: Any) -> Any:
    """A random causal language model with all parameters trainable, in evaluation mode."""
    name, options = ARCHITECTURES[architecture]
    config_class = getattr(transformers, f"{name}TextConfig", None) or getattr(
        transformers, f"{name}Config"
    )
    torch.manual_seed(seed)
    config = config_class(**{**_COMMON, **options, **changes})
    model = getattr(transformers, f"{name}ForCausalLM")(config).float()
    with torch.no_grad():
        for parameter in model.parameters():  # norms, biases and sinks start as constants
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.train()


def qwen3_next(seed: int = 0) -> Any:
    """A model with linear attention, which the fast path must refuse."""
    torch.manual_seed(seed)
    config = transformers.Qwen3NextConfig(
        **{**_COMMON, **_MOE, "num_hidden_layers": 4},
        shared_expert_intermediate_size=24,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        decoder_sparse_step=1,
    )
    return transformers.Qwen3NextForCausalLM(config).float().train()


def setup_of(model: Any, *, flat: bool = False, fused: bool = True) -> Setup:
    """A ``Setup`` around a bare model or a peft model, as ``prepare`` makes it."""
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    setup = Setup(None, model, causal, weights, stock_attention="eager")  # type: ignore[arg-type]
    if flat:
        from tunewise.training import fast_path

        fast_path.turn_on(setup, fused=fused)
    return setup


def random_rows(
    seed: int, count: int, *, longest: int = 24, vocabulary: int = VOCABULARY
) -> list[EncodedRow]:
    """Rows that share prefixes at several levels, some equal to or continuing another."""
    r = random.Random(seed)
    pool = [
        [r.randrange(3, vocabulary) for _ in range(r.randrange(1, longest))]
        for _ in range(r.randrange(1, 4))
    ]
    rows = []
    for number in range(count):
        ids: list[int] = []
        while not ids or (r.random() < 0.5 and len(ids) < 3 * longest):
            ids = ids + r.choice(pool)
        tail = r.randrange(0, longest)
        ids = [1, *ids, *(r.randrange(3, vocabulary) for _ in range(tail))]
        weights = [r.choice([0.0, 0.0, 1.0, 0.5]) for _ in ids]
        weights[-1] = 1.0
        weights[0] = 0.0
        rows.append(
            EncodedRow(f"row {number}", np.asarray(ids, np.int32), np.asarray(weights, np.float32))
        )
    return rows


def plain_loss(model: Any, row: EncodedRow) -> torch.Tensor:
    """The weighted sum of a row's losses by the stock model, the row by itself."""
    ids = torch.from_numpy(row.ids.astype(np.int64))[None]
    logits = model(input_ids=ids, use_cache=False).logits[0].float()
    losses = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    return (losses * torch.from_numpy(row.weights[1:])).sum()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """All gradients, which are then cleared."""
    found = {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
        if p.requires_grad
    }
    model.zero_grad(set_to_none=True)
    return found


def batch_loss(setup: Setup, batches: list[FlatBatch]) -> torch.Tensor:
    """The weighted sum of losses of several batches."""
    total = torch.zeros(())
    for batch in batches:
        total = total + setup.losses(batch)[0]
    return total


_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def small_tokenizer(template: str | None = _TEMPLATE) -> Any:
    """A byte-level BPE tokenizer, trained here on a few lines."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "<|im_end|>", "<|im_start|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = ["Say the two words in the other order.", "red green blue cat dog sun moon tree"]
    inner.train_from_iterator(lines * 5, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        model_max_length=256,
    )
    tokenizer.chat_template = template
    return tokenizer


def save_small_model(folder: Path, architecture: str = "llama", **changes: Any) -> Path:
    """A model folder that ``load_local`` can read."""
    tokenizer = small_tokenizer()
    model = small_model(architecture, vocab_size=len(tokenizer), **changes)
    model.config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


WORDS = ["red", "green", "blue", "cat", "dog", "sun", "moon", "tree"]


def word_examples(count: int, seed: int = 0) -> list[Example]:
    """A task that can be learnt: two words in the other order."""
    r = random.Random(seed)
    out = []
    for number in range(count):
        a, b = r.choice(WORDS), r.choice(WORDS)
        messages = (
            {"role": "system", "content": "Say the two words in the other order."},
            {"role": "user", "content": f"{a} {b}"},
            {"role": "assistant", "content": f"{b} {a}"},
        )
        out.append(Example(f"row-{number}", messages, source=f"words.jsonl:{number + 1}"))
    return out
