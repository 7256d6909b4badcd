"""What a test row could have been learnt from: rows of train or dev that are the same question.

Only the user's part of the prompt is compared, without the text that most rows share; a system
prompt that all rows have in common would else make each row "overlap". Exact repeats, groups and
times void a test from 1 % of its rows on; verified near-duplicates are left out and both scores
shown; loose likeness is reported only, since ordinary data is full of it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewise.data.chat import Example
from tunewise.data.content import (
    SharedText,
    hash64,
    ngrams,
    question_words,
    seconds_of,
    word_hashes,
)
from tunewise.data.findings import SHOWN_ROWS, Finding
from tunewise.data.near_duplicates import NearDuplicates
from tunewise.data.spool import Spool
from tunewise.words import verb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INVALID_FROM = 0.01
"""From this share of the test rows on, an exact, group or time leak voids the test."""
BOILERPLATE = 10
"""A 13-gram in more training rows than this is a phrase of the trade (GPT-3's rule)."""
SPLITS = ("train", "dev", "test")
_TRAIN, _DEV, _TEST = range(3)
_LATE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Leaks:
    """Leaks into the test set.

    Attributes:
        test_rows: rows of the test set.
        exact, group, time, near_duplicate: ids of the test rows concerned; a row that is an exact
            repeat is not listed as a near-duplicate too.
        overlap: test rows that share 13 words in a row with a training row; reported only.
        loose: test rows with much the same words as a training row; reported only.
        dev: dev rows whose question stands in train too; choosing on dev is then too kind.
        checked: the kinds that could be checked (``group`` and ``time`` need those fields).
    """

    test_rows: int
    exact: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    near_duplicate: tuple[str, ...] = ()
    overlap: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()

    @property
    def invalid(self) -> bool:
        """Whether the test proves nothing any more."""
        return any(self._voids(ids) for ids in (self.exact, self.group, self.time))

    @property
    def leave_out(self) -> tuple[str, ...]:
        """Ids of the test rows to score apart: exact, group and verified near-duplicates."""
        return tuple(dict.fromkeys([*self.exact, *self.group, *self.near_duplicate]))

    def _voids(self, ids: tuple[str, ...]) -> bool:
        return bool(ids) and len(ids) >= INVALID_FROM * self.test_rows

    def as_dict(self) -> dict[str, Any]:
        """The leaks as plain JSON values."""
        return {
            "test_rows": self.test_rows,
            "invalid": self.invalid,
            "leave_out": list(self.leave_out),
            "checked": list(self.checked),
            **{name: list(getattr(self, name)) for name, _, _ in _TEXTS},
        }

    def findings(self) -> list[Finding]:
        """The leaks as findings of the audit."""
        found = []
        for name, message, fix in _TEXTS:
            ids = getattr(self, name)
            voiding = name in ("exact", "group", "time") and self._voids(ids)
            severity: Any = "error" if voiding else "info"
            if not voiding and name not in ("loose", "overlap"):
                severity = "warning"
            share = "" if name == "dev" else f" ({100 * len(ids) / max(1, self.test_rows):.1f} %)"
            found.append(
                Finding(
                    f"leak_{name}",
                    severity,
                    len(ids),
                    ids[:SHOWN_ROWS],
                    message.format(n=len(ids), share=share, **_forms(len(ids))),
                    fix,
                )
            )
        return [finding for finding in found if finding.count]


def _forms(n: int) -> dict[str, str]:
    """The verbs of the sentences below, and the noun's ending."""
    verbs = {"stand": "stands", "belong": "belongs", "are": "is", "have": "has", "use": "uses"}
    return {"s": "" if n == 1 else "s", **{many: verb(n, one, many) for many, one in verbs.items()}}


_TEXTS = (
    (
        "exact",
        "{n} test question{s}{share} {stand} word for word in train or dev",
        "Take them out of train; else they are left out, and from 1 % on the test is void.",
    ),
    (
        "group",
        "{n} test row{s}{share} {belong} to a group that train or dev has too",
        "Split by group; `data.examples` alone lets Tunewise do it.",
    ),
    (
        "time",
        "{n} test row{s}{share} {are} older than training rows: the model has seen the future",
        "Split by time; `data.examples` alone lets Tunewise do it.",
    ),
    (
        "near_duplicate",
        "{n} test question{s}{share} {are} nearly the same as one in train or dev",
        "They are left out of the verdict; both scores are shown.",
    ),
    (
        "overlap",
        "{n} test question{s}{share} {have} 13 words in a row in common with a training row",
        "Look at some of them: a common source (one article, one customer) makes a `group`.",
    ),
    (
        "loose",
        "{n} test question{s}{share} {use} much the same words as a training row",
        "Usual in real data; the report shows the score by likeness.",
    ),
    (
        "dev",
        "{n} dev question{s} {stand} in train too",
        "Take them out of train, or let Tunewise cut dev from train.",
    ),
)


@dataclass(slots=True)
class LeakCheck:
    """Add all rows with their splits, in any order; then ask.

    Attributes:
        shared: the text that most rows share.
        near_duplicates, overlap: whether to look for these.
        near: the index of all rows added, if ``near_duplicates``.

    Memory: about 60 bytes a row; signatures and 13-grams wait on disk above 32 MB each.
    """

    shared: SharedText
    near_duplicates: bool = True
    overlap: bool = True
    _sides: array[int] = field(default_factory=lambda: array("B"))
    _questions: array[int] = field(default_factory=lambda: array("Q"))
    _groups: array[int] = field(default_factory=lambda: array("Q"))
    _times: array[float] = field(default_factory=lambda: array("d"))
    near: NearDuplicates | None = None
    _ngrams: Spool | None = None

    def add(self, example: Example, split: str, found: Sequence[str] | None = None) -> None:
        """Add one row; ``found`` are its question's words where they are known already."""
        if found is None:
            found = question_words(example)
        self._sides.append(SPLITS.index(split))
        self._questions.append(hash64(" ".join(found)) if found else 0)
        self._groups.append(hash64(example.group) if example.group is not None else 0)
        self._times.append(math.nan if example.time is None else seconds_of(example.time))
        hashes = word_hashes(found)
        if self.near_duplicates:
            if self.near is None:
                self.near = NearDuplicates(self.shared)
            self.near.add(hashes)
        if self.overlap:
            if self._ngrams is None:
                self._ngrams = Spool("u8")
            self._ngrams.append(ngrams(hashes))

    def leaks(self, ids: Callable[[int], str]) -> Leaks:
        """The leaks found; ``ids`` gives the id of a row by its place in the order of adding."""
        import numpy as np

        sides = np.asarray(self._sides)
        test, seen = sides == _TEST, sides != _TEST
        if not test.any() or not seen.any():
            return Leaks(test_rows=int(test.sum()))
        questions, groups = np.asarray(self._questions), np.asarray(self._groups)
        times = np.asarray(self._times)
        exact = _repeats(questions, test, seen)
        flags: dict[str, Any] = {
            "exact": exact,
            "group": _repeats(groups, test, seen),
            "time": _late(times, test, sides == _TRAIN),
            "dev": _repeats(questions, sides == _DEV, sides == _TRAIN),
        }
        checked = ["exact"]
        if self.near is not None:
            verified, loose = self._near_flags(test)
            flags["near_duplicate"] = verified & ~exact
            flags["loose"] = loose & ~exact & ~verified
            checked += ["near_duplicate"]
        if self._ngrams is not None:
            flags["overlap"] = _overlaps(self._ngrams, test) & ~exact
            checked += ["overlap"]
        checked += ["group"] * bool(groups.any())
        checked += ["time"] * (not np.isnan(times).any())
        return Leaks(
            test_rows=int(test.sum()),
            checked=tuple(checked),
            **{n: tuple(ids(i) for i in np.flatnonzero(f).tolist()) for n, f in flags.items()},
        )

    def _near_flags(self, test: NDArray[np.bool_]) -> tuple[Any, Any]:
        import numpy as np

        assert self.near is not None
        pairs = self.near.pairs(side=test.astype(np.uint8))
        loose, verified = np.zeros(len(test), np.bool_), np.zeros(len(test), np.bool_)
        for end in (pairs.first, pairs.second):
            loose[end] = True
            verified[end[pairs.verified]] = True
        return verified & test, loose & test

    def close(self) -> None:
        """Free what waits on disk."""
        if self.near is not None:
            self.near.close()
        if self._ngrams is not None:
            self._ngrams.close()


def find_leaks(
    train: Iterable[Example],
    dev: Iterable[Example],
    test: Iterable[Example],
    *,
    near_duplicates: bool = True,
) -> Leaks:
    """Leaks from ``train`` and ``dev`` into ``test``, for rows that lie in memory."""
    parts = dict(zip(SPLITS, (list(train), list(dev), list(test)), strict=True))
    found = {name: [question_words(row) for row in rows] for name, rows in parts.items()}
    sample = [words for part in found.values() for words in part[:250]]
    check = LeakCheck(SharedText(sample), near_duplicates=near_duplicates)
    ids: list[str] = []
    for name, rows in parts.items():
        for row, words in zip(rows, found[name], strict=True):
            check.add(row, name, words)
            ids.append(row.id)
    leaks = check.leaks(ids.__getitem__)
    check.close()
    return leaks


def _repeats(keys: Any, here: NDArray[np.bool_], there: NDArray[np.bool_]) -> Any:
    """Rows of ``here`` whose key stands in ``there`` too; 0 is no key."""
    import numpy as np

    return here & (keys != 0) & np.isin(keys, keys[there])


def _late(times: Any, test: NDArray[np.bool_], train: NDArray[np.bool_]) -> Any:
    """Test rows that more than 1 % of the training rows are younger than."""
    import numpy as np

    if np.isnan(times).any() or not train.any():
        return np.zeros(len(times), np.bool_)
    limit = np.quantile(times[train], 1 - _LATE_SHARE, method="lower")
    return test & (times < limit)


def _overlaps(spool: Spool, test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Test rows that have a 13-gram of 1 to 10 training rows, in two passes over the spool."""
    import numpy as np

    wanted = np.unique(
        np.concatenate([v[np.repeat(test[f : f + len(n)], n)] for f, n, v in spool.pieces()])
    )
    counts = np.zeros(len(wanted), np.int64)
    for first, lengths, values in spool.pieces():
        known = values[np.repeat(~test[first : first + len(lengths)], lengths)]
        known = known[np.isin(known, wanted)]
        counts += np.bincount(np.searchsorted(wanted, known), minlength=len(wanted))
    copied = wanted[(counts > 0) & (counts <= BOILERPLATE)]
    flags = np.zeros(len(test), np.bool_)
    for first, lengths, values in spool.pieces():
        rows = np.repeat(np.arange(first, first + len(lengths)), lengths)
        flags[rows[np.isin(values, copied)]] = True
    return flags & test
