"""What each joint promises, as checks that a built-in and a stranger's both pass.

Authors of plugins run them on their own: copy this file, or put Tunewise's tests on the path.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewise.candidates.base import Candidate, Trained, Traits
from tunewise.data.chat import Completion, Example
from tunewise.routes.base import Capabilities, Forecast, Route, Status
from tunewise.scoring.base import ItemScore, Scorer
from tunewise.training.job import TrainingJob
from tunewise.training.trackers import TrackedRun, Tracker


def check_route(route: Route, job: TrainingJob) -> None:
    """A route checks, forecasts and runs a job to an adapter or a model's name."""
    assert isinstance(route.name, str) and route.name
    assert isinstance(route.capabilities, Capabilities)
    assert route.missing() is None or isinstance(route.missing(), str)
    assert not [f for f in route.check(job) if f.severity == "error"]
    found = route.forecast(job)
    assert isinstance(found, Forecast) and found.basis
    assert route.capabilities.charges_money or found.usd in (0.0, None)
    handle = route.submit(job)
    result = handle.result(timeout=120)
    assert isinstance(handle.status(), Status) and handle.status().over
    assert all(isinstance(event, Mapping) for event in handle.events())
    given_back = result.adapter or result.model
    assert (given_back is not None) == route.capabilities.local_weights
    assert given_back is None or Path(given_back).is_dir()
    assert route.submit(job).result(timeout=120).steps == result.steps  # the same job, once


def check_kind(kind: Any) -> None:
    """The class of a kind of candidate declares what it is, and its traits do not contradict."""
    traits = kind.traits
    assert isinstance(traits, Traits) and callable(kind.from_study) and inspect.getdoc(kind)
    assert traits.needs_model or not traits.trained
    assert not (traits.recorded and (traits.needs_model or traits.trained))
    assert traits.dev_rounds >= 0 and all(isinstance(option, str) for option in traits.options)


def check_candidate(candidate: Candidate, train: Sequence[Example], dev: Sequence[Example]) -> None:
    """A candidate chooses on dev and answers each row once, in order, alike each time."""
    assert candidate.name and candidate.kind
    traits = type(candidate).traits  # type: ignore[attr-defined]
    assert isinstance(candidate, Trained) == traits.trained
    if isinstance(candidate, Trained):
        assert [e.answer for e in candidate.training_examples(train, dev)] == [
            e.answer for e in train
        ]
    fitted = candidate.fit(train, dev)
    assert fitted.dev_completions is None or len(fitted.dev_completions) == len(dev)
    answers = fitted.answer(dev)
    assert [type(a) for a in answers] == [Completion] * len(dev)
    assert [a.text for a in fitted.answer(dev)] == [a.text for a in answers]
    assert fitted.answer([]) == []
    assert traits.asks or fitted.request(dev[0]) is None
    json.dumps(dict(fitted.chosen()))


def check_scorer(scorer: Scorer, examples: Sequence[Example]) -> None:
    """A metric scores 0..1, never raises on a bad answer, and gives wanted answers its best."""
    assert isinstance(scorer.name, str) and isinstance(scorer.binary, bool)
    wanted = [scorer.score(e, Completion(text=e.answer)) for e in examples]
    for text in ("", "\x00", "{", "word " * 2000):
        for example in examples:
            score = scorer.score(example, Completion(text=text))
            assert isinstance(score, ItemScore) and 0 <= score.value <= 1
            assert not scorer.binary or score.value in (0, 1)
    assert scorer.aggregate(wanted) == max(scorer.aggregate([w]) for w in wanted)
    assert inspect.getdoc(type(scorer))


def check_tracker(open_it: Any, run: TrackedRun) -> Tracker:
    """A tracker takes figures of rising steps, also of a run that goes on, and an end."""
    tracker: Tracker = open_it(run)
    for step in (1, 2, 5):
        tracker.log(step, {"train/loss": 1.0 / step})
    tracker.finish(succeeded=True)
    return tracker
