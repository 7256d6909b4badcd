"""How an example becomes a request: instructions, shots, passages, and limits that all share.

The system message. A study's instructions *replace* a row's own system message where a tenth of
the training rows share it, since then it is another wording of the same instructions; they
*precede* it where it is the row's own, since then it holds what this row needs to know. Without
instructions the row's system message stays. A format note, if any, comes last.

Shots are chat turns between the system message and the row. Passages stand in the last user
message, numbered, before the question.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunewise.candidates.passages import Passage
from tunewise.data.chat import AnswerForm, Example, Message, Request, text_of

_SYSTEM_ROLES = ("system", "developer")
_SHARED = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """What every candidate's answers must keep to.

    Attributes:
        max_tokens: most tokens of an answer.
        json_schema: the answer must be JSON that fits it; engines enforce it.
        stop: strings that end an answer.
        temperature: 0 is greedy.
        form: a prompted model's answers are held to it (``held.py``).
    """

    max_tokens: int = 256
    json_schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    form: AnswerForm | None = None


@dataclass(frozen=True)
class Prompting:
    """One way to ask. Equal examples give byte-equal requests.

    Attributes:
        limits: of the answer.
        instructions: the study's prompt, or None for each row's own system message.
        note: what is said about the answer's form, after the instructions.
        shared: system messages that many training rows have in common.
    """

    limits: Limits
    instructions: str | None = None
    note: str | None = None
    shared: frozenset[str] = frozenset()

    @classmethod
    def from_rows(
        cls, train: Sequence[Example], limits: Limits, instructions: str | None = None
    ) -> Prompting:
        """Prompting for a task, with the system messages that its training rows share."""
        counts = Counter(text for text in map(own_system, train) if text)
        enough = max(2, math.ceil(_SHARED * len(train)))
        shared = frozenset(text for text, n in counts.items() if n >= enough)
        return cls(limits, instructions, None, shared)

    def wording(self, *, instructions: str | None, note: str | None) -> Prompting:
        """The same prompting with other words."""
        return replace(self, instructions=instructions, note=note)

    def system(self, example: Example) -> str:
        """The system message for one row; empty where there is nothing to say."""
        own = own_system(example)
        if self.instructions is not None and (own in self.shared or own == self.instructions):
            own = ""
        return "\n\n".join(part for part in (self.instructions, own, self.note) if part)

    def messages(
        self,
        example: Example,
        *,
        shots: Sequence[Example] = (),
        passages: Sequence[Passage] = (),
    ) -> tuple[Message, ...]:
        """The conversation up to where the answer belongs."""
        system = self.system(example)
        out: list[Message] = [{"role": "system", "content": system}] if system else []
        for shot in shots:
            out.extend(self._turns(shot))
        row = _conversation(example)
        return (*out, *(_with_passages(row, passages) if passages else row))

    def request(
        self,
        example: Example,
        *,
        shots: Sequence[Example] = (),
        passages: Sequence[Passage] = (),
    ) -> Request:
        """The request for one row."""
        return Request(
            messages=self.messages(example, shots=shots, passages=passages),
            tools=example.tools,
            max_tokens=self.limits.max_tokens,
            temperature=self.limits.temperature,
            stop=self.limits.stop,
            json_schema=self.limits.json_schema,
            form=self.limits.form,
        )

    def training_example(self, example: Example, *, passages: Sequence[Passage] = ()) -> Example:
        """The row as the tuned model will be asked, with its answer: what a trainer should see.

        How much its earlier messages weigh in the loss stays; a request has no place for that.
        """
        messages = list(self.messages(example, passages=passages))
        turns = [m for m in example.prompt if m.get("role") not in _SYSTEM_ROLES]
        for place, turn in enumerate(turns, len(messages) - len(turns)):
            if "weight" in turn:
                messages[place] = {**messages[place], "weight": turn["weight"]}
        target = (example.target,) if example.target is not None else ()
        return replace(example, messages=(*messages, *target))

    def _turns(self, shot: Example) -> list[Message]:
        turns = _conversation(shot)
        own = own_system(shot)
        if own and own not in self.shared and own != self.instructions:
            # Chat templates take a system message at the start only.
            turns = _with_text(turns, own, first=True)
        target = shot.target
        if target is None:
            return turns
        turns.append(_without_weight(target))
        for number, call in enumerate(target.get("tool_calls") or ()):
            # The OpenAI API refuses a tool call that no tool message follows.
            name = call.get("id") or f"call_{number}"
            turns.append({"role": "tool", "tool_call_id": name, "content": ""})
        return turns


def own_system(example: Example) -> str:
    """The text of the system messages that the row itself brings."""
    return "\n\n".join(
        text for m in example.prompt if m.get("role") in _SYSTEM_ROLES and (text := text_of(m))
    )


def answer_text(example: Example) -> str:
    """The wanted answer as text, tool calls as JSON; with the thoughts that it holds."""
    if example.target is None:
        return ""
    calls = example.target.get("tool_calls")
    thoughts = str(example.target.get("reasoning_content") or "")
    written = text_of(example.target)
    return thoughts + written + (json.dumps(calls, ensure_ascii=False) if calls else "")


def answer_limit(
    train: Sequence[Example], count: Callable[[str], int], *, at_most: int = 5000
) -> int:
    """``max_tokens`` from the training answers: 99th percentile × 1.25 + 8, at least 16.

    Args:
        train: rows with answers; of more than ``at_most`` every n-th is counted.
        count: tokens of a text, for instance :func:`text_counter` of an engine.
    """
    answers = [text for text in map(answer_text, train) if text]
    answers = answers[:: max(1, math.ceil(len(answers) / at_most))]
    if not answers:
        return 256
    lengths = sorted(map(count, answers))
    percentile = lengths[math.ceil(0.99 * len(lengths)) - 1]
    return max(16, math.ceil(percentile * 1.25) + 8)


def text_counter(
    count_tokens: Callable[[Sequence[dict[str, object]]], int],
) -> Callable[[str], int]:
    """Tokens of a bare text, from an engine's ``count_tokens`` of conversations."""
    frame = count_tokens([{"role": "user", "content": ""}])
    return lambda text: max(0, count_tokens([{"role": "user", "content": text}]) - frame)


def _conversation(example: Example) -> list[Message]:
    return [_without_weight(m) for m in example.prompt if m.get("role") not in _SYSTEM_ROLES]


def _without_weight(message: Message) -> Message:
    """``weight`` belongs to training data; servers refuse it in a request."""
    return {key: value for key, value in message.items() if key != "weight"}


def _with_passages(messages: list[Message], passages: Sequence[Passage]) -> list[Message]:
    blocks = [f"[{n}] {passage.as_text()}" for n, passage in enumerate(passages, 1)]
    return _with_text(messages, "\n\n".join(blocks), first=False)


def _with_text(messages: list[Message], text: str, *, first: bool) -> list[Message]:
    """The messages with ``text`` put before the first or the last user message's content."""
    users = [i for i, m in enumerate(messages) if m.get("role") == "user"]
    if not users:
        return [{"role": "user", "content": text}, *messages]
    at = users[0 if first else -1]
    content = messages[at].get("content")
    joined = (
        [{"type": "text", "text": f"{text}\n\n"}, *content]
        if isinstance(content, list)
        else f"{text}\n\n{text_of(messages[at])}"
    )
    return [*messages[:at], {**messages[at], "content": joined}, *messages[at + 1 :]]
