"""Rows with an equal question are one cluster, by default, wherever the questions are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from tunewise.data.chat import Example
from tunewise.data.questions import question_key, together
from tunewise.data.split import split_examples
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import Outcome, run_study
from tunewise.study.loading import load_study
from tunewise.verdict.compare import compare
from tunewise.workspace import Workspace


def row(key: str, text: str, *, system: str = "", group: str | None = None) -> Example:
    head = ({"role": "system", "content": system},) if system else ()
    messages = (*head, {"role": "user", "content": text}, {"role": "assistant", "content": "A"})
    return Example(id=key, messages=messages, group=group)


def test_case_space_and_punctuation_do_not_make_another_question() -> None:
    one, other = row("1", "Where is it?"), row("2", "  where is IT ")
    assert question_key(one) == question_key(other)
    assert question_key(one) != question_key(row("3", "Where was it?"))
    # A row that only says "sum it up" asks what its system message holds.
    assert question_key(row("4", "Sum it up.", system="One text.")) != question_key(
        row("5", "Sum it up.", system="Another text.")
    )
    assert question_key(Example(id="6", messages=())) is None


def test_groups_and_questions_hang_together() -> None:
    rows = [
        row("a", "one", group="g"),
        row("b", "two", group="g"),
        row("c", "two"),
        row("d", "three"),
        row("e", "four", group="h"),
    ]
    found = together(rows)
    assert found.clusters["a"] == found.clusters["b"] == found.clusters["c"]
    assert found.clusters["e"] not in ("e", found.clusters["a"])
    assert "d" not in found.clusters
    assert (found.repeated, found.questions) == (2, 4)
    assert together(rows[::-1]).clusters == found.clusters


def test_our_own_splits_keep_equal_questions_on_one_side() -> None:
    rows = [row(f"{i}-{k}", f"What about {i}{'?' * (k % 2)}") for i in range(60) for k in range(4)]
    split = split_examples(rows)
    sides = [{question_key(r) for r in part} for part in (split.train, split.dev, split.test)]
    assert all(sides)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def study(folder: Path, times: int, **more: object) -> Outcome:
    """24 questions, each ``times`` times over; the tuned system is right in 4 more of them."""

    def write(name: str, lines: Sequence[Mapping[str, str]]) -> None:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))

    keys = [(i, k) for i in range(24) for k in range(times)]
    write(
        "test",
        [
            {"id": f"{i}-{k}", "input": f"On which shelf lies item {i}?", "output": "AB"[i % 2]}
            for i, k in keys
        ],
    )
    right = {"base": lambda i: i % 2 == 0, "tuned": lambda i: i % 2 == 0 or i in (1, 3, 5, 7, 9)}
    for name, knows in right.items():
        answers = {True: lambda i: "AB"[i % 2], False: lambda i: "BA"[i % 2]}
        lost = {"base": (), "tuned": (2,)}[name]
        write(
            name,
            [{"id": f"{i}-{k}", "answer": answers[knows(i) and i not in lost](i)} for i, k in keys],
        )
    text = {
        "name": "shelves",
        "metric": "accuracy",
        "data": {"test": "test.jsonl"},
        "candidates": [
            {"name": "prompted", "kind": "recorded", "answers": "base.jsonl"},
            {
                "name": "tuned",
                "kind": "recorded",
                "answers": "tuned.jsonl",
                "fine_tuned": True,
            },
        ],
        **more,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(text))
    return run_study(
        load_study(folder / "study.yaml"), Workspace(folder / "workspace"), SilentReporter()
    )


def test_24_questions_ten_times_each_decide_no_more_than_once_each(tmp_path: Path) -> None:
    folders = [tmp_path / "once", tmp_path / "ten"]
    for folder in folders:
        folder.mkdir()
    once, ten = (study(f, n).verdict for f, n in zip(folders, (1, 10), strict=True))
    assert (once.verdict, ten.verdict) == ("UNDECIDED", "UNDECIDED")
    assert (once.primary.clusters, ten.primary.clusters) == (None, 24)
    assert once.primary.interval is not None
    assert ten.primary.interval is not None
    assert ten.primary.gain == pytest.approx(once.primary.gain)
    assert np.allclose(ten.primary.interval, once.primary.interval, atol=3)
    assert (once.test.repeated, ten.test.repeated) == (0, 240)
    assert any("24 different questions" in w for w in ten.warnings)
    assert ten.audit.mde == once.audit.mde


def test_recorded_rows_of_one_question_are_on_one_side_of_dev_and_test(tmp_path: Path) -> None:
    outcome = study(tmp_path, 10, dev_fraction=0.5)
    data = json.loads((outcome.verdict_json.parent / "stages" / "data.json").read_text())["result"]
    dev, test = ({i.partition("-")[0] for i in data[f"{p}_ids"]} for p in ("dev", "test"))
    assert dev
    assert test
    assert not dev & test


def test_one_repeat_among_many_rows_does_not_narrow_the_interval() -> None:
    # 5 rows gained and none lost of 300: the limit of independent rows is that of few differences.
    tuned, base = np.zeros(300), np.zeros(300)
    tuned[:5] = 1
    alone = compare(tuned, base, binary=True)
    groups = [*range(299), 298]
    grouped = compare(tuned, base, binary=True, clusters=groups)
    assert grouped.low <= alone.low
    assert grouped.high >= alone.high
    assert grouped.clusters == 299
