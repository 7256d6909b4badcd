"""What a teacher answered: the text, and how likely it found each token and others in its place.

Log-probabilities have the form in which chat completions give them (``choices[0].logprobs`` of
OpenAI's API, asked with ``logprobs`` and ``top_logprobs``). Two vocabularies number their tokens
differently, so tokens are matched by their bytes.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunewise.data.chat import Example, Message, text_of
from tunewise.data.findings import RowError
from tunewise.data.lines import json_lines
from tunewise.data.spool import Spool
from tunewise.errors import DataError
from tunewise.models.token_bytes import TokenBytes
from tunewise.study.fine_tune import Distill
from tunewise.training.rows import EncodedRow

_ROUNDING = 0.01
"""How far probabilities may exceed 1 together: servers round them and run in 16 bits."""


@dataclass(frozen=True, slots=True)
class TaughtToken:
    """One token of an answer.

    Attributes:
        written: the bytes of the token that the teacher wrote.
        log_probs: by a token's bytes, of the likeliest ones and of the one that it wrote.
    """

    written: bytes
    log_probs: Mapping[bytes, float]


@dataclass(frozen=True, slots=True)
class TaughtAnswer:
    """A teacher's answer; ``tokens`` is empty where only its text was recorded."""

    message: Message
    tokens: tuple[TaughtToken, ...] = ()


class Teacher:
    """Recorded answers, by row.

    Raises:
        DataError: the file of answers cannot be read, a line is wrong, or an id comes twice.
    """

    def __init__(self, options: Distill) -> None:
        self._column = options.column
        self._path = None if options.answers is None else Path(options.answers)
        self._places: dict[str, int] = {}
        self._numbers = array("Q")
        self._lines = Spool("u1")
        if self._path is not None:
            self._read(self._path)

    def answer(self, example: Example) -> TaughtAnswer | None:
        """The answer to a row, or None where none was recorded.

        Raises:
            DataError: what was recorded is no answer.
        """
        if self._path is None:
            found = example.metadata.get(self._column)
            where = example.source or example.id
            return None if found in (None, "") else read_answer(found, where)
        if example.id not in self._places:
            return None
        place = self._places[example.id]
        line = json.loads(self._lines.row(place).tobytes())
        where = f"{self._path}:{self._numbers[place]}"
        return None if line["answer"] == "" else read_answer(line["answer"], where, line)

    def _read(self, path: Path) -> None:
        for number, row in json_lines(path):
            where = f"{path}:{number}"
            if isinstance(row, RowError):
                raise DataError(row.message, where=where, hint=row.hint)
            if not isinstance(row, Mapping) or row.get("id") is None or row.get("answer") is None:
                raise DataError(
                    "the line has no `id` or no `answer`",
                    where=where,
                    hint='Write one line a row: {"id": "…", "answer": "…"}',
                )
            if str(row["id"]) in self._places:
                raise DataError(f"the id {row['id']!r} comes twice", where=where)
            self._places[str(row["id"])] = len(self._lines)
            self._numbers.append(number)
            kept = {key: row[key] for key in ("answer", "logprobs") if key in row}
            self._lines.append(json.dumps(kept).encode())


def read_answer(value: object, where: str, beside: Mapping[str, Any] | None = None) -> TaughtAnswer:
    """An answer as it may be recorded.

    Args:
        value: text; a message; or a choice of a chat completion, with ``message``.
        beside: may hold ``logprobs``, where ``value`` does not.

    Raises:
        DataError: it is none of these, or its log-probabilities are not of the form above.
    """
    logprobs = (beside or {}).get("logprobs")
    if isinstance(value, Mapping):
        logprobs = value.get("logprobs") or logprobs
        value = value.get("message", value)
    if isinstance(value, str):
        message: Message = {"role": "assistant", "content": value}
    elif isinstance(value, Mapping) and ("content" in value or "tool_calls" in value):
        kept = {k: v for k, v in value.items() if k != "logprobs" and v is not None}
        message = {"content": "", **kept, "role": "assistant"}
    else:
        raise DataError(
            "a teacher's answer is neither text nor a message",
            where=where,
            hint="Give a string, an object with `content` (and `tool_calls`), or a choice of a "
            "chat completion.",
        )
    return TaughtAnswer(message, () if logprobs is None else _tokens(logprobs, where))


def _tokens(logprobs: object, where: str) -> tuple[TaughtToken, ...]:
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else logprobs
    if content is None:  # as for an answer of tool calls
        return ()
    try:
        assert isinstance(content, Sequence)
        return tuple(_token(entry) for entry in content)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        said = f": {error}" if type(error) is ValueError else ""
        raise DataError(
            f"a teacher's log-probabilities cannot be read{said}",
            where=where,
            hint='Record `choices[0].logprobs` of a chat completion: {"content": [{"token": "…", '
            '"bytes": […], "logprob": …, "top_logprobs": […]}]}.',
        ) from error


def _token(entry: Mapping[str, Any]) -> TaughtToken:
    log_probs: dict[bytes, float] = {}
    for other in entry.get("top_logprobs") or ():
        name, value = _bytes(other), _log_prob(other)
        # Two tokens of one vocabulary may stand for the same bytes.
        before = log_probs.get(name)
        log_probs[name] = value if before is None else float(np.logaddexp(before, value))
    written = _bytes(entry)
    log_probs.setdefault(written, _log_prob(entry))
    total = math.fsum(math.exp(value) for value in log_probs.values())
    if total > 1 + _ROUNDING:
        raise ValueError(f"the probabilities of one token add up to {total:.3f}")
    return TaughtToken(written, log_probs)


def _bytes(entry: Mapping[str, Any]) -> bytes:
    given = entry.get("bytes")
    return str(entry["token"]).encode() if given is None else bytes(list(given))


def _log_prob(entry: Mapping[str, Any]) -> float:
    value = float(entry["logprob"])
    if not value <= _ROUNDING:
        raise ValueError(f"{value} is no log-probability")
    return max(value, -9999.0)  # what the API writes for a probability of 0


class Vocabulary:
    """A student's tokens, by their bytes."""

    def __init__(self, tokenizer: Any) -> None:
        self._bytes = TokenBytes(tokenizer)
        # The later one wins: byte fallbacks stand before the pieces that mean the same.
        self._ids = {self._bytes(token): token for token in range(len(tokenizer))}

    def align(
        self, row: EncodedRow, answer: TaughtAnswer
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None:
        """What the teacher thought of the row's learnt tokens; None where it cuts the text
        into other tokens.

        A last token that only ends the turn may be another: it is no part of the text.

        Returns:
            Token ids, the row's own first, and their log-probabilities, both of shape (learnt
            tokens, k). Where nothing was recorded the latter are minus infinity. Tokens that the
            student does not have are left out: their mass belongs to the rest.
        """
        ids = row.ids[row.weights > 0]
        places = self._place(ids, answer)
        if places is None:
            return None
        width = max(len(token.log_probs) for token in answer.tokens)
        tokens = np.repeat(ids[:, None], width, axis=1)
        log_probs = np.full(tokens.shape, -np.inf, np.float32)
        for place, said in zip(places, answer.tokens, strict=False):
            known = {int(ids[place]): said.log_probs[said.written]}
            for name, value in said.log_probs.items():
                if name != said.written and name in self._ids:
                    known[self._ids[name]] = value
            tokens[place, : len(known)] = list(known)
            log_probs[place, : len(known)] = list(known.values())
        return tokens, log_probs

    def _place(self, ids: npt.NDArray[np.int32], answer: TaughtAnswer) -> range | None:
        """The places among the learnt tokens at which the answer's tokens stand."""
        own = [self._bytes(int(token)) for token in ids]
        said = [token.written for token in answer.tokens]
        text = text_of(answer.message).encode()
        for wanted in (said, said[:-1]):
            if wanted is not said and b"".join(wanted) != text:
                continue
            for first in range(len(own) - len(wanted), -1, -1):
                if own[first : first + len(wanted)] == wanted:
                    return range(first, first + len(wanted))
        return None
