"""What the tuned model can still do: the same items, the same prompts, adapter off and on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewise.data.chat import Example, Request
from tunewise.data.read import read_examples
from tunewise.models.engine import Engine, room_for_thoughts
from tunewise.pipeline.measure import scored_items
from tunewise.pipeline.reporter import Reporter
from tunewise.pipeline.store import Item, Store
from tunewise.scoring.base import Scorer
from tunewise.scoring.registry import get_scorer
from tunewise.study.schema import Study

MUST_PASS = "must_pass"
_MAX_TOKENS = 64


def measure(
    study: Study, base: Engine, tuned: Engine, store: Store, metric: Scorer, reporter: Reporter
) -> dict[str, Any]:
    """Ask both models every suite; items go to ``items/<suite>.base|tuned.forgetting.jsonl``.

    Args:
        metric: scores the user's own rows, where a row names no metric.

    Returns:
        ``suites`` (names with items on disk) and ``lost`` (must-pass rows that only the base
        passes).
    """
    names = []
    lost: list[str] = []
    for name, rows in _suites(study):
        answers: dict[str, list[Item]] = {}
        for side, engine in (("base", base), ("tuned", tuned)):
            with reporter.task(f"{name} suite, {side}") as progress:
                requests = [_request(e, _MAX_TOKENS + room_for_thoughts(engine)) for e in rows]
                completions = engine.answer(requests, progress)
            answers[side] = [
                item
                for example, completion in zip(rows, completions, strict=True)
                for item in scored_items(
                    f"{name}.{side}",
                    "forgetting",
                    [example],
                    [completion],
                    _scorer(example.metadata, metric),
                )
            ]
            store.write_items(f"{name}.{side}", "forgetting", answers[side])
        if name == MUST_PASS:
            pairs = zip(answers["base"], answers["tuned"], strict=True)
            lost = [b.id for b, t in pairs if b.score == 1.0 and t.score < 1.0]
        else:
            names.append(name)
    return {"suites": names, "lost": lost}


def _suites(study: Study) -> Iterator[tuple[str, Sequence[Example]]]:
    wanted = study.forgetting
    if wanted.suite == "general":
        from tunewise.synthetic.general_suite import items

        yield "general", [_generated(item) for item in items(seed=study.seed)]
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
