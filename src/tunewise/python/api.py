"""What the commands do, as functions: they take paths or rows, and give results that show
themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tunewise.errors import UsageError
from tunewise.python.results import (
    Audited,
    Forecasted,
    Proposed,
    SideBySide,
    Trained,
    Verdicted,
)
from tunewise.python.sources import Rows, as_file, as_flags, as_study, keyed_study

if TYPE_CHECKING:
    from tunewise.pipeline.reporter import Reporter
    from tunewise.report.document import Verdict
    from tunewise.study.loading import LoadedStudy
    from tunewise.study.schema import Columns


def audit(
    data: str | Path | Rows,
    *,
    test: str | Path | Rows | None = None,
    fix: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    documents: str | Path | None = None,
    model: str | None = None,
    workspace: str | Path | None = None,
    progress: bool = True,
) -> Audited:
    """Look for broken rows, leaks, duplicates and personal data, as ``tunewise audit``.

    Args:
        data: a file, a folder or a hub data set; a study file; or rows as mappings.
        test: test rows: leaks between the two are looked for.
        fix: write the rows, safely mended, to this ``.jsonl`` file.
        columns: where they are called otherwise: ``{"input": "Frage", "output": "Antwort"}``.
        encoding: of text files that are not UTF-8.
        documents: a folder or file; rows that name others are told.
        model: check what its template and tokenizer make of the rows.
        workspace: where rows that are given as mappings are kept.

    Raises:
        DataError: nothing can be read.
        UsageError: ``fix`` is no ``.jsonl`` file, or the source itself.
    """
    from tunewise.pipeline.audits import audit_files
    from tunewise.pipeline.sources import sources_of

    place = _workspace(workspace)
    sources = sources_of(
        as_file(data, place),
        test=None if test is None else as_file(test, place),
        columns=_columns(columns),
        encoding=encoding,
        documents=None if documents is None else str(documents),
        model=model,
    )
    fixed = None if fix is None else Path(fix)
    outcome = audit_files(sources, fix=fixed, reporter=_reporter(progress))
    if not isinstance(data, str | Path):  # no command takes rows that only this process has
        outcome = replace(outcome, mending='tw.audit(rows, fix="clean.jsonl")')
    return Audited(outcome, fixed)


def init(
    data: str | Path | Rows,
    out: str | Path = "study.yaml",
    *,
    overwrite: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    documents: str | Path | None = None,
    model: str | None = None,
    workspace: str | Path | None = None,
) -> Proposed:
    """Look at the data and write a study file, with reasons, as ``tunewise init``.

    Args:
        columns, encoding, documents: as in ``audit``; they stand in the study.
        model: what answers and is tuned; ``tunewise/tiny`` by default.

    Raises:
        UsageError: the file is there already.
        DataError: the data cannot be read.
    """
    from tunewise.pipeline.propose import write_study

    written = write_study(
        as_file(data, _workspace(workspace)),
        Path(out),
        overwrite=overwrite,
        columns=_columns(columns),
        encoding=encoding,
        documents=None if documents is None else str(documents),
        model=model,
    )
    return Proposed(written)


def run(
    study: str | Path | Mapping[str, Any] | LoadedStudy | None = None,
    *,
    rows: str | Path | Rows | None = None,
    set: Sequence[str] = (),
    allow_code: bool = False,
    workspace: str | Path | None = None,
    progress: bool = True,
    **keys: Any,
) -> Verdicted:
    """From a study to a verdict, as ``tunewise run``; a stopped run goes on where it was.

    Args:
        study: a study file; or its keys as a mapping, in which ``data`` may hold rows themselves.
        rows: instead of a study: a file or mappings, for which the study is made as ``init`` does.
        keys: keys of a study by name, ``effort="quick"``; they go before those of ``study``.
        set: changes of keys, ``"effort=quick"``.
        allow_code: trust the code that the study names as a reward; remembered until it changes.
        workspace: where results lie; ``$TUNEWISE_HOME`` or ``.tunewise`` by default.

    Raises:
        TunewiseError: what the user can mend; what was finished is kept.
    """
    from tunewise.pipeline.run import run_study

    place = _workspace(workspace)
    loaded = keyed_study(study, place, set, rows, keys)
    return Verdicted(run_study(loaded, place, _reporter(progress), allow_code=allow_code))


def forecast(
    study: str | Path | Mapping[str, Any] | LoadedStudy | None = None,
    *,
    rows: str | Path | Rows | None = None,
    set: Sequence[str] = (),
    allow_code: bool = False,
    workspace: str | Path | None = None,
    progress: bool = True,
    **keys: Any,
) -> Forecasted:
    """What a run would take in time, memory and money, as ``tunewise forecast``.

    Args:
        study, rows, keys, set, allow_code, workspace: as in ``run``.

    Raises:
        TunewiseError: what the user can mend.
    """
    from tunewise.pipeline.run import plan_study

    place = _workspace(workspace)
    loaded = keyed_study(study, place, set, rows, keys)
    return Forecasted(plan_study(loaded, place, _reporter(progress), allow_code=allow_code))


def train(
    data: str | Path | Rows,
    *,
    model: str | None = None,
    method: str | None = None,
    adapter: str | None = None,
    epochs: float | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    dev: str | Path | Rows | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    seed: int | None = None,
    set: Sequence[str] = (),
    out: str | Path | None = None,
    allow_code: bool = False,
    workspace: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Fine-tune only: no baselines, no test, no verdict, as ``tunewise train``.

    Args:
        data: a study file, or rows: a file, a folder, a hub data set, or mappings.
        model: what is tuned: a hub id, a folder, ``tunewise/tiny``.
        method: sft (default), distill, pretrain, dpo, orpo, kto, reward or grpo.
        adapter: lora (default), qlora, or full: all weights.
        epochs: passes over the rows (3).
        learning_rate: by default three are tried, and dev chooses.
        batch_size: rows of an optimizer step.
        max_length: longest row in tokens; longer ones are left out and counted.
        dev: rows to choose on; by default a tenth.
        columns, encoding: as in ``audit``.
        seed: of the training.
        set: other keys of a study, ``"fine_tune.lora.rank=32"``.
        out: copy the tuned weights to this folder.
        allow_code: as in ``run``.

    Raises:
        UsageError: rows without a model.
        TunewiseError: what the user can mend; a stopped run goes on where it was.
    """
    from tunewise.pipeline.alone import train_study
    from tunewise.pipeline.quick import training_study

    place = _workspace(workspace)
    flags = as_flags(
        {
            "model": ("model", model),
            "method": ("fine_tune.method", method),
            "adapter": ("fine_tune.adapter", adapter),
            "epochs": ("fine_tune.epochs", epochs),
            "learning_rate": ("fine_tune.learning_rate", learning_rate),
            "batch_size": ("fine_tune.batch_size", batch_size),
            "max_length": ("fine_tune.max_length", max_length),
            "dev": ("data.dev", None if dev is None else as_file(dev, place)),
            "columns": ("data.columns", None if columns is None else dict(columns)),
            "encoding": ("data.encoding", encoding),
            "seed": ("fine_tune.seeds", None if seed is None else [seed]),
        }
    )
    loaded = training_study(as_file(data, place), flags, list(set))
    copied = None if out is None else Path(out)
    return Trained(train_study(loaded, place, _reporter(progress), copied, allow_code=allow_code))


@overload
def generate(  # type: ignore[overload-overlap]  # text is an iterable of texts too; it comes first
    model: str | Path | Trained,
    prompts: str,
    *,
    adapter: str | Path | None = None,
    system: str | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    json_schema: Mapping[str, Any] | None = None,
) -> str: ...
@overload
def generate(
    model: str | Path | Trained,
    prompts: Iterable[str | Sequence[Mapping[str, Any]]],
    *,
    adapter: str | Path | None = None,
    system: str | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    json_schema: Mapping[str, Any] | None = None,
) -> list[str]: ...
def generate(
    model: str | Path | Trained,
    prompts: str | Iterable[str | Sequence[Mapping[str, Any]]],
    *,
    adapter: str | Path | None = None,
    system: str | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    json_schema: Mapping[str, Any] | None = None,
) -> str | list[str]:
    """Answers of a model, tuned or not; many prompts are answered in batches.

    Args:
        model: ``tunewise/tiny``, a folder, a hub id, ``openai:MODEL``; or what ``train`` gave.
        prompts: one question, which gives one answer; or several, each a text or a conversation
            in chat format.
        adapter: a tuned adapter on top of the model.
        system: instructions, before prompts that are texts. What ``train`` gave brings its own.
        max_tokens: longest answer.
        temperature: 0 is greedy.
        json_schema: the answers are JSON that fits it.

    Raises:
        ModelError: no such model, or it cannot answer.
    """
    from tunewise.python.asking import answers

    if isinstance(model, Trained):
        if adapter is not None:
            raise UsageError("what was trained brings its own adapter", where="adapter")
        adapter, system = model.adapter, system or model.instructions
        model = model.model
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    texts = answers(
        str(model),
        asked,
        adapter=None if adapter is None else Path(adapter),
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        json_schema=json_schema,
    )
    return texts[0] if isinstance(prompts, str) else texts


def load_study(study: str | Path | Mapping[str, Any], *, set: Sequence[str] = ()) -> LoadedStudy:
    """A study file, or its keys as a mapping, read and checked.

    Raises:
        StudyError: with file, line, key and what was probably meant.
    """
    from tunewise.python.studies import Studied

    loaded = as_study(study, _workspace(None), set)
    return Studied(
        loaded.study, loaded.path, loaded.directory, loaded.raw, loaded.places, loaded.overrides
    )


def load_verdict(path: str | Path) -> Verdict:
    """The verdict in a ``verdict.json``, or in the folder that holds one.

    Raises:
        WorkspaceError: it is missing, damaged, or of another version.
    """
    from tunewise.report.files import read_verdict

    path = Path(path)
    return read_verdict(path / "verdict.json" if path.is_dir() else path)


def compare(studies: Sequence[str | Path], *, workspace: str | Path | None = None) -> SideBySide:
    """Studies side by side, as ``tunewise compare``: verdicts, scores, costs, what differs.

    Args:
        studies: two or more study files that were run, ``verdict.json`` files or their folders.

    Raises:
        UsageError: there are fewer than two.
        WorkspaceError: one was not run as it stands, or its verdict is damaged.
    """
    from tunewise.pipeline.compare import compare_studies

    paths = [Path(path) for path in studies]
    return SideBySide(compare_studies(paths, _workspace(workspace)))


def _columns(given: Mapping[str, str] | None) -> Columns | None:
    if given is None:
        return None
    from tunewise.data.columns import columns_from

    return columns_from(given)


def _workspace(path: str | Path | None) -> Any:
    from tunewise.workspace import Workspace

    return Workspace(None if path is None else Path(path))


def _reporter(progress: bool) -> Reporter:
    """What draws a run: bars on a terminal and in a notebook, else lines."""
    from tunewise.cli.options import reporter_of
    from tunewise.python.notebook import NotebookReporter, in_notebook

    return NotebookReporter() if progress and in_notebook() else reporter_of(not progress)
