"""Adapters on a shared model give peft's own logits, or are refused with the reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from models_support import lora, save_model
from tunewise.errors import ModelError
from tunewise.models.loading import LoadedModel, load_local
from tunewise.models.names import parse_model
from tunewise.models.quiet import quiet

IDS = torch.tensor([[5, 9, 14, 3, 8]])


def load(folder: Path) -> LoadedModel:
    return load_local(parse_model(str(folder)))


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedModel:
    return load(save_model(tmp_path / "base"))


def logits(loaded: LoadedModel, adapter: str | None) -> torch.Tensor:
    with loaded.using(adapter), torch.no_grad():
        found: torch.Tensor = loaded.model(IDS).logits
    return found


def by_peft(loaded: LoadedModel, folder: Path) -> torch.Tensor:
    """The logits of the adapter on a model of its own, by peft alone."""
    with quiet(), torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(loaded.folder)
        found: torch.Tensor = PeftModel.from_pretrained(base, folder).eval()(IDS).logits
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["norm"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    ],
    ids=str,
)
def test_logits_are_those_of_peft(
    loaded: LoadedModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    before = logits(loaded, None)
    folder = lora(loaded, tmp_path / "adapter", 1, **options)
    expected = by_peft(loaded, folder)
    other = loaded.attach(lora(loaded, tmp_path / "other", 2))
    adapter = loaded.attach(folder)
    assert not torch.allclose(expected, before, atol=1e-2)
    assert torch.allclose(logits(loaded, adapter), expected, atol=1e-5)
    assert not torch.allclose(logits(loaded, other), expected, atol=1e-2)
    assert torch.equal(logits(loaded, None), before)
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_a_dora_adapter_keeps_its_magnitudes(loaded: LoadedModel, tmp_path: Path) -> None:
    folder = lora(loaded, tmp_path / "dora", 1, use_dora=True)
    weights = load_file(folder / "adapter_model.safetensors")
    for key in weights:
        if "magnitude" in key:  # as after training: not what they would be made anew
            weights[key] = weights[key] * 1.5
    save_file(weights, folder / "adapter_model.safetensors")
    assert torch.allclose(logits(loaded, loaded.attach(folder)), by_peft(loaded, folder), atol=1e-5)


@pytest.mark.parametrize(
    "other", [{"hidden_size": 96}, {"num_hidden_layers": 2}, {"num_hidden_layers": 4}]
)
def test_an_adapter_of_another_model_is_refused(
    loaded: LoadedModel, tmp_path: Path, other: dict[str, int]
) -> None:
    before = logits(loaded, None)
    base = load(save_model(tmp_path / "other", **other))
    good = lora(loaded, tmp_path / "good", 2)
    expected = by_peft(loaded, good)
    with pytest.raises(ModelError, match="does not fit"):
        loaded.attach(lora(base, tmp_path / "adapter", 1))
    assert torch.equal(logits(loaded, None), before)
    assert torch.allclose(logits(loaded, loaded.attach(good)), expected, atol=1e-5)


def test_an_adapter_that_would_write_into_the_base_is_refused(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Embeddings with other values, as an adapter with added tokens brings them."""
    before = logits(loaded, None)
    folder = lora(loaded, tmp_path / "adapter", 1)
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    weights["base_model.model.model.embed_tokens.weight"] = torch.zeros(
        loaded.model.get_input_embeddings().weight.shape
    )
    save_file(weights, path)
    with pytest.raises(ModelError, match=r"no counterpart, such as .*embed_tokens"):
        loaded.attach(folder)
    assert torch.equal(logits(loaded, None), before)


def test_an_adapter_that_names_a_module_is_refused(tmp_path: Path) -> None:
    loaded = load(save_model(tmp_path / "base"))
    adapter = lora(loaded, tmp_path / "adapter", 1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"megatron_config": {"x": 1}, "megatron_core": "antigravity"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="Megatron"):
        loaded.attach(adapter)
    assert "antigravity" not in sys.modules


def test_trained_biases_are_refused(tmp_path: Path) -> None:
    loaded = load(save_model(tmp_path / "base", attention_bias=True))
    with pytest.raises(ModelError, match="biases"):
        loaded.attach(lora(loaded, tmp_path / "adapter", 1, bias="lora_only"))


def test_an_adapter_of_the_prompt_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(loaded.folder)
        get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="changes the prompt"):
        loaded.attach(tmp_path / "adapter")


def test_a_pickled_adapter_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    folder = lora(loaded, tmp_path / "adapter", 1)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="can run any program"):
        loaded.attach(folder)
