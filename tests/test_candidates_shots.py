"""Zero-shot and few-shot: what is chosen on dev, and the guard against showing the answer."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from candidates_kit import LIMITS, Exact, LookingEngine, row
from tunewise.candidates.answers import shape_of
from tunewise.candidates.base import NotOfferedError
from tunewise.candidates.choosing import DevSearch
from tunewise.candidates.few_shot import FewShot
from tunewise.candidates.prompting import Prompting
from tunewise.candidates.shots import ShotPool, orders_of
from tunewise.candidates.wordings import Wording
from tunewise.candidates.zero_shot import ZeroShot
from tunewise.data.chat import Completion, Example, Progress, Request

LABELS = ("red", "green", "blue")
THINGS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("olo", "ami", "uke", "iri", "ote", "aba")]


def _things(prefix: str, n: int, seed: int = 0) -> list[Example]:
    """Rows whose answer follows from one word that several rows share."""
    rng = random.Random(f"{prefix}{seed}")
    rows = []
    for i in range(n):
        thing = rng.randrange(len(THINGS))
        text = f"Which bin takes this {THINGS[thing]} on the day {rng.randrange(31)}"
        rows.append(row(f"{prefix}{i}", text, LABELS[thing % 3]))
    return rows


TRAIN, DEV = _things("t", 300), _things("d", 60)


def _few(engine: LookingEngine, **settings: object) -> FewShot:
    return FewShot("few_shot", engine, Exact(), LIMITS, **settings)  # type: ignore[arg-type]


def test_zero_shot_takes_the_best_prompt_and_says_so() -> None:
    train = [row(f"t{i}", f"say {w}", w) for i, w in enumerate(THINGS)]
    dev = [row(f"d{i}", f"repeat {w}", w) for i, w in enumerate(THINGS)]
    prompts = ["Reply.", "Reply briefly.", "Reply in verse."]
    fitted = ZeroShot("z", LookingEngine(), Exact(), LIMITS, prompts=prompts).fit(train, dev)
    chosen = fitted.chosen()
    assert (chosen["prompt"], chosen["wording"]) == ("Reply briefly.", "as given")
    assert [t["dev_score"] for t in chosen["tried"]] == [0.0, 1.0, 0.0, 1.0]
    assert chosen["dev_score"] == 1.0
    assert fitted.request(dev[0]).messages[0]["content"] == "Reply briefly."
    json.dumps(chosen)


def test_zero_shot_improved_by_program_is_labelled() -> None:
    rows = [row(f"t{i}", f"the word is {LABELS[i % 3]} today", LABELS[i % 3]) for i in range(60)]
    fitted = ZeroShot("z", LookingEngine(), Exact(), LIMITS).fit(rows[:30], rows[30:])
    chosen = fitted.chosen()
    assert chosen["wording"] == "improved by program"
    assert chosen["note"] == "Answer with one of: blue, green, red"
    assert [t["dev_score"] for t in chosen["tried"]] == [0.0, 1.0]
    assert chosen["dev_evaluations"] == 60
    assert fitted.dev_completions == fitted.answer(rows[30:])


def test_zero_shot_note_that_does_not_fit_is_left_out() -> None:
    rows = [row(f"t{i}", f"say {i % 30}", f"label{i % 30}") for i in range(120)]
    fitted = ZeroShot("z", LookingEngine(context_length=40), Exact(), LIMITS).fit(rows, rows[:9])
    chosen = fitted.chosen()
    assert len(chosen["tried"]) == 1
    assert chosen["notes"] == ["the note on the answer's form does not fit the model's context"]


def test_first_look_then_finalists() -> None:
    """Six settings, 300 dev rows: half leave after 25 rows, one after 50, the best go on."""
    dev = [row(f"d{i}", f"q {i}", "x") for i in range(300)]
    progress: list[tuple[int, int]] = []

    def answer(requests: Sequence[Request], step: Progress | None) -> list[Completion]:
        done = []
        for request in requests:
            good = int(str(request.messages[0]["content"]))
            number = int(str(request.messages[1]["content"]).split()[1])
            done.append(Completion(text="x" if number % 10 < good else "y"))
            if step is not None:
                step(len(done), len(requests))
        return done

    search: DevSearch[Wording] = DevSearch(
        answer,
        Exact(),
        dev,
        expected=6,
        progress=lambda done, of, failed=0: progress.append((done, of)),
    )
    options = [
        Wording(Prompting(LIMITS, instructions=str(good)), {"good": good})
        for good in (2, 7, 4, 9, 9, 1)
    ]
    search.race(options)
    choice = search.settle()
    assert choice.option is options[3]  # the first of two equals
    assert [t["dev_rows"] for t in choice.tried] == [25, 25, 25, 300, 300, 25]
    assert choice.dev_evaluations == 4 * 25 + 2 * 300
    assert choice.dev_score == pytest.approx(0.9)
    assert choice.dev_completions == answer([options[3].request(d) for d in dev], None)
    assert progress == sorted(progress) and progress[-1] == (1200, 1200)


def test_without_dev_the_first_setting_is_taken() -> None:
    fitted = ZeroShot("z", LookingEngine(), Exact(), LIMITS, prompts=["A", "B"]).fit(TRAIN, [])
    assert fitted.chosen()["prompt"] == "A"
    assert fitted.chosen()["dev_score"] is None
    assert fitted.dev_completions is None
    shots = _few(LookingEngine()).fit(TRAIN, [])
    assert shots.chosen()["k"] == 4 and len(shots.answer(DEV)) == len(DEV)


def test_few_shot_prefers_neighbours_where_they_matter() -> None:
    fitted = _few(LookingEngine()).fit(TRAIN, DEV)
    chosen = fitted.chosen()
    assert chosen["selection"] == "nearest"
    scores = {(t["selection"], t["k"]): t["dev_score"] for t in chosen["tried"] if "note" not in t}
    assert scores["nearest", 8] > 0.9 > 0.6 > scores["fixed", 8]
    assert fitted.dev_completions == fitted.answer(DEV)
    assert len({t["order"] for t in chosen["tried"] if t["selection"] == "fixed"}) == 3
    # 3 sizes × 2 selections, 2 more orders, 1 more wording; those that lose are asked less of dev.
    assert len(chosen["tried"]) == 9
    asked = [t["dev_rows"] for t in chosen["tried"]]
    assert chosen["dev_evaluations"] == sum(asked) < 9 * len(DEV) and max(asked) == len(DEV)
    json.dumps(chosen)


def test_few_shot_is_deterministic_and_blind_to_row_order() -> None:
    one = _few(LookingEngine(), selection=("fixed",)).fit(TRAIN, DEV)
    two = _few(LookingEngine(), selection=("fixed",)).fit(TRAIN[::-1], DEV)
    assert one.chosen() == two.chosen()
    other = _few(LookingEngine(), selection=("fixed",), seed=1).fit(TRAIN, DEV)
    assert other.chosen()["shots"] != one.chosen()["shots"]


def test_order_is_chosen_on_dev() -> None:
    """Among equally similar shots the engine takes the last: order alone decides."""
    train = [row(f"t{i}", f"item {i}{i}", LABELS[i % 3]) for i in range(30)]
    dev = [row(f"d{i}", "thing", "green") for i in range(20)]
    fitted = _few(LookingEngine(), selection=("fixed",), k=[3], orders=6).fit(train, dev)
    chosen = fitted.chosen()
    assert chosen["dev_score"] == 1.0
    assert {t["dev_score"] for t in chosen["tried"]} == {0.0, 1.0}


def test_fixed_shots_share_their_prefix_byte_for_byte() -> None:
    fitted = _few(LookingEngine(), selection=("fixed",), k=[8]).fit(TRAIN, DEV)
    starts = {json.dumps(fitted.request(d).as_dict()["messages"][:-1]) for d in DEV}
    assert len(starts) == 1


def test_nearest_shots_stand_with_the_most_similar_last() -> None:
    train = [
        row("far", "alpha beta other words", "1"),
        row("near", "alpha beta gamma delta", "2"),
        row("none", "zzz yyy xxx", "3"),
    ]
    pool = ShotPool(train, [])
    found = pool.nearest(row("x", "alpha beta gamma epsilon zeta", None), 2)
    assert [shot.id for shot in found] == ["far", "near"]


def test_a_row_is_never_shown_its_own_answer() -> None:
    """Answers are noise, so only a copy of a row could give its answer away."""
    rng = random.Random(5)
    texts = [" ".join(rng.choice(THINGS) for _ in range(12)) for _ in range(120)]
    train = [row(f"t{i}", f"Please sort {text}", f"{i}") for i, text in enumerate(texts)]
    copies = [row(f"c{i}", f"Please sort {text}!", f"{i}") for i, text in enumerate(texts)]
    for dev in (train[:60], copies[:60]):
        for selection in ("fixed", "nearest"):
            fitted = _few(LookingEngine(), selection=(selection,), k=[8]).fit(train, dev)
            assert fitted.chosen()["dev_score"] == 0.0
            assert {c.text == e.answer for c, e in zip(fitted.answer(dev), dev, strict=True)} == {
                False
            }
    # Rows that were in nobody's dev, yet stand in the pool: the guard holds in use, too.
    fixed = _few(LookingEngine(), selection=("fixed",), k=[8]).fit(train, train[60:])
    shown = [e for e in train if e.id in fixed.chosen()["shots"]]
    assert len(shown) == 8
    for example in shown:
        assert fixed.answer([example])[0].text != example.answer


def test_a_shared_template_makes_no_duplicates() -> None:
    template = "Classify the sentiment of the following review by one of our customers today: "
    train = [row(f"t{i}", template + THINGS[i], "good") for i in range(40)]
    pool = ShotPool(train, [])
    assert len(pool.nearest(row("x", template + THINGS[50], None), 16)) == 16
    assert not pool.allowed(train[3], row("x", template + THINGS[3] + "!", None))


def test_rows_of_one_group_are_never_shots_for_each_other() -> None:
    train = [row(f"t{i}", f"page {i} of a book", "a", group=f"g{i % 4}") for i in range(40)]
    pool = ShotPool(train, [])
    found = pool.nearest(row("x", "page 7 of a book", None, group="g1"), 16)
    assert len(found) == 16 and {shot.group for shot in found} == {"g0", "g2", "g3"}


def test_draw_is_balanced_and_nested() -> None:
    rows = [
        row(f"t{i}", f"{THINGS[i % 72]} {i} {i * 7}", "rare" if i % 10 == 0 else "often")
        for i in range(100)
    ]
    pool = ShotPool(rows, [])
    shape = shape_of(rows)
    eight = pool.draw(8, shape, seed=0)
    assert sorted(shot.answer for shot in eight) == ["often"] * 4 + ["rare"] * 4
    assert pool.draw(4, shape, seed=0) == eight[:4]


def test_orders_are_different_and_keep_the_first() -> None:
    shots = TRAIN[:4]
    orders = orders_of(shots, 3, seed=0)
    assert orders[0] == shots and len({tuple(s.id for s in order) for order in orders}) == 3
    assert len(orders_of(shots[:1], 3, seed=0)) == 1
    assert len(orders_of(shots[:2], 5, seed=0)) == 2


def test_shots_that_do_not_fit_are_left_out_with_a_note() -> None:
    engine = LookingEngine(context_length=16 + 10 + 5 * 11)
    chosen = _few(engine).fit(TRAIN, DEV).chosen()
    assert {t["k"] for t in chosen["tried"]} == {4}
    assert any("16 nearest shots do not fit" in note for note in chosen["notes"])
    assert all(
        engine.count_tokens([dict(m) for m in r.messages]) + r.max_tokens <= 81
        for r in engine.asked
    )


def test_one_long_row_gets_fewer_shots() -> None:
    long = row("long", "Which bin takes " + " ".join(THINGS[:40]), "red")
    fitted = _few(LookingEngine(context_length=95), k=[4], selection=("fixed",)).fit(TRAIN, DEV)
    assert not any("too long" in note for note in fitted.chosen()["notes"])
    assert 0 < len(fitted.request(long).messages) // 2 < 4
    assert fitted.chosen()["notes"][1:] == [
        "1 row was too long for all 4 shots and was asked with fewer"
    ]


def test_no_room_for_any_shot() -> None:
    with pytest.raises(NotOfferedError, match="not even one example fits"):
        _few(LookingEngine(context_length=28)).fit(TRAIN, DEV)


def test_no_rows_to_show() -> None:
    with pytest.raises(NotOfferedError, match="no training row"):
        _few(LookingEngine()).fit(DEV, DEV)


def test_few_rows_give_few_shots() -> None:
    chosen = _few(LookingEngine()).fit(TRAIN[:3], DEV).chosen()
    assert {t["k"] for t in chosen["tried"]} <= {1, 2, 3}
