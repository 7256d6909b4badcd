"""Splits: by content, never through a group, latest last, and stable under growth."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.data.chat import Example
from tunewise.data.leaks import find_leaks
from tunewise.data.read import read_examples
from tunewise.data.split import Split, draw, read_split, split_examples
from tunewise.errors import DataError
from tunewise.study.schema import Data


def row(
    number: int,
    question: str | None = None,
    group: str | None = None,
    time: str | float | None = None,
    split: str | None = None,
) -> Example:
    rng = random.Random(number)
    text = question or " ".join(rng.choice(WORDS) for _ in range(12))
    messages = ({"role": "user", "content": text}, {"role": "assistant", "content": str(number)})
    return Example(f"r{number}", messages, group=group, time=time, split=split)


WORDS = [
    a + b
    for a in ["b", "c", "d", "f", "g", "h", "k", "l", "m", "n"]
    for b in ["ab", "el", "in", "or", "us", "ek", "ath"]
]


def ids(split: Split) -> dict[str, set[str]]:
    return {name: {r.id for r in getattr(split, name)} for name in ("train", "dev", "test")}


@pytest.mark.parametrize(
    ("rows", "train", "dev", "test"),
    [(1500, 1050, 150, 300), (500, 274, 60, 166), (100, 51, 16, 33), (20, 11, 3, 6), (4, 2, 1, 1)],
)
def test_sizes(rows: int, train: int, dev: int, test: int) -> None:
    made = split_examples(row(i) for i in range(rows))
    assert made.how["rows"] == {"train": train, "dev": dev, "test": test}
    assert made.how["method"] == "hash"
    assert {r.split for r in made.test} == {"test"}


def test_order_does_not_matter() -> None:
    rows = [row(i) for i in range(600)]
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    assert ids(split_examples(rows)) == ids(split_examples(shuffled))


def test_added_rows_move_few_others() -> None:
    before = ids(split_examples(row(i) for i in range(2000)))
    after = ids(split_examples(row(i) for i in range(2100)))
    for name, known in before.items():
        stayed = after[name] & known
        assert len(stayed) >= 0.93 * len(known), name
    # None jumps from the test into dev or the other way.
    assert not before["test"] & after["dev"] and not before["dev"] & after["test"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=40, max_size=150))
def test_groups_are_never_torn(groups: list[int]) -> None:
    rows = [row(i, group=f"g{g}") for i, g in enumerate(groups)]
    try:
        made = split_examples(rows)
    except DataError:
        return
    parts = [{r.group for r in part} for part in (made.train, made.dev, made.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert len(made.train) + len(made.dev) + len(made.test) == len(rows)
    assert min(map(len, (made.train, made.dev, made.test))) >= 1


def test_equal_questions_and_near_duplicates_stay_together() -> None:
    rows = [row(i) for i in range(300)]
    for i in range(300):
        text = rows[i].user_text
        rows.append(row(1000 + i, text.upper() + "!"))
        rows.append(row(2000 + i, f"{text} {text} please"))
    made = split_examples(rows)
    where = {r.id: name for name in ("train", "dev", "test") for r in getattr(made, name)}
    assert all(where[f"r{i}"] == where[f"r{1000 + i}"] for i in range(300))
    leaks = find_leaks(made.train, made.dev, made.test)
    assert leaks.exact == () and leaks.near_duplicate == () and leaks.dev == ()


def test_one_template_behind_all_rows_is_no_cluster() -> None:
    prefix = (
        "Please read the letter below with care and tell us which of our teams should answer it"
    )
    rows = [row(i, f"{prefix}: team {i % 7} letter {i}") for i in range(400)]
    made = split_examples(rows)
    assert made.how["rows"]["test"] >= 120


def test_by_time_the_latest_is_the_test() -> None:
    rows = [row(i, time=f"2026-{1 + i // 28:02d}-{1 + i % 28:02d}") for i in range(300)]
    random.Random(2).shuffle(rows)
    made = split_examples(rows)
    assert made.how["method"] == "time"
    latest = {n: max(str(r.time) for r in getattr(made, n)) for n in ("train", "dev", "test")}
    earliest = {n: min(str(r.time) for r in getattr(made, n)) for n in ("train", "dev", "test")}
    assert latest["train"] < earliest["dev"] <= latest["dev"] < earliest["test"]
    assert len(made.test) == 100 and len(made.dev) == 50
    # One row without a time: by hash, and nothing is guessed.
    assert split_examples([*rows, row(999)]).how["method"] == "hash"


def test_given_splits_are_honoured() -> None:
    rows = [row(i, split=("train", "dev", "test")[i % 3]) for i in range(90)]
    made = split_examples(rows)
    assert made.how["method"] == "given" and made.how["rows"] == {
        "train": 30,
        "dev": 30,
        "test": 30,
    }
    some = [row(i, split="test" if i < 40 else None) for i in range(200)]
    made = split_examples(some)
    assert {r.id for r in made.test} == {f"r{i}" for i in range(40)}
    assert made.how["cut"] == ["dev"] and len(made.dev) == 26


def test_errors() -> None:
    with pytest.raises(DataError, match="learn from"):
        split_examples([row(1), row(2)])
    with pytest.raises(DataError, match="one group"):
        split_examples([row(i, group="all") for i in range(50)])
    with pytest.raises(DataError, match="names no data"):
        read_split(Data())


def test_drawing_is_by_hash() -> None:
    rows = [row(i) for i in range(300)]
    drawn = draw(rows, 50)
    assert len(drawn) == 50 and [r.id for r in drawn] == [r.id for r in rows if r in drawn]
    assert {r.id for r in draw(rows[::-1], 50)} == {r.id for r in drawn}
    assert {r.id for r in draw(rows, 40)} < {r.id for r in drawn}


def test_read_split_from_files(tmp_path: Path) -> None:
    for name, count in (("train", 300), ("test", 50)):
        lines = [
            json.dumps({"input": row(i + count).user_text, "output": str(i)}) for i in range(count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    made = read_split(Data(**files, max_test_rows=20))
    assert made.how["rows"] == {"train": 250, "dev": 50, "test": 20}
    assert made.how["test_rows_not_drawn"] == 30 and made.how["given"] == ["test"]
    folder = read_split(Data(examples=str(tmp_path)))
    assert {r.id for r in folder.test} >= {r.id for r in made.test}
    fewer = read_split(Data(examples=files["train"], max_rows=100))
    assert fewer.how["rows_not_drawn"] == 200 and sum(fewer.how["rows"].values()) == 100
    both = read_split(Data(**files, max_rows=100))
    assert both.how["rows"]["test"] == 50 and sum(both.how["rows"].values()) == 150
    assert both.how["rows_not_drawn"] == 200


def test_real_data_split_without_leaks(shared: Path) -> None:
    rows = list(read_examples(shared / "data" / "nl2bash" / "all.jsonl"))[::8]
    made = split_examples(rows)
    assert made.how["rows"]["test"] == pytest.approx(0.2 * len(rows), rel=0.02)
    leaks = find_leaks(made.train, made.dev, made.test)
    assert not leaks.invalid and leaks.exact == () and len(leaks.near_duplicate) <= 3
