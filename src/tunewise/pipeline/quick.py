"""A fine-tune from flags alone: a study made in memory around a data file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewise.data.documents import TEXT_SUFFIXES
from tunewise.data.propose import study_name
from tunewise.data.read import parts_of, rows_of
from tunewise.errors import UsageError
from tunewise.pipeline.sources import STUDY_SUFFIXES, check_there
from tunewise.study.loading import Flags, LoadedStudy, load_study, study_from


def training_study(source: str, flags: Flags, overrides: Sequence[str] = ()) -> LoadedStudy:
    """The study of a study file, or one around a file of rows or texts, changed by flags.

    Args:
        source: a study file (YAML); or a file, folder or hub data set with rows, or for
            ``pretrain`` with texts.
        flags: the command line's, each with its key; paths are as seen from the working folder.
        overrides: ``KEY=VALUE`` pairs.

    Raises:
        StudyError: naming the flag or key.
        UsageError: a data file without a model.
        DataError: there is no such file.
    """
    flags = {name: (key, _path(key, value)) for name, (key, value) in flags.items()}
    if Path(source).suffix.casefold() in STUDY_SUFFIXES:
        return load_study(source, overrides, flags)
    check_there(source)
    keys = {key for key, _ in flags.values()} | {o.partition("=")[0].strip() for o in overrides}
    if "model" not in keys:
        raise UsageError(
            "which model is to be tuned?",
            where="--model",
            hint="Name one: --model tunewise/tiny, a folder, or a hub id such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct.",
        )
    method = next((v for key, v in flags.values() if key == "fine_tune.method"), "sft")
    place = _path("data.train", source)
    raw: Mapping[str, Any] = {
        "name": study_name(source),
        "metric": "exact_match",  # a study has one; nothing is scored here
        "data": {
            "documents" if method == "pretrain" and _is_text(source) else "train": place,
        },
        "candidates": ["fine_tuned"],
    }
    return study_from(raw, Path.cwd(), source, overrides, flags)


def _path(key: str, value: Any) -> Any:
    """A path as seen from the working folder, whatever folder the study file lies in."""
    if not key.startswith("data.") or not isinstance(value, str):
        return value
    place = Path(value).expanduser()
    return str(place.absolute()) if place.exists() else value


def _is_text(source: str) -> bool:
    """Whether it holds plain texts: a text file, a folder of them, or a table of texts."""
    path = Path(source).expanduser()
    if path.is_dir():
        return any(file.suffix.casefold() in TEXT_SUFFIXES for file in path.iterdir())
    if path.suffix.casefold() in TEXT_SUFFIXES:
        return True
    rows = itertools.chain.from_iterable(rows_of(part) for part in parts_of(source))
    first = next((row for _, row in rows if isinstance(row, Mapping)), {})
    return isinstance(first.get("text"), str) and "messages" not in first
