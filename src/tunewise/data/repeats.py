"""Rows that repeat others word for word, and rows that ask the same and want another answer."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunewise.data.chat import Example
from tunewise.data.content import answer_text, prompt_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MASK = 2**64 - 1
_ODD = 0x9E3779B97F4A7C15


@dataclass(slots=True)
class Repeats:
    """Add rows, then ask; 18 bytes a row."""

    _prompts: array[int] = field(default_factory=lambda: array("Q"))
    _answers: array[int] = field(default_factory=lambda: array("Q"))
    _sides: array[int] = field(default_factory=lambda: array("B"))
    _judged: array[int] = field(default_factory=lambda: array("B"))

    def add(self, row: Example, side: int) -> None:
        """Add a row of the split with the number ``side``."""
        # Salted hashes will do: they are compared within this process only.
        self._prompts.append(hash(prompt_text(row)) & _MASK)
        self._answers.append(hash(answer_text(row)) & _MASK)
        self._sides.append(side)
        self._judged.append(row.rejected is not None or row.desirable is not None)

    def duplicates(self) -> NDArray[np.int64]:
        """Rows equal to an earlier one of their split; across splits a repeat is a leak."""
        import numpy as np

        prompts, answers = np.asarray(self._prompts), np.asarray(self._answers)
        return later((prompts * _ODD ^ answers) * _ODD + np.asarray(self._sides))

    def contradictions(self) -> NDArray[np.int64]:
        """Rows whose prompt occurs with several answers, in whatever split.

        Preference rows repeat a prompt by design and are not counted.
        """
        import numpy as np

        plain = np.flatnonzero(np.asarray(self._judged) == 0)
        if not len(plain):
            return plain
        prompts, answers = np.asarray(self._prompts)[plain], np.asarray(self._answers)[plain]
        order = np.lexsort((answers, prompts))
        prompts, answers = prompts[order], answers[order]
        same = prompts[1:] == prompts[:-1]
        starts = np.flatnonzero(np.r_[True, ~same])
        another = np.r_[False, same & (answers[1:] != answers[:-1])]
        sizes = np.diff(np.r_[starts, len(prompts)])
        differing = np.repeat(np.add.reduceat(another, starts, dtype=np.int64) > 0, sizes)
        return np.sort(plain[order[differing]])


def later(keys: NDArray[np.uint64] | NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of all keys that stand somewhere before as well."""
    import numpy as np

    _, first = np.unique(keys, return_index=True)
    again = np.ones(len(keys), np.bool_)
    again[first] = False
    return np.flatnonzero(again)
