"""What a request costs: one formula for what is measured, planned and spent; caches; what must be
worth it."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from candidates_kit import LIMITS, Exact, LookingEngine, row
from tunewise.candidates.asking import static_shares
from tunewise.candidates.few_shot import FewShot
from tunewise.candidates.zero_shot import ZeroShot
from tunewise.data.chat import Completion, Request
from tunewise.pipeline.costing import request_usd
from tunewise.pipeline.engines import Engines
from tunewise.pipeline.gates import Gates
from tunewise.pipeline.measured import Measured
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import plan_study, run_study
from tunewise.pipeline.session import open_session
from tunewise.report.document import Verdict
from tunewise.report.words import cost_extras
from tunewise.study.loading import load_study
from tunewise.study.prices import ModelPrice
from tunewise.verdict.decision import Baseline, Evidence, decide
from tunewise.verdict.prices import Usage
from tunewise.verdict.words import Because
from tunewise.verdict.words import Verdict as Answer
from tunewise.workspace import Workspace

N = 200
TODAY = datetime.datetime.now(datetime.UTC).date()


def asking(text: str, system: str = "Say warm or cold.") -> Request:
    messages = ({"role": "system", "content": system}, {"role": "user", "content": text})
    return Request(messages=messages, max_tokens=4)


def test_what_all_prompts_begin_with_is_static() -> None:
    long = "Say warm or cold, and nothing else; here are the rules of the house. " * 20
    shares = static_shares([asking("ice", long), asking("fire", long), asking("a" * 3000, long)])
    assert shares[0] == pytest.approx(shares[1], abs=0.01) and shares[0] > 0.9
    assert 0.2 < shares[2] < 0.4
    apart = static_shares([asking("ice", "Say it."), asking("fire", "Well?")])
    assert max(apart) < 0.5
    assert static_shares([asking("ice")]) == [0.0], "one request alone repeats nothing"
    assert static_shares([asking("ice")] * 3) == [1.0] * 3


def test_shots_that_every_prompt_has_are_static_and_nearest_ones_are_not() -> None:
    train = [row(f"t{i}", f"note {i} on {'ice' if i % 2 else 'fire'}", "cold") for i in range(60)]
    test = [row(f"q{i}", f"query {i} on {'ice' if i % 2 else 'fire'}", "cold") for i in range(20)]

    def static(selection: str) -> float:
        fitted = FewShot(
            name="few_shot",
            engine=LookingEngine(),
            scorer=Exact(),
            limits=LIMITS,
            k=[8],
            selection=[selection],  # type: ignore[list-item]
        ).fit(train, test[:5])
        answers = fitted.answer(test)
        assert all(a.static_tokens is not None and a.prompt_tokens for a in answers)
        assert all(0 <= (a.static_tokens or 0) <= (a.prompt_tokens or 0) for a in answers)
        return float(np.mean([(a.static_tokens or 0) / (a.prompt_tokens or 1) for a in answers]))

    assert static("fixed") > 0.8
    assert static("nearest") < 0.4
    plain = ZeroShot(
        name="zero_shot",
        engine=LookingEngine(),
        scorer=Exact(),
        limits=LIMITS,
        prompts=["Say warm or cold. " * 30],
    )
    answers = plain.fit(train, test[:5]).answer(test)
    assert all((a.static_tokens or 0) > 0.8 * (a.prompt_tokens or 1) for a in answers)


class Bench:
    """A study of recorded answers with a price file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study: dict[str, Any] = {
            "name": "s",
            "metric": "recorded",
            "candidates": [],
            "costs": {"prices": "prices.yaml"},
            "traffic": {"requests_per_month": 100_000},
        }
        models = {
            "big": {"input": 10, "cached": 1, "output": 20},
            "tuned": {"input": 1, "output": 2},
        }
        self.prices(models)

    def prices(self, models: dict[str, Any]) -> None:
        text = yaml.safe_dump({"date": TODAY, "source": "https://example.com", "models": models})
        (self.folder / "prices.yaml").write_text(text)

    def arm(self, name: str, share: float, model: str, **row: Any) -> None:
        draw = random.Random(name)
        lines = [{"id": f"r{i}", "score": float(draw.random() < share)} | row for i in range(N)]
        (self.folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        spec = {"name": name, "kind": "recorded", "answers": f"{name}.jsonl", "model": model}
        self.study["candidates"].append(spec | ({"fine_tuned": True} if name == "tuned" else {}))

    def run(self) -> Verdict:
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump(self.study))
        return run_study(load_study(path), Workspace(self.folder / "ws"), SilentReporter()).verdict


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


TOKENS = {"prompt_tokens": 1000, "completion_tokens": 100}


def priced(verdict: Verdict, name: str) -> float | None:
    return next(c.usd_per_1k_requests for c in verdict.candidates if c.name == name)


def test_the_cache_hit_rate_acts_on_static_tokens(bench: Bench) -> None:
    bench.arm("few_shot", 0.6, "big", **TOKENS, static_tokens=800)
    bench.arm("tuned", 0.9, "tuned", **TOKENS, static_tokens=800)

    def at(rate: float | None) -> Verdict:
        bench.study["costs"]["cache_hit_rate"] = rate
        return bench.run()

    assert priced(at(None), "few_shot") == pytest.approx(12.0)
    assert priced(at(0.0), "few_shot") == pytest.approx(12.0)
    # 800 tokens at 0.95·1 + 0.05·10, 200 at 10, 100 answer tokens at 20.
    verdict = at(0.95)
    assert priced(verdict, "few_shot") == pytest.approx(0.8 * 1.45 + 2 + 2)
    assert priced(verdict, "tuned") == pytest.approx(1.2), "it has no cached price"
    assert any("no `cached` price of tuned" in text for text in verdict.warnings)
    assert not any("is not known" in text for text in verdict.warnings)
    assert verdict.test.opened == 1, "prices reopen nothing"


def test_a_cache_that_was_billed_is_counted_unless_a_rate_is_given(bench: Bench) -> None:
    bench.arm("few_shot", 0.6, "big", **TOKENS, cached_tokens=500)
    bench.arm("tuned", 0.9, "tuned", **TOKENS)
    assert priced(bench.run(), "few_shot") == pytest.approx(0.5 + 5 + 2)
    bench.study["costs"]["cache_hit_rate"] = 0.5
    verdict = bench.run()
    assert priced(verdict, "few_shot") == pytest.approx(12.0)
    told = [text for text in verdict.warnings if "is not known" in text]
    assert len(told) == 2 and "few_shot" in told[0] and "static_tokens" in told[0]


@pytest.mark.parametrize("requests", [100_000, None])
def test_what_a_correct_answer_must_be_worth_is_told_where_tuning_is_dearer(
    bench: Bench, requests: int | None
) -> None:
    bench.study["traffic"]["requests_per_month"] = requests
    bench.arm("few_shot", 0.5, "tuned", **TOKENS)
    bench.arm("tuned", 0.9, "big", **TOKENS)
    verdict = bench.run()
    assert (verdict.verdict, verdict.cost.status) == ("FINE_TUNE", "dearer")
    gain = verdict.primary.gain
    assert gain is not None
    worth = 0.0108 / (gain / 100)
    assert verdict.cost.value_per_correct_needed == pytest.approx(worth)
    assert any("pays if one more correct answer is worth" in note for note in verdict.primary.notes)
    assert any("pays once one more correct answer" in text for text in cost_extras(verdict.cost))
    assert "this checkpoint scores" in verdict.headline


def test_without_a_gain_no_worth_makes_up_for_the_cost(bench: Bench) -> None:
    bench.arm("few_shot", 0.9, "tuned", **TOKENS)
    bench.arm("tuned", 0.5, "big", **TOKENS)
    verdict = bench.run()
    assert verdict.cost.status == "dearer" and verdict.cost.value_per_correct_needed is None
    assert any("No worth of a correct answer" in text for text in cost_extras(verdict.cost))


PRICE = ModelPrice(input=2, cached=0.5, output=8, usd_per_request=0.01)


def test_what_is_spent_is_what_is_measured(tmp_path: Path) -> None:
    """The budget adds up by the formula by which the report prices."""
    (tmp_path / "prices.yaml").write_text(
        yaml.safe_dump(
            {
                "date": TODAY,
                "source": "x",
                "models": {"house:m": PRICE.model_dump(exclude_none=True)},
            }
        )
    )
    path = tmp_path / "study.yaml"
    study = {
        "name": "s",
        "metric": "exact_match",
        "model": "house:m",
        "candidates": ["zero_shot"],
        "data": {"examples": "rows.jsonl"},
        "servers": {"house": {"base_url": "http://localhost:8001/v1"}},
        "costs": {"prices": "prices.yaml", "max_usd": 5},
    }
    rows = [{"input": f"note {i}", "output": "warm or cold"} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path.write_text(yaml.safe_dump(study))
    loaded = load_study(path)
    workspace = Workspace(tmp_path / "ws")
    with open_session(loaded, workspace, SilentReporter()) as session:
        engines: Engines = session.engines
        answer = Completion(prompt_tokens=1000, cached_tokens=400, completion_tokens=100)
        engines.metered("house:m")(answer)
        usage = Usage(input=1000, output=100, cached=400)
        assert engines.spent_usd == pytest.approx(float(request_usd(PRICE, usage) or 0))
        assert engines.spent_usd == pytest.approx(0.01 + (600 * 2 + 400 * 0.5 + 800) / 1e6)
    planned = plan_study(loaded, workspace, SilentReporter()).candidates[0]
    assert planned.prompt_tokens is not None and planned.usd is not None
    least = planned.requests * 0.01 + planned.prompt_tokens * 2 / 1e6
    assert planned.usd > least + planned.requests * 2 * 8 / 1e6, "answers are paid for too"


def test_the_formula_has_one_result_for_one_request_and_for_many() -> None:
    hourly = ModelPrice(input=1, output=1, usd_per_hour=3.6)
    found = request_usd(hourly, Usage(input=[100, 200], output=[0, 0]), seconds=[1.0, 2.0])
    assert found is not None and list(found) == pytest.approx([0.0011, 0.0022])
    assert request_usd(hourly, Usage(input=100, output=0)) is None, "its time is unknown"
    assert request_usd(hourly, None, seconds=1.0) is None, "its tokens are unknown"
    assert request_usd(ModelPrice(), Usage(input=1, output=1)) is None
    assert request_usd(ModelPrice(usd_per_month=9), None) == 0.0
    written = ModelPrice(input=1, cached=0.1, cache_write=1.25, output=0)
    usage = Usage(input=1e6, output=0, static=1e6)
    assert request_usd(written, usage, hit_rate=0.8) == pytest.approx(0.8 * 0.1 + 0.2 * 1.25)


def test_a_target_is_met_by_the_best_of_all_settings_that_were_tried() -> None:
    def verdict(tried: int) -> Answer:
        best = Baseline(name="few_shot", score=95.0, low=91.0, rows=200, n=200, tried=tried)
        other = Baseline(name="zero_shot", score=50.0, low=43.0, rows=200, n=200)
        found = decide(Evidence(baselines=(best, other), best_baseline="few_shot", target=90.0))
        assert (Because.TARGET_MET in found.because) == (found.verdict is Answer.DO_NOT_FINE_TUNE)
        return found.verdict

    assert verdict(tried=1) is Answer.DO_NOT_FINE_TUNE
    assert verdict(tried=12) is Answer.UNDECIDED


def test_settings_are_counted_where_they_are_tried(tmp_path: Path) -> None:
    rows = [
        {"input": f"note {i} {'ice' if i % 2 else 'fire'}", "output": "cold" if i % 2 else "warm"}
        for i in range(120)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "s",
                "metric": "accuracy",
                "candidates": ["classifier", "constant"],
                "data": {"examples": "rows.jsonl"},
            }
        )
    )
    with open_session(load_study(path), Workspace(tmp_path / "ws"), SilentReporter()) as session:
        gates = Gates(session)
        gates.run()
        tried = {b.name: b.tried for b in Measured(gates.case()).evidence().baselines}
        chosen = (session.store.result("fit-classifier") or {})["chosen"]["tried"]
    assert tried == {"classifier": len(chosen), "constant": 1} and len(chosen) > 1
