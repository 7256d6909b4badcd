"""What the engine may take of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewise.models.loading import DType


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine may take.

    Attributes:
        models: most base models in memory; the least recently used goes first.
        bytes: most memory of weights; None is no limit.
        adapters: most adapters in memory a base, but for those that are in use.
        rows: most answers of one model computed at once.
        waiting: most answers that wait for a place; more fail with ``overloaded``.
        cache_bytes: memory of all keys and values together, running rows and kept prompts.
        chunk: most tokens of new prompts in one step beside the running rows; None chooses by the
            machine.
        threads: of the arithmetic; None chooses by the machine.
        stall_s: seconds without a sign of life after which the process is ended and started again.
        dtypes: numeric types of base models, by their names; others have their own (``auto``).
    """

    models: int = 4
    bytes: int | None = None
    adapters: int = 64
    rows: int = 64
    waiting: int = 256
    cache_bytes: int = 2 << 30
    chunk: int | None = None
    threads: int | None = None
    stall_s: float = 300.0
    dtypes: Mapping[str, DType] = field(default_factory=dict)
