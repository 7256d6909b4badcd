"""Adapters on a model that several engines share: loaded, switched on and off by peft's classes.

transformers has a mixin for the same on its models, but each release of it accepts only releases
of peft of its choosing, some of which do not exist yet. peft alone has no such opinion.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (WEIGHTS, "adapter_config.json")


class Adapters:
    """The adapters of one model, all switched off until one is used.

    Args:
        model: its layers are replaced in place by ones that can take adapters, when the first
            adapter is loaded.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._peft: Any = None

    def load(self, folder: Path, name: str) -> None:
        """Read an adapter, switched off.

        Every weight of the file has its place in the adapter and the other way round, and none
        is the base model's own: those would change what all other adapters stand on.

        Args:
            folder: with the two ``ADAPTER_FILES``.
            name: for ``use``; without a dot.

        Raises:
            ModelError: an adapter of a kind that cannot be switched, or with weights that have no
                counterpart.
            Exception: peft raises what it pleases for an adapter of another model.
        """
        from peft import PeftConfig, set_peft_model_state_dict
        from safetensors.torch import load_file

        from tunewise.models.quiet import quiet

        with quiet():
            config = PeftConfig.from_pretrained(str(folder))
            _require_switchable(config)
            config.inference_mode = True
            try:
                self._add(name, config)
                weights = self._matched(name, load_file(str(folder / WEIGHTS)))
                set_peft_model_state_dict(self._peft, weights, adapter_name=name)
            except BaseException:
                self._forget(name)
                raise
            self._model.eval()  # type: ignore[no-untyped-call]
            self._model.requires_grad_(False)
        self.use(None)

    def use(self, name: str | None) -> None:
        """Switch one adapter on and all others off; None switches all off."""
        if self._peft is None:
            return
        tuner = self._peft.base_model
        if name is None:
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            tuner.set_adapter(name, inference_mode=True)

    def _add(self, name: str, config: Any) -> None:
        from peft import PeftModel

        if self._peft is None:
            self._peft = PeftModel(self._model, config, adapter_name=name)
        else:
            self._peft.add_adapter(name, config)

    def _forget(self, name: str) -> None:
        if self._peft is not None and name in self._peft.peft_config:
            self._peft.delete_adapter(name)
            self.use(None)

    def _matched(self, name: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The adapter's weights, without copies of the base's that peft saves beside them.

        Raises:
            ValueError: a weight has no counterpart; left as it is, it would be random, ignored, or
                written into the base (a copy that differs, as after adding tokens to it).
        """
        import torch
        from peft import get_peft_model_state_dict

        base = dict(self._model.named_parameters())
        wanted = get_peft_model_state_dict(
            self._peft, adapter_name=name, save_embedding_layers=False
        )

        def copy_of_base(key: str) -> bool:
            there = base.get(key.removeprefix("base_model.model."))
            saved = weights[key]
            if there is None or there.shape != saved.shape:
                return False
            return torch.equal(there.to(saved), saved)

        own = {k: w for k, w in weights.items() if k in wanted or not copy_of_base(k)}
        odd = sorted(set(own) ^ set(wanted))
        if odd:
            count = f"{len(odd)} weight{'s have' if len(odd) > 1 else ' has'}"
            raise ValueError(f"{count} no counterpart, such as {odd[0]}")
        return own


def _require_switchable(config: Any) -> None:
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ModelError(
            f"an adapter of the kind {config.peft_type.value} changes the prompt, not the layers, "
            "which is not supported",
            hint="Use a LoRA adapter, or another that peft applies inside the layers.",
        )
    if getattr(config, "megatron_config", None):
        # Peft imports whatever module the file names as Megatron's.
        raise ModelError(
            "an adapter of a Megatron model is not supported",
            hint="Save it without `megatron_config`, as an adapter of a transformers model.",
        )
    if getattr(config, "bias", "none") != "none":
        raise ModelError(
            f"the adapter trained the base model's biases too (`bias: {config.bias}`), and they "
            "cannot be switched off for others who use the same model",
            hint="Merge it into the model (peft's merge_and_unload) and use the merged folder.",
        )
