"""The joint between the scheduler and what computes a model's rows."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from tunewise.server.inference.sequence import Sequence

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Tokens ``row.fed : end`` of a row that is being read in, and which logits are wanted."""

    row: Sequence
    end: int
    logits: Literal["none", "last", "all"]


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """What a step computed.

    Attributes:
        rows: the running rows, in the order of ``logits``.
        logits: after each running row's last token, ``[rows, vocabulary]`` in float32.
        parts: of each part, ``[wanted, vocabulary]``.
    """

    rows: list[Sequence]
    logits: Tensor
    parts: list[Tensor]


class Backend(Protocol):
    """Holds the keys and values of one model's rows. Used by one thread, in inference mode.

    Attributes:
        cuts_prompts: a prompt may be read in by several parts.
    """

    cuts_prompts: bool

    def begin(self, row: Sequence, *, reuse: bool) -> None:
        """Get ready to read ``row.tokens[: row.end]`` in; sets ``row.fed`` to what is known.

        Args:
            reuse: take what is kept of earlier prompts.

        Raises:
            OutOfMemory: there is no place.
        """

    def keep(self, row: Sequence) -> None:
        """Keep what was read in, for other prompts that begin so."""

    def admit(self, row: Sequence) -> None:
        """From now on the row, all read in, runs with the others.

        Raises:
            OutOfMemory: there is no place; the row is as it was.
        """

    def make_room(self, row: Sequence) -> None:
        """See that a running row's next token has a place.

        Raises:
            OutOfMemory: it has none; the row is as it was.
        """

    def drop(self, row: Sequence) -> None:
        """Forget a row; ``row.fed`` is 0 then."""

    def shrink(self) -> bool:
        """Free a little of what is only kept; False when there is nothing."""

    def forget(self) -> None:
        """Free all that is only kept."""

    @property
    def running(self) -> list[Sequence]:
        """The admitted rows."""

    def step(self, parts: Items[Part]) -> Stepped:
        """One token of each running row, and the parts."""

    def embed(self, inputs: Items[Items[int]], adapter: int) -> Tensor:
        """Mean of the last hidden states of each input, ``[inputs, hidden]`` in float32."""
