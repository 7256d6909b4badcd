"""Studies of recorded answers: seeds, splits, groups, the named pair, metrics, prices, traffic."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli_support import files, jsonl
from tunewise.errors import DataError, WorkspaceError
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import Outcome, plan_study, report_study, run_study
from tunewise.report.document import Verdict
from tunewise.study.loading import load_study
from tunewise.workspace import Workspace

N = 300


class Bench:
    """Writes answer files and a study, and runs it in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "ws")
        self.lines: list[str] = []

    def answers(self, name: str, rows: list[dict[str, Any]], more: str = "") -> None:
        jsonl(self.folder / f"{name}.jsonl", rows)
        tuned = ", fine_tuned: true" if name.startswith("tuned") else ""
        self.lines.append(
            f"  - {{name: {name}, kind: recorded, answers: {name}.jsonl{tuned}{more}}}"
        )

    def scores(self, name: str, share: float, more: str = "", **row: Any) -> None:
        draw = random.Random(name)
        rows = [
            {"id": f"r{i}", "score": float(draw.random() < share)}
            | {k: v(i) if callable(v) else v for k, v in row.items()}
            for i in range(N)
        ]
        self.answers(name, rows, more)

    def path(self, extra: str = "", metric: str = "recorded") -> Path:
        path = self.folder / "study.yaml"
        text = ["name: s", f"metric: {metric}", "candidates:", *self.lines, extra]
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
        return path

    def run(self, extra: str = "", metric: str = "recorded") -> Verdict:
        return self.outcome(extra, metric).verdict

    def outcome(self, extra: str = "", metric: str = "recorded") -> Outcome:
        loaded = load_study(self.path(extra, metric))
        return run_study(loaded, self.workspace, SilentReporter())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def row(verdict: Verdict, name: str) -> Any:
    return next(c for c in verdict.candidates if c.name == name)


def test_several_seeds_for_each_id(bench: Bench) -> None:
    draw = random.Random(0)
    rows = [
        {"id": f"r{i}", "seed": seed, "score": float(draw.random() < 0.8)}
        for seed in (1, 2, 3)
        for i in range(N)
    ]
    bench.answers("tuned", rows)
    bench.scores("zero_shot", 0.5)
    verdict = bench.run()
    assert (verdict.primary.seeds, verdict.primary.n) == (3, N)
    assert verdict.primary.seed_sd is not None
    mean = 100 * sum(r["score"] for r in rows) / len(rows)
    assert row(verdict, "tuned").score == pytest.approx(mean)
    assert not any("This verdict is about this checkpoint" in n for n in verdict.primary.notes)


def test_the_splits_stand_in_the_answer_files(bench: Bench) -> None:
    def split(i: int) -> str:
        return "train" if i < 50 else "dev" if i < 100 else "test"

    for name, share in (("tuned-a", 0.9), ("tuned-b", 0.7), ("zero_shot", 0.5)):
        bench.scores(name, share, split=split)
    verdict = bench.run()
    assert verdict.audit.rows == {"train": 50, "dev": 50, "test": 200}
    assert (verdict.primary.with_, verdict.primary.n) == ("tuned-a", 200)  # chosen on dev
    assert row(verdict, "tuned-a").dev_score > row(verdict, "tuned-b").dev_score


def test_one_candidate_disagrees_about_a_split(bench: Bench) -> None:
    bench.scores("tuned", 0.9, split="test")
    bench.scores("zero_shot", 0.5, split=lambda i: "dev" if i == 7 else "test")
    with pytest.raises(DataError, match="'r7' is in test for one candidate and in dev"):
        bench.run()


def test_without_dev_rows_the_limits_are_wider_and_a_named_pair_is_not(bench: Bench) -> None:
    for name, share in (("tuned-a", 0.72), ("tuned-b", 0.7), ("zero_shot", 0.6), ("rag", 0.5)):
        bench.scores(name, share)
    chosen_here = bench.run().primary
    bench.workspace = Workspace(bench.folder / "elsewhere")  # where it is no second look
    named = bench.run("primary: [tuned-a, zero_shot]").primary
    assert (named.with_, named.without) == ("tuned-a", "zero_shot")
    assert chosen_here.interval is not None and named.interval is not None
    wide = chosen_here.interval[1] - chosen_here.interval[0]
    assert wide > (named.interval[1] - named.interval[0]) * 1.02
    assert chosen_here.method != named.method


def test_dev_fraction_draws_by_hash_and_keeps_groups_together(bench: Bench) -> None:
    rows = [
        {
            "id": f"r{i}",
            "input": f"Question number {i}",
            "output": "AB"[i % 2],
            "group": f"g{i // 5}",
        }
        for i in range(N)
    ]
    jsonl(bench.folder / "rows.jsonl", rows)
    draw = random.Random(1)
    for name, share in (("tuned-a", 0.9), ("tuned-b", 0.6), ("zero_shot", 0.5)):
        bench.answers(
            name,
            [
                {"id": r["id"], "answer": r["output"] if draw.random() < share else "Z"}
                for r in rows
            ],
        )
    extra = "data: {test: rows.jsonl}\ndev_fraction: 0.3"
    outcome = bench.outcome(extra, "exact_match")
    verdict = outcome.verdict
    assert verdict.verdict == "FINE_TUNE"  # and not INVALID because groups leak into dev
    dev, test = verdict.audit.rows["dev"], verdict.audit.rows["test"]
    assert dev + test == N and 0.15 * N < dev < 0.45 * N
    assert verdict.primary.n == test and verdict.primary.with_ == "tuned-a"
    assert verdict.primary.clusters == verdict.test.clusters == test // 5
    assert verdict.primary.method is not None and "cluster" in verdict.primary.method
    assert bench.outcome(extra, "exact_match").folder == outcome.folder
    other_seed = bench.run(extra + "\nseed: 1", "exact_match")
    assert other_seed.audit.rows["dev"] + other_seed.audit.rows["test"] == N


def test_answers_are_scored_by_the_metric_and_shown_side_by_side(bench: Bench) -> None:
    rows = [
        {"id": f"r{i}", "input": f"How many in {i}?", "output": str(i), "group": f"g{i // 3}"}
        for i in range(N)
    ]
    jsonl(bench.folder / "rows.jsonl", rows)
    bench.answers("tuned", [{"id": f"r{i}", "answer": f"It is {i}.0"} for i in range(N)])
    bench.answers("zero_shot", [{"id": f"r{i}", "answer": f"{i % 2 and i}"} for i in range(N)])
    verdict = bench.run("data: {test: rows.jsonl}", "numeric")
    assert row(verdict, "tuned").score == 100
    assert row(verdict, "zero_shot").score == pytest.approx(50, abs=1)
    assert verdict.primary.clusters == 100
    assert verdict.examples and verdict.examples[0].answers[0].text.startswith("It is ")
    assert not any("no `group`" in w for w in verdict.warnings)


def test_ids_that_do_not_match_are_told(bench: Bench) -> None:
    bench.scores("tuned", 0.9)
    rows = [{"id": f"r{i}", "score": 0.0} for i in range(N - 3)]
    bench.answers("zero_shot", rows)
    jsonl(
        bench.folder / "rows.jsonl",
        [{"id": f"r{i}", "input": f"q {i}", "output": "A"} for i in range(N - 1)],
    )
    verdict = bench.run("data: {test: rows.jsonl}")
    assert row(verdict, "zero_shot").failures == 2
    assert (
        f"zero_shot: 2 rows without a recorded answer count as wrong (r{N - 3}, r{N - 2})."
        in verdict.warnings
    )
    assert f"tuned: 1 recorded id of no row is not used (r{N - 1})." in verdict.warnings


MONEY = {"tuned": ", usd_per_1k_requests: 0.2, usd_once: 1200", "big": ", usd_per_1k_requests: 2"}


@pytest.mark.parametrize(
    ("requests", "status", "saving"), [(1_000_000, "saves", 1700.0), (10_000, "dearer", -82.0)]
)
def test_known_prices_and_traffic(bench: Bench, requests: int, status: str, saving: float) -> None:
    bench.scores("tuned", 0.9, MONEY["tuned"])
    bench.scores("big", 0.6, MONEY["big"])
    verdict = bench.run(f"traffic: {{requests_per_month: {requests}}}")
    cost = verdict.cost
    assert cost.status == status
    # 1.8 dollars less for 1,000 requests; 1,200 dollars once, spread over 12 months: 100 a month.
    assert cost.saving_per_month == pytest.approx(saving)
    assert cost.break_even_requests == pytest.approx(100 / 0.0018)
    assert cost.break_even_kind == "above"
    assert row(verdict, "big").usd_per_1k_requests == 2
    assert len(cost.curve) > 10


def test_a_price_file_turns_tokens_into_dollars(bench: Bench) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    prices = bench.folder / "prices.yaml"
    models = "models: {small: {input: 1, output: 2}, big: {input: 10, output: 20}}\n"
    prices.write_text(f"date: {today}\nsource: https://example.com\n{models}")
    tokens = {"prompt_tokens": 1000, "completion_tokens": 100}
    bench.scores("tuned", 0.9, ", model: small", **tokens)
    bench.scores("big", 0.6, ", model: big", **tokens)
    extra = "costs: {prices: prices.yaml}\ntraffic: {requests_per_month: 100000}"
    verdict = bench.run(extra)
    assert row(verdict, "tuned").usd_per_1k_requests == pytest.approx(1.2)
    assert row(verdict, "big").usd_per_1k_requests == pytest.approx(12)
    assert verdict.cost.saving_per_month == pytest.approx(1080)
    assert (verdict.cost.prices_date, verdict.cost.prices_source) == (
        str(today),
        "https://example.com",
    )
    assert not any("days old" in w for w in verdict.warnings)

    prices.write_text(f"date: {today - datetime.timedelta(days=91)}\nsource: a page\n{models}")
    assert any("91 days old" in w for w in bench.run(extra).warnings)
    prices.write_text(f"date: {today + datetime.timedelta(days=2)}\nsource: a page\n{models}")
    assert any("in the future" in w for w in bench.run(extra).warnings)


def test_a_model_that_the_price_file_lacks_leaves_the_cost_unknown(bench: Bench) -> None:
    (bench.folder / "prices.yaml").write_text("date: 2026-01-01\nsource: x\nmodels: {}\n")
    bench.scores("tuned", 0.9, ", model: small", prompt_tokens=10, completion_tokens=1)
    bench.scores("zero_shot", 0.5)
    extra = "costs: {prices: prices.yaml}\ntraffic: {requests_per_month: 1000}"
    cost = bench.run(extra).cost
    assert (cost.status, cost.saving_per_month) == ("unknown", None)
    assert cost.reason is not None and "small" in cost.reason


@pytest.mark.parametrize(
    "extra", ["", "dev_fraction: 0.3", "traffic: {requests_per_month: 5}\nseed: 3"]
)
def test_the_report_computes_the_same_verdict(bench: Bench, extra: str) -> None:
    bench.scores("tuned", 0.8)
    bench.scores("zero_shot", 0.7)
    bench.answers("few_shot", [{"id": f"r{i}", "score": 0.6} for i in range(N + 1)])
    ran = bench.outcome(extra)
    before = files(bench.workspace.root)
    told = report_study(load_study(bench.path(extra)), bench.workspace)
    same: Callable[[Verdict], Mapping[str, Any]] = lambda v: v.model_dump(exclude={"created"})  # noqa: E731
    assert same(told.verdict) == same(ran.verdict)
    after = files(bench.workspace.root)
    assert {n for n in after if after[n] != before.get(n)} <= {
        str(path.relative_to(bench.workspace.root)) for path in (ran.report, ran.verdict_json)
    }


def test_a_report_of_a_study_that_never_ran(bench: Bench) -> None:
    bench.scores("tuned", 0.8)
    bench.scores("zero_shot", 0.7)
    with pytest.raises(WorkspaceError, match="has not been run as it stands now") as caught:
        report_study(load_study(bench.path()), bench.workspace)
    assert "tunewise run" in str(caught.value)
    assert not list(bench.workspace.root.glob("studies/*/*/"))


def test_a_plan_costs_nothing(bench: Bench) -> None:
    bench.scores("tuned", 0.8)
    bench.scores("zero_shot", 0.7)
    plan = plan_study(load_study(bench.path()), bench.workspace, SilentReporter())
    assert plan.rows == {"train": 0, "dev": 0, "test": N}
    assert [(c.name, c.requests, c.usd) for c in plan.candidates] == [
        ("tuned", 0, 0.0),
        ("zero_shot", 0, 0.0),
    ]
    assert bench.workspace.studies() == []
