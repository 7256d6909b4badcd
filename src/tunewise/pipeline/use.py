"""A candidate of a finished study, asked as the study asked it: with all that was chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewise.candidates.base import Fitted
from tunewise.candidates.prompting import own_system
from tunewise.data.chat import Completion, Example, Message
from tunewise.errors import StudyError, WorkspaceError
from tunewise.pipeline.folds import Folds, gates_of
from tunewise.pipeline.gates import Gates
from tunewise.pipeline.reporter import Reporter
from tunewise.pipeline.session import Session, open_session
from tunewise.pipeline.tuning import seeds_of
from tunewise.report.document import Verdict
from tunewise.scoring.answers import scorable
from tunewise.study.loading import LoadedStudy
from tunewise.study.schema import CandidateSpec
from tunewise.workspace import Workspace


@dataclass(frozen=True)
class InUse:
    """A candidate with everything chosen, ready to answer questions of anybody.

    Attributes:
        spec: the candidate, as the study describes it.
        fitted: answers as in the study.
        session: of the rows that it learnt from.
        folders: ``adapter``, ``model``, ``remote`` of the tuned weights; None where none were.
        note: what its user should know; empty where there is nothing.
    """

    spec: CandidateSpec
    fitted: Fitted
    session: Session
    folders: dict[str, Any] | None = None
    note: str = ""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def converses(self) -> bool:
        """Whether what was said before is part of the next question."""
        return self.fitted.request(self.example([{"role": "user", "content": "?"}])) is not None

    def example(self, messages: Sequence[Message]) -> Example:
        """A conversation as a row of the study: with the system message and tools of its rows."""
        rows = self.session.train
        start: list[Message] = []
        if not any(m.get("role") == "system" for m in messages):
            system = _commonest([own_system(row) for row in rows])
            start = [{"role": "system", "content": system}] if system else []
        tools = [row.tools for row in rows]
        alike = tools[0] if tools and all(each == tools[0] for each in tools) else ()
        plain = bool(rows) and all(row.completion for row in rows)
        return Example("question", (*start, *messages), tools=alike, completion=plain)

    def answer(self, messages: Sequence[Message]) -> Completion:
        """The answer to a conversation whose last message is the user's, thoughts apart."""
        return scorable(self.fitted.answer([self.example(messages)])[0])


def _commonest(texts: Sequence[str]) -> str:
    """The text that more than half of the rows have; empty for none."""
    counted = Counter(texts).most_common(1)
    return counted[0][0] if counted and 2 * counted[0][1] > len(texts) else ""


@contextmanager
def in_use(
    loaded: LoadedStudy, workspace: Workspace, reporter: Reporter, name: str | None = None
) -> Iterator[InUse]:
    """The candidate ``name`` of a finished study; by default the one that its verdict names.

    Raises:
        WorkspaceError: this study, as it stands, has not been run.
        StudyError: there is no such candidate, none that the verdict names, or nothing of it can
            be asked.
    """
    with open_session(loaded, workspace, reporter) as session:
        gates = gates_of(session)
        whole = gates.session
        if whole.store.result("data") is None:
            raise WorkspaceError(
                "this study has not been run as it stands now",
                where=str(loaded.path),
                hint=f"Run it first: tunewise run {loaded.path}",
            )
        verdict = gates.finish()
        spec = _spec(verdict, whole, name)
        _check(spec, verdict)
        yield _trained(gates, spec) if spec.traits.trained else _untrained(gates, spec)


def _spec(verdict: Verdict, session: Session, name: str | None) -> CandidateSpec:
    names = [spec.name for spec in session.specs]
    if name is not None and name not in names:
        raise StudyError(
            f"there is no candidate {name!r} in this study",
            where="--candidate",
            hint=f"It has {', '.join(names)}.",
        )
    wanted = name or verdict.use
    if wanted is None:
        raise StudyError(
            "the verdict names no candidate to use",
            where=session.study.name,
            hint="Name one: --candidate NAME. It has " + ", ".join(names) + ".",
        )
    return session.spec(wanted)


def _check(spec: CandidateSpec, verdict: Verdict) -> None:
    if spec.traits.recorded:
        raise StudyError(
            "its answers were recorded elsewhere, so there is nothing here that could answer",
            where=spec.name,
            hint="Ask the system that gave them.",
        )
    row = next((c for c in verdict.candidates if c.name == spec.name), None)
    if row is not None and row.note:
        raise StudyError(f"it was left out of the study: {row.note}", where=spec.name)


def _untrained(gates: Gates | Folds, spec: CandidateSpec) -> InUse:
    if not isinstance(gates, Folds):
        return InUse(spec, gates.fitted(spec), gates.session)
    first = gates.children[0]
    note = (
        f"{spec.name} was chosen fold by fold; this one learnt from the rows of fold 1, of "
        f"{len(gates.children)}"
    )
    return InUse(spec, first.fitted(spec), first.session, note=note)


def _trained(gates: Gates | Folds, spec: CandidateSpec) -> InUse:
    """The first seed's model; after folds the one that learnt from all rows, if one was made."""
    seeds, note = seeds_of(gates.session.study), ""
    if isinstance(gates, Folds):
        name = f"train-{spec.name}-{seeds[0]}"
        if gates.session.store.result(name) is not None:
            store, walked = gates.session.store, Gates(gates.of_all_rows())
        else:
            walked = gates.children[0]
            store = walked.store
            note = "no model of all rows was made; this one learnt without the rows of fold 1"
    else:
        walked, store = gates, gates.session.store
    found = (
        (seed, done["folders"])
        for seed in seeds
        if (done := store.result(f"train-{spec.name}-{seed}")) is not None
    )
    seed, folders = next(found, (None, None))
    if seed is None or folders is None:
        raise StudyError(
            "it was not fine-tuned in this study, so there is no tuned model",
            where=spec.name,
            hint="The report says at which gate the study ended, and why.",
        )
    for path in (folders["adapter"], folders["model"]):
        if path and not Path(path).exists():
            raise WorkspaceError(
                "the tuned weights are gone", where=str(path), hint="Run the study again."
            )
    return InUse(spec, walked.tuned(spec, seed, folders), walked.session, dict(folders), note)
