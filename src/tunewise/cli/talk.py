"""`tunewise chat` and `tunewise use`: one question, or a conversation line by line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tunewise.data.chat import Completion, Message, Request
from tunewise.data.thoughts import UNFINISHED
from tunewise.errors import ModelError, UsageError
from tunewise.models.opening import open_engine
from tunewise.scoring.answers import calls_as_text
from tunewise.study.keys import resolve_key

if TYPE_CHECKING:
    from tunewise.study.loading import LoadedStudy
    from tunewise.workspace import Workspace


def talk(
    model: str, adapter: Path | None, system: str | None, message: str | None, max_tokens: int
) -> None:
    """Ask ``message`` once, or read lines from stdin until its end.

    Raises:
        ModelError: no such model, or it cannot answer.
    """
    engine = open_engine(model, adapter=adapter, key_resolver=resolve_key)
    start: list[Message] = [{"role": "system", "content": system}] if system else []

    def ask(messages: Sequence[Message]) -> Completion:
        return engine.answer([Request(tuple(messages), max_tokens=max_tokens)])[0]

    try:
        _talk(model, ask, start, message, "; --max-tokens gives it more room")
    finally:
        engine.close()


def use_candidate(
    loaded: LoadedStudy, workspace: Workspace, candidate: str | None, question: str | None
) -> None:
    """Ask a candidate of a finished study once, or talk to it at a terminal.

    Raises:
        TunewiseError: the study was not run, or nothing of the candidate can be asked.
    """
    from tunewise.pipeline.reporter import SilentReporter
    from tunewise.pipeline.use import in_use

    if question is None and not sys.stdin.isatty():
        question = sys.stdin.read().removesuffix("\n")
        if not question.strip():
            raise UsageError("there is no question on stdin", where="tunewise use")
    with in_use(loaded, workspace, SilentReporter(), candidate) as found:
        if found.note:
            Console(stderr=True).print(found.note, style="dim", markup=False, highlight=False)
        _talk(found.name, found.answer, [], question, "", remembers=found.converses)


def _talk(
    name: str,
    ask: Callable[[Sequence[Message]], Completion],
    start: list[Message],
    message: str | None,
    more_room: str,
    *,
    remembers: bool = True,
) -> None:
    """One answer to ``message``; without it a conversation, line by line.

    Args:
        more_room: what to tell after an answer that ended inside a thought.
        remembers: a line goes on from those before it.
    """
    console = Console(stderr=True)

    def told(messages: list[Message]) -> str:
        completion = ask(messages)
        if completion.error is not None:
            raise ModelError(completion.error, where=name)
        if completion.thoughts:
            console.print(completion.thoughts, style="dim", markup=False, highlight=False)
        if completion.unfinished:
            console.print(f"({UNFINISHED}{more_room})", style="dim")
        return completion.text or calls_as_text(completion.tool_calls)

    if message is not None:
        print(told([*start, {"role": "user", "content": message}]))
        return
    messages = list(start)
    interactive = sys.stdin.isatty()
    if interactive:
        anew = "An empty line starts anew, " if remembers else ""
        console.print(f"{name}. {anew}Ctrl-D leaves.", style="dim")
    while True:
        if interactive:
            console.print("> ", end="", style="bold")
        line = sys.stdin.readline()
        if not line:
            return
        if not line.strip():
            messages = list(start)
            continue
        messages.append({"role": "user", "content": line.rstrip("\n")})
        answer = told(messages)
        messages = [*messages, {"role": "assistant", "content": answer}] if remembers else []
        print(answer, flush=True)
