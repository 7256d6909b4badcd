"""From a study file to a checked study, with errors that name the line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunewise.errors import StudyError, TunewiseError
from tunewise.plugins import Group
from tunewise.study.complaints import Complaint, Places, complaints_of, study_error
from tunewise.study.overrides import apply_overrides, set_at, steps_of
from tunewise.study.parts import ROUTES, SCORERS, TRACKERS
from tunewise.study.paths import DATA_SUFFIXES, with_paths
from tunewise.study.schema import Study
from tunewise.study.yaml_source import KeyPath, parse_yaml, read_text

Flags = Mapping[str, tuple[str, Any]]
"""Flags of the command line: each with the study key that it stands for, and its value."""


@dataclass(frozen=True, slots=True)
class LoadedStudy:
    """A study and where it came from.

    Attributes:
        study: checked; its paths are absolute.
        path: the study file, as given.
        directory: its folder, absolute; what the study's relative paths are relative to.
        raw: what the file says, with overrides applied, paths as written; JSON values.
        places: the line of each key.
        overrides: what ``--set`` changed.
    """

    study: Study
    path: Path
    directory: Path
    raw: Mapping[str, Any]
    places: Places
    overrides: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """What names this study to a command; empty where no file holds it."""
        if not self.path.is_file():
            return ()
        return (str(self.path), *(part for one in self.overrides for part in ("--set", one)))

    def located(self, error: StudyError) -> StudyError:
        """An error that names a key, met while the study ran, with the key's file and line."""
        path = steps_of(error.where or "", self.raw)
        if not path or path[0] not in self.raw:
            return error
        return StudyError(error.message, where=self.places.where(path), hint=error.hint)


def load_study(
    path: str | Path, overrides: Sequence[str] = (), flags: Flags | None = None
) -> LoadedStudy:
    """Read, check and resolve a study file.

    Args:
        path: the YAML file. Relative paths inside it, and in overrides, are relative to it.
        overrides: ``KEY=VALUE`` pairs, see :func:`~tunewise.study.overrides.apply_overrides`.
        flags: keys that flags of the command line give; they win.

    Raises:
        StudyError: with file, line, key and what was probably meant; up to five at once.
    """
    path = Path(path)
    if path.suffix.casefold() in DATA_SUFFIXES and path.is_file():
        raise StudyError(
            "this is a file with rows, not a study",
            where=str(path),
            hint=f"Write a study around it: tunewise init {path}\n"
            f"Or only fine-tune (--forecast and --explain tell before): "
            f"tunewise train {path} --model MODEL",
        )
    parsed = parse_yaml(read_text(path), str(path))
    if parsed.value is None:
        raise StudyError(
            "the study file is empty",
            where=str(path),
            hint="Write one from your data: tunewise init rows.jsonl",
        )
    if not isinstance(parsed.value, dict):
        raise StudyError(
            "a study file is a mapping (lines of `key: value`)",
            where=f"{path}:{parsed.lines[()]}",
            hint="It begins with `name: my-study`.",
        )
    return _loaded(parsed.value, path, path.parent.absolute(), parsed.lines, overrides, flags)


def study_from(
    raw: Mapping[str, Any],
    directory: Path,
    label: str,
    overrides: Sequence[str] = (),
    flags: Flags | None = None,
) -> LoadedStudy:
    """A study that no file holds, checked and resolved as :func:`load_study` does.

    Args:
        raw: its keys, as a study file has them.
        directory: what relative paths are relative to.
        label: what errors call the study where neither a flag nor ``--set`` gave the key.
        overrides, flags: as in ``load_study``.

    Raises:
        StudyError: naming the flag or key; up to five at once.
    """
    return _loaded(raw, Path(label), directory.absolute(), {}, overrides, flags)


def _loaded(
    value: Mapping[str, Any],
    path: Path,
    directory: Path,
    lines: Mapping[KeyPath, int],
    overrides: Sequence[str],
    flags: Flags | None,
) -> LoadedStudy:
    raw = apply_overrides(value, overrides)
    changed = frozenset(steps_of(o.partition("=")[0], raw) for o in overrides)
    by_key: dict[KeyPath, str] = {}
    for flag, (key, given) in (flags or {}).items():
        steps = steps_of(key, raw)
        set_at(raw, steps, given)
        by_key[steps] = flag
    places = Places(str(path), lines, changed, by_key)
    study = _checked(raw, places)
    _checked_numbers(study, places)
    _checked_primary(study, places)
    _checked_parts(study, places)
    resolved = with_paths(study, raw, directory, places)
    return LoadedStudy(_checked(resolved, places), path, directory, raw, places, tuple(overrides))


def _checked(raw: Mapping[str, Any], places: Places) -> Study:
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise study_error(complaints_of(error, raw), places) from None
    except RecursionError:
        raise StudyError("the study is nested too deeply", where=places.name) from None


def _checked_numbers(study: Study, places: Places) -> None:
    """Text such as ``nan`` and ``inf`` becomes a number in pydantic's hands; none is meant."""

    def walk(value: Any, path: KeyPath) -> Iterator[Complaint]:
        if isinstance(value, float) and not math.isfinite(value):
            yield Complaint(path, "should be a finite number")
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(inner, (*path, key))
        elif isinstance(value, list | tuple):
            for index, inner in enumerate(value):
                yield from walk(inner, (*path, index))

    complaints = list(walk(study.model_dump(), ()))
    if complaints:
        raise study_error(complaints, places)


def _checked_parts(study: Study, places: Places) -> None:
    """The metric, the route and the trackers are installed; a name that is misspelt is told now,
    not when an hour has gone into baselines. Nothing is imported."""
    trackers = [
        (("fine_tune", "report_to", index), TRACKERS, name)
        for index, name in enumerate(study.fine_tune.report_to)
    ]
    named: list[tuple[KeyPath, Group, str]] = [
        (("metric",), SCORERS, study.metric.name),
        *((("also", i), SCORERS, metric.name) for i, metric in enumerate(study.also)),
        (("fine_tune", "route"), ROUTES, study.fine_tune.route),
        *trackers,
    ]
    complaints = []
    for path, group, name in named:
        try:
            group.find(name)
        except TunewiseError as error:
            complaints.append(Complaint(path, error.message, error.hint))
    if complaints:
        raise study_error(complaints, places)


def _checked_primary(study: Study, places: Places) -> None:
    """The pair that decides: first a candidate with fine-tuning, then one without."""
    if study.primary is None:
        return
    known = {c.name: c.is_fine_tuned for c in study.candidates or []}
    complaints = []
    for index, (name, tuned) in enumerate(zip(study.primary, (True, False), strict=True)):
        if known.get(name) is tuned:
            continue
        what = "with" if tuned else "without"
        fitting = [other for other, is_tuned in known.items() if is_tuned is tuned]
        complaints.append(
            Complaint(
                ("primary", index),
                f"{name!r} is not a candidate {what} fine-tuning",
                f"Write [WITH, WITHOUT]; candidates {what}: {', '.join(fitting) or 'none'}.",
            )
        )
    if complaints:
        raise study_error(complaints, places)
