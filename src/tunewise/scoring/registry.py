"""Metrics by name, with their options checked: Tunewise's own, and those of other packages."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from tunewise.errors import StudyError
from tunewise.plugins import loaded
from tunewise.scoring.base import Scorer
from tunewise.study.parts import SCORERS as SCORERS
from tunewise.study.requirements import complaint


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """One option of a metric: its name, type, default (None where it must be given) and help."""

    name: str
    type: str
    default: Any
    required: bool
    help: str


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """What the documentation says about a metric.

    Attributes:
        package: the distribution that it comes from; None for Tunewise's own.
    """

    name: str
    help: str
    options: tuple[OptionInfo, ...]
    binary: bool
    corpus: bool
    package: str | None = None


def get_scorer(name: str, options: Mapping[str, Any] | None = None, **joints: object) -> Scorer:
    """The metric called ``name``, with its options checked.

    Args:
        options: the study's ``metric.options``.
        joints: what only the program can give; ``judge`` needs ``engines``, see there.

    Raises:
        StudyError: no such metric, or an option that it does not have or cannot take.
    """
    factory = SCORERS.load(name)
    given = dict(options or {})
    fields = _options(factory)
    known = sorted(field.name for field in fields or ())
    unknown = [option for option in given if fields is not None and option not in known]
    if unknown:
        raise _unknown_option(name, unknown[0], known)
    missing = [f.name for f in fields or () if f.required and f.name not in given]
    if missing:
        raise StudyError(
            f"`{name}` needs the option `{missing[0]}`",
            where=f"metric.options.{missing[0]}",
            hint=_option_help(fields or (), missing[0]),
        )
    passed = {key: value for key, value in joints.items() if key in _joints(factory)}
    try:
        scorer = SCORERS.checked(name, factory(**given, **passed))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        option = str(first["loc"][0]) if first["loc"] else ""
        raise StudyError(
            complaint(first),
            where=f"metric.options.{option}".rstrip("."),
            hint=_option_help(fields or (), option),
        ) from None
    except (TypeError, ValueError) as error:
        raise StudyError(f"`{name}` refuses its options: {error}", where="metric.options") from None
    return cast(Scorer, scorer)


def describe() -> list[ScorerInfo]:
    """All metrics that are installed, Tunewise's own first.

    Metrics that cannot be imported are listed with the reason as help.
    """
    infos = []
    for part in SCORERS.parts():
        package = None if part.own else part.package
        try:
            infos.append(_info(part.name, loaded(part), package))
        except Exception as error:
            broken = f"cannot be loaded: {error}"
            infos.append(
                ScorerInfo(part.name, broken, (), binary=False, corpus=False, package=package)
            )
    return infos


def _joints(factory: Callable[..., Any]) -> tuple[str, ...]:
    """What the program, not the study, gives to the metric."""
    return tuple(getattr(factory, "joints", ()))


def _options(factory: Callable[..., Any]) -> tuple[OptionInfo, ...] | None:
    """The options of a metric; None where they cannot be known (``**options``)."""
    if dataclasses.is_dataclass(factory):
        fields = dataclasses.fields(factory)
        return tuple(_field(f) for f in fields if f.init and f.name not in _joints(factory))
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return tuple(
        OptionInfo(
            p.name,
            "" if p.annotation is p.empty else str(p.annotation),
            None if p.default is p.empty else p.default,
            p.default is p.empty,
            "",
        )
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in _joints(factory)
    )


def _field(field: dataclasses.Field[Any]) -> OptionInfo:
    from pydantic.fields import FieldInfo
    from pydantic_core import PydanticUndefined

    default, help_text, required = field.default, "", False
    if isinstance(default, FieldInfo):
        help_text = default.description or ""
        required = default.is_required()
        default = default.get_default(call_default_factory=True, validated_data={})
    if default is dataclasses.MISSING or default is PydanticUndefined:
        default = None
    return OptionInfo(field.name, str(field.type), default, required, help_text)


def _info(name: str, factory: Callable[..., Any], package: str | None) -> ScorerInfo:
    return ScorerInfo(
        name,
        (inspect.getdoc(factory) or "").split("\n\n")[0].replace("\n", " "),
        _options(factory) or (),
        binary=bool(getattr(factory, "binary", False)),
        corpus=bool(getattr(factory, "corpus", False)),
        package=package,
    )


def _unknown_option(scorer: str, option: str, known: list[str]) -> StudyError:
    near = difflib.get_close_matches(str(option), known, n=1, cutoff=0.5)
    guess = f"Did you mean `{near[0]}`? " if near else ""
    listed = f"Its options: {', '.join(known)}." if known else "It has no options."
    return StudyError(
        f"`{scorer}` has no option `{option}`",
        where=f"metric.options.{option}",
        hint=guess + listed,
    )


def _option_help(fields: tuple[OptionInfo, ...], option: str) -> str | None:
    return next((f"{f.name}: {f.help}" for f in fields if f.name == option and f.help), None)
