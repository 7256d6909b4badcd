"""Who goes to the engine next."""

from __future__ import annotations

import random
from collections import Counter

from tunewise.server.inference.lanes import Lanes


def test_projects_take_turns_whoever_asked_first() -> None:
    lanes = Lanes(rows=4, total=100, share=75)
    flood = [f"a{n}" for n in range(75)]
    assert [lanes.enter(id, "m", "a", 1) for id in flood[:5]] == ["go"] * 4 + ["wait"]
    for id in flood[5:]:
        assert lanes.enter(id, "m", "a", 1) == "wait"
    assert lanes.enter("a75", "m", "a", 1) == "share"
    assert lanes.enter("b0", "m", "b", 1) == lanes.enter("b1", "m", "b", 1) == "wait"
    assert lanes.enter("c0", "m", "c", 1) == "wait"
    assert lanes.leave("a0") == ["b0"] and lanes.leave("a1") == ["c0"]
    assert lanes.leave("a2") == ["a4"], "all have one inside, and its last turn is longest ago"
    assert lanes.leave("b0") == ["b1"]
    assert lanes.enter("other", "another model", "d", 1) == "go", "which has places of its own"
    assert lanes.leave("a5") == [], "given up while it waits"
    assert lanes.leave("a3") == ["a6"] and lanes.leave("a3") == []


def test_answers_of_one_request_count_together() -> None:
    lanes = Lanes(rows=4, total=8, share=6)
    assert lanes.enter("big", "m", "a", 9) == "go", "alone it is let in, however many it asks for"
    assert lanes.enter("next", "m", "b", 1) == "full"
    assert lanes.leave("big") == [] and lanes.held == 0
    assert lanes.enter("two", "m", "a", 2) == lanes.enter("one", "m", "b", 1) == "go"
    assert lanes.enter("more", "m", "a", 2) == lanes.enter("last", "m", "b", 1) == "wait"
    assert lanes.leave("two") == ["more", "last"]
    lanes.clear()
    assert lanes.held == 0 and lanes.enter("two", "m", "a", 2) == "go"


def test_nobody_is_forgotten_and_the_places_are_used() -> None:
    draw = random.Random(0)
    for _ in range(200):
        lanes = Lanes(rows=draw.randint(1, 6), total=40, share=30)
        inside: dict[str, int] = {}
        waiting: dict[str, int] = {}
        asked = Counter[str]()
        for number in range(120):
            if draw.random() < 0.6:
                id, rows = f"r{number}", draw.choice((1, 1, 1, 2, 9))
                entry = lanes.enter(id, "m", draw.choice("aaaab"), rows)
                asked[entry] += 1
                if entry == "go":
                    inside[id] = rows
                elif entry == "wait":
                    waiting[id] = rows
            elif inside or waiting:
                id = draw.choice([*inside, *waiting])
                inside.pop(id, None)
                waiting.pop(id, None)
                for going in lanes.leave(id):
                    inside[going] = waiting.pop(going)
            assert lanes.held == sum(inside.values()) + sum(waiting.values())
            assert inside or not waiting, "nobody waits for an idle engine"
        while inside:
            id = next(iter(inside))
            del inside[id]
            for going in lanes.leave(id):
                inside[going] = waiting.pop(going)
        assert not waiting and lanes.held == 0
