"""What passes between the rooms: examples, requests and completions, in OpenAI's chat form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunewise.data.thoughts import without_thoughts

Message = Mapping[str, Any]
"""A chat message: ``{"role": …, "content": …}``, optional ``tool_calls``, ``name``, ``weight``."""

TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})
"""Types of content parts that are text; a model of text alone cannot be given any other."""


class Progress(Protocol):
    """Called while something long goes on."""

    def __call__(self, done: int, total: int, failed: int = 0, /) -> None:
        """``done`` of ``total`` are done, ``failed`` among them in vain."""


def canonical_hash(value: object) -> str:
    """SHA-256 (hex) of ``value`` written as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation with the answer that is wanted at its end.

    Attributes:
        id: unique in its data set; given by the row or derived from its content.
        messages: the whole conversation; the last message is the wanted answer (role
            ``assistant``), unless the row has none.
        tools: tool definitions offered to the model, in OpenAI's form.
        rejected: for preference data, the answer that is *not* wanted.
        references: further answers that are as right as the wanted one, in any order; metrics
            score by the best of all.
        desirable: for single-answer preference data (KTO), whether the answer is a good one.
        group: rows of one group (document, user, template) never stand in two splits.
        time: ISO 8601 or a number; where all rows have one, splits are temporal.
        split: ``train``, ``dev`` or ``test`` where the row itself says so.
        documents: ids of the documents that hold the answer, for retrieval's recall.
        metadata: everything else in the row; graders may use it.
        source: ``file:line`` for messages to the user.
        completion: whether the row is a ``prompt`` and its ``completion``, two texts.
    """

    id: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    rejected: Message | None = None
    references: tuple[Message, ...] = ()
    desirable: bool | None = None
    group: str | None = None
    time: str | float | None = None
    split: str | None = None
    documents: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    completion: bool = False

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the wanted answer."""
        return self.messages[:-1] if self.target is not None else self.messages

    @property
    def target(self) -> Message | None:
        """The wanted answer as a message, or None where the row has none."""
        last = self.messages[-1] if self.messages else None
        return last if last is not None and last.get("role") == "assistant" else None

    @property
    def answer(self) -> str:
        """The text of the wanted answer, without thoughts; empty where there is none."""
        return answer_of(self.target) if self.target is not None else ""

    @property
    def is_text(self) -> bool:
        """Whether it is a text of which nothing is asked, for pretraining."""
        return len(self.messages) == 1 and self.target is not None

    @property
    def user_text(self) -> str:
        """What the user wrote: all ``user`` messages of the prompt, without system and shots."""
        return "\n".join(text_of(m) for m in self.prompt if m.get("role") == "user")


def text_of(message: Message) -> str:
    """The text of a message whose content is a string, a list of parts, or absent.

    A refusal is what the assistant says: as a part it stands in its place, as a field of the
    message (OpenAI's form of an answer) it follows the text.
    """
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    if isinstance(content, list):
        text = "".join(_part_text(p) for p in content if isinstance(p, Mapping))
    refusal = message.get("refusal")
    return "\n".join(t for t in (text, str(refusal)) if t) if refusal else text


def answer_of(message: Message) -> str:
    """The text of a wanted answer without the thoughts that stand before it."""
    return without_thoughts(text_of(message))


def drop_thoughts(message: Message) -> Message:
    """The same answer without its thoughts, those in its text and those beside it."""
    answer = answer_of(message)
    kept = {k: v for k, v in message.items() if k != "reasoning_content"}
    if answer != text_of(message):
        kept = {k: v for k, v in kept.items() if k != "refusal"} | {"content": answer}
    return kept


def _part_text(part: Mapping[str, Any]) -> str:
    return str(part.get("refusal" if part.get("type") == "refusal" else "text") or "")


def parts_beside_text(row: Example) -> Iterator[tuple[str, str]]:
    """Parts of a row that are no text, those of the unwanted answer too: where, and the type.

    Where is ``message 1 (user), part 2``, both counted from 1.
    """
    named = [(f"message {n} ({m.get('role')})", m) for n, m in enumerate(row.messages, start=1)]
    if row.rejected is not None:
        named.append(("the answer that is not wanted", row.rejected))
    for name, message in named:
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else (), start=1):
            kind = str(part.get("type", "text"))
            if kind not in TEXT_PARTS:
                yield f"{name}, part {place}", kind


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The form that a prompted model's answers are held to; a server that cannot do so may not.

    Attributes:
        schema: JSON Schema of the value that is answered.
        bare: the answer is the value's own text (a label without quotation marks), not JSON.
    """

    schema: Mapping[str, Any]
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One question to an engine. Equal requests to one model have equal keys.

    Attributes:
        messages: the conversation so far.
        tools: tool definitions, in OpenAI's form.
        max_tokens: most tokens of the answer.
        temperature: 0 is greedy.
        seed: for sampling, where the engine takes one.
        stop: strings that end the answer.
        json_schema: the answer must be JSON that fits this schema.
        form: the answer is held to this form, where nobody asks for ``json_schema``.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    form: AnswerForm | None = None

    def as_dict(self) -> dict[str, Any]:
        """The request as plain JSON values."""
        # Only where there is one, so that requests without keep their keys.
        form = {} if self.form is None else {"form": [dict(self.form.schema), self.form.bare]}
        return {
            **form,
            "messages": [dict(m) for m in self.messages],
            "tools": [dict(t) for t in self.tools],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stop": list(self.stop),
            "json_schema": dict(self.json_schema) if self.json_schema is not None else None,
        }

    @property
    def key(self) -> str:
        """SHA-256 of the request, for caches and item files."""
        return canonical_hash(self.as_dict())


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer, with what it took.

    Attributes:
        text: the answer's text; empty for a failed request. Without thoughts where ``thoughts`` is
            not None; else as it was written.
        tool_calls: in OpenAI's form (``{"function": {"name": …, "arguments": "<json>"}}``).
        prompt_tokens, completion_tokens, cached_tokens: as counted by the engine.
        static_tokens: those of the prompt with which every prompt of the same batch began; None
            where the prompts are not known.
        latency_s: seconds from request to last token. In a batch: the batch's time per answer.
        finish_reason: ``stop``, ``length``, ``tool_calls`` or None.
        error: why the request failed; a failed request counts as a wrong answer.
        advice: what to do about that, in a sentence; None where nobody knows.
        score: a score in 0..1 given from outside (recorded candidates only).
        request_key: the ``Request.key`` that led here.
        seed: of the training run or sample that gave this answer, where several are recorded.
        thoughts: what the model thought before it; None where nobody has looked
            (``scoring/answers.py``, ``scorable``). Their tokens are among ``completion_tokens``.
        unfinished: the answer ended inside a thought, so there is none; it counts as wrong.
    """

    text: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    static_tokens: int | None = None
    latency_s: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    advice: str | None = None
    score: float | None = None
    request_key: str | None = None
    seed: int | None = None
    thoughts: str | None = None
    unfinished: bool = False
