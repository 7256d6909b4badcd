"""The verdicts that the report's tests draw: the four words, and one full of hostile text."""

from __future__ import annotations

import math

from tunewise.report.document import (
    Answer,
    Audit,
    AuditFinding,
    CandidateRow,
    Cost,
    CostPoint,
    CurvePoint,
    ForgettingResult,
    ForgettingSuite,
    LearningCurve,
    Primary,
    StageTime,
    TestSet,
    TrainingRun,
    Verdict,
    WorkedAnswer,
    WorkedExample,
)

TestSet.__test__ = False  # type: ignore[attr-defined]  # a model; pytest would collect it


def fine_tune() -> Verdict:
    """FINE_TUNE for gain and cost, everything measured and every price known."""
    return Verdict(
        tunewise="0.1.0",
        created="2026-11-04T09:30:12Z",
        study="recipe-assistant",
        study_hash="9f2c4e17ab30",
        use_case="Extract the generic ingredients from a recipe, for shopping lists.",
        metric="list_f1",
        ended_at="G5",
        verdict="FINE_TUNE",
        use="fine_tuned",
        because=["gain", "cost"],
        headline=(
            "Fine-tuning scores 6.3 points more than the best prompt (95 % interval +3.4 to "
            "+9.2, asked for 2.0) and saves about $412 a month."
        ),
        next_steps=[
            "Serve it: tunewise serve recipe-assistant",
            "Label about 500 rows a year and retrain when the base model retires.",
        ],
        test=TestSet(n=400, sha256="4b" * 32, opened=1, left_out=3),
        primary=Primary(
            with_="fine_tuned",
            without="few_shot",
            gain=6.3,
            interval=(3.42, 9.18),
            p_value=0.00002,
            method="bca_bootstrap",
            mde=4.1,
            mde_decide=6.1,
            n=400,
            seeds=3,
            seed_sd=0.7,
            discordance=0.21,
            minimal_gain=2.0,
            gain_without_left_out=6.1,
            notes=["Rows treated as independent; hidden grouping would widen the interval."],
        ),
        candidates=[
            CandidateRow(
                name="zero_shot",
                kind="zero_shot",
                model="SmolLM2-135M-Instruct",
                measured_on="test",
                score=41.2,
                interval=(37.5, 44.9),
                dev_score=40.8,
                n=400,
                failures=2,
                tokens_per_request=512,
                prompt_tokens=455,
                completion_tokens=57,
                usd_per_1k_requests=0.61,
                latency_ms=640,
                latency_p95_ms=1210,
            ),
            CandidateRow(
                name="few_shot",
                kind="few_shot",
                model="SmolLM2-135M-Instruct",
                measured_on="test",
                score=68.4,
                interval=(65.1, 71.7),
                dev_score=69.0,
                n=400,
                tokens_per_request=2304,
                prompt_tokens=2250,
                completion_tokens=54,
                usd_per_1k_requests=4.82,
                latency_ms=1480,
                latency_p95_ms=2350,
                chosen={"k": 8, "selection": "nearest", "order": [4, 1, 7]},
            ),
            CandidateRow(
                name="classifier",
                kind="classifier",
                measured_on="test",
                score=52.0,
                interval=(48.2, 55.8),
                n=400,
                usd_per_1k_requests=0.002,
                latency_ms=0.4,
                latency_p95_ms=0.6,
                note="Only labels seen in training can be answered.",
            ),
            CandidateRow(
                name="fine_tuned",
                kind="fine_tuned",
                fine_tuned=True,
                model="SmolLM2-135M-Instruct + LoRA",
                measured_on="test",
                score=74.7,
                interval=(71.6, 77.8),
                dev_score=75.3,
                n=400,
                tokens_per_request=421,
                prompt_tokens=368,
                completion_tokens=53,
                usd_per_1k_requests=0.49,
                latency_ms=410,
                latency_p95_ms=760,
                figures={"exact_match": 33.5},
                chosen={"learning_rate": 0.0002, "epoch": 3},
            ),
        ],
        cost=Cost(
            status="saves",
            requests_per_month=100_000,
            horizon_months=12,
            saving_per_month=412,
            saving_interval=(381, 440),
            fixed_usd=252,
            monthly_usd=0,
            usd_per_request_with=0.00049,
            usd_per_request_without=0.00482,
            break_even_requests=4850,
            break_even_interval=(4500, 5300),
            break_even_kind="above",
            payback_months=0.6,
            prices_date="2026-10-01",
            prices_source="prices.yaml",
            curve=[
                CostPoint(requests_per_month=q, with_usd=21 + 0.00049 * q, without_usd=0.00482 * q)
                for q in (10 ** (2 + i / 5) for i in range(21))
            ],
            spent_usd=3.18,
        ),
        forgetting=ForgettingResult(
            status="passed",
            margin=3.0,
            suites=[
                ForgettingSuite(
                    name="general",
                    n=720,
                    base=61.4,
                    tuned=60.8,
                    change=-0.6,
                    lower=-1.9,
                    upper=0.7,
                    status="passed",
                ),
                ForgettingSuite(
                    name="must_pass", n=40, base=100, tuned=100, change=0, status="passed"
                ),
            ],
        ),
        learning_curve=LearningCurve(
            points=[
                CurvePoint(rows=100, score=52.1, interval=(48.0, 56.2)),
                CurvePoint(rows=250, score=61.0, interval=(57.2, 64.8)),
                CurvePoint(rows=500, score=67.2, interval=(63.6, 70.8)),
                CurvePoint(rows=1000, score=71.9, interval=(68.5, 75.3)),
                CurvePoint(rows=2000, score=75.3, interval=(72.1, 78.5)),
            ],
            fitted=[
                CurvePoint(rows=n, score=86 - 130 * n**-0.3)
                for n in (100, 200, 400, 800, 1600, 3200, 4000)
            ],
            gain_from_doubling=2.6,
            gain_interval=(1.1, 3.9),
            more_data=False,
        ),
        audit=Audit(
            rows={"train": 2000, "dev": 300, "test": 400},
            findings=[
                AuditFinding(
                    code="near_duplicate",
                    severity="warning",
                    count=3,
                    message="3 test rows are near-duplicates of training rows; left out.",
                    rows=["r-17", "r-202", "r-390"],
                    fix="Remove them from the test file.",
                ),
                AuditFinding(
                    code="personal_data",
                    severity="info",
                    count=2,
                    message="2 rows look as if they hold an e-mail address.",
                    rows=["r-5", "r-44"],
                ),
            ],
            split="by hash of the row, near-duplicates kept on one side",
            prompt_tokens_median=366,
            answer_tokens_median=51,
            mde=4.1,
        ),
        checklist=[
            Answer(
                group="use_case",
                question="Is the use case clear and the outcome measured?",
                answer="list_f1 on 400 test rows, a gain of 2.0 points asked for beforehand.",
                ok=True,
            ),
            Answer(
                group="alternatives",
                question="Were prompting, retrieval and a classifier tried first?",
                answer="Zero-shot, 8 shots chosen on dev, and a classifier.",
                ok=True,
            ),
            Answer(
                group="alternatives",
                question="Was retrieval measured?",
                answer="No documents were given.",
                ok=False,
            ),
            Answer(
                group="costs",
                question="Can the model be tuned?",
                answer="Yes, on this machine with LoRA.",
                ok=True,
            ),
            Answer(
                group="costs", question="Compute", answer="24 minutes on 2 CPU cores, forecast 21."
            ),
            Answer(group="costs", question="Data", answer="2,000 labelled rows at hand.", ok=True),
            Answer(group="benefits", question="Quality", answer="+6.3 points.", ok=True),
            Answer(
                group="benefits",
                question="Fewer tokens a request",
                answer="421 in place of 2,304.",
                ok=True,
            ),
            Answer(question="Can it be used again for other tasks?", answer="Not measured."),
        ],
        examples=[
            WorkedExample(
                id="r-88",
                input="2 large free-range eggs, 1 tbsp extra virgin olive oil, sea salt",
                wanted='["eggs", "olive oil", "salt"]',
                answers=[
                    WorkedAnswer(
                        candidate="few_shot",
                        text='["free-range eggs", "olive oil", "sea salt"]',
                        score=33.3,
                    ),
                    WorkedAnswer(
                        candidate="fine_tuned", text='["eggs", "olive oil", "salt"]', score=100
                    ),
                ],
            ),
            WorkedExample(
                id="r-140",
                input="1 knob of butter; a splash of Worcestershire sauce. " * 12,
                wanted='["butter", "worcestershire sauce"]',
                answers=[
                    WorkedAnswer(
                        candidate="few_shot",
                        text='["butter", "worcestershire sauce"]',
                        score=100,
                    ),
                    WorkedAnswer(candidate="fine_tuned", text='["butter"]', score=66.7),
                ],
            ),
        ],
        training=[
            TrainingRun(
                candidate="fine_tuned",
                route="local",
                method="sft",
                model="SmolLM2-135M-Instruct",
                seed=seed,
                learning_rate=0.0002,
                epochs=3,
                steps=375,
                tokens=2_530_000,
                seconds=1440 + 31 * seed,
                forecast_seconds=1260,
                peak_memory_mb=2410,
                forecast_memory_mb=2700,
                dev_score=75.3 - 0.6 * seed,
                tuned_model=f"adapters/sft-{seed}",
                train_loss=[
                    (s, 0.35 + 1.9 * math.exp(-s / 70) + 0.05 * math.sin(s + seed))
                    for s in range(5, 376, 10)
                ],
                dev_loss=[(s, 0.48 + 1.7 * math.exp(-s / 75)) for s in range(25, 376, 50)],
            )
            for seed in (0, 1, 2)
        ],
        stages=[
            StageTime(stage="audit", gate="G0", seconds=2.1, cached=True),
            StageTime(stage="baselines", gate="G1", seconds=312.4),
            StageTime(stage="pilot", gate="G2", seconds=240),
            StageTime(stage="train", gate="G3", seconds=4413),
            StageTime(stage="test", gate="G5", seconds=188),
        ],
        reproducibility={
            "data sha256": "d0" * 32,
            "study sha256": "9f2c4e17ab30" * 5,
            "model revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
            "torch": "2.13.0",
            "seed": "0",
            "hardware": "2 cores, 24 GB, no GPU",
        },
        warnings=["The model's licence was not checked."],
    )


def do_not_fine_tune() -> Verdict:
    """DO_NOT_FINE_TUNE, use rag; no prices given, so the costs are unknown."""
    return Verdict(
        tunewise="0.1.0",
        created="2026-11-04T10:02:00Z",
        study="wiki-questions",
        study_hash="77aa10bb21cc",
        use_case="Answer questions from our handbook.",
        metric="token_f1",
        ended_at="G5",
        verdict="DO_NOT_FINE_TUNE",
        use="rag",
        because=["no_gain"],
        headline=(
            "Retrieval is as good: fine-tuning gains 0.4 points (95 % interval −1.1 "
            "to +1.96, asked for 2.0)."
        ),
        next_steps=["Ship rag.", "Improve retrieval first: recall@5 is 81 %."],
        test=TestSet(n=900, clusters=48, sha256="ab" * 32, opened=2),
        primary=Primary(
            with_="fine_tuned+rag",
            without="rag",
            gain=0.4,
            interval=(-1.12, 1.96),
            p_value=0.61,
            method="clustered t, 46.2 degrees of freedom",
            mde=2.2,
            mde_decide=4.2,
            n=900,
            clusters=48,
            seeds=1,
            minimal_gain=2.0,
        ),
        candidates=[
            CandidateRow(
                name=name,
                kind=kind,
                fine_tuned=kind.startswith("fine"),
                model="tunewise/tiny",
                measured_on="test",
                score=score,
                interval=(score - 2.9, score + 2.9),
                n=900,
                tokens_per_request=tokens,
                latency_ms=latency,
            )
            for name, kind, score, tokens, latency in (
                ("zero_shot", "zero_shot", 12.3, 61.0, 88.0),
                ("few_shot", "few_shot", 18.8, 644.0, 312.0),
                ("rag", "rag", 71.5, 803.0, 390.0),
                ("fine_tuned", "fine_tuned", 30.2, 60.0, 90.0),
                ("fine_tuned+rag", "fine_tuned+rag", 71.9, 801.0, 392.0),
            )
        ],
        cost=Cost(status="unknown", reason="no prices and no traffic were given"),
        forgetting=ForgettingResult(
            status="unmeasured", reason="the base model answers only 4 % of the suite"
        ),
        learning_curve=LearningCurve(
            points=[CurvePoint(rows=500, score=70.9), CurvePoint(rows=2000, score=71.6)],
            reason="2 sizes were measured; a fit needs 4",
        ),
        audit=Audit(rows={"train": 4000, "dev": 300, "test": 900}, mde=2.2),
        warnings=["This is look 2 at these test rows."],
        stages=[StageTime(stage="audit", gate="G0", seconds=9.2)],
        reproducibility={"seed": "0"},
    )


def undecided() -> Verdict:
    """UNDECIDED: 20 test rows, more labels needed, a best baseline for now."""
    return Verdict(
        tunewise="0.1.0",
        created="2026-11-04T10:30:00Z",
        study="tickets",
        study_hash="0123456789ab",
        metric="accuracy",
        ended_at="G5",
        verdict="UNDECIDED",
        use="few_shot",
        use_for_now=True,
        because=["underpowered"],
        headline=(
            "Undecided: 20 test rows cannot tell a gain of 2.0 points from none; about 1,210 would."
        ),
        next_steps=["Label about 1,190 more test rows, then run again."],
        test=TestSet(n=20, sha256="cd" * 32, opened=1),
        primary=Primary(
            with_="fine_tuned",
            without="few_shot",
            gain=10.0,
            interval=(-12.7, 31.5),
            p_value=0.375,
            method="Newcombe paired interval; McNemar mid-p",
            mde=28.0,
            mde_decide=30.0,
            n=20,
            seeds=1,
            discordance=0.2,
            minimal_gain=2.0,
            labels_needed=1210,
            labels_chance=0.8,
        ),
        candidates=[
            CandidateRow(
                name="few_shot",
                kind="few_shot",
                measured_on="test",
                score=75.0,
                interval=(53.1, 88.8),
                n=20,
                tokens_per_request=410,
                usd_per_1k_requests=0.31,
                latency_ms=120,
            ),
            CandidateRow(
                name="fine_tuned",
                kind="fine_tuned",
                fine_tuned=True,
                measured_on="test",
                score=85.0,
                interval=(64.0, 94.8),
                n=20,
                failures=1,
                tokens_per_request=72,
                usd_per_1k_requests=0.3,
                latency_ms=60,
            ),
        ],
        cost=Cost(
            status="unclear",
            requests_per_month=1000,
            horizon_months=12,
            saving_per_month=-0.2,
            saving_interval=(-1.5, 1.1),
            break_even_kind="unbounded",
            curve=[
                CostPoint(requests_per_month=q, with_usd=0.21 + 0.0003 * q, without_usd=0.00031 * q)
                for q in (10 ** (2 + i / 5) for i in range(11))
            ],
        ),
        forgetting=ForgettingResult(
            status="failed",
            margin=3.0,
            suites=[
                ForgettingSuite(
                    name="general",
                    n=720,
                    base=61.4,
                    tuned=49.0,
                    change=-12.4,
                    lower=-14.8,
                    upper=-10.0,
                    status="failed",
                ),
                ForgettingSuite(
                    name="arithmetic",
                    n=60,
                    base=40.0,
                    tuned=39.0,
                    change=-1.0,
                    lower=-6.5,
                    upper=4.5,
                    status="unproven",
                ),
                ForgettingSuite(name="neighbours", n=12),
            ],
            lost_rows=["m-3", "m-9"],
        ),
    )


def invalid() -> Verdict:
    """INVALID: a leak found at G0, nearly everything null."""
    return Verdict(
        tunewise="0.1.0",
        created="2026-11-04T11:00:00Z",
        study="leaky",
        study_hash="feedfeedfeed",
        metric="exact_match",
        ended_at="G0",
        verdict="INVALID",
        because=["leak"],
        headline="31 of 200 test rows (15.5 %) stand in the training data, word for word.",
        next_steps=["Remove the 31 rows from the training file and run again."],
        audit=Audit(
            rows={"train": 800, "dev": 100, "test": 200},
            findings=[
                AuditFinding(
                    code="leak_exact",
                    severity="error",
                    count=31,
                    message="31 test rows are equal to training rows.",
                    rows=[f"test-{i}" for i in range(31)],
                    fix="tunewise audit data.jsonl --fix clean.jsonl removes them.",
                )
            ],
        ),
    )


HOSTILE = (
    "<script>document.title='owned'</script></style></title><img src=x onerror=alert(1)>"
    "<link rel=stylesheet href=https://example.org/x.css> {{ 7 * 7 }} [red]red[/red] "
    "\x1b[31mred\x1b[0m \u202egnp.exe\u2066 \x00 zero\u200bwidth 'single' \"double\" & "
)


def hostile() -> Verdict:
    """``fine_tune`` with every free text hostile, very long words and a right-to-left script."""
    verdict = fine_tune()
    long = HOSTILE + "x" * 10_000
    value = verdict.model_dump(by_alias=True)
    for key in ("study", "use_case", "metric", "headline", "created", "study_hash", "tunewise"):
        value[key] = HOSTILE
    value["because"] = [HOSTILE]
    value["warnings"] = value["next_steps"] = [HOSTILE, long]
    value["reproducibility"] = {HOSTILE: long}
    names = {c["name"]: f"{c['name']}{HOSTILE}" for c in value["candidates"]}
    value["use"] = names["fine_tuned"]
    value["primary"].update(
        {"with": names["fine_tuned"], "without": names["few_shot"], "method": HOSTILE}
    )
    for c in value["candidates"]:
        c.update(name=names[c["name"]], model="y" * 300, note=HOSTILE, chosen={HOSTILE: [long]})
    part = {"n": 9, "with": 50.0, "without": 60.0, "gain": -10.0, "interval": (-19.0, -1.0)}
    value["breakdown"] = [
        part | {"kind": "slice", "name": HOSTILE, "value": long, "p_adjusted": 0.0, "worse": True},
        part | {"kind": "metric", "name": long, "p_adjusted": 0.5},
    ]
    value["cost"].update(prices_source=HOSTILE, prices_date=HOSTILE)
    value["forgetting"].update(reason=HOSTILE, lost_rows=[HOSTILE] * 50)
    value["forgetting"]["suites"][0]["name"] = HOSTILE
    for f in value["audit"]["findings"]:
        f.update(code=HOSTILE, message=long, rows=[long], fix=HOSTILE)
    for a in value["checklist"]:
        a.update(question=HOSTILE, answer=long)
    for run in value["training"]:
        run.update(candidate=HOSTILE, model=long, tuned_model=HOSTILE)
    for s in value["stages"]:
        s.update(stage=HOSTILE, gate=HOSTILE)
    value["examples"] = [
        {
            "id": HOSTILE,
            "input": long,
            "wanted": "\u05e9\u05dc\u05d5\u05dd " * 5 + HOSTILE,
            "answers": [
                {"candidate": HOSTILE, "text": text, "score": 50.0}
                for text in (
                    HOSTILE,
                    long,
                    "z" * 2_000_000,
                    "",
                    "\n" * 500,
                    "e" + "\u0301" * 3000,
                    "\ud83d",
                )
            ],
        }
    ]
    return Verdict.model_validate(value)


ALL = [fine_tune, do_not_fine_tune, undecided, invalid]
