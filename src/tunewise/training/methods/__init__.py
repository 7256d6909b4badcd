"""How a job learns: one file a method, behind the joint in ``base.py``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tunewise.study.schema import FineTune
    from tunewise.training.methods.base import Method

_CLASSES = {
    "sft": "sft:SupervisedFineTuning",
    "dpo": "dpo:DirectPreference",
    "orpo": "orpo:OddsRatioPreference",
    "kto": "kto:KahnemanTversky",
    "reward": "reward:RewardModel",
    "grpo": "grpo:GroupRelativePolicy",
    "distill": "distill:Distillation",
    "pretrain": "pretrain:ContinuedPretraining",
}
METHODS = tuple(_CLASSES)


def make_method(fine_tune: FineTune) -> Method:
    """The method that ``fine_tune.method`` names, which is one of ``METHODS``."""
    module, _, name = _CLASSES[fine_tune.method].partition(":")
    loaded = import_module(f"tunewise.training.methods.{module}")
    return cast("Method", getattr(loaded, name)(fine_tune))
