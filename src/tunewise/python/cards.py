"""What each result shows in a notebook, as a card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.cli.show import training_words
from tunewise.report import format as fmt
from tunewise.report.card import Card, Item, Table
from tunewise.report.charts import loss_plot

if TYPE_CHECKING:
    from tunewise.pipeline.alone import Tuned
    from tunewise.pipeline.audits import AuditOutcome
    from tunewise.pipeline.propose import Written
    from tunewise.pipeline.run import Plan
    from tunewise.study.loading import LoadedStudy

_LONGEST_VALUE = 400


def audit_card(outcome: AuditOutcome, fixed: Path | None) -> Card:
    """Rows, and each finding with its severity, count, lines and what to do."""
    report = outcome.report
    figures = [(f"{split} rows", fmt.count(n), "") for split, n in report.rows.items()]
    if report.left_out:
        figures.append(("cannot be used", fmt.count(report.left_out), "rows"))
    counts = {
        severity: sum(f.severity == severity for f in report.findings)
        for severity in ("error", "warning", "info")
    }
    found = ", ".join(
        fmt.plural(n, "remark" if severity == "info" else severity)
        for severity, n in counts.items()
        if n
    )
    items = [
        Item(
            f.message,
            f.severity,
            fmt.plural(f.count, "row"),
            fmt.places(f.rows, max(f.count, len(f.rows))) if f.rows else "",
            f.fix if f.severity != "info" else "",
        )
        for f in report.findings
    ]
    lines = []
    if outcome.mde is not None:
        lines.append(f"This test set shows gains from about {fmt.points(outcome.mde)} points on.")
    if outcome.fixes is not None:
        lines.append(f"Wrote {fmt.plural(outcome.fixes.written, 'row')} to {fixed}.")
    elif outcome.mending and any(f.safe_fix for f in report.findings):
        lines.append(f"Some of it can be mended: {outcome.mending}")
    return Card("Audit", found or "Nothing to complain about", "", figures, items, lines=lines)


def plan_card(plan: Plan) -> Card:
    """Rows, and what each candidate would take."""
    rows = [
        (
            one.name,
            one.model or fmt.UNKNOWN,
            fmt.count(one.requests) if one.requests else fmt.UNKNOWN,
            fmt.UNKNOWN if one.prompt_tokens is None else fmt.compact(one.prompt_tokens),
            "unknown" if one.usd is None else fmt.money(one.usd),
            training_words(one),
        )
        for one in plan.candidates
    ]
    heads = ("candidate", "model", "requests", "prompt tokens", "money", "training")
    lines = ["At most; nothing was asked or trained yet."]
    if plan.max_usd is not None:
        lines.append(f"Limit: {fmt.money(plan.max_usd)}")
    return Card(
        "Forecast",
        plan.study,
        f"The test shows gains from about {fmt.points(plan.mde)} points on.",
        [(f"{split} rows", fmt.count(n), "") for split, n in plan.rows.items()],
        table=Table(heads, rows, frozenset({2, 3, 4})),
        lines=lines,
    )


def training_card(tuned: Tuned) -> Card:
    """What was trained, its losses as a curve, and where it lies."""
    run = tuned.run
    figures = [("steps", fmt.count(run.steps), ""), ("time", fmt.duration(run.seconds), "")]
    if run.peak_memory_mb is not None:
        figures.append(("memory", fmt.memory(run.peak_memory_mb), "at its peak"))
    last = (("dev loss", run.dev_loss), ("train loss", run.train_loss))
    for name, losses in last:
        if losses:
            low = min(v for _, v in losses) if name == "dev loss" else losses[-1][1]
            figures.append((name, f"{low:.3f}", "lowest" if name == "dev loss" else "last step"))
    left_out = sum(tuned.left_out.values())
    facts = [("model", run.model)]
    if run.learning_rate is not None:
        facts.append(("learning rate", f"{run.learning_rate:g}"))
    facts += [
        ("rows learnt from", fmt.count(tuned.rows["train"] - left_out)),
        ("dev rows", fmt.count(tuned.rows["dev"])),
    ]
    if tuned.rows["test"]:
        facts.append(("test rows", f"{fmt.count(tuned.rows['test'])}, which stayed out"))
    facts += [
        (f"left out: {why.replace('_', ' ')}", fmt.count(n))
        for why, n in tuned.left_out.items()
        if n
    ]
    facts += [(name.replace("_", " "), f"{value:.4g}") for name, value in tuned.figures.items()]
    facts.append(("adapter" if tuned.adapter else "tuned model", str(run.tuned_model)))
    tried = [
        (f"{t['learning_rate']:g}", "failed" if t["dev_loss"] is None else f"{t['dev_loss']:.3f}")
        for t in tuned.tried
    ]
    return Card(
        "Training",
        f"{run.method}, seed {run.seed}",
        "",
        figures,
        table=Table(("learning rate tried", "dev loss"), tried, frozenset({1})) if tried else None,
        plot=loss_plot(run),
        plot_label="loss against steps",
        facts=facts,
    )


def proposal_card(written: Written) -> Card:
    """Where the study lies, and why it looks so."""
    items = [Item(text) for text in written.proposal.reasons]
    items += [Item(text, "warning") for text in written.proposal.warnings]
    return Card(
        "Study file",
        f"Wrote {written.path}",
        items=items,
        facts=study_facts(written.proposal.study),
    )


def study_card(loaded: LoadedStudy) -> Card:
    """What the study says, one key a line."""
    facts = [fact for fact in study_facts(loaded.raw) if fact[0] not in ("name", "use_case")]
    return Card("Study", loaded.study.name, loaded.study.use_case, facts=facts)


def study_facts(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys as ``--set`` takes them, with their values as a study file has them."""
    return [(key, _short(value)) for key, value in _flat(raw, "")]


def _flat(value: Mapping[str, Any], start: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{start}{key}.")
        else:
            yield f"{start}{key}", inner


def _short(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(x, str | int | float) for x in value):
        text = ", ".join(map(str, value)) or "[]"
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
