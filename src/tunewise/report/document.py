"""``verdict.json``: the versioned schema of a verdict, the one source of all its renderings.

All scores, gains and interval limits are in points (0..100); money is in US dollars; tokens are
per request; latencies in milliseconds. ``null`` means unknown or not reached, never zero.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "tunewise.verdict/1"

Interval = tuple[float, float]


class Part(BaseModel):
    """Unknown keys are errors, so that the schema says everything the file holds."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class TestSet(Part):
    """The rows of the final test."""

    n: int | None = None
    clusters: int | None = None
    sha256: str | None = Field(None, description="of the test rows' content")
    opened: int | None = Field(None, description="how often these rows were opened, all studies")
    left_out: int = Field(0, description="rows left out as leaked; both scores are shown")


class Primary(Part):
    """The one comparison that decides: best with fine-tuning against best without."""

    with_: str | None = Field(None, alias="with", description="champion with fine-tuning")
    without: str | None = Field(None, description="champion without")
    gain: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    method: str | None = None
    mde: float | None = None
    mde_decide: float | None = None
    n: int | None = None
    clusters: int | None = None
    seeds: int | None = None
    seed_sd: float | None = Field(None, description="points; spread of the training seeds")
    discordance: float | None = Field(None, description="share of rows where the two differ, 0..1")
    minimal_gain: float | None = None
    labels_needed: int | None = Field(None, description="test rows that would decide")
    gain_without_left_out: float | None = None
    notes: list[str] = Field(default_factory=list)

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class CandidateRow(Part):
    """One candidate as measured on test (or on dev where the study ended earlier)."""

    name: str
    kind: str
    fine_tuned: bool = False
    model: str | None = None
    measured_on: Literal["test", "dev"] | None = None
    score: float | None = None
    interval: Interval | None = None
    dev_score: float | None = None
    n: int | None = None
    failures: int = 0
    tokens_per_request: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    usd_per_1k_requests: float | None = None
    latency_ms: float | None = Field(None, description="median")
    latency_p95_ms: float | None = None
    figures: dict[str, float] = Field(
        default_factory=dict, description="further figures of the metric, e.g. macro_f1 (points)"
    )
    chosen: dict[str, Any] = Field(default_factory=dict, description="what was chosen on dev")
    note: str | None = None


class CostPoint(Part):
    requests_per_month: float
    with_usd: float
    without_usd: float


class Cost(Part):
    """Fine-tuning's costs against the other champion's."""

    status: Literal["saves", "dearer", "unclear", "unknown"] = "unknown"
    reason: str | None = Field(None, description="why unknown, in words")
    requests_per_month: float | None = None
    horizon_months: float | None = None
    saving_per_month: float | None = None
    saving_interval: Interval | None = None
    fixed_usd: float | None = Field(None, description="one-off costs of fine-tuning to come")
    monthly_usd: float | None = Field(None, description="difference in fixed monthly costs")
    usd_per_request_with: float | None = None
    usd_per_request_without: float | None = None
    break_even_requests: float | None = Field(None, description="Q*, requests a month")
    break_even_interval: tuple[float | None, float | None] | None = None
    break_even_kind: str | None = Field(None, description="above, below, always, never, unbounded")
    value_per_correct_needed: float | None = Field(None, description="v*, US dollars")
    payback_months: float | None = None
    prices_date: str | None = None
    prices_source: str | None = None
    curve: list[CostPoint] = Field(default_factory=list)
    spent_usd: float | None = Field(None, description="what this study itself spent")


class ForgettingSuite(Part):
    name: str
    n: int
    base: float | None = None
    tuned: float | None = None
    change: float | None = None
    lower: float | None = Field(None, description="one-sided 95 % lower limit of the change")
    upper: float | None = None
    status: Literal["passed", "failed", "unproven", "unmeasured"] = "unmeasured"


class ForgettingResult(Part):
    status: Literal["passed", "failed", "unproven", "unmeasured"] = "unmeasured"
    margin: float | None = None
    reason: str | None = None
    suites: list[ForgettingSuite] = Field(default_factory=list)
    lost_rows: list[str] = Field(default_factory=list, description="must-pass rows now lost")


class CurvePoint(Part):
    rows: int
    score: float
    interval: Interval | None = None


class LearningCurve(Part):
    points: list[CurvePoint] = Field(default_factory=list)
    fitted: list[CurvePoint] = Field(default_factory=list)
    gain_from_doubling: float | None = None
    gain_interval: Interval | None = None
    more_data: bool | None = None
    reason: str | None = Field(None, description="why there is no fit")


class AuditFinding(Part):
    code: str
    severity: Literal["error", "warning", "info"]
    count: int
    message: str
    rows: list[str] = Field(default_factory=list)
    fix: str | None = None


class Audit(Part):
    rows: dict[str, int] = Field(default_factory=dict, description="rows per split")
    findings: list[AuditFinding] = Field(default_factory=list)
    split: str | None = Field(None, description="how the rows were split, in words")
    prompt_tokens_median: float | None = None
    answer_tokens_median: float | None = None
    mde: float | None = Field(None, description="smallest gain the test set can show, points")


class Answer(Part):
    """One line of the lesson's checklist, answered."""

    question: str
    answer: str
    ok: bool | None = Field(None, description="true good, false bad, null for information")


class WorkedAnswer(Part):
    candidate: str
    text: str
    score: float | None = None


class WorkedExample(Part):
    """A test row where candidates differ."""

    id: str
    input: str
    wanted: str
    answers: list[WorkedAnswer]


class TrainingRun(Part):
    """What was trained, and forecast against actual."""

    candidate: str
    route: str
    method: str
    model: str
    seed: int
    learning_rate: float | None = None
    epochs: float | None = None
    steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    forecast_seconds: float | None = None
    peak_memory_mb: float | None = None
    forecast_memory_mb: float | None = None
    dev_score: float | None = None
    tuned_model: str | None = Field(None, description="folder or provider's name")
    train_loss: list[tuple[int, float]] = Field(default_factory=list)
    dev_loss: list[tuple[int, float]] = Field(default_factory=list)


class StageTime(Part):
    stage: str
    gate: str
    seconds: float
    cached: bool = False


class Verdict(Part):
    """The whole of ``verdict.json``."""

    schema_: str = Field(SCHEMA, alias="schema")
    tunewise: str = Field(description="version of the program")
    created: str = Field(description="UTC, ISO 8601")
    study: str
    study_hash: str
    use_case: str = ""
    metric: str
    ended_at: Literal["G0", "G1", "G2", "G3", "G4", "G5"]
    verdict: Literal["FINE_TUNE", "DO_NOT_FINE_TUNE", "UNDECIDED", "INVALID"]
    use: str | None = None
    use_for_now: bool = Field(False, description="`use` is only the best so far (UNDECIDED)")
    because: list[str] = Field(default_factory=list)
    headline: str
    next_steps: list[str] = Field(default_factory=list)
    test: TestSet = Field(default_factory=TestSet)
    primary: Primary = Field(default_factory=Primary)
    candidates: list[CandidateRow] = Field(default_factory=list)
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
    warnings: list[str] = Field(default_factory=list)

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def to_json(self) -> str:
        """The document as indented JSON with a final newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
