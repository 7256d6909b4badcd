"""A model made ready to learn: loaded, with its adapter, and on the fast path where it fits."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tunewise.errors import TrainingError
from tunewise.releases import import_failed
from tunewise.study.schema import FineTune
from tunewise.training import attention, lora_linear
from tunewise.training.batches import FlatBatch
from tunewise.training.loss import (
    linear_cross_entropy,
    linear_log_probs,
    linear_top_k,
    log_probs_of,
    top_k_of,
)
from tunewise.training.start import begin_with

if TYPE_CHECKING:
    import numpy.typing as npt

    from tunewise.models.loading import LoadedModel
    from tunewise.models.raw_form import Form


@dataclass
class Setup:
    """What a run needs of a model.

    Attributes:
        loaded: tokenizer, end tokens, context length.
        outer: the model to be saved: a peft model, or the plain one.
        causal: the causal language model within, with the adapter's layers in place.
        weights: the parameters that learn, by name.
        flat: whether the fast path is on; fused: whether its layers are computed by
            ``fused_layers``; flex: whether attention is by ``attention_flex``.
    """

    loaded: LoadedModel
    outer: Any
    causal: Any
    weights: Mapping[str, nn.Parameter]
    flat: bool = False
    fused: bool = False
    flex: bool = False
    stock_attention: str = "sdpa"

    @property
    def decoder(self) -> Any:
        """The layers below the head."""
        return self.causal.get_decoder()

    @property
    def kernel(self) -> str:
        """What computes attention: ``flex``, ``blocks``, or transformers' name for its own."""
        if not self.flat:
            return self.stock_attention
        return "flex" if self.flex else "blocks"

    def hidden(self, batch: FlatBatch, places: npt.NDArray[np.int64]) -> Tensor:
        """The last hidden states at some places of the flat row, shape (places, dim).

        Raises:
            ValueError: on the plain path, for more than one row.
        """
        device = self.causal.device
        options: dict[str, Any] = {}
        at = places
        if self.flat:
            kept, among_kept = np.unique(places, return_inverse=True)
            positions = torch.from_numpy(batch.positions)[None].to(device)
            layout = batch.layout.keeping(kept, flex=self.flex)
            options = {"position_ids": positions, "flat_layout": layout}
            at = among_kept if self.fused else places
        elif len(batch.layout.segments) > 1:
            raise ValueError("the plain path takes one row at a time")
        ids = torch.from_numpy(batch.ids)[None].to(device)
        with self.autocast():
            out = self.decoder(input_ids=ids, use_cache=False, **options)
        hidden: Tensor = out.last_hidden_state[0][self._put(at)]
        return hidden

    def losses(self, batch: FlatBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's weighted sum of losses; each prediction's loss, and whether it is right."""
        targets, weights = self._put(batch.targets), self._put(batch.weights)
        if not self.flat:
            logps, right = log_probs_of(self._plain_logits(batch), targets)
            return -(logps * weights).sum(), -logps.detach(), right
        hidden = self.hidden(batch, batch.keep)
        with self.autocast():
            head = self.causal.get_output_embeddings()
            return linear_cross_entropy(hidden, head, targets, weights, final_softcap(self.causal))

    def log_probs(self, batch: FlatBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probability of each prediction, and whether it is right; shapes (predictions,)."""
        targets = self._put(batch.targets)
        if not self.flat:
            return log_probs_of(self._plain_logits(batch) / temperature, targets)
        hidden = self.hidden(batch, batch.keep)
        with self.autocast():
            head = self.causal.get_output_embeddings()
            cap = final_softcap(self.causal)
            return linear_log_probs(hidden, head, targets, cap, temperature)

    def top_k(self, batch: FlatBatch, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``LinearTopK`` for each learnt token of the batch's rows, shared or not.

        Args:
            tokens: (learnt tokens of all rows, k), in the order of ``batch.uses``.
        """
        uses = self._put(batch.uses)
        if not self.flat:
            return top_k_of(self._plain_logits(batch)[uses], tokens)
        hidden = self.hidden(batch, batch.keep[batch.uses])
        with self.autocast():
            head = self.causal.get_output_embeddings()
            return linear_top_k(hidden, head, tokens, final_softcap(self.causal))

    @contextlib.contextmanager
    def frozen(self, *, adapter: bool = True) -> Iterator[None]:
        """Without dropout and gradients; ``adapter=False`` gives the base model."""
        was_training = self.outer.training
        self.outer.eval()
        off = contextlib.nullcontext() if adapter else self.outer.disable_adapter()
        try:
            with torch.no_grad(), off:
                yield
        finally:
            self.outer.train(was_training)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Ready for the decoder: frozen, and with the model's own attention."""
        with self.frozen(), self.autocast():
            self.causal.set_attn_implementation(self.stock_attention)
            try:
                yield
            finally:
                if self.flat:
                    self.causal.set_attn_implementation(attention.NAME)

    def _plain_logits(self, batch: FlatBatch) -> Tensor:
        """By the model's own forward, since what it does to its logits is not known."""
        if len(batch.layout.segments) > 1:
            raise ValueError("the plain path takes one row at a time")
        ids, keep = self._put(batch.ids)[None], self._put(batch.keep)
        with self.autocast():
            if "logits_to_keep" in inspect.signature(self.causal.forward).parameters:
                kept = self.causal(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0]
            else:
                kept = self.causal(input_ids=ids, use_cache=False).logits[0, keep]
        logits: Tensor = kept.float()
        return logits

    def _put(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self.causal.device)

    def autocast(self) -> Any:
        """Matrix products in bfloat16, where the base is in a 16-bit type."""
        low = self.causal.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(self.causal.device.type, dtype=torch.bfloat16, enabled=low)


def final_softcap(causal: Any) -> float | None:
    """The cap on the output logits (Gemma 2), or None."""
    config = causal.config.get_text_config(decoder=True)
    return getattr(config, "final_logit_softcapping", None)


def load_base(spec: str, fine_tune: FineTune, form: Form = "chat") -> tuple[LoadedModel, str]:
    """The base model, and the numeric type that it is in.

    Raises:
        ModelError: it is not there or cannot be read.
        TrainingError: 4 bits are wanted and bitsandbytes is not installed.
    """
    from tunewise.models.loading import load_local, processor_has_bfloat16
    from tunewise.models.names import parse_model

    precision = fine_tune.precision
    if precision == "auto":
        low = torch.cuda.is_available() or processor_has_bfloat16()
        precision = "bfloat16" if low else "float32"
    four_bits = _four_bits(precision) if fine_tune.adapter == "qlora" else None
    ref = parse_model(spec)
    return load_local(ref, dtype=precision, quantization=four_bits, form=form), precision


def _four_bits(precision: str) -> Any:
    """How QLoRA holds the base (Dettmers et al., 2305.14314): NormalFloat, doubly quantised."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise TrainingError(
            "`adapter: qlora` needs the package bitsandbytes, which is not installed",
            where="fine_tune.adapter",
            hint="Install it with: pip install bitsandbytes; or use `adapter: lora`, which needs "
            "less memory with `recompute: true`.",
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, precision),
    )


def prepare(
    loaded: LoadedModel, fine_tune: FineTune, seed: int, start: Path | None = None
) -> Setup:
    """Add the adapter, or open all weights.

    Args:
        loaded: from ``load_local``; its model is changed in place.
        seed: of the adapter's random start.
        start: folder of an adapter whose weights it begins with instead.

    Raises:
        TrainingError: when the adapter's target modules do not exist in this model, or ``start``
            is of another kind.
        TunewiseError: peft is not installed, or does not load.
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
        if start is not None:
            begin_with(outer, start)
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
        raise import_failed("LoRA", "local", error) from error
    from tunewise.models.quiet import quiet

    lora = fine_tune.lora
    _require_layers(model, lora.target_modules)
    alpha = lora.alpha if lora.alpha is not None else 2 * lora.rank
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        # A scoring head is new, so it learns whole and is saved with the adapter.
        task_type="SEQ_CLS" if hasattr(model, "score") else "CAUSAL_LM",
        modules_to_save=["score"] if hasattr(model, "score") else None,
    )
    try:
        with quiet():
            return get_peft_model(model, config)
    except ValueError as error:
        raise TrainingError(
            f"the adapter does not fit this model: {str(error).splitlines()[0]}",
            where="fine_tune.lora",
            hint=f"Its linear layers are: {', '.join(_linear(model))}.",
        ) from error


def _require_layers(model: Any, wanted: str | list[str]) -> None:
    """Every name of a list of target modules names a layer; peft asks this of one of them only.

    Raises:
        TrainingError: with the names that no layer has, and those that there are.
    """
    if isinstance(wanted, str):  # a pattern, or all-linear: peft refuses one without a match
        return
    names = [name for name, _ in model.named_modules()]
    odd = [w for w in wanted if not any(n == w or n.endswith(f".{w}") for n in names)]
    if not odd:
        return
    linear = _linear(model)
    near = dict.fromkeys(n for w in odd for n in get_close_matches(w, linear, 1))
    meant = f" Did you mean {', '.join(near)}?" if near else ""
    raise TrainingError(
        f"the model has no layer named {' or '.join(odd)}",
        where="fine_tune.lora.target_modules",
        hint=f"Its linear layers are: {', '.join(linear)}.{meant}",
    )


def _linear(model: nn.Module) -> list[str]:
    named = model.named_modules()
    return sorted({n.rsplit(".", 1)[-1] for n, m in named if isinstance(m, nn.Linear)})
