"""The commands. Each imports what it needs when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunewise import __version__
from tunewise.cli.autotrain import AUTOTRAIN_EXAMPLE, CONTEXT, autotrain
from tunewise.cli.convert import CONVERT_EXAMPLE, convert
from tunewise.cli.options import (
    AllowCodeOption,
    ColumnsOption,
    DocumentsOption,
    EncodingOption,
    JsonOption,
    QuietOption,
    SetOption,
    WorkspaceOption,
    columns_of,
    reporter_of,
)
from tunewise.cli.serve import serve, server
from tunewise.cli.train import TRAIN_EXAMPLE, train

app = typer.Typer(
    name="tunewise",
    help="Should I fine-tune a language model for this? Measure it, then do it.",
    epilog="Start here: tunewise demo   ·   Your own data: tunewise init rows.jsonl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich's costs a quarter of a second at the door
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(server, name="server")

GATE_EXIT_CODES = {"FINE_TUNE": 0, "DO_NOT_FINE_TUNE": 10, "UNDECIDED": 11, "INVALID": 12}

StudyArgument = Annotated[Path, typer.Argument(help="The study file (YAML).", metavar="STUDY")]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"tunewise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    pass


@app.command(epilog="Example: tunewise demo pattern --dir try-it")
def demo(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            help="format, knowledge, pattern; all three by default. Or real: on a real model, "
            "which it brings (90 to 270 MB).",
            metavar="[KIND]…",
        ),
    ] = None,
    directory: Annotated[
        Path, typer.Option("--dir", help="Where to write the data and studies.")
    ] = Path("tunewise-demo"),
    seed: Annotated[int, typer.Option(help="Of the data generator.")] = 0,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="real: bring the model without asking.")
    ] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Three studies offline; each another way wins.

    Fine-tuning wins one, retrieval another, and shown examples the third. `real` is a study of
    support mails on SmolLM2-135M, about eight minutes on two cores.
    """
    from tunewise.cli.show import show_demo
    from tunewise.demo import REAL, run_demo

    if REAL in (kinds or []):
        from tunewise.cli.real import real_demo

        real_demo(kinds or [], directory, seed, yes, json_output, reporter_of(quiet))
        return

    show_demo(run_demo(kinds or [], directory, seed, reporter_of(quiet)), json_output)


@app.command(epilog="Example: tunewise init rows.jsonl   then: tunewise run study.yaml")
def init(
    data: Annotated[str, typer.Argument(help="File, folder or hub data set with examples.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The study file to write.")] = Path(
        "study.yaml"
    ),
    model: Annotated[
        str | None,
        typer.Option("--model", help="What answers and is tuned: a hub id, a folder, openai:…"),
    ] = None,
    columns: ColumnsOption = None,
    encoding: EncodingOption = None,
    documents: DocumentsOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Look at the data and write a study file, with reasons."""
    from tunewise.cli.show import show_proposal
    from tunewise.pipeline.propose import write_study

    written = write_study(
        data,
        out,
        overwrite=force,
        columns=columns_of(columns),
        encoding=encoding,
        documents=documents,
        model=model,
    )
    show_proposal(written)


@app.command(epilog="Example: tunewise audit train.jsonl --test test.jsonl --fix clean.jsonl")
def audit(
    data: Annotated[
        str,
        typer.Argument(
            help="File, folder or hub data set with examples; or a study.", metavar="ROWS|STUDY"
        ),
    ],
    test: Annotated[
        str | None, typer.Option("--test", help="Test rows: look for leaks between the two.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="OUT", help="Write the rows, safely mended.")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens",
            metavar="ROW",
            help="Show the tokens of one row, by number or id: which are learnt?",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Check what its template and tokenizer make of the rows. [--tokens: tiny]",
        ),
    ] = None,
    trained_rows: Annotated[
        str | None,
        typer.Option(
            "--trained-rows",
            help="answers, all_assistant or all, as `fine_tune.trained_rows`. [default: answers]",
        ),
    ] = None,
    columns: ColumnsOption = None,
    encoding: EncodingOption = None,
    documents: DocumentsOption = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="With --tokens: write them as a page."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Look for broken rows, leaks, duplicates, personal data."""
    from tunewise.cli.show import show_audit, show_tokens
    from tunewise.pipeline.audits import audit_files, row_tokens, write_token_page
    from tunewise.pipeline.sources import sources_of

    if tokens is not None and (test is not None or fix is not None):
        other = "--test" if fix is None else "--fix"
        raise typer.BadParameter("goes without --tokens ROW", param_hint=other)
    if html is not None and tokens is None:
        raise typer.BadParameter("goes with --tokens ROW", param_hint="--html")
    sources = sources_of(
        data,
        test=test,
        columns=columns_of(columns),
        encoding=encoding,
        documents=documents,
        model=model,
        trained_rows=trained_rows,
    )
    if tokens is not None:
        row = row_tokens(sources, tokens)
        if html is not None:
            write_token_page(row, sources.tokenizer, html)
        show_tokens(row, html, json_output)
        return
    outcome = audit_files(sources, fix=fix, reporter=reporter_of(json_output))
    show_audit(outcome, fix, json_output)


@app.command(epilog="Example: tunewise run study.yaml --set effort=quick")
def run(
    study: StudyArgument,
    overrides: SetOption = None,
    workspace: WorkspaceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and its forecast; run nothing.")
    ] = False,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="Exit with 0 FINE_TUNE, 10 DO_NOT_FINE_TUNE, 11 UNDECIDED or 12 INVALID.",
        ),
    ] = False,
    allow_code: AllowCodeOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """From the study file to a verdict.

    A stopped run goes on where it was.
    """
    from tunewise.cli.show import show_outcome, show_plan
    from tunewise.pipeline.run import plan_study, run_study
    from tunewise.study.loading import load_study
    from tunewise.workspace import Workspace

    loaded = load_study(study, overrides=overrides or [])
    reporter = reporter_of(quiet or json_output)
    if dry_run:
        plan = plan_study(loaded, Workspace(workspace), reporter, allow_code=allow_code)
        show_plan(plan, json_output)
        return
    outcome = run_study(loaded, Workspace(workspace), reporter, allow_code=allow_code)
    show_outcome(outcome, json_output)
    if gate:
        raise typer.Exit(GATE_EXIT_CODES[outcome.verdict.verdict])


@app.command(epilog="Example: tunewise report study.yaml --json")
def report(
    study: StudyArgument,
    overrides: SetOption = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compute the verdict again from disk, offline.

    Writes verdict.json and the report anew; nothing is asked or trained.
    """
    from tunewise.cli.show import show_outcome
    from tunewise.pipeline.run import report_study
    from tunewise.study.loading import load_study
    from tunewise.workspace import Workspace

    loaded = load_study(study, overrides=overrides or [])
    show_outcome(report_study(loaded, Workspace(workspace)), json_output)


@app.command(epilog="Example: tunewise compare small.yaml large.yaml --html compare.html")
def compare(
    studies: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more: study files that were run, verdict.json files, or their folders.",
            metavar="STUDY…",
        ),
    ],
    workspace: WorkspaceOption = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write them as a page.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Studies side by side: verdicts, scores, costs, what differs.

    Computed from disk, offline.
    """
    from tunewise.cli.show import show_comparison
    from tunewise.pipeline.compare import compare_studies
    from tunewise.workspace import Workspace

    show_comparison(compare_studies(studies, Workspace(workspace)), html, json_output)


@app.command(epilog="Example: tunewise forecast study.yaml --explain")
def forecast(
    study: StudyArgument,
    overrides: SetOption = None,
    workspace: WorkspaceOption = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="What training would use, each default with its reason."),
    ] = False,
    allow_code: AllowCodeOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """What a run would take: time, memory, money."""
    if explain:
        from tunewise.cli.show_training import show_settings
        from tunewise.pipeline.alone import explain_study
        from tunewise.study.loading import load_study
        from tunewise.workspace import Workspace

        loaded = load_study(study, overrides=overrides or [])
        reporter = reporter_of(quiet or json_output)
        found = explain_study(loaded, Workspace(workspace), reporter, alone=False)
        show_settings(found, json_output)
        return
    run(
        study,
        overrides,
        workspace,
        dry_run=True,
        allow_code=allow_code,
        json_output=json_output,
        quiet=quiet,
    )


app.command(epilog=f"Example: {TRAIN_EXAMPLE}")(train)
app.command(
    epilog=f"Example: {AUTOTRAIN_EXAMPLE}", context_settings=CONTEXT, add_help_option=False
)(autotrain)
app.command(epilog=f"Example: {CONVERT_EXAMPLE}")(convert)


@app.command(epilog='Example: tunewise chat tunewise/tiny --message "Hello"')
def chat(
    model: Annotated[str, typer.Argument(help="tunewise/tiny, a folder, a hub id, openai:MODEL.")],
    adapter: Annotated[
        Path | None, typer.Option("--adapter", help="A tuned adapter on top of it.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="Instructions.")] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask once and leave.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 256,
) -> None:
    """Talk to a model, tuned or not."""
    from tunewise.cli.talk import talk

    talk(model, adapter, system, message, max_tokens)


@app.command(epilog='Example: tunewise use study.yaml "Where is my parcel?"')
def use(
    study: StudyArgument,
    question: Annotated[
        str | None,
        typer.Argument(help="Asked once; without it, lines from stdin.", metavar="[QUESTION]"),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option("--candidate", help="By default the one that the verdict names.")
    ] = None,
    overrides: SetOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Ask the winner of a study, exactly as the study asked it.

    Prompt, examples, retrieval, classifier, tuned weights: all that was chosen. Piped text is one
    question; at a terminal lines are a conversation.
    """
    from tunewise.cli.talk import use_candidate
    from tunewise.study.loading import load_study
    from tunewise.workspace import Workspace

    loaded = load_study(study, overrides=overrides or [])
    use_candidate(loaded, Workspace(workspace), candidate, question)


@app.command(epilog="Example: tunewise export study.yaml --out winner")
def export(
    study: StudyArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    candidate: Annotated[
        str | None, typer.Option("--candidate", help="By default the one that the verdict names.")
    ] = None,
    overrides: SetOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write what won as files that answer by themselves.

    The prompt with its tuned weights, or a classifier or constant answer that needs only Python.
    """
    from tunewise.cli.output import put
    from tunewise.pipeline.export import export_candidate
    from tunewise.pipeline.reporter import SilentReporter
    from tunewise.pipeline.use import in_use
    from tunewise.study.loading import load_study
    from tunewise.workspace import Workspace

    loaded = load_study(study, overrides=overrides or [])
    with in_use(loaded, Workspace(workspace), SilentReporter(), candidate) as used:
        for path in export_candidate(used, out):
            put(f"Wrote {path}\n")


app.command(epilog="Example: tunewise serve --port 8900")(serve)


@app.command(epilog="Example: tunewise routes")
def routes() -> None:
    """Where fine-tuning can run, and what is missing for it."""
    from tunewise.cli.show import show_routes

    show_routes()


@app.command(epilog="Example: tunewise doctor")
def doctor(workspace: WorkspaceOption = None, json_output: JsonOption = False) -> None:
    """Is this machine ready? Releases, hardware, sandbox, disk.

    Exits with 1 where something must be mended before studies can run.
    """
    from tunewise.cli.show_doctor import show_checks
    from tunewise.doctor import State, examine
    from tunewise.workspace import Workspace

    checks = examine(Workspace(workspace))
    show_checks(checks, json_output)
    if any(check.state is State.FAILED for check in checks):
        raise typer.Exit(1)


@app.command(epilog="Example: tunewise schema > study.schema.json")
def schema(
    verdict: Annotated[
        bool, typer.Option("--verdict", help="Of verdict.json, not of the study file.")
    ] = False,
) -> None:
    """Print the JSON Schema of the study file, for editors."""
    import json

    from tunewise.cli.output import put

    if verdict:
        from tunewise.report.schema import json_schema
    else:
        from tunewise.study.json_schema import json_schema
    put(json.dumps(json_schema(), indent=2) + "\n")


@app.command(epilog="Example: tunewise fsck")
def fsck(workspace: WorkspaceOption = None) -> None:
    """Read what studies have left on disk; tell what is damaged.

    Nothing is changed. Ends with 1 where something is damaged.
    """
    from tunewise.cli.show_fsck import show_damage
    from tunewise.workspace import Workspace

    if show_damage(Workspace(workspace)):
        raise typer.Exit(1)


@app.command(epilog="Example: tunewise clean --keep 2 --yes")
def clean(
    workspace: WorkspaceOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it only show.")] = False,
    keep: Annotated[int, typer.Option(min=0, help="Newest runs to keep of each study.")] = 1,
    everything: Annotated[
        bool, typer.Option("--all", help="Training runs and kept answers too.")
    ] = False,
) -> None:
    """Show what old runs take on disk, and free it with --yes."""
    from tunewise.cli.show import show_clean
    from tunewise.workspace import Workspace

    show_clean(Workspace(workspace), keep=keep, delete=yes, everything=everything)
