"""A model made ready to learn: loaded, with its adapter, and on the fast path where it fits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunewise.errors import MissingExtraError, TrainingError
from tunewise.study.schema import FineTune
from tunewise.training import lora_linear
from tunewise.training.batches import FlatBatch
from tunewise.training.loss import linear_cross_entropy

if TYPE_CHECKING:
    from tunewise.models.loading import LoadedModel


@dataclass
class Setup:
    """What a run needs of a model.

    Attributes:
        loaded: tokenizer, end tokens, context length.
        outer: the model to be saved: a peft model, or the plain one.
        causal: the causal language model within, with the adapter's layers in place.
        weights: the parameters that learn, by name.
        flat: whether the fast path is on.
    """

    loaded: LoadedModel
    outer: Any
    causal: Any
    weights: Mapping[str, nn.Parameter]
    flat: bool = False
    stock_attention: str = "sdpa"

    def losses(self, batch: FlatBatch) -> tuple[Tensor, Tensor]:
        """The batch's weighted sum of losses, and each prediction's loss in the batch's order."""
        device = self.causal.device
        ids = torch.from_numpy(batch.ids)[None].to(device)
        keep = torch.from_numpy(batch.keep).to(device)
        targets = torch.from_numpy(batch.targets).to(device)
        weights = torch.from_numpy(batch.weights).to(device)
        with self._autocast():
            if not self.flat:
                return self._plain_losses(batch, ids, keep, targets, weights)
            hidden = self.causal.get_decoder()(
                input_ids=ids,
                position_ids=torch.from_numpy(batch.positions)[None].to(device),
                use_cache=False,
                flat_layout=batch.layout,
            ).last_hidden_state[0]
            head = self.causal.get_output_embeddings()
            return linear_cross_entropy(
                hidden[keep], head, targets, weights, final_softcap(self.causal)
            )

    def _plain_losses(
        self, batch: FlatBatch, ids: Tensor, keep: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """By the model's own forward, since what it does to its logits is not known."""
        if len(batch.layout.segments) > 1:
            raise ValueError("the plain path takes one row at a time")
        if "logits_to_keep" in inspect.signature(self.causal.forward).parameters:
            kept = self.causal(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0]
        else:
            kept = self.causal(input_ids=ids, use_cache=False).logits[0, keep]
        each = nn.functional.cross_entropy(kept.float(), targets, reduction="none")
        return (each * weights).sum(), each.detach()

    def _autocast(self) -> Any:
        low = self.causal.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(self.causal.device.type, dtype=torch.bfloat16, enabled=low)


def final_softcap(causal: Any) -> float | None:
    """The cap on the output logits (Gemma 2), or None."""
    config = causal.config.get_text_config(decoder=True)
    return getattr(config, "final_logit_softcapping", None)


def prepare(loaded: LoadedModel, fine_tune: FineTune, seed: int) -> Setup:
    """Add the adapter, or open all weights.

    Args:
        loaded: from ``load_local``; its model is changed in place.
        seed: of the adapter's random start.

    Raises:
        TrainingError: when the adapter's target modules do not exist in this model.
        MissingExtraError: peft is not installed.
    """
    torch.manual_seed(seed)
    model: Any = loaded.model
    stock = "eager" if _needs_eager(model) else model.config._attn_implementation
    model.set_attn_implementation(stock)
    if fine_tune.adapter == "full":
        model.float().requires_grad_(True)
        outer = causal = model
    else:
        outer = _with_lora(model, fine_tune)
        lora_linear.fuse(outer)
        causal = outer.get_base_model()
    outer.train()
    weights = {n: p for n, p in outer.named_parameters() if p.requires_grad}
    for parameter in weights.values():
        parameter.data = parameter.data.float()
    return Setup(loaded, outer, causal, weights, stock_attention=stock)


def _needs_eager(model: Any) -> bool:
    # transformers' sdpa drops the cap on attention logits without a word.
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "attn_logit_softcapping", None) is not None


def _with_lora(model: Any, fine_tune: FineTune) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("LoRA", "local") from error
    from tunewise.models.quiet import quiet

    lora = fine_tune.lora
    alpha = lora.alpha if lora.alpha is not None else 2 * lora.rank
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    try:
        with quiet():
            return get_peft_model(model, config)
    except ValueError as error:
        linear = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if _is_linear(m)})
        raise TrainingError(
            f"the adapter does not fit this model: {str(error).splitlines()[0]}",
            where="fine_tune.lora",
            hint=f"Its linear layers are: {', '.join(linear)}.",
        ) from error


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def tokens_per_batch(causal: Any) -> int:
    """How many tokens one forward and backward pass may hold in this machine's free memory.

    A pass keeps about 14 numbers of the hidden size and 5 of the inner size a token and layer;
    they may take two fifths of what is free. From a few thousand tokens on, larger passes are not
    faster. The number of rows in an optimiser step stays the same, whatever this is.
    """
    config = causal.config.get_text_config(decoder=True)
    width = 14 * config.hidden_size + 5 * getattr(config, "intermediate_size", 0)
    experts = getattr(config, "num_experts_per_tok", None) or 1
    size = torch.finfo(causal.dtype).bits // 8
    bytes_per_token = width * experts * config.num_hidden_layers * size
    return int(min(8192, max(512, 0.4 * _free_memory(causal.device) / bytes_per_token)))


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:  # not Linux
        return 4 * 2**30
    free = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(free.split()[1]) * 1024
