"""`tunewise chat`: one question, or a conversation line by line."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from tunewise.data.chat import Message, Request
from tunewise.data.thoughts import UNFINISHED
from tunewise.errors import ModelError
from tunewise.models.opening import open_engine
from tunewise.study.keys import resolve_key


def talk(
    model: str, adapter: Path | None, system: str | None, message: str | None, max_tokens: int
) -> None:
    """Ask ``message`` once, or read lines from stdin until its end.

    Raises:
        ModelError: no such model, or it cannot answer.
    """
    engine = open_engine(model, adapter=adapter, key_resolver=resolve_key)
    console = Console(stderr=True)
    start: list[Message] = [{"role": "system", "content": system}] if system else []

    def ask(messages: list[Message]) -> str:
        completion = engine.answer([Request(tuple(messages), max_tokens=max_tokens)])[0]
        if completion.error is not None:
            raise ModelError(completion.error, where=model)
        if completion.thoughts:
            console.print(completion.thoughts, style="dim", markup=False, highlight=False)
        if completion.unfinished:
            console.print(f"({UNFINISHED}; --max-tokens gives it more room)", style="dim")
        return completion.text

    try:
        if message is not None:
            print(ask([*start, {"role": "user", "content": message}]))
            return
        messages = list(start)
        interactive = sys.stdin.isatty()
        if interactive:
            console.print(f"{model}. An empty line starts anew, Ctrl-D leaves.", style="dim")
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
            answer = ask(messages)
            messages.append({"role": "assistant", "content": answer})
            print(answer, flush=True)
    finally:
        engine.close()
