"""What was chosen of a candidate, in words: shots, passages, prompt, form, classifier."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tunewise.report import format as fmt
from tunewise.report.document import CandidateRow

_LONGEST = 400
# Said by other keys, or shown apart.
_APART = {
    *("dev_score", "dev_evaluations", "tried", "notes", "train_score", "recall_rows"),
    *("prompts_tried", "rankings_tried"),
}


def settings_of(candidate: CandidateRow) -> list[str]:
    """Sentences on what was chosen on dev; what none of them knows, as ``key: value``."""
    chosen = {k: v for k, v in candidate.chosen.items() if v is not None and k not in _APART}
    notes = [str(note) for note in candidate.chosen.get("notes") or ()]
    if any(note.startswith("answers are held to") for note in notes):
        chosen.pop("held_to", None)
    parts = (_shots, _passages, _prompt, _classifier, _answer)  # each takes what it says
    said = [text for part in parts for text in part(chosen)]
    said += [f"{key.replace('_', ' ')}: {_short(value)}." for key, value in chosen.items()]
    asked = candidate.chosen.get("dev_evaluations")
    if asked:
        said.append(f"{fmt.plural(asked, 'answer')} on dev led to this choice.")
    return [*said, *(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in notes)]


def tried_of(candidate: CandidateRow) -> list[tuple[str, str, int | None]]:
    """Each setting that was tried, in a few words, with its score (points) and its rows of dev."""
    found = candidate.chosen.get("tried") or ()
    alike = _alike(found)
    rows = []
    for one in found:
        named = {
            k: v for k, v in one.items()
            if k not in alike and v is not None and not k.startswith(("dev_", "train_"))
        }  # fmt: skip
        text = ", ".join(f"{k.replace('_', ' ')} {_short(v, 80)}" for k, v in named.items())
        score = one.get("dev_score", one.get("train_score"))
        points = fmt.points(None if score is None else 100 * score)
        rows.append((text or "as chosen", points, one.get("dev_rows")))
    return rows


def _alike(tried: Any) -> set[str]:
    """Keys that have one value in all settings."""
    keys = {key for one in tried for key in one}
    same = {k for k in keys if all(one.get(k) == tried[0].get(k) for one in tried)}
    return same if len(tried) > 1 else set()


def _shots(chosen: dict[str, Any]) -> Iterator[str]:
    if "selection" not in chosen or "k" not in chosen:
        return
    shots, selection = fmt.plural(chosen.pop("k"), "solved example"), chosen.pop("selection")
    order = chosen.pop("order", None)
    if selection == "nearest":
        yield f"{shots} in the prompt, those nearest to each question."
    elif selection == "fixed":
        which = f", in order {order + 1} of those tried" if order else ""
        yield f"{shots} in the prompt, the same for every question{which}."
    else:
        yield f"{shots} in the prompt, by {selection}."


def _passages(chosen: dict[str, Any]) -> Iterator[str]:
    if "ranking" not in chosen or "k" not in chosen:
        return
    k = chosen.pop("k")
    found = "passage" if k == 1 else f"{k} passages"
    total, words = chosen.pop("passages", None), chosen.pop("passage_words", None)
    of = f" of {total:,}" if total else ""
    long = f" (each of at most {words} words)" if words else ""
    ranking = {"bm25": "by their words (BM25)"}.get(chosen["ranking"], f"by {chosen['ranking']}")
    chosen.pop("ranking")
    yield f"The best {found}{of}{long}, ranked {ranking}."
    told = chosen.pop("instruction", None)
    if told is not None:
        says = "says" if told else "does not say"
        yield f"The prompt {says} that the answer stands in the passages."
    recall = chosen.pop("recall", None)
    if isinstance(recall, Mapping) and recall:
        parts = ", ".join(f"{100 * v:.0f} % among {k}" for k, v in recall.items())
        yield f"The passage that holds the answer was found in {parts}."
    if chosen.pop("retrieval_problem", False):
        yield "Retrieval itself is the problem: the right passage is often not among those found."


def _prompt(chosen: dict[str, Any]) -> Iterator[str]:
    prompt, wording = chosen.pop("prompt", None), chosen.pop("wording", None)
    note = chosen.pop("note", None)
    if prompt is not None:
        yield f"Prompt: “{_short(prompt)}”"
    elif wording is not None:
        yield "Prompt: the rows' own."
    if note is not None:
        yield f"To which is added: “{_short(note)}”"
    if wording not in (None, "as given", "the rows' own") and note is None:
        yield f"Phrased anew: {wording}."
    held = chosen.pop("held_to", None)
    if held is not None:
        yield f"Answers are held to {held}."


def _classifier(chosen: dict[str, Any]) -> Iterator[str]:
    if "features" not in chosen or "c" not in chosen:
        return
    features = {"tf-idf": "TF-IDF of words and characters"}.get(
        chosen["features"], chosen["features"]
    )
    text = f"Logistic regression (C = {fmt.plain(chosen.pop('c'))}) over {features}"
    chosen.pop("features")
    rows, labels = chosen.pop("train_rows", None), chosen.pop("labels", None)
    if rows and labels:
        text += f", {fmt.plural(labels, 'label')} from {fmt.plural(rows, 'row')}"
    threshold = chosen.pop("threshold", None)
    if threshold is not None:
        text += f", a label from a probability of {fmt.plain(threshold)} on"
    yield f"{text}."
    most = chosen.pop("majority", None)
    if isinstance(most, Mapping) and "label" in most:
        share = fmt.percent(most.get("share"))
        yield f"The commonest label, {most['label']}, stands in {share} of them."


def _answer(chosen: dict[str, Any]) -> Iterator[str]:
    if "answer" not in chosen or "share" not in chosen:
        return
    share = fmt.percent(chosen.pop("share"))
    answer = _short(chosen.pop("answer"))
    yield f"Always answers “{answer}”, right in {share} of the training rows."


def _short(value: Any, most: int = _LONGEST) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}…"
