"""Generated data: the same for a seed, different between seeds, without overlap between splits."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest

from tunewise.synthetic import words
from tunewise.synthetic.demo import KINDS, DemoFiles, generate
from tunewise.synthetic.general_suite import FAMILIES, MOST, items

SEEDS = (0, 1, 2, 3, 4)


def rows(made: DemoFiles, split: str) -> list[dict[str, Any]]:
    name = made.study["data"][split]  # type: ignore[index]
    return [json.loads(line) for line in made.files[name].splitlines()]


def question(row: dict[str, Any]) -> str:
    return str(row["messages"][0]["content"])


def answer(row: dict[str, Any]) -> str:
    return str(row["messages"][-1]["content"])


def test_pools_of_invented_words_never_meet() -> None:
    rng = Random(0)
    trained = {words.invented(rng, pool="train") for _ in range(3000)}
    kept = {words.invented(rng, pool="held_out") for _ in range(1000)}
    assert not trained & kept
    assert not any(words.is_held_out(w) for w in trained)
    assert all(words.is_held_out(w) for w in kept)
    assert all(words.is_held_out(words.name(rng, "held_out")) for _ in range(50))


def test_distinct_words_are_distinct() -> None:
    assert len(set(words.distinct(Random(3), 200))) == 200


def test_numbers_stay_in_their_range() -> None:
    rng = Random(1)
    assert all(5 <= int(words.number(rng, 5, 120)) <= 120 for _ in range(500))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_demo_and_another_seed_another(kind: str) -> None:
    assert generate(kind, 7) == generate(kind, 7)
    texts = {tuple(sorted(generate(kind, seed).files.items())) for seed in SEEDS}
    assert len(texts) == len(SEEDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_splits_share_no_question_and_every_row_is_whole(kind: str, seed: int) -> None:
    made = generate(kind, seed)
    split = {s: rows(made, s) for s in ("train", "dev", "test")}
    asked = {s: {question(r) for r in split[s]} for s in split}
    assert not asked["train"] & asked["test"]
    assert not asked["train"] & asked["dev"]
    assert len(split["test"]) >= 120 and 150 <= len(split["train"]) <= 400
    every = [r for s in split.values() for r in s]
    assert len({r["id"] for r in every}) == len(every)
    assert all([m["role"] for m in r["messages"]] == ["user", "assistant"] for r in every)
    assert all(question(r) and answer(r) for r in every)


def test_an_unknown_demo_is_refused() -> None:
    with pytest.raises(ValueError, match="format, knowledge, pattern"):
        generate("poem", 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quarter_of_the_handbook_is_asked_about_in_the_test_only(seed: int) -> None:
    made = generate("knowledge", seed)
    facts = {d["id"]: d["text"] for d in map(json.loads, made.files["handbook.jsonl"].splitlines())}
    trained = {r["doc_id"] for r in rows(made, "train")}
    tested = {r["doc_id"] for r in rows(made, "test")}
    assert len(facts) == 200 == len(tested)
    assert len(trained) == 150
    assert all(
        answer(r) in facts[r["doc_id"]] for s in ("train", "dev", "test") for r in rows(made, s)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_house_notation_cannot_be_read_off_the_recipe(seed: int) -> None:
    for row in rows(generate("format", seed), "test"):
        listed = json.loads(answer(row))
        assert 2 <= len(listed) <= 3
        assert not any(item.split()[0] in question(row).split() for item in listed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_stem_of_a_parcel_decides_its_depot(seed: int) -> None:
    train = rows(generate("pattern", seed), "train")
    depots = Counter(map(answer, train))
    assert len(depots) == 2 and min(depots.values()) > len(train) // 4
    by_stem: dict[str, set[str]] = {}
    for row in train:
        by_stem.setdefault(question(row).partition("-")[0], set()).add(answer(row))
    assert len(by_stem) == 4
    assert all(len(found) == 1 for found in by_stem.values())


def test_the_suite_is_large_and_the_same_every_time() -> None:
    made = items()
    assert made == items() and made != items(seed=1)
    assert len(made) >= 700
    assert {i["family"] for i in made} == set(FAMILIES)
    assert min(Counter(i["family"] for i in made).values()) >= 100
    assert (
        len({i["messages"][0]["content"] for i in made})
        == len({i["id"] for i in made})
        == len(made)
    )
    assert {i["metric"] for i in made} <= {"normalized_match", "exact_match", "contains"}
    assert all(i["answer"].strip() and len(i["answer"]) < 80 for i in made)


def test_sums_of_the_suite_are_right() -> None:
    for item in (i for i in items() if i["family"] == "arithmetic"):
        numbers = item["messages"][0]["content"].rstrip("?").split("? ")[-1].split("only. ")[-1]
        parts = numbers.replace("What is ", "").replace("How much is ", "").split()
        a, sign, b = int(parts[0]), parts[1], int(parts[2])
        assert int(item["answer"]) == (a + b if sign in ("+", "plus") else a - b)


@pytest.mark.parametrize("n", (0, MOST + 1))
def test_a_suite_that_cannot_be_made_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="between 1 and"):
        items(n=n)


def test_the_largest_suite_can_be_made() -> None:
    assert len(items(n=MOST)) == MOST
