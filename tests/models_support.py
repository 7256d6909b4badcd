"""Small real models for the tests of ``tunewise.models``: random weights, a trained tokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3NextConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from tunewise.models.loading import LoadedModel
from tunewise.models.quiet import quiet

CHATML = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "house",
    "seven",
    "Tom",
    "Anna",
    "likes",
    "sees",
    "the",
    "of",
]


def sentence(seed: int, words: int) -> str:
    chosen = random.Random(seed).choices(WORDS, k=words)
    return " ".join(chosen).capitalize() + "."


def make_tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 400 tokens, trained here."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([sentence(i, 12) for i in range(300)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    if chat:
        fast.chat_template = CHATML
    return fast


def save_model(folder: Path, kind: str = "llama", *, chat: bool = True, **changes: Any) -> Path:
    """A random model of about 100,000 parameters with its tokenizer, as a folder."""
    tokenizer = make_tokenizer(chat)
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 5,  # padded, as on many real models
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 1024,
        "bos_token_id": 0,
        "eos_token_id": 1,
        # Large weights: answers of a random model then differ from prompt to prompt.
        "initializer_range": 0.3,
    }
    classes = {
        "llama": LlamaConfig,
        "qwen3": Qwen3Config,
        "mistral": MistralConfig,
        "gpt_oss": GptOssConfig,
        "qwen3_next": Qwen3NextConfig,
    }
    config = classes[kind](**{**common, **changes})
    torch.manual_seed(7)
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lora(loaded: LoadedModel, folder: Path, seed: int, **options: Any) -> Path:
    """A LoRA adapter with random weights for a model, as peft saves it."""
    torch.manual_seed(seed)
    config = LoraConfig(
        **{"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **options}
    )
    with quiet():  # peft still asks transformers by a deprecated name
        base = AutoModelForCausalLM.from_pretrained(loaded.folder)
        model = get_peft_model(base, config)
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:  # as after training: not the base's own
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder)
    return folder
