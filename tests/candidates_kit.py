"""A small real engine and metric for the candidates' tests.

The engine answers by looking: in the passages it is given, else in the shots, else in the
instructions. So which shots, in what order, and which passages really decides what it answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tunewise.candidates.prompting import Limits
from tunewise.data.chat import Completion, Example, Message, Progress, Request, text_of
from tunewise.scoring.base import ItemScore

LIMITS = Limits(max_tokens=16)


def jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def row(
    key: str,
    text: str,
    answer: str | None,
    *,
    system: str | None = None,
    group: str | None = None,
    documents: Sequence[str] = (),
) -> Example:
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return Example(id=key, messages=tuple(messages), group=group, documents=tuple(documents))


@dataclass
class LookingEngine:
    """Deterministic; one token a word, and one a message."""

    context_length: int | None = None
    model: str = "looking"
    revision: str = "1"
    asked: list[Request] = field(default_factory=list)

    def answer(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[Completion]:
        done = []
        for request in requests:
            self.asked.append(request)
            done.append(self._one(request))
            if progress is not None:
                progress(len(done), len(requests))
        return done

    def count_tokens(self, messages: Sequence[dict[str, object]]) -> int:
        return sum(1 + len(text_of(message).split()) for message in messages)

    def close(self) -> None:
        pass

    def _one(self, request: Request) -> Completion:
        tokens = self.count_tokens([dict(message) for message in request.messages])
        if self.context_length is not None and tokens >= self.context_length:
            return Completion(error="too long", request_key=request.key)
        return Completion(text=self._look(request), prompt_tokens=tokens, request_key=request.key)

    def _look(self, request: Request) -> str:
        *before, last = request.messages
        question = text_of(last)
        if question.startswith("[1] "):
            thing = question.rsplit(" ", 1)[-1].rstrip("?")
            found = re.search(rf"The colour of {thing} is (\w+)", question)
            return found.group(1) if found else "unknown"
        shots = [
            (text_of(user), text_of(answer))
            for user, answer in pairwise(before)
            if (user["role"], answer["role"]) == ("user", "assistant")
        ]
        if shots:
            wanted = set(question.split())
            # The last of equals wins: order matters to it as to a language model.
            return max(
                enumerate(shots), key=lambda shot: (len(wanted & set(shot[1][0].split())), shot[0])
            )[1][1]
        system = text_of(before[0]) if before else ""
        labels = re.search(r"Answer with one of: (.*)", system)
        if labels:
            for label in labels.group(1).split(", "):
                if label in question:
                    return label
        if "briefly" in system:
            return question.split()[-1]
        return f"Well, that is {question.split()[-1]}"


@dataclass(frozen=True)
class Exact:
    """1 where the answer is the wanted one."""

    name: str = "exact"
    binary: bool = True
    corpus: bool = False

    def score(self, example: Example, completion: Completion) -> ItemScore:
        if completion.score is not None:
            return ItemScore(completion.score)
        return ItemScore(float(completion.error is None and completion.text == example.answer))

    def aggregate(self, items: Sequence[ItemScore]) -> float:
        return sum(item.value for item in items) / len(items)
