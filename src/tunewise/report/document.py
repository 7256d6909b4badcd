"""``verdict.json``: the versioned schema of a verdict, the one source of all its renderings.

All scores, gains and interval limits are in points (0..100); money is in US dollars; tokens are
per request; latencies in milliseconds. ``null`` means unknown or not reached, never zero.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NewType

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "tunewise.verdict/1"

Interval = tuple[float, float]
Points = NewType("Points", float)
"""A score from 0 to 100; metrics and items count from 0 to 1 and are none until multiplied."""


class Part(BaseModel):
    """Unknown keys are errors, so that the schema says everything the file holds."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class TestSet(Part):
    """The rows of the final test."""

    n: int | None = Field(None, description="rows tested; null where the test was not opened")
    clusters: int | None = Field(None, description="groups of rows; null: rows independent")
    sha256: str | None = Field(None, description="of the test rows' content")
    opened: int | None = Field(
        None,
        description="which look at these rows this is, over all studies (1: the first); each "
        "further one needs a wider interval, and after 5 none decides",
    )
    left_out: int = Field(0, description="rows left out as leaked; both scores are shown")
    repeated: int = Field(
        0,
        description="rows whose question another test row asks too; rows of one question are one "
        "cluster",
    )


class Primary(Part):
    """The one comparison that decides: best with fine-tuning against best without."""

    with_: str | None = Field(None, alias="with", description="champion with fine-tuning")
    without: str | None = Field(None, description="champion without")
    gain: float | None = Field(None, description="score of `with` minus score of `without`")
    interval: Interval | None = Field(None, description="interval of the gain, at `level`")
    level: float = Field(
        95.0, description="percent; 95 at the first look at the test rows, more at further ones"
    )
    p_value: float | None = Field(None, description="of 'gain = 0'; descriptive, never decides")
    method: str | None = Field(None, description="how interval and p-value were computed")
    mde: float | None = Field(None, description="smallest gain told from 0 with 80 % power")
    mde_decide: float | None = Field(
        None, description="smallest gain told from `minimal_gain` with 80 % power"
    )
    n: int | None = Field(None, description="rows compared")
    clusters: int | None = Field(None, description="groups of rows; null: rows independent")
    folds: int | None = Field(
        None, description="folds that were each answered by a system of its own; null: one test"
    )
    seeds: int | None = Field(None, description="training seeds behind the gain")
    seed_sd: float | None = Field(None, description="points; spread of the training seeds")
    discordance: float | None = Field(None, description="share of rows where the two differ, 0..1")
    minimal_gain: float | None = Field(None, description="gain asked for in the study")
    labels_needed: int | None = Field(
        None, description="test rows in all with which the test decides, with `labels_chance`"
    )
    labels_chance: float | None = Field(
        None, description="that they decide if the gain is as measured, 0..1"
    )
    gain_without_left_out: float | None = Field(
        None, description="the gain on the rows that remain when leaked ones are left out"
    )
    notes: list[str] = Field(default_factory=list, description="assumptions behind the interval")

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class CandidateRow(Part):
    """One candidate as measured on test (or on dev where the study ended earlier)."""

    name: str
    kind: str = Field(description="constant, zero_shot, few_shot, rag, classifier, fine_tuned, …")
    constant: bool = Field(
        False, description="gives one answer to all rows; every other candidate must beat it"
    )
    fine_tuned: bool = Field(False, description="a fine-tuned model takes part in its answers")
    model: str | None = None
    measured_on: Literal["test", "dev"] | None = Field(
        None, description="which rows `score` is from; null: not measured"
    )
    score: float | None = None
    interval: Interval | None = Field(None, description="95 % interval of the score")
    dev_score: float | None = Field(None, description="champions are chosen by this one")
    n: int | None = Field(None, description="rows behind `score`")
    failures: int = Field(0, description="failed requests; each counts as a wrong answer")
    tokens_per_request: float | None = Field(None, description="prompt and answer, mean")
    prompt_tokens: float | None = Field(None, description="mean")
    completion_tokens: float | None = Field(None, description="mean")
    usd_per_1k_requests: float | None = Field(None, description="variable cost, 1,000 requests")
    latency_ms: float | None = Field(None, description="median")
    latency_p95_ms: float | None = Field(None, description="95 % of requests are faster")
    figures: dict[str, float] = Field(
        default_factory=dict, description="further figures of the metric, e.g. macro_f1 (points)"
    )
    chosen: dict[str, Any] = Field(default_factory=dict, description="what was chosen on dev")
    note: str | None = Field(None, description="what a reader must know of it")


class FailureCause(Part):
    """Why requests failed: those with the same cause together."""

    candidate: str = Field(description="whose requests; of forgetting, the suite and the side")
    measured_on: Literal["test", "dev", "forgetting"] = Field(description="which rows")
    count: int = Field(description="requests that failed so")
    of: int = Field(description="requests of this candidate on these rows")
    cause: str = Field(description="of the longest, where causes differ in their numbers alone")
    rows: list[str] = Field(default_factory=list, description="file:line or id; the first few")
    advice: str | None = Field(None, description="what to do about it")


class BreakdownRow(Part):
    """The champions on a slice of the test rows, or by a further metric: exploratory."""

    kind: Literal["slice", "metric"]
    name: str = Field(description="the column, or the metric")
    value: str | None = Field(None, description="of the column; null for a metric")
    n: int = Field(description="rows compared")
    with_: float = Field(alias="with", description="score of the champion with fine-tuning")
    without: float = Field(description="score of the champion without")
    gain: float = Field(description="`with` minus `without`")
    interval: Interval | None = Field(None, description="of the gain, at `primary.level`, alone")
    p_adjusted: float | None = Field(
        None, description="of 'gain = 0', adjusted for all rows here (Benjamini-Hochberg)"
    )
    worse: bool = Field(False, description="the whole interval lies below zero")

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class CostPoint(Part):
    """Both champions' costs a month at one volume."""

    requests_per_month: float
    with_usd: float = Field(description="a month, fixed costs included")
    without_usd: float = Field(description="a month")


class Cost(Part):
    """Fine-tuning's costs against the other champion's."""

    status: Literal["saves", "dearer", "unclear", "unknown"] = "unknown"
    reason: str | None = Field(None, description="why unknown, in words")
    requests_per_month: float | None = Field(None, description="traffic given in the study")
    horizon_months: float | None = Field(None, description="one-off costs are spread over this")
    saving_per_month: float | None = Field(None, description="at that traffic; < 0: dearer")
    saving_interval: Interval | None = Field(None, description="95 % interval of the saving")
    fixed_usd: float | None = Field(None, description="one-off costs of fine-tuning to come")
    monthly_usd: float | None = Field(None, description="difference in fixed monthly costs")
    usd_per_request_with: float | None = Field(
        None, description="variable cost, fine-tuned champion"
    )
    usd_per_request_without: float | None = Field(
        None, description="variable cost, the other champion"
    )
    break_even_requests: float | None = Field(None, description="Q*, requests a month")
    break_even_interval: tuple[float | None, float | None] | None = Field(
        None, description="95 %; null: no bound"
    )
    break_even_kind: str | None = Field(None, description="above, below, always, never, unbounded")
    value_per_correct_needed: float | None = Field(None, description="v*, US dollars")
    payback_months: float | None = Field(
        None, description="until the one-off costs are earned back"
    )
    prices_date: str | None = None
    prices_source: str | None = None
    curve: list[CostPoint] = Field(default_factory=list)
    spent_usd: float | None = Field(None, description="what this study itself spent")


class ForgettingSuite(Part):
    """One set of rows that the tuned model must still be able to do."""

    name: str
    n: int = Field(description="rows asked, of both models")
    of: int | None = Field(None, description="rows in the suite; it is asked until it is decided")
    stopped: str | None = Field(None, description="why it was asked no further, in words")
    base: float | None = Field(None, description="score of the model before fine-tuning")
    tuned: float | None = Field(None, description="score after")
    change: float | None = Field(None, description="`tuned` minus `base`")
    lower: float | None = Field(
        None, description="one-sided 95 % lower limit of the change, over all looks together"
    )
    upper: float | None = Field(
        None, description="one-sided 95 % upper limit of the change, over all looks together"
    )
    status: Literal["passed", "failed", "unproven", "unmeasured"] = "unmeasured"


class ForgettingResult(Part):
    """What the model lost by being fine-tuned, against the margin it may lose."""

    status: Literal["passed", "failed", "unproven", "unmeasured"] = "unmeasured"
    margin: float | None = Field(None, description="points it may lose in each suite")
    reason: str | None = Field(None, description="why unproven or unmeasured, in words")
    suites: list[ForgettingSuite] = Field(default_factory=list)
    lost_rows: list[str] = Field(default_factory=list, description="must-pass rows now lost")


class CurvePoint(Part):
    """The score on dev after learning from so many rows."""

    rows: int = Field(description="rows learnt from")
    score: float
    interval: Interval | None = Field(None, description="95 %")


class LearningCurve(Part):
    """Would more rows to learn from help?"""

    points: list[CurvePoint] = Field(default_factory=list, description="as measured")
    fitted: list[CurvePoint] = Field(default_factory=list, description="power law through them")
    gain_from_doubling: float | None = Field(None, description="expected from twice the rows")
    gain_interval: Interval | None = Field(None, description="90 % interval of that")
    more_data: bool | None = Field(None, description="doubling gains more than `minimal_gain`")
    reason: str | None = Field(None, description="why there is no fit")


class AuditFinding(Part):
    """One thing found in the data."""

    code: str
    severity: Literal["error", "warning", "info"]
    count: int
    message: str
    rows: list[str] = Field(default_factory=list, description="row ids, or file:line")
    fix: str | None = Field(None, description="what to do about it")


class Audit(Part):
    """The data before anything is trained."""

    rows: dict[str, int] = Field(default_factory=dict, description="rows per split")
    unreadable: int = Field(0, description="rows that could not be read and are left out")
    findings: list[AuditFinding] = Field(default_factory=list)
    split: str | None = Field(None, description="how the rows were split, in words")
    prompt_tokens_median: float | None = None
    answer_tokens_median: float | None = None
    mde: float | None = Field(None, description="smallest gain the test set can show, points")


class Answer(Part):
    """One line of the lesson's checklist, answered."""

    question: str
    answer: str
    group: Literal["use_case", "alternatives", "costs", "benefits"] | None = Field(
        None, description="which part of the checklist it stands in"
    )
    ok: bool | None = Field(None, description="true good, false bad, null for information")


class WorkedAnswer(Part):
    """One candidate's answer to a worked example."""

    candidate: str
    text: str
    thoughts: str | None = Field(None, description="what the model thought before it; not scored")
    score: Points | None = Field(None, description="points of this answer")


class WorkedExample(Part):
    """A test row where candidates differ."""

    id: str
    input: str
    wanted: str = Field(description="the right answer")
    answers: list[WorkedAnswer]


class TrainingRun(Part):
    """What was trained, and forecast against actual."""

    candidate: str
    route: str = Field(description="where it ran: local, …")
    method: str = Field(description="how it learnt: sft, …")
    model: str
    seed: int
    fold: int | None = Field(
        None, description="whose rows it did not learn from, 1 for the first; null: all folds"
    )
    learning_rate: float | None = None
    epochs: float | None = None
    steps: int | None = None
    tokens: int | None = Field(None, description="tokens seen, all epochs")
    seconds: float | None = None
    forecast_seconds: float | None = None
    peak_memory_mb: float | None = None
    forecast_memory_mb: float | None = None
    dev_score: float | None = None
    rows: int | None = Field(None, description="rows learnt from")
    rows_left_out: dict[str, int] = Field(
        default_factory=dict, description="rows not learnt from, by reason (too_long, …)"
    )
    tuned_model: str | None = Field(None, description="folder or provider's name")
    train_loss: list[tuple[int, float]] = Field(
        default_factory=list, description="[step, loss] pairs"
    )
    dev_loss: list[tuple[int, float]] = Field(
        default_factory=list, description="[step, loss] pairs"
    )


class StageTime(Part):
    """How long one stage took."""

    stage: str
    gate: str
    seconds: float
    cached: bool = Field(False, description="its result stood from an earlier run")


class Verdict(Part):
    """The whole of ``verdict.json``."""

    schema_: str = Field(SCHEMA, alias="schema")
    tunewise: str = Field(description="version of the program")
    created: str = Field(description="UTC, ISO 8601")
    study: str = Field(description="its name")
    study_hash: str = Field(description="of the study as resolved")
    use_case: str = Field("", description="as written in the study")
    metric: str = Field(description="name of the scorer")
    ended_at: Literal["G0", "G1", "G2", "G3", "G4", "G5"] = Field(
        description="the gate that ended the study"
    )
    verdict: Literal["FINE_TUNE", "DO_NOT_FINE_TUNE", "UNDECIDED", "INVALID"]
    use: str | None = Field(
        None, description="name of the candidate to ship; null where none can be named"
    )
    use_for_now: bool = Field(False, description="`use` is only the best so far (UNDECIDED)")
    because: list[str] = Field(
        default_factory=list, description="codes such as gain, no_gain, cost, leak"
    )
    headline: str = Field(description="the verdict in one sentence")
    cautions: list[str] = Field(
        default_factory=list, description="what must be read together with the headline"
    )
    next_steps: list[str] = Field(default_factory=list, description="what to do now, in order")
    test: TestSet = Field(default_factory=TestSet)
    primary: Primary = Field(default_factory=Primary)
    candidates: list[CandidateRow] = Field(default_factory=list)
    failures: list[FailureCause] = Field(
        default_factory=list, description="why requests failed, the commonest cause first"
    )
    breakdown: list[BreakdownRow] = Field(
        default_factory=list,
        description="the gain by slices and further metrics (`slices`, `also`); exploratory",
    )
    cost: Cost = Field(default_factory=Cost)
    forgetting: ForgettingResult = Field(default_factory=ForgettingResult)
    learning_curve: LearningCurve = Field(default_factory=LearningCurve)
    audit: Audit = Field(default_factory=Audit)
    checklist: list[Answer] = Field(default_factory=list)
    examples: list[WorkedExample] = Field(default_factory=list)
    training: list[TrainingRun] = Field(default_factory=list)
    stages: list[StageTime] = Field(default_factory=list)
    reproducibility: dict[str, str] = Field(
        default_factory=dict, description="hashes, versions, seeds, hardware"
    )
    warnings: list[str] = Field(default_factory=list, description="what limits the verdict")

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def __str__(self) -> str:
        """As `tunewise run` prints it, without colours."""
        from tunewise.report.terminal import verdict_text

        return verdict_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The report in a frame of its own, for a notebook."""
        from tunewise.report.html import framed

        return framed(self)

    def to_json(self) -> str:
        """The document as indented JSON with a final newline; always valid UTF-8.

        ``nan`` and infinities become ``null``. A lone surrogate (half a character, which JSON
        data can hold) is written as an escape, so that it survives and the file stays readable.
        """
        raw = json.dumps(self.model_dump(by_alias=True))
        value = json.loads(raw, parse_constant=lambda _: None)
        text = json.dumps(value, ensure_ascii=False, indent=2)
        return re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m.group()):04x}", text) + "\n"
