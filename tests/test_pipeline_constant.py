"""Studies in which a system does no more than one constant answer would."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from cli_support import jsonl
from tunewise.candidates.constant import Constant
from tunewise.data.chat import Example
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import run_study
from tunewise.report.document import CandidateRow, Verdict
from tunewise.scoring.registry import get_scorer
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

LABELS = ("neutral", "joy", "anger", "fear", "love", "pride")
Answer = Callable[[random.Random, list[str]], str]


def wanted(draw: random.Random) -> list[str]:
    """A third of the rows are neutral; the others have one or two labels."""
    if draw.random() < 0.34:
        return ["neutral"]
    return sorted(draw.sample(LABELS[1:], draw.choice([1, 2])))


class Bench:
    """A study of recorded answers to multi-label rows: train, dev and test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = {"examples": "rows.jsonl"}
        self.candidates: list[dict[str, object]] = []
        draw = random.Random(7)
        self.gold = {f"r{i}": wanted(draw) for i in range(500)}
        self.split = {
            key: "train" if i < 200 else "dev" if i < 300 else "test"
            for i, key in enumerate(self.gold)
        }

    def only_test(self) -> None:
        """Leave the test rows alone."""
        self.data = {"test": "rows.jsonl"}
        self.gold = {key: gold for key, gold in self.gold.items() if self.split[key] == "test"}
        self.split = dict.fromkeys(self.gold, "test")

    def answers(self, name: str, answer: Answer, *, tuned: bool = False) -> None:
        draw = random.Random(name)
        rows = [
            {"id": key, "answer": answer(draw, gold), "split": self.split[key]}
            for key, gold in self.gold.items()
            if self.split[key] != "train"
        ]
        jsonl(self.folder / f"{name}.jsonl", rows)
        spec: dict[str, object] = {"name": name, "kind": "recorded", "answers": f"{name}.jsonl"}
        self.candidates.append({**spec, "fine_tuned": True} if tuned else spec)

    def run(self, metric: str = "list_f1", **more: object) -> Verdict:
        rows = [
            {"id": key, "input": f"text {key}", "output": json.dumps(gold)} | {"split": split}
            for (key, gold), split in zip(self.gold.items(), self.split.values(), strict=True)
        ]
        jsonl(self.folder / "rows.jsonl", rows)
        study = {"name": "s", "metric": metric, "data": self.data}
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump({**study, "candidates": self.candidates, **more}))
        return run_study(load_study(path), Workspace(self.folder / "ws"), SilentReporter()).verdict


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def neutral(draw: random.Random, gold: Sequence[str]) -> str:
    return '["neutral"]'


def chatty(draw: random.Random, gold: Sequence[str]) -> str:
    return f"I feel that this text says a great deal, {draw.randrange(10**6)} things at least"


def right(share: float) -> Answer:
    def answer(draw: random.Random, gold: Sequence[str]) -> str:
        return json.dumps(list(gold) if draw.random() < share else ["joy"])

    return answer


def row(verdict: Verdict, name: str) -> CandidateRow:
    return next(c for c in verdict.candidates if c.name == name)


def test_a_collapsed_model_is_no_reason_to_fine_tune(bench: Bench) -> None:
    bench.answers("prompted", chatty)
    bench.answers("tuned", neutral, tuned=True)
    verdict = bench.run()
    assert verdict.verdict == "DO_NOT_FINE_TUNE"
    assert verdict.use is None and "fit for use" in verdict.headline
    assert row(verdict, "constant").score == row(verdict, "tuned").score
    assert row(verdict, "constant").constant and row(verdict, "constant").measured_on == "test"
    [collapsed] = [text for text in verdict.cautions if "collapsed" in text]
    assert "tuned" in collapsed and "neutral" in collapsed and "200 of 200" in collapsed
    assert not any("Ship" in step for step in verdict.next_steps)


def test_a_gain_over_the_constant_stands(bench: Bench) -> None:
    bench.answers("prompted", chatty)
    bench.answers("tuned", right(0.8), tuned=True)
    verdict = bench.run()
    assert (verdict.verdict, verdict.use) == ("FINE_TUNE", "tuned")
    assert verdict.primary.without == "constant"  # it beat the only other baseline on dev
    assert not any("collapsed" in text for text in verdict.cautions)


def test_a_pair_that_is_named_is_held_against_the_constant_too(bench: Bench) -> None:
    bench.answers("prompted", chatty)
    bench.answers("tuned", neutral, tuned=True)
    verdict = bench.run(primary=["tuned", "prompted"])
    assert verdict.primary.without == "prompted"
    assert verdict.primary.gain == pytest.approx(row(verdict, "constant").score)
    assert (verdict.verdict, verdict.because) == ("DO_NOT_FINE_TUNE", ["constant"])


def test_a_baseline_that_collapsed_is_not_what_to_ship(bench: Bench) -> None:
    def nearly_neutral(draw: random.Random, gold: list[str]) -> str:
        return json.dumps(gold if draw.random() < 0.03 else ["neutral"])

    bench.answers("classifier-like", nearly_neutral)
    bench.answers("tuned", chatty, tuned=True)
    verdict = bench.run()
    assert verdict.verdict == "DO_NOT_FINE_TUNE" and verdict.use is None
    assert row(verdict, "classifier-like").score >= row(verdict, "constant").score
    assert any("classifier-like answers" in text for text in verdict.cautions)


def test_one_baseline_a_side_stays_one_with_the_constant_beside_them(bench: Bench) -> None:
    bench.answers("prompted", right(0.7))
    bench.answers("tuned", right(0.95), tuned=True)
    verdict = bench.run()
    assert (verdict.primary.with_, verdict.primary.without) == ("tuned", "prompted")
    assert verdict.primary.method != "simultaneous"
    assert verdict.verdict == "FINE_TUNE"


def test_the_constant_alone_is_no_baseline(bench: Bench) -> None:
    bench.answers("tuned", right(0.95), tuned=True)
    verdict = bench.run()
    assert (verdict.verdict, verdict.because) == ("UNDECIDED", ["no_baseline"])


def test_scores_that_stand_out_are_doubted(bench: Bench) -> None:
    bench.answers("prompted", right(0.3))
    bench.answers("tuned", right(0.99), tuned=True)
    verdict = bench.run()
    [high] = verdict.cautions
    assert high.startswith("tuned scores") and "leak" in high
    assert verdict.verdict == "FINE_TUNE"


def test_a_score_of_nothing_among_others_is_doubted(bench: Bench) -> None:
    bench.answers("prompted", chatty)
    bench.answers("tuned", right(0.4), tuned=True)
    [low] = bench.run().cautions
    assert low.startswith("prompted scores 0.0") and "column" in low


def test_where_nearly_all_rows_want_the_same_that_is_no_collapse(bench: Bench) -> None:
    bench.gold = {key: ["neutral"] if i % 12 else ["joy"] for i, key in enumerate(bench.gold)}
    bench.answers("prompted", neutral)
    bench.answers("tuned", right(0.99), tuned=True)
    assert bench.run().cautions == []


def test_without_other_rows_each_half_of_the_test_gets_the_others_constant(bench: Bench) -> None:
    """Recorded answers to a test set, and nothing else: the floor is measured all the same."""
    bench.only_test()
    bench.answers("prompted", chatty)
    bench.answers("tuned", neutral, tuned=True)
    verdict = bench.run()
    assert (verdict.verdict, verdict.because) == ("DO_NOT_FINE_TUNE", ["constant"])
    assert row(verdict, "constant").score == row(verdict, "tuned").score
    assert any("other half" in note for note in row(verdict, "constant").chosen["notes"])


def test_a_gain_stands_without_other_rows_too(bench: Bench) -> None:
    bench.only_test()
    bench.answers("prompted", chatty)
    bench.answers("tuned", right(0.8), tuned=True)
    verdict = bench.run()
    assert (verdict.verdict, verdict.use) == ("FINE_TUNE", "tuned")
    assert verdict.primary.without == "prompted"


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_no_row_has_a_say_in_its_own_constant() -> None:
    """Each wanted answer stands twice, in one half: a constant of all rows would score."""
    rows = [
        Example(f"r{i}", ({"role": "user", "content": f"q{i // 2}"}, assistant(f"a{i // 2}")))
        for i in range(60)
    ]
    fitted = Constant("constant", get_scorer("exact_match", {})).fit([], [])
    given = [one.text for one in fitted.answer(rows)]
    assert set(given) <= {r.answer for r in rows} and len(set(given)) == 2
    assert not any(text == r.answer for text, r in zip(given, rows, strict=True))


def test_the_recorded_collapse_is_no_reason_to_fine_tune(shared: Path, tmp_path: Path) -> None:
    study = load_study(shared / "cases" / "collapse" / "study.yaml")
    verdict = run_study(study, Workspace(tmp_path / "ws"), SilentReporter()).verdict
    assert (verdict.verdict, verdict.because) == ("DO_NOT_FINE_TUNE", ["constant"])
    assert row(verdict, "constant").score == row(verdict, "tuned").score
