"""Train, dev and test: deterministic, by content and not by order, never through a group.

Everything is chosen on dev, and test is opened once, so what must hold is that no row of one
split tells about a row of another: rows of a group, equal questions and verified near-duplicates
stay together, and where every row has a time the test is the latest part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunewise.data.chat import Example
from tunewise.data.content import (
    SharedText,
    content_hash,
    question_words,
    seconds_of,
    word_hashes,
)
from tunewise.data.near_duplicates import NearDuplicates, clusters
from tunewise.data.read import read_examples
from tunewise.data.unreadable import Unreadable
from tunewise.errors import DataError
from tunewise.study.schema import Data, SplitSpec
from tunewise.words import plural, verb

TEST_ROWS, TEST_SHARE, TEST_MOST = 200, 0.2, 1 / 3
"""The test set: 20 % of the rows, at least 200, never more than a third of them.

A test shows gains from about ``2.8·√(0.2/n)`` on: of 300 rows, half of them show 10 points and a
third 12.5, but fine-tuning then learns from half of the rows instead of less than a third.
"""
DEV_ROWS, DEV_SHARE, DEV_MOST = 60, 0.1, 1 / 6
"""The dev set: 10 % of the rows, at least 60, never more than a sixth of them."""


@dataclass(frozen=True, slots=True)
class Split:
    """The three parts of a data set.

    Attributes:
        train, dev, test: examples, in the order in which they were read, ``split`` filled in.
        how: JSON values that say how they were made, for the report: ``method`` (``given``,
            ``hash``, ``time``), ``rows``, and what was cut or kept together.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    how: dict[str, Any] = field(default_factory=dict)


def read_split(data: Data, unreadable: Unreadable | None = None) -> Split:
    """Read a study's data and split it, or take the splits that it gives.

    Args:
        data: the study's ``data``; relative paths are relative to the working folder.
        unreadable: counts rows that cannot be read; without it the first is an error.

    Raises:
        DataError: no data is named, it cannot be read, or too few rows are there to split.
    """
    rows: list[Example] = []
    sources = {"train": data.train, "dev": data.dev, "test": data.test}
    if data.examples is not None:
        rows = _read(data.examples, data, unreadable)
        sources["train"] = None
    if not any((data.examples, *sources.values())):
        raise DataError(
            "the study names no data", where="data", hint="Set `data.examples` to a file."
        )
    for name, source in sources.items():
        if source is not None:
            rows += [replace(row, split=name) for row in _read(source, data, unreadable)]
    seen = len(rows)
    if data.max_rows is not None:
        # A test that was given stays whole: it is too small soon enough.
        named = [row for row in rows if row.split in ("dev", "test")]
        rows = draw([row for row in rows if row.split not in ("dev", "test")], data.max_rows)
        rows += named
    shares = data.split if isinstance(data.split, SplitSpec) else SplitSpec()
    made = split_examples(
        rows,
        test_rows=None if shares.test is None else round(shares.test * len(rows)),
        dev_rows=None if shares.dev is None else round(shares.dev * len(rows)),
    )
    test = draw(made.test, data.max_test_rows) if data.max_test_rows else list(made.test)
    how = dict(made.how)
    if len(rows) < seen:
        how["rows_not_drawn"] = seen - len(rows)
    if len(test) < len(made.test):
        how["test_rows_not_drawn"] = len(made.test) - len(test)
        how["rows"] = {**how["rows"], "test": len(test)}
    return replace(made, test=tuple(test), how=how)


def draw(rows: Sequence[Example], most: int) -> list[Example]:
    """At most ``most`` rows, drawn by the hash of their content, in the order given."""
    if len(rows) <= most:
        return list(rows)
    ranked = sorted(range(len(rows)), key=lambda i: (_rank(content_hash(rows[i])), i))
    return [rows[i] for i in sorted(ranked[:most])]


def split_examples(
    examples: Iterable[Example], *, test_rows: int | None = None, dev_rows: int | None = None
) -> Split:
    """Split examples, honouring the splits that rows name themselves.

    A part that no row names is cut from the rows of ``train`` (and from rows that name none).
    Equal data give equal splits in whatever order they come, and a row that is added moves few
    others: parts are cut by the rank of the content's hash.

    Args:
        examples: all rows; their ids must be unique within a split.
        test_rows, dev_rows: wanted sizes, instead of the usual ones.

    Raises:
        DataError: fewer than 4 rows, no training rows, or all rows in one group.
    """
    rows = list(examples)
    given = {name: [r for r in rows if r.split == name] for name in ("dev", "test")}
    rest = [r for r in rows if r.split not in ("dev", "test")]
    missing = [name for name in ("dev", "test") if not given[name]]
    if not rest or len(rows) < 4:
        raise DataError(
            f"{plural(len(rest), 'row')} {verb(len(rest), 'is', 'are')} left to learn from; "
            "splitting needs some in each part",
            hint="Give more rows, or name other splits.",
        )
    how: dict[str, Any] = {"method": "given"}
    if missing:
        how = _cut(rest, missing, len(rows), {"test": test_rows, "dev": dev_rows}, given)
    parts = {
        name: tuple(
            r if r.split == name else replace(r, split=name)
            for r in (rest if name == "train" else given[name])
        )
        for name in ("train", "dev", "test")
    }
    how["rows"] = {name: len(part) for name, part in parts.items()}
    how["given"] = [n for n in ("dev", "test") if n not in missing]
    return Split(parts["train"], parts["dev"], parts["test"], how)


def split_folds(
    examples: Sequence[Example], folds: int, *, dev_share: float | None = None
) -> list[Split]:
    """One split for each fold: its rows are the test, and dev is cut from the others.

    Rows that must stay together (groups, equal questions, near-duplicates) are in one fold. The
    folds are of about equal size, and do not depend on the order of the rows.

    Args:
        dev_share: of the rows that are not tested, instead of the usual size.

    Raises:
        DataError: fewer than three rows a fold.
    """
    rows = [replace(row, split=None) for row in examples]
    if len(rows) < 3 * folds:
        raise DataError(
            f"{plural(len(rows), 'row')} {verb(len(rows), 'is', 'are')} too few for {folds} folds",
            where="data.split",
            hint="Give at least three rows a fold.",
        )
    units, _ = _units(rows, len(rows) // folds)
    fold_of = [0] * len(rows)
    sizes = [0] * folds
    # The largest first, so that the folds come out even; then by the content's hash.
    for unit in sorted(units, key=lambda u: (-len(u), _unit_rank(rows, u))):
        smallest = min(range(folds), key=lambda fold: (sizes[fold], fold))
        sizes[smallest] += len(unit)
        for i in unit:
            fold_of[i] = smallest
    if min(sizes) == 0:
        raise DataError(
            f"{folds} folds cannot be made: the rows are {len(units)} groups that stay together",
            where="data.split",
            hint="Take fewer folds, or check the `group` column.",
        )
    made = []
    for fold in range(folds):
        tested = [
            replace(row, split="test") if of == fold else row
            for row, of in zip(rows, fold_of, strict=True)
        ]
        others = len(rows) - sizes[fold]
        dev = None if dev_share is None else round(dev_share * others)
        made.append(split_examples(tested, dev_rows=dev))
    return made


def _cut(
    rest: list[Example],
    missing: list[str],
    total: int,
    wanted: dict[str, int | None],
    given: dict[str, list[Example]],
) -> dict[str, Any]:
    """Move rows from ``rest`` into the missing parts of ``given``."""
    sizes = {
        "test": min(max(TEST_ROWS, round(TEST_SHARE * total)), int(TEST_MOST * len(rest))),
        "dev": min(max(DEV_ROWS, round(DEV_SHARE * total)), int(DEV_MOST * len(rest))),
    }
    for name, size in wanted.items():
        if size is not None:
            sizes[name] = min(size, len(rest) - 1)
    sizes = {name: max(1, sizes[name]) for name in missing}
    times = [None if row.time is None else seconds_of(row.time) for row in rest]
    temporal = all(t is not None for t in times)
    units, how = _units(rest, sum(sizes.values()))
    if temporal:
        latest = [max(t for i in unit if (t := times[i]) is not None) for unit in units]
        # Ties in time are broken by content, never by order.
        order = sorted(range(len(units)), key=lambda u: (-latest[u], _unit_rank(rest, units[u])))
        taken = _take(units, order, sizes, temporal=True)
    else:
        order = sorted(range(len(units)), key=lambda u: _unit_rank(rest, units[u]))
        taken = _take(units, order, sizes, temporal=False)
    for name in missing:
        if not taken[name]:
            raise DataError(
                f"no {name} set can be cut: nearly all rows belong to one group",
                hint="Check the `group` column, or give a test file of your own.",
            )
        given[name] = [rest[i] for i in sorted(taken[name])]
    moved = {i for part in taken.values() for i in part}
    rest[:] = [row for i, row in enumerate(rest) if i not in moved]
    return {"method": "time" if temporal else "hash", "cut": missing, **how}


def _take(
    units: list[list[int]], order: list[int], sizes: dict[str, int], *, temporal: bool
) -> dict[str, list[int]]:
    """Fill each part with whole units, test from one end of the order and dev from the other.

    From opposite ends, since a test set that grows by a row must not push one out of dev. In
    time, dev is what comes right before test.
    """
    taken: dict[str, list[int]] = {name: [] for name in sizes}
    used: set[int] = set()
    for name in sorted(sizes, reverse=True):  # test first
        for unit in order if temporal or name == "test" else reversed(order):
            room = sizes[name] - len(taken[name])
            if room <= 0:
                break
            # A unit that overshoots by a tenth is fine; a bigger one stays in train.
            fits = len(units[unit]) <= room + sizes[name] // 10
            if unit in used or not fits or len(used) + 1 >= len(units):
                continue
            taken[name] += units[unit]
            used.add(unit)
    return taken


def _units(rows: list[Example], wanted: int) -> tuple[list[list[int]], dict[str, Any]]:
    """Rows that must stay together: by group, equal question, or near-duplicate."""
    n = len(rows)
    groups = _links([row.group for row in rows])
    questions = [question_words(row) for row in rows]
    equal = _links([" ".join(words) or None for words in questions])
    index = NearDuplicates(SharedText(questions[:500]))
    for words in questions:
        index.add(word_hashes(words))
    pairs = index.pairs()
    index.close()
    verified = [*pairs.first[pairs.verified].tolist()], [*pairs.second[pairs.verified].tolist()]
    near = list(zip(*verified, strict=True))
    how: dict[str, Any] = {
        "groups": len({r.group for r in rows if r.group is not None}),
        "kept_together": "groups, equal questions, near-duplicates",
    }
    units = _components(n, groups + equal + near)
    largest = max(len(unit) for unit in units)
    without = _components(n, groups + equal)
    if n - largest < wanted <= n - max(len(unit) for unit in without):
        # One template behind nearly all rows: kept together, nothing would be left to test on.
        how["kept_together"] = "groups, equal questions"
        how["near_duplicates_ignored"] = f"one cluster holds {largest} of {n} rows"
        units = without
    how["units"] = len(units)
    return units, how


def _links(keys: Sequence[str | None]) -> list[tuple[int, int]]:
    """Each row linked to the first row with its key."""
    first: dict[str, int] = {}
    return [
        (first[key], i)
        for i, key in enumerate(keys)
        if key is not None and first.setdefault(key, i) != i
    ]


def _components(n: int, links: list[tuple[int, int]]) -> list[list[int]]:
    import numpy as np

    table = np.array(links, np.int64).reshape(-1, 2)
    units: dict[int, list[int]] = {}
    for row, unit in enumerate(clusters(n, table[:, 0], table[:, 1]).tolist()):
        units.setdefault(unit, []).append(row)
    return list(units.values())


def _unit_rank(rows: list[Example], unit: list[int]) -> int:
    names = {rows[i].group for i in unit}
    only = next(iter(names)) if len(names) == 1 else None
    if only is not None:
        return _rank(int.from_bytes(hashlib.sha256(only.encode()).digest()[:8], "big"))
    return min(_rank(content_hash(rows[i])) for i in unit)


def _rank(key: int) -> int:
    """Another hash of the hash: row ids begin with the first, and may have been sorted by it."""
    return int.from_bytes(hashlib.sha256(b"split" + key.to_bytes(8, "big")).digest()[:8], "big")


def _read(source: str, data: Data, unreadable: Unreadable | None) -> list[Example]:
    if unreadable is not None:
        return list(unreadable.read(source))
    return list(read_examples(source, columns=data.columns, encoding=data.encoding))
