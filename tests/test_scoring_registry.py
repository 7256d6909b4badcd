"""Metrics by name: options, errors, and those of other packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunewise.data.chat import Completion, Example
from tunewise.errors import StudyError
from tunewise.scoring.registry import SCORERS, describe, get_scorer


def test_every_metric_is_described() -> None:
    infos = {info.name: info for info in describe()}
    assert list(infos) == SCORERS.names()
    assert len(infos) == 16
    for info in infos.values():
        assert len(info.help) > 15, info.name
        assert info.help.endswith("."), info.name
        assert all(option.help for option in info.options), info.name
    assert [o.name for o in infos["numeric"].options] == ["tolerance", "relative", "decimal"]
    assert {n for n, i in infos.items() if i.corpus} == {"macro_f1", "bleu", "chrf"}
    (pattern, *_) = infos["regex"].options
    assert (pattern.required, pattern.type) == (True, "str")
    assert "engines" not in {o.name for o in infos["judge"].options}


def test_a_scorer_has_its_name_and_kind() -> None:
    given: dict[str, Any] = {"regex": {"pattern": "x"}, "judge": {"model": "openai:m"}}
    for info in describe():
        scorer = get_scorer(info.name, given.get(info.name))
        assert (scorer.name, scorer.binary, scorer.corpus) == (info.name, info.binary, info.corpus)


@pytest.mark.parametrize(
    ("name", "options", "where", "words"),
    [
        ("exactmatch", {}, "metric", ["'exactmatch'", "Did you mean exact_match", "rouge_l"]),
        ("List-F1", {}, "metric", ["Did you mean list_f1"]),
        ("qqqq", {}, "metric", ["Known: accuracy"]),
        ("numeric", {"tolerence": 1}, "metric.options.tolerence", ["`tolerance`", "relative"]),
        ("exact_match", {"x": 1}, "metric.options.x", ["It has no options"]),
        ("numeric", {"tolerance": -1}, "metric.options.tolerance", ["greater than or equal to 0"]),
        ("numeric", {"tolerance": "much"}, "metric.options.tolerance", ["number"]),
        ("list_f1", {"duplicates": "maybe"}, "metric.options.duplicates", ["'count' or 'ignore'"]),
        ("regex", {}, "metric.options.pattern", ["needs the option `pattern`"]),
        ("judge", {"engines": print}, "metric.options.engines", ["no option `engines`"]),
        ("recorded", {"scorer": "nope"}, "metric", ["no metric called 'nope'"]),
    ],
)
def test_errors_say_what_and_where(
    name: str, options: dict[str, Any], where: str, words: list[str]
) -> None:
    with pytest.raises(StudyError) as caught:
        get_scorer(name, options)
    assert caught.value.where == where
    for word in words:
        assert word in str(caught.value)


class Vowels:
    """Share of the wanted vowels.

    More of it.
    """

    name = "vowels"
    binary = False
    corpus = False

    def __init__(self, weight: float = 1.0) -> None:
        if weight > 1:
            raise ValueError("weight is at most 1")
        self.weight = weight

    def score(self, example: Example, completion: Completion) -> Any:
        raise NotImplementedError

    def aggregate(self, items: Any) -> float:
        return self.weight


class Empty:
    """No metric at all."""


def test_metrics_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[tunewise.scorers]\nvowels = {__name__}:Vowels\nbroken = no_such_package_here:Thing\n"
        f"empty = {__name__}:Empty\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(get_scorer("vowels", {"weight": 0.5}), Vowels)
    with pytest.raises(StudyError, match="no option `wieght`"):
        get_scorer("vowels", {"wieght": 1})
    with pytest.raises(StudyError, match="at most 1"):
        get_scorer("vowels", {"weight": 2})
    with pytest.raises(StudyError, match="cannot be loaded: No module named") as caught:
        get_scorer("broken")
    assert caught.value.hint is not None and "strange 1.0" in caught.value.hint
    with pytest.raises(StudyError, match="'empty' has no `name` and no `binary`"):
        get_scorer("empty")
    assert get_scorer("exact_match").name == "exact_match"
    infos = {info.name: info for info in describe()}
    assert infos["vowels"].help == "Share of the wanted vowels."
    assert "cannot be loaded" in infos["broken"].help
    assert infos["exact_match"].package is None and infos["vowels"].package == "strange 1.0"


def test_naming_metrics_is_light() -> None:
    code = (
        "import sys; from tunewise.scoring.registry import describe; describe()\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'sacrebleu', 'torch', 'jsonschema', 'regex'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
