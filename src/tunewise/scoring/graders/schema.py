"""The graders of OpenAI's fine-tuning API, as written in a request or a file.

Beyond the document this takes what its guides and Azure's write: the graders of a ``multi`` as
mapping of names, as list or as one object; ``pass_threshold``, ``response_format`` and
``invalid_grade`` on any grader. Fields that nobody knows are kept and do nothing, as with the
original, unless they look like a known one misspelt.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tunewise.scoring.graders.errors import GraderError
from tunewise.scoring.graders.formula import FUNCTIONS, parse_formula
from tunewise.scoring.graders.similarity import Metric
from tunewise.scoring.graders.templates import parse_template
from tunewise.scoring.sandbox import MAX_SOURCE_BYTES
from tunewise.study.complaints import dotted
from tunewise.study.requirements import complaint

_MOST_GRADERS = 64
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class _Named(_Open):
    """What all graders may have.

    Attributes:
        name: for results, and in the formula of a multi grader; its type where it has none.
        pass_threshold: kept for whoever reads the grader; a reward is never rounded to it.
        response_format: kept likewise.
        invalid_grade: the reward where the grader cannot say one.
    """

    name: str
    pass_threshold: Finite | None = None
    response_format: dict[str, Any] | None = None
    invalid_grade: Finite = 0.0


class StringCheck(_Named):
    """1 where the input equals (``eq``), differs from (``ne``) or contains the reference.

    ``like`` contains with case, ``ilike`` without.
    """

    type: Literal["string_check"]
    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarity(_Named):
    """How alike the input and the reference are; see :mod:`.similarity`."""

    type: Literal["text_similarity"]
    input: str
    reference: str
    evaluation_metric: Metric


class PythonGrader(_Named):
    """``def grade(sample, item)`` in a sandbox; see :mod:`tunewise.scoring.sandbox`.

    Attributes:
        image_tag: taken and not used: the packages are those installed beside Tunewise.
    """

    type: Literal["python"]
    source: str
    image_tag: str | None = None


class SamplingParams(_Open):
    """How a grading model writes. ``max_completions_tokens`` is the document's spelling."""

    seed: int | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    temperature: float | None = Field(None, ge=0, le=2)
    max_completions_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    reasoning_effort: str | None = None


class TextPart(_Open):
    """One text of a message with several."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class Message(_Open):
    """One message to a grading model; its texts are templates."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | TextPart | list[str | TextPart]
    type: Literal["message"] = "message"

    @field_validator("content", mode="before")
    @classmethod
    def _text_only(cls, content: Any) -> Any:
        for part in content if isinstance(content, list) else [content]:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind in ("input_image", "input_audio"):
                raise ValueError(f"{kind} cannot be graded here, only text")
        return content

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the content, in order."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        return tuple(part if isinstance(part, str) else part.text for part in parts)


class ScoreModel(_Named):
    """A model gives a number in ``range``; what it gives beyond is cut to the range."""

    type: Literal["score_model"]
    model: str = Field(min_length=1)
    input: list[Message] = Field(min_length=1)
    range: list[Finite] = Field([0.0, 1.0], min_length=2, max_length=2)
    sampling_params: SamplingParams = SamplingParams()

    @field_validator("range")
    @classmethod
    def _rises(cls, value: list[float]) -> list[float]:
        if value[0] >= value[1]:
            raise ValueError("the range must rise, as in [0, 1]")
        return value


class LabelModel(_Named):
    """A model chooses one of ``labels``; 1 where it is one of ``passing_labels``."""

    type: Literal["label_model"]
    model: str = Field(min_length=1)
    input: list[Message] = Field(min_length=1)
    labels: list[str] = Field(min_length=1)
    passing_labels: list[str]
    sampling_params: SamplingParams = SamplingParams()


Single = StringCheck | TextSimilarity | PythonGrader | ScoreModel | LabelModel


class Multi(_Named):
    """Several graders and the formula that makes one reward of theirs."""

    type: Literal["multi"]
    graders: dict[str, Single]
    calculate_output: str


Grader = Single | Multi

_KINDS: Mapping[str, type[_Named]] = {
    "string_check": StringCheck,
    "text_similarity": TextSimilarity,
    "python": PythonGrader,
    "score_model": ScoreModel,
    "label_model": LabelModel,
    "multi": Multi,
}


def parse_grader(value: Any, where: str = "grader") -> Grader:
    """A grader as plain JSON values into a checked one; templates and formula are read too.

    Args:
        value: the grader; an object of this module is given back as it is.
        where: its path, for errors.

    Raises:
        GraderError: what is wrong, with the path of the bad value as ``where``.
    """
    if isinstance(value, StringCheck | TextSimilarity | PythonGrader | ScoreModel | Multi):
        return value
    kind = _kind(value, where)
    if kind is LabelModel:
        raise GraderError(
            "a label_model grader gives a label, not a reward, and stands only inside a multi",
            where=where,
            hint='Put it into {"type": "multi", "graders": {"NAME": …}, "calculate_output": '
            '"NAME"}.',
        )
    return _multi(value, where) if kind is Multi else _single(value, kind, where)


def with_names(value: Mapping[str, Any]) -> dict[str, Any]:
    """A grader as it was given, each with the name that it goes by: answers of the API need one."""
    named, inner = _named(value), value.get("graders")
    if isinstance(inner, list):
        named["graders"] = [_named(one) for one in inner]
    elif isinstance(inner, Mapping) and isinstance(inner.get("type"), str):
        named["graders"] = _named(inner)
    elif isinstance(inner, Mapping):
        named["graders"] = {name: _named({"name": name, **one}) for name, one in inner.items()}
    return named


def _kind(value: Any, where: str) -> type[_Named]:
    if not isinstance(value, Mapping):
        raise GraderError("a grader is an object with a `type`", where=where, hint=_types())
    name = value.get("type")
    if name is None:
        raise GraderError("`type` is missing", where=f"{where}.type", hint=_types())
    if not isinstance(name, str) or name not in _KINDS:
        shown = repr(name) if isinstance(name, str) and len(name) <= 60 else "this"
        raise GraderError(f"there is no grader of type {shown}", where=f"{where}.type",
                          hint=_types())  # fmt: skip
    return _KINDS[name]


def _types() -> str:
    return f"Types: {', '.join(_KINDS)}."


def _single(value: Mapping[str, Any], kind: type[_Named], where: str) -> Single:
    grader = _validated(value, kind, where)
    assert isinstance(grader, Single)
    if isinstance(grader, PythonGrader):
        if len(grader.source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
            raise GraderError(f"the source is larger than {MAX_SOURCE_BYTES // 1024} KiB",
                              where=f"{where}.source")  # fmt: skip
        return grader
    if isinstance(grader, StringCheck | TextSimilarity):
        parse_template(grader.input, f"{where}.input")
        parse_template(grader.reference, f"{where}.reference")
        return grader
    for number, message in enumerate(grader.input):
        for text in message.texts:
            parse_template(text, f"{where}.input[{number}].content")
    if isinstance(grader, LabelModel):
        _check_labels(grader, where)
    return grader


def _check_labels(grader: LabelModel, where: str) -> None:
    if len(set(grader.labels)) < len(grader.labels):
        raise GraderError("a label stands twice", where=f"{where}.labels")
    unknown = [label for label in grader.passing_labels if label not in grader.labels]
    if unknown:
        raise GraderError(
            f"{unknown[0]!r} is none of the labels",
            where=f"{where}.passing_labels",
            hint=f"Labels: {', '.join(grader.labels)[:200]}.",
        )


def _multi(value: Mapping[str, Any], where: str) -> Multi:
    given = value.get("graders")
    at = f"{where}.graders"
    if given is None:
        raise GraderError("`graders` is missing", where=at)
    parts = {name: _part(one, place) for name, one, place in _parts(given, at)}
    # The parts are checked with their own paths; the rest with them put in.
    grader = _validated({**value, "graders": parts}, Multi, where)
    assert isinstance(grader, Multi)
    parse_formula(grader.calculate_output, list(parts), f"{where}.calculate_output")
    return grader


def _parts(given: Any, where: str) -> list[tuple[str, Mapping[str, Any], str]]:
    """The graders with their names in the formula and their paths, whatever shape was written."""
    if isinstance(given, Mapping) and not isinstance(given.get("type"), str):
        named = [(str(name), one, f"{where}.{name}") for name, one in given.items()]
        made = [
            (name, {"name": name, **one} if isinstance(one, Mapping) else one, place)
            for name, one, place in named
        ]
    elif isinstance(given, Mapping | list):
        listed = [given] if isinstance(given, Mapping) else given
        places = [where] if isinstance(given, Mapping) else [
            f"{where}[{k}]" for k in range(len(listed))
        ]  # fmt: skip
        made = [
            (str(_named(one)["name"]) if isinstance(one, Mapping) else "", one, place)
            for one, place in zip(listed, places, strict=True)
        ]
    else:
        raise GraderError("`graders` maps names to graders", where=where)
    if not 1 <= len(made) <= _MOST_GRADERS:
        raise GraderError(f"there must be 1 to {_MOST_GRADERS} graders, not {len(made)}",
                          where=where)  # fmt: skip
    seen: set[str] = set()
    for name, _, place in made:
        if not name[:1].isalpha() and name[:1] != "_":
            raise GraderError("a grader's name must begin with a letter", where=place)
        if name in FUNCTIONS:
            raise GraderError(f"{name!r} is a function of formulas; name the grader otherwise",
                              where=place)  # fmt: skip
        if name in seen:
            raise GraderError(f"two graders are called {name!r}", where=place)
        seen.add(name)
    return made


def _part(value: Any, where: str) -> Single:
    kind = _kind(value, where)
    if kind is Multi:
        raise GraderError("a multi grader cannot stand inside another", where=where)
    return _single(value, kind, where)


def _validated(value: Mapping[str, Any], kind: type[_Named], where: str) -> _Named:
    misspelt = _misspelt(value, kind)
    if misspelt:
        raise GraderError(f"unknown field `{misspelt[0]}`", where=f"{where}.{misspelt[0]}",
                          hint=f"Did you mean `{misspelt[1]}`?")  # fmt: skip
    try:
        return kind.model_validate(_named(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = tuple(part for part in first["loc"] if part not in _TRIED)
        place = f"{where}.{dotted(path)}" if path else where
        if first["type"] == "missing":
            message = f"`{path[-1]}` is missing"
        else:
            message = complaint(first, "an object")
        raise GraderError(message, where=place) from None


def _named(value: Mapping[str, Any]) -> dict[str, Any]:
    """A grader with a name: examples in the field leave it out, and OpenAI takes them."""
    name = value.get("name")
    return {**value, "name": value.get("type", "") if name is None else name}


_TRIED: frozenset[int | str] = frozenset({"str", "TextPart", "list[union[str,TextPart]]"})
"""pydantic's marks of which of several types it tried."""


def _misspelt(value: Mapping[str, Any], kind: type[_Named]) -> tuple[str, str] | None:
    known = [name for name in kind.model_fields if name not in value]
    for name in value:
        if name not in kind.model_fields:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.85)
            if near:
                return str(name), near[0]
    return None
