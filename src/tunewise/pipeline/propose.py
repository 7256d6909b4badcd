"""From a data file to a study file that says why it looks as it does."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunewise.data.documents import stream_documents
from tunewise.data.propose import Proposal, propose
from tunewise.errors import UsageError
from tunewise.models.names import TINY, parse_model
from tunewise.pipeline.sources import check_there
from tunewise.study.schema import Columns, Study
from tunewise.workspace import write_text_atomic

_COMMENTS = {
    "forgetting": "What the tuned model must still be able to do. A loss in `suite` stands beside "
    "the verdict; with `veto: true` it overrules a gain. `must_pass: FILE.jsonl` names rows of "
    "which it may not lose a single one.",
}
"""Comments that stand above a key of the study."""


@dataclass(frozen=True)
class Written:
    """A study file that was written, and the proposal behind it."""

    path: Path
    proposal: Proposal


def write_study(
    data: str,
    out: Path,
    *,
    overwrite: bool = False,
    columns: Columns | None = None,
    encoding: str | None = None,
    documents: str | None = None,
    model: str | None = None,
) -> Written:
    """Look at the data and write a study file with the reasons as comments.

    Args:
        columns, encoding, documents, model: as of ``propose``; they stand in the study.

    Raises:
        UsageError: the file is there already.
        DataError: the data cannot be read.
    """
    if out.exists() and not overwrite:
        raise UsageError(
            "the file is there already", where=str(out), hint="Use --force, or --out NAME.yaml."
        )
    for file in (data, documents):
        if file is not None:
            check_there(file)
    if documents is not None:
        next(stream_documents(documents))  # a study must be able to read what it names
    model = TINY if model is None else model
    parse_model(model)
    proposal = propose(data, columns=columns, encoding=encoding, documents=documents, model=model)
    study = _beside(proposal.study, out)
    Study.model_validate(study)  # what we write must load
    told = [*proposal.reasons, *(f"Note: {text}" for text in proposal.warnings)]
    comment = [f"# {line}" for text in told for line in textwrap.wrap(text, 96)]
    body = yaml.safe_dump(study, sort_keys=False, allow_unicode=True, width=100)
    for key, text in _COMMENTS.items():
        lines = "".join(f"# {line}\n" for line in textwrap.wrap(text, 96))
        body = re.sub(rf"^(?={key}:)", lines, body, flags=re.MULTILINE)
    head = "# Written by `tunewise init`; `tunewise schema` lists every key."
    write_text_atomic(out, "\n".join([head, *comment, "", body]))
    return Written(out, proposal)


def _beside(study: dict[str, Any], out: Path) -> dict[str, Any]:
    """The study with paths as seen from its file's folder."""
    folder = out.absolute().parent
    data = {}
    for key, value in study["data"].items():
        path = Path(value) if isinstance(value, str) else None
        if path is not None and path.exists():
            full = path.absolute()
            value = str(full.relative_to(folder)) if full.is_relative_to(folder) else str(full)
        data[key] = value
    return {**study, "data": data}
