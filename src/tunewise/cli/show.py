"""Results on stdout: for people, or as JSON and nothing else."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tunewise.cli.output import Output, put
from tunewise.report import format as fmt
from tunewise.report.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunewise.demo import DemoRun
    from tunewise.pipeline.audits import AuditOutcome, RowTokens
    from tunewise.pipeline.propose import Written
    from tunewise.pipeline.run import Outcome, Plan, PlannedCandidate
    from tunewise.report.comparison import Comparison
    from tunewise.workspace import Workspace

_STYLES = {
    "FINE_TUNE": "bold green",
    "DO_NOT_FINE_TUNE": "bold blue",
    "UNDECIDED": "bold yellow",
    "INVALID": "bold red",
    "error": "bold red",
    "warning": "yellow",
    "info": "dim",
}


def _print_json(value: Any) -> None:
    put(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def show_outcome(outcome: Outcome, as_json: bool) -> None:
    """A verdict."""
    if as_json:
        put(outcome.verdict.to_json())
        return
    from tunewise.report.terminal import print_verdict

    console = Output()
    print_verdict(outcome.verdict, console)
    console.print(f"\nReport: {outcome.report}", soft_wrap=True, highlight=False, markup=False)


def show_comparison(comparison: Comparison, html: Path | None, as_json: bool) -> None:
    """Studies side by side; as a page too where a file for it is named."""
    from tunewise.report.comparison import print_comparison, render_comparison
    from tunewise.workspace import write_text_atomic

    if html is not None:
        write_text_atomic(html, render_comparison(comparison))
    if as_json:
        put(comparison.model_dump_json(by_alias=True, indent=2) + "\n")
        return
    console = Output()
    print_comparison(comparison, console)
    if html is not None:
        console.print(f"Wrote {html}", soft_wrap=True, highlight=False, markup=False)


def show_demo(runs: Sequence[DemoRun], as_json: bool) -> None:
    """The demonstrations' verdicts side by side."""
    if as_json:
        _print_json({r.kind: json.loads(r.outcome.verdict.to_json()) for r in runs})
        return
    console = Output()
    table = Table(title="The same question, asked of different tasks", title_justify="left")
    for column in ("demo", "verdict", "use", "why"):
        table.add_column(column, overflow="fold", ratio=3 if column == "why" else None)
    for run in runs:
        verdict = run.outcome.verdict
        word = Text(verdict.verdict.replace("_", " "), style=_STYLES[verdict.verdict])
        table.add_row(run.kind, word, verdict.use or "–", verdict.headline)
    console.print(table)
    for run in runs:
        console.print(f"{run.kind}: {run.outcome.report}", soft_wrap=True, highlight=False)
    console.print(
        f"\nChange a study and run it again: tunewise run {runs[0].study}",
        soft_wrap=True,
        highlight=False,
    )


def show_proposal(written: Written) -> None:
    """A study file that `init` wrote, and why it looks so."""
    console = Output()
    proposal = written.proposal
    console.print(Text(f"Wrote {written.path}", style="bold"), soft_wrap=True)
    for reason in proposal.reasons:
        console.print(Text(f"  {visible(reason)}"))
    for warning in proposal.warnings:
        console.print(Text(f"  Note: {visible(warning)}", style="yellow"))
    console.print(
        f"Next: tunewise {proposal.command} {written.path}", soft_wrap=True, highlight=False
    )


def show_audit(outcome: AuditOutcome, fixed: Path | None, as_json: bool) -> None:
    """What an audit found."""
    if as_json:
        _print_json(outcome.as_dict())
        return
    console = Output()
    report = outcome.report
    rows = ", ".join(f"{fmt.count(n)} {split}" for split, n in report.rows.items())
    noun = "row" if sum(report.rows.values()) == 1 else "rows"
    console.print(f"[bold]{rows or 'no'}[/bold] {noun} in {report.seconds:.1f} s", highlight=False)
    if report.left_out:
        console.print(f"Rows that cannot be used: {fmt.count(report.left_out)}", style="red")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for finding in report.findings:
        text = Text(visible(finding.message))
        if finding.rows:
            where = fmt.places(finding.rows, max(finding.count, len(finding.rows)))
            text.append(f"\n{visible(where)}", style="dim")
        if finding.severity != "info" and finding.fix:
            text.append(f"\n{visible(finding.fix)}")
        severity = Text(finding.severity, style=_STYLES[finding.severity])
        table.add_row(severity, fmt.count(finding.count), text)
    console.print(table)
    if not report.findings:
        console.print("Nothing to complain about.")
    if outcome.mde is not None:
        console.print(f"This test set shows gains from about {fmt.points(outcome.mde)} points on.")
    if outcome.fixes is not None:
        changes = ", ".join(f"{n} {code}" for code, n in outcome.fixes.counts.items()) or "nothing"
        console.print(
            f"Wrote {fmt.plural(outcome.fixes.written, 'row')} to {fixed}; "
            f"left out or changed: {changes}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    elif outcome.mending and any(f.safe_fix for f in report.findings):
        console.print(
            f"Some of it can be mended: {outcome.mending}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def show_tokens(row: RowTokens, page: Path | None, as_json: bool) -> None:
    """One row's tokens: what is learnt in colour, what is only read dim; or where its page lies."""
    if as_json:
        _print_json(row.as_dict())
        return
    console = Output(soft_wrap=True, highlight=False, markup=False)
    colourless = console.color_system is None or console.no_color
    legend = "between ⟦ and ⟧" if colourless else "green"
    for name, tokens in row.answers:
        learnt = sum(1 for _, weight in tokens if weight)
        which = "" if len(row.answers) == 1 else f", answer {name}"
        summary = f"{visible(row.id)}{which}: {fmt.plural(len(tokens), 'token')}, {learnt} learnt"
        if page is not None:
            console.print(summary)
            continue
        console.print(_coloured(tokens, marks=colourless))
        console.print(f"\n{summary} ({legend})")
    if page is not None:
        console.print(f"Page: {page}")


def _coloured(tokens: Sequence[tuple[str, float]], *, marks: bool) -> Text:
    """Tokens as one text; ``marks`` stand around what is learnt where there is no colour."""
    text, inside = Text(), False
    for token, weight in [*tokens, ("", 0.0)]:
        if marks and bool(weight) != inside:
            inside = not inside
            text.append("⟦" if inside else "⟧")
        text.append(visible(token.replace("\n", "⏎\n")), "bold green" if weight else "dim")
    return text


def show_plan(plan: Plan, as_json: bool) -> None:
    """What a run would take."""
    if as_json:
        _print_json(asdict(plan))
        return
    console = Output()
    rows = ", ".join(f"{fmt.count(n)} {split}" for split, n in plan.rows.items())
    console.print(f"[bold]{plan.study}[/bold]: {rows} rows", highlight=False)
    console.print(f"The test shows gains from about {fmt.points(plan.mde)} points on.")
    if plan.folds is not None:
        console.print(f"Every row is tested, in {plan.folds} folds.")
    if plan.split:
        console.print(plan.split)
    table = Table()
    for column in ("candidate", "model", "requests", "prompt tokens", "USD", "training"):
        table.add_column(column)
    for one in plan.candidates:
        table.add_row(
            one.name,
            one.model or "–",
            fmt.count(one.requests) if one.requests else "–",
            fmt.compact(one.prompt_tokens) if one.prompt_tokens is not None else "–",
            fmt.money(one.usd) if one.usd is not None else "unknown",
            training_words(one),
        )
    console.print(table)
    console.print("At most; nothing was asked or trained yet.", style="dim")
    if plan.max_usd is not None:
        console.print(f"Limit: {fmt.money(plan.max_usd)}")


def training_words(one: PlannedCandidate) -> str:
    """What a candidate's training takes, all runs, in a few words."""
    if one.training is None:
        return "–"
    seconds, memory = one.training["seconds"], one.training["peak_memory_bytes"]
    parts = [fmt.duration(seconds) if seconds is not None else "unknown time"]
    if memory is not None:
        parts.append(fmt.memory(memory / 1e6))
    usd = one.training["usd"]
    parts.append(fmt.money(usd) if usd is not None else "money unknown")
    return f"{one.runs} × {', '.join(parts)}"


def show_routes() -> None:
    """Where fine-tuning can run, and what is missing for it here."""
    from tunewise.errors import TrainingError
    from tunewise.routes.base import ROUTES, open_route

    table = Table()
    for column in ("route", "ready", "what it takes, or what is missing"):
        table.add_column(column, overflow="fold")
    for name in ROUTES.names():
        try:
            route = open_route(name)
            missing = route.missing()
            takes = "models with weights here" if route.capabilities.local_weights else "by name"
            charges = ", charges money" if route.capabilities.charges_money else ""
        except TrainingError as error:  # another package's route does not keep the others away
            missing, takes, charges = f"{error.message}. {error.hint or ''}", "", ""
        table.add_row(name, "no" if missing else "yes", missing or f"{takes}{charges}")
    Output().print(table)


def show_clean(workspace: Workspace, *, keep: int, delete: bool, everything: bool) -> None:
    """What lies in the workspace, and what can go."""
    from tunewise.workspace import folder_size, remove_folder

    console = Output(soft_wrap=True, highlight=False)
    console.print(f"{workspace.root}: {fmt.memory(folder_size(workspace.root) / 1e6)}")
    by_name: dict[str, list[Path]] = {}
    for study in workspace.studies():
        by_name.setdefault(study.root.parent.name, []).append(study.root)
    old = [path for paths in by_name.values() for path in paths[: max(0, len(paths) - keep)]]
    kept = workspace.kept()
    going = [*old, *(kept if everything else ())]
    for path in [*old, *kept]:
        what = "old run" if path in old else "kept for reruns"
        size = fmt.memory(folder_size(path) / 1e6)
        console.print(f"  {path.relative_to(workspace.root)}  {size}  ({what})")
    if not going:
        console.print("No old runs to remove.")
    elif delete:
        for path in going:
            # Not under the feet of a run; answers belong to all studies.
            of_all = path.parent == workspace.root
            names = workspace.names() if of_all else [path.parent.name]
            with contextlib.ExitStack() as locks:
                for name in names:
                    locks.enter_context(workspace.lock(name))
                remove_folder(path)
        console.print(f"Removed {fmt.plural(len(going), 'folder')}.")
    else:
        console.print("Remove them: tunewise clean --yes" + (" --all" if everything else ""))
    if kept and not everything:
        console.print(
            "Training runs, answers and unpacked models are kept, so that a rerun trains, asks and "
            "brings nothing twice; --all removes them too."
        )
