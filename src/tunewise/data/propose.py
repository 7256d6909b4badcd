"""A first study for a data file: what to measure and with what, and why."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewise.data.chat import Example, text_of
from tunewise.data.formats import split_name
from tunewise.data.label_lists import label_lists
from tunewise.data.labels import LabelCounts
from tunewise.data.read import parts_of
from tunewise.data.split import TEST_MOST, TEST_ROWS, TEST_SHARE
from tunewise.data.unreadable import Unreadable
from tunewise.errors import DataError
from tunewise.study.schema import Columns
from tunewise.words import plural

LOOKED_AT = 20_000
_SHORT, _MEDIUM = 60, 240
_FEW_TEST_ROWS = 100
_MOST_NAMED = 100
_NUMBER = re.compile(r"\s*[$€£]?\s*[-+]?\d[\d,. ]*\s*%?\s*")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A study as plain values for YAML, with the reason for each choice and with warnings.

    Attributes:
        command: what to do with it next, ``run`` or ``train``.
    """

    study: dict[str, Any]
    reasons: list[str]
    warnings: list[str]
    command: str = "run"


def propose(
    path: str | Path,
    *,
    columns: Columns | None = None,
    encoding: str | None = None,
    documents: str | Path | None = None,
    model: str = "tunewise/tiny",
) -> Proposal:
    """Look at the first 20,000 rows and propose a study.

    Args:
        path: as for :func:`tunewise.data.read.read_examples`.
        columns, encoding: as for ``read_examples``; they stand in the study.
        documents: a folder or file for retrieval.
        model: the model of the study.

    Raises:
        DataError: the data cannot be read, or too many rows of a file cannot.
    """
    watch = Unreadable(columns, encoding)
    stream = watch.read(path, texts=True)
    rows = list(itertools.islice(stream, LOOKED_AT))
    watch.check()
    if not rows:
        raise DataError("there are no rows", where=str(path))
    more = next(stream, None) is not None
    if rows[0].is_text:
        return _pretraining(path, columns, encoding, model, watch)
    judged = [row for row in rows if row.desirable is not None]
    looked_at, rows = len(rows), [row for row in rows if row.desirable is not False]
    if not rows:
        raise DataError(
            f"all {looked_at:,} answers are labelled as not wanted: without wanted ones there is "
            "nothing to tune for, and nothing to test on",
            where=str(path),
            hint="Give rows with wanted answers too.",
        )
    reasons: list[str] = []
    metric, labels = _metric(rows, reasons)
    form = _form(rows, metric, labels)
    study: dict[str, Any] = {"name": study_name(path), "use_case": "", "model": model}
    prompt = _prompt(rows, form, reasons)
    if prompt:
        study["prompt"] = prompt
    study["data"] = _data(path, columns, encoding, documents)
    study["metric"] = metric
    classes = labels is not None or label_lists(rows) is not None
    study["candidates"] = _candidates(rows, classes, documents is not None, reasons)
    if len(rows) < looked_at:
        study["fine_tune"] = {"method": "kto"}
        reasons.append(
            f"method kto: {looked_at - len(rows):,} of {len(judged):,} labelled answers are not "
            "wanted; they are learnt from as such, and all else goes by the wanted ones"
        )
    elif _most_pairs(rows):
        study["fine_tune"] = {"method": "dpo"}
        reasons.append("method dpo: the rows have a wanted and an unwanted answer")
    study["forgetting"] = {"suite": "general", "veto": False}
    if any(row.references for row in rows):
        reasons.append("several right answers a row: scored by the best, trained on the first")
    _explain_splits(path, rows, reasons)
    return Proposal(study, reasons, [*watch.told(), *_warnings(rows, more), *_toy(model)])


def _pretraining(
    path: str | Path,
    columns: Columns | None,
    encoding: str | None,
    model: str,
    watch: Unreadable,
) -> Proposal:
    """A study that trains on texts and tests nothing."""
    data = _data(path, columns, encoding, None)
    study: dict[str, Any] = {
        "name": study_name(path),
        "use_case": "",
        "model": model,
        "data": {"train": data.pop("examples"), **data},
        "metric": "exact_match",
        "candidates": ["fine_tuned"],
        "fine_tune": {"method": "pretrain"},
    }
    reasons = [
        "method pretrain: the rows are texts of which nothing is asked, and every token is learnt",
        "metric exact_match: a study names one; nothing is scored while there is nothing to ask",
    ]
    note = (
        "without rows that have a question and its answer nothing can be tested: a verdict needs "
        "them as `data.examples`, with the texts as `data.documents`"
    )
    return Proposal(study, reasons, [*watch.told(), note, *_toy(model)], "train")


def _toy(model: str) -> list[str]:
    """What the model of the demonstrations is not fit for."""
    if model != "tunewise/tiny":
        return []
    return [
        "tunewise/tiny is a toy for trying the program: it can answer hardly anything, and a "
        "verdict on it says nothing of your task. Name a real one (init --model): a hub id, a "
        "folder, openai:MODEL"
    ]


def _metric(rows: Sequence[Example], reasons: list[str]) -> tuple[str, list[str] | None]:
    """The name of a scorer, and the labels where the answers are labels."""
    answers = [row.answer.strip() for row in rows]
    calls = sum(bool(row.target and row.target.get("tool_calls")) for row in rows)
    if calls > len(rows) / 2:
        reasons.append("metric tool_calls: most wanted answers are tool calls")
        return "tool_calls", None
    if _most(answers, lambda a: isinstance(_json(a), dict)):
        reasons.append("metric json_fields: the wanted answers are JSON objects")
        return "json_fields", None
    if _most(answers, lambda a: isinstance(_json(a), list)):
        reasons.append("metric list_f1: the wanted answers are JSON lists")
        return "list_f1", None
    counts = LabelCounts()
    for answer in answers:
        counts.add(answer)
    table = counts.table()
    if table:
        reasons.append(
            f"metric accuracy: the wanted answers are {len(table)} labels, the commonest "
            f"{next(iter(table))!r} in {100 * max(table.values()) / len(rows):.0f} % of the rows"
        )
        return "accuracy", list(table)
    if _most(answers, lambda a: bool(_NUMBER.fullmatch(a))):
        reasons.append("metric numeric: the wanted answers are numbers")
        return "numeric", None
    length = sorted(map(len, answers))[len(answers) // 2]
    spread = f"half of the wanted answers have {length} characters or more"
    if length <= _SHORT:
        reasons.append(f"metric normalized_match: answers are short ({spread})")
        return "normalized_match", None
    if length <= _MEDIUM:
        reasons.append(f"metric token_f1: answers are a sentence or so ({spread})")
        return "token_f1", None
    reasons.append(
        f"metric rouge_l: answers are long ({spread}); it counts shared words only, so `judge`, "
        "which asks a model which of two answers is better, says more where you have a strong one"
    )
    return "rouge_l", None


def _candidates(
    rows: Sequence[Example], labels: bool, documents: bool, reasons: list[str]
) -> list[str]:
    chosen = ["zero_shot", "few_shot"]
    reasons.append("candidates zero_shot and few_shot: prompting costs nothing to try")
    if documents:
        chosen.append("rag")
        reasons.append("candidate rag: there are documents to search")
    elif any(row.documents for row in rows):
        reasons.append("no candidate rag: rows name documents, but none are given")
    if labels:
        chosen.append("classifier")
        reasons.append(
            "candidate classifier: with few labels, a TF-IDF classifier without any language "
            "model is often as good, and far cheaper"
        )
    chosen.append("fine_tuned")
    reasons.append("candidate fine_tuned: the question of the study")
    return chosen


def _form(rows: Sequence[Example], metric: str, labels: list[str] | None) -> str:
    """The form of the answer, in a sentence: without it, prompting is judged unfairly."""
    if labels:
        return f"Answer with exactly one of these labels: {', '.join(sorted(labels))}."
    if metric == "json_fields":
        found = [_json(row.answer.strip()) for row in rows]
        keys = Counter(key for item in found if isinstance(item, dict) for key in item)
        named = ", ".join(key for key, _ in keys.most_common(12))
        return f"Answer with a JSON object with the keys {named}, and nothing else."
    lists = label_lists(rows) if metric == "list_f1" else None
    if lists is not None and len(lists.labels) <= _MOST_NAMED:
        return (
            f"Answer with a JSON list of these labels, all that apply: {', '.join(lists.labels)}."
        )
    forms = {
        "list_f1": "Answer with a JSON list, and nothing else.",
        "numeric": "Answer with a number, and nothing else.",
        "tool_calls": "Call the right tools with the right arguments.",
        "normalized_match": "Answer as briefly as possible.",
    }
    return forms.get(metric, "Answer in the style of the examples.")


def _prompt(rows: Sequence[Example], form: str, reasons: list[str]) -> str | None:
    systems = Counter(
        text_of(row.messages[0]) if row.messages[0]["role"] in ("system", "developer") else ""
        for row in rows
    )
    system, count = systems.most_common(1)[0]
    share = f"{100 * count / len(rows):.0f} % of the rows"
    if system and count > len(rows) / 2:
        reasons.append(f"no `prompt`: {share} bring the same system message, which is used")
    elif not system:
        reasons.append(
            "`prompt` says the form of the answer only, for the rows have no system message; if "
            "their questions do not say what is to be done, add it in a sentence or two: all "
            "candidates are only as good as that"
        )
        return form
    else:
        reasons.append("no `prompt`: the rows bring different system messages")
    return None


def _data(
    path: str | Path,
    columns: Columns | None,
    encoding: str | None,
    documents: str | Path | None,
) -> dict[str, Any]:
    data: dict[str, Any] = {"examples": str(path)}
    if documents is not None:
        data["documents"] = str(documents)
    mapped = columns.model_dump(exclude_none=True) if columns else {}
    if mapped:
        data["columns"] = mapped
    if encoding:
        data["encoding"] = encoding
    return data


def _explain_splits(path: str | Path, rows: Sequence[Example], reasons: list[str]) -> None:
    named = [part.split for part in parts_of(path, _skip) if part.split]
    named += sorted({row.split for row in rows if row.split})
    if named:
        reasons.append(f"splits as the data name them: {', '.join(dict.fromkeys(named))}")
    elif all(row.time is not None for row in rows):
        reasons.append("splits by time: every row has one, and the future is what counts")
    elif any(row.group is not None for row in rows):
        reasons.append("splits by hash of the content, rows of one group together")
    else:
        reasons.append("splits by hash of the content, near-duplicates together")


def _warnings(rows: Sequence[Example], more: bool) -> list[str]:
    warnings = []
    n = len(rows)
    given = sum(row.split == "test" for row in rows)
    test = given or min(max(TEST_ROWS, round(TEST_SHARE * n)), int(TEST_MOST * n))
    if not more and test < _FEW_TEST_ROWS:
        warnings.append(
            f"{plural(n, 'row')} {'leaves' if n == 1 else 'leave'} {test} to test on: only a large "
            "gain can be shown with so few; `tunewise forecast` on the study tells how large, and "
            "`data.split: auto` tests every row, in folds"
        )
    if more:
        warnings.append(f"only the first {LOOKED_AT:,} rows were looked at")
    if any(row.rejected is not None for row in rows):
        warnings.append(
            "the rows hold preferences: baselines and the test go by the wanted answers, and "
            "`method: dpo` learns from both"
        )
    return warnings


def _most_pairs(rows: Sequence[Example]) -> bool:
    return sum(row.rejected is not None for row in rows) >= 0.9 * len(rows)


def _most(answers: Iterable[str], holds: Callable[[str], bool]) -> bool:
    found = [holds(answer) for answer in answers]
    return sum(found) >= 0.9 * len(found)


def _json(text: str) -> object:
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def study_name(path: str | Path) -> str:
    """A name for a study of this data: the file's, or its folder's where that says more."""
    place = Path(str(path).removeprefix("hf://").partition(":")[0]).resolve()
    # train.jsonl says less than the folder that it lies in.
    stem = place.parent.name if split_name(place.stem) else place.stem
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._")[:64]
    return name or "study"


def _skip(problem: object) -> None:
    del problem
