"""The metric of tool calls: which functions are called, and with what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tunewise.data.chat import Completion, Example
from tunewise.data.tool_calls import parse_tool_calls
from tunewise.scoring.answers import NO_GOLD, AnswerScorer, plain_calls, why_none
from tunewise.scoring.base import ItemScore
from tunewise.scoring.jsontext import json_values, read_json
from tunewise.words import plural

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_STANDARDIZED_AWAY = re.compile(r"[ ,./\-_*^]")


@plain_dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        name: of the function.
        arguments: by name; in the leaderboard's notation each is a list of acceptable values.
        listed: written in the leaderboard's notation.
    """

    name: str
    arguments: Mapping[str, Any]
    listed: bool = False


def calls_in(text: str) -> list[Call]:
    """The calls that a text holds: in a family's form, JSON alone or amid prose, code fences.

    Known forms of one call: ``{"name": …, "arguments" | "parameters": {…}}``, the same inside
    ``function``, and the Berkeley leaderboard's ``{NAME: {ARGUMENT: …}}``. A text without any
    calls nothing.
    """
    rest, marked = parse_tool_calls(text)
    if marked and not _TAGGED.search(rest):  # a tag that stays is read more leniently below
        return [call for value in marked for call in _calls(value)]
    tagged = _TAGGED.findall(text)
    whole = read_json(text)
    if tagged:
        values = [value for part in tagged for value in json_values(part)]
    else:
        values = [whole.value] if whole is not None else json_values(text)
    return [call for value in values for call in _calls(value)]


def _calls(value: Any) -> list[Call]:
    if isinstance(value, list):
        return [call for inner in value for call in _calls(inner)]
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("tool_calls"), list):
        return _calls(value["tool_calls"])
    for wrapper in ("function", "function_call"):
        if isinstance(value.get(wrapper), dict):
            return _calls(value[wrapper])
    name = value.get("name")
    if isinstance(name, str):
        arguments: Any = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            read = read_json(arguments)
            arguments = read.value if read is not None else arguments
        # Arguments that are no object can equal no wanted arguments.
        return [Call(name, arguments if isinstance(arguments, dict) else {"": arguments})]
    if value and all(isinstance(inner, dict) for inner in value.values()):
        return [
            Call(key, inner, listed=all(isinstance(v, list) for v in inner.values()))
            for key, inner in value.items()
        ]
    return []


@dataclass(frozen=True)
class ToolCalls(AnswerScorer):
    """1 where exactly the wanted functions are called, with the wanted arguments."""

    name: ClassVar[str] = "tool_calls"
    binary: ClassVar[bool] = True

    ordered: bool = Field(False, description="whether the order of parallel calls counts")
    strings: Literal["auto", "exact", "loose"] = Field(
        "auto",
        description="how text arguments are compared; loose: case, spaces and , . / - _ * ^ do "
        "not count; auto: loose where several values are acceptable, else exact",
    )

    def score(self, example: Example, completion: Completion) -> ItemScore:
        """1 or 0; no call is right where the wanted answer makes none.

        A wanted answer of the form ``[{NAME: {ARGUMENT: [VALUE, …]}}]`` lists acceptable values
        (Berkeley Function Calling Leaderboard); an argument that may be ``""`` may be left out.
        """
        if example.target is None:
            return ItemScore(0.0, {"reason": NO_GOLD})
        if (reason := why_none(completion)) is not None:
            return self.failed("", reason)
        if completion.score is not None and not (completion.text or completion.tool_calls):
            return self._recorded(example, completion.score)
        wanted = _of_message(example.target.get("tool_calls") or (), example.answer)
        given = _of_message(completion.tool_calls, completion.text)
        return self._compare(wanted, given)

    def compare(self, gold: str, answer: str) -> ItemScore:
        """The same for two texts."""
        return self._compare(calls_in(gold), calls_in(answer))

    def _compare(self, wanted: list[Call], given: list[Call]) -> ItemScore:
        names = [call.name for call in given]
        details = {"wanted_calls": len(wanted), "calls": len(given)}
        if len(wanted) != len(given):
            reason = f"{plural(len(given), 'call')} instead of {len(wanted)}"
            return ItemScore(0.0, {**details, "reason": reason})
        fits = [[self._fits(w, g) for g in given] for w in wanted]
        pairs = [(k, k) for k in range(len(wanted))] if self.ordered else _best_pairs(fits)
        wrong = [k for k, g in pairs if not fits[k][g]]
        if not wrong:
            return ItemScore(1.0, details)
        call = wanted[wrong[0]]
        named = any(_same_name(call, name) for name in names)
        reason = f"wrong arguments of {call.name}" if named else f"{call.name} is not called"
        return ItemScore(0.0, {**details, "reason": reason})

    def _fits(self, wanted: Call, given: Call) -> bool:
        if not _same_name(wanted, given.name):
            return False
        loose = self.strings == "loose" or (self.strings == "auto" and wanted.listed)
        if not wanted.listed:
            return _same(dict(wanted.arguments), dict(given.arguments), loose)
        for name, options in wanted.arguments.items():
            if name not in given.arguments:
                if options and "" not in options:
                    return False
            elif not _acceptable(given.arguments[name], options, loose, given.listed):
                return False
        return given.arguments.keys() <= wanted.arguments.keys()


def _of_message(calls: Sequence[Mapping[str, Any]], text: str) -> list[Call]:
    if not calls:
        return calls_in(text)
    return [call for plain in plain_calls(calls) for call in _calls(plain)]


def _same_name(wanted: Call, name: str) -> bool:
    # OpenAI's function names may hold no dot, so servers offer `math.factorial` with an underscore.
    return wanted.name == name or wanted.name.replace(".", "_") == name


def _acceptable(value: Any, options: Sequence[Any], loose: bool, listed: bool) -> bool:
    if any(_same(option, value, loose, nested=True) for option in options):
        return True
    if listed and isinstance(value, list):
        # An answer in the same notation: what it calls acceptable must be so.
        stated = [v for v in value if v not in ("", None)] or value
        return all(any(_same(o, v, loose, nested=True) for o in options) for v in stated) and (
            bool(stated) or not options
        )
    return False


def _same(wanted: Any, given: Any, loose: bool, nested: bool = False) -> bool:
    """Equal as JSON values; with ``nested``, objects in ``wanted`` list acceptable values."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        if nested and all(isinstance(options, list) for options in wanted.values()):
            missing = wanted.keys() - given.keys()
            if any("" not in wanted[name] for name in missing):
                return False
            return given.keys() <= wanted.keys() and all(
                _acceptable(given[name], wanted[name], loose, listed=True) for name in given
            )
        return wanted.keys() == given.keys() and all(
            _same(wanted[name], given[name], loose, nested) for name in wanted
        )
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(
            _same(w, g, loose, nested) for w, g in zip(wanted, given, strict=True)
        )
    if isinstance(wanted, str) and isinstance(given, str):
        return wanted == given or (loose and _standardized(wanted) == _standardized(given))
    return isinstance(wanted, bool) == isinstance(given, bool) and bool(wanted == given)


def _standardized(text: str) -> str:
    """The leaderboard's own rule for text arguments."""
    return _STANDARDIZED_AWAY.sub("", text).casefold().replace("'", '"')


def _best_pairs(fits: list[list[bool]]) -> list[tuple[int, int]]:
    from scipy.optimize import linear_sum_assignment

    if not fits:
        return []
    rows, columns = linear_sum_assignment(fits, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
