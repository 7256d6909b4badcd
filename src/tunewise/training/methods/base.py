"""The joint to a method: rows from examples, and the loss of a part of a step.

The loop (``loop.py``) draws items, cuts them into parts, and asks the method for each part's loss;
batches, the trie of shared prefixes, checkpoints and schedules are the same for all methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tunewise.data.chat import Example
from tunewise.data.findings import Finding
from tunewise.study.schema import FineTune
from tunewise.training.encode import Encoder, Trained
from tunewise.training.items import Item, Items, Part, cut
from tunewise.training.job import OnEvent, TrainingJob

if TYPE_CHECKING:
    from tunewise.models.loading import LoadedModel
    from tunewise.training.setup import Setup

Metrics = Mapping[str, tuple[float, float]]
"""Figures by name, each as a sum and its weight, so that parts of a step can be added up."""


class StopAsked(Exception):
    """The caller wants the run to stop; nothing of the present step has happened."""


@dataclass(frozen=True)
class Losses:
    """The loss of a part.

    Attributes:
        summed: over the part; the step's loss is the sum over its parts, divided by ``weigh``.
        each: (items,) the loss of each item by itself, to name those that stand out.
        metrics: see ``Metrics``.
    """

    summed: Tensor
    each: npt.NDArray[np.float64]
    metrics: Metrics = field(default_factory=dict)


@dataclass
class Context:
    """What a method may use of a run.

    Attributes:
        budget: tokens of one pass.
        tell: takes events.
        stop: whether the caller wants the run to stop.
    """

    job: TrainingJob
    setup: Setup
    budget: int
    tell: OnEvent
    stop: Callable[[], bool]

    def parts(self, items: Iterable[Item]) -> list[Part]:
        """Items as forward and backward passes."""
        return cut(items, self.budget, flat=self.setup.flat)

    def check_stop(self) -> None:
        """Raise ``StopAsked`` where the caller wants it."""
        if self.stop():
            raise StopAsked


class Tally:
    """Adds metrics up."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    @property
    def sums(self) -> Metrics:
        """What was added up."""
        return self._sums

    def add(self, metrics: Metrics) -> None:
        """Add those of one part."""
        for name, (value, weight) in metrics.items():
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (before[0] + value, before[1] + weight)

    def means(self, prefix: str = "") -> dict[str, float]:
        """Each metric's mean, where there is one; ``prefix`` goes before the names."""
        return {prefix + name: s / w for name, (s, w) in self._sums.items() if w}


class Method(ABC):
    """One way of learning.

    Attributes:
        name: as in ``fine_tune.method``.
        steady: its loss can be compared between steps, so that a spike means something.
        updates: optimiser updates from what one step gathers.
        counts: what the last ``gather`` counted; the run adds it up.
    """

    name: ClassVar[str]
    steady: ClassVar[bool] = True

    def __init__(self, fine_tune: FineTune) -> None:
        self.fine_tune = fine_tune
        self.updates = 1
        self.counts: dict[str, float] = {}

    @property
    def trained(self) -> Trained:
        """Which tokens of a row are learnt."""
        return "answers"

    @abstractmethod
    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        """Items from examples, with what is wrong with their labels, errors first.

        Args:
            limit: most tokens of a row; longer ones are left out whole and counted.

        Raises:
            DataError: a row cannot be encoded at all.
        """

    def longest(self, items: Items) -> int:
        """Tokens of the longest item, which no pass can cut; 0 where there is none."""
        return int(items.lengths.max(initial=0))

    def open(self, loaded: LoadedModel, seed: int) -> None:
        """Change the loaded model before it gets its adapter."""
        return

    def begin(self, context: Context, split: str, items: Items) -> None:
        """Once for each split before step 0: add to ``items.values`` what the loss needs.

        It is stored with the checkpoints, and not asked for again.

        Raises:
            StopAsked: the caller wants to stop.
        """
        return

    def gather(self, context: Context, items: Sequence[Item], step: int) -> Sequence[Item]:
        """What the step learns from, given the items that it drew; nothing where it is empty.

        Raises:
            StopAsked: the caller wants to stop.
        """
        return items

    @abstractmethod
    def weigh(self, items: Sequence[Item]) -> float:
        """What the summed loss of a step or split is divided by."""

    @abstractmethod
    def loss(self, context: Context, part: Part) -> Losses:
        """The loss of one part, with its graph while gradients are on."""

    def gathered(self) -> Metrics:
        """Metrics of the last ``gather``."""
        return {}

    def evaluate(self, context: Context, items: Items) -> tuple[float, dict[str, float]]:
        """The loss of a split, lower is better, and its metrics; forward only."""
        total = weight = 0.0
        tally = Tally()
        with context.setup.frozen():
            for begin in range(0, len(items), 256):
                chosen = self.gather(context, items[begin : begin + 256], -1)
                for part in context.parts(chosen):
                    found = self.loss(context, part)
                    total += float(found.summed)
                    tally.add(found.metrics)
                weight += self.weigh(chosen)
        return (total / weight if weight else float("nan")), tally.means()
