"""What the tuned model can still do: the same items, the same prompts, adapter off and on.

A suite is asked in random order, part by part, until it is decided (``verdict/forgetting.py``). The
order is the same in every study, and the base model's answers are kept by its revision (as all
answers are), so that the next study asks it nothing that it answered before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewise.data.chat import Completion, Example, Progress, Request, canonical_hash
from tunewise.data.read import read_examples
from tunewise.models.engine import Engine, room_for_thoughts
from tunewise.pipeline.measure import scored_items
from tunewise.pipeline.reporter import Reporter
from tunewise.pipeline.store import Item, Store
from tunewise.report.document import ForgettingResult, ForgettingSuite
from tunewise.scoring.base import Scorer
from tunewise.scoring.registry import get_scorer
from tunewise.study.schema import Study
from tunewise.verdict.forgetting import Forgetting, Suite, SuiteChange, planned_looks, suite_change
from tunewise.words import plural

MUST_PASS = "must_pass"
_MAX_TOKENS = 64


def measure(
    study: Study, base: Engine, tuned: Engine, store: Store, metric: Scorer, reporter: Reporter
) -> dict[str, Any]:
    """Ask both models each suite until it is decided, and all rows that must pass.

    Items go to ``items/<suite>.base|tuned.forgetting.jsonl``.

    Args:
        metric: scores the user's own rows, where a row names no metric.

    Returns:
        ``suites`` (names with items on disk), ``looks`` (after how many rows each was to be
        looked at) and ``lost`` (must-pass rows that only the base passes).
    """
    planned: dict[str, tuple[int, ...]] = {}
    lost: list[str] = []
    for name, rows in _suites(study):
        must_pass = name == MUST_PASS
        looks = (len(rows),) if must_pass else planned_looks(len(rows))
        if not must_pass:
            rows = sorted(rows, key=lambda row: canonical_hash(["forgetting", row.id]))
        answers: dict[str, list[Item]] = {"base": [], "tuned": []}
        with reporter.task(f"{name} suite") as progress:
            for look in looks:
                for number, (side, engine) in enumerate((("base", base), ("tuned", tuned))):
                    part = rows[len(answers[side]) : look]
                    done = 2 * len(answers[side]) + number * (look - len(answers[side]))
                    completions = _ask(engine, part, _beyond(progress, done, 2 * len(rows)))
                    answers[side] += _items(f"{name}.{side}", part, completions, metric)
                if not must_pass and _decided(
                    name, suite_of(answers["base"], answers["tuned"], looks), study
                ):
                    break
        for side, items in answers.items():
            store.write_items(f"{name}.{side}", "forgetting", items)
        if must_pass:
            pairs = zip(answers["base"], answers["tuned"], strict=True)
            lost = [b.id for b, t in pairs if b.score == 1.0 and t.score < 1.0]
            continue
        planned[name] = looks
        asked = len(answers["base"])
        if asked < len(rows):
            reporter.note(f"{name} suite: decided after {asked} of {plural(len(rows), 'row')}")
    return {"suites": list(planned), "looks": planned, "lost": lost}


def suite_of(base: Sequence[Item], tuned: Sequence[Item], looks: Sequence[int] | None) -> Suite:
    """The scores of the items that both have.

    Args:
        looks: as ``measure`` returns them; None where the whole suite was asked at once.
    """
    before, after = ({item.id: item.score for item in items} for items in (base, tuned))
    ids = [name for name in before if name in after]
    one, other = [before[name] for name in ids], [after[name] for name in ids]
    binary = set(one) | set(other) <= {0.0, 1.0}
    return Suite(base=one, tuned=other, binary=binary, looks=tuple(looks) if looks else None)


def _decided(name: str, suite: Suite, study: Study) -> bool:
    return suite_change(name, suite, study.forgetting.margin, rng_seed=study.seed).decided


def _ask(engine: Engine, rows: Sequence[Example], progress: Progress) -> list[Completion]:
    most = _MAX_TOKENS + room_for_thoughts(engine)
    return engine.answer([_request(row, most) for row in rows], progress)


def _beyond(progress: Progress, before: int, total: int) -> Progress:
    """Progress of a part, told as that of the whole."""
    return lambda done, _, failed=0: progress(before + done, total, failed)


def _items(
    name: str, rows: Sequence[Example], completions: Sequence[Completion], metric: Scorer
) -> list[Item]:
    return [
        item
        for example, completion in zip(rows, completions, strict=True)
        for item in scored_items(
            name, "forgetting", [example], [completion], _scorer(example.metadata, metric)
        )
    ]


def _suites(study: Study) -> Iterator[tuple[str, Sequence[Example]]]:
    wanted = study.forgetting
    if wanted.suite == "general":
        from tunewise.synthetic.general_suite import items

        yield "general", [_generated(item) for item in items()]
    elif wanted.suite is not None:
        yield Path(wanted.suite).stem, list(read_examples(wanted.suite))
    if wanted.must_pass is not None:
        yield MUST_PASS, list(read_examples(wanted.must_pass))


def _generated(item: Mapping[str, Any]) -> Example:
    answer = {"role": "assistant", "content": item["answer"]}
    return Example(
        id=item["id"],
        messages=(*item["messages"], answer),
        metadata={"metric": item["metric"], "family": item["family"]},
    )


def _request(example: Example, max_tokens: int) -> Request:
    return Request(messages=example.prompt, tools=example.tools, max_tokens=max_tokens)


_scorers: dict[str, Scorer] = {}


def _scorer(metadata: Mapping[str, Any], default: Scorer) -> Scorer:
    name = metadata.get("metric")
    if not isinstance(name, str):
        return default
    if name not in _scorers:
        _scorers[name] = get_scorer(name, {})
    return _scorers[name]


def forgetting_part(study: Study, result: Forgetting) -> ForgettingResult:
    """What the document says of it."""
    reason = None
    if not result.suites and not result.lost:
        reason = (
            "switched off in the study (`forgetting.suite: null`)"
            if study.forgetting.suite is None
            else "not needed for this verdict"
        )
    elif result.status.value == "unmeasured":
        reason = "the base model itself cannot do the suite"
    return ForgettingResult(
        status=result.status.value,
        margin=study.forgetting.margin,
        reason=reason,
        suites=[
            ForgettingSuite(
                name=s.name,
                n=s.n,
                of=s.of,
                stopped=_stopped(s),
                base=s.base,
                tuned=s.tuned,
                change=s.change,
                lower=s.low,
                upper=s.high,
                status=s.status.value,
            )
            for s in result.suites
        ],
        lost_rows=list(result.lost),
    )


def _stopped(suite: SuiteChange) -> str:
    """Why a suite was asked no further."""
    if suite.n == suite.of:
        return "all its rows were asked"
    return {
        "passed": "a loss beyond the margin was excluded",
        "failed": "a loss beyond the margin was shown",
        "unmeasured": "the base model itself cannot do it",
        "unproven": "the run was cut short",
    }[suite.status.value]
