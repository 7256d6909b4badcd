"""Thoughts taken out of what a model wrote, in the marks of the families' templates.

================================  ================================================================
Qwen 3, DeepSeek R1, GLM, Kimi    ``<think>…</think>``; ``<seed:think>`` (Seed-OSS), ``<mm:think>``
K2, Nemotron, SmolLM 3, …         (MiniMax M3); ``◁think▷…◁/think▷`` (Kimi-VL)
EXAONE Deep, others               ``<thought>…</thought>``, ``<thinking>``, ``<reasoning>``
Magistral, Ministral 3            ``[THINK]…[/THINK]``
Command A, Command R7B            ``<|START_THINKING|>…<|END_THINKING|>``, then
                                  ``<|START_RESPONSE|>…<|END_RESPONSE|>``
gpt-oss (harmony)                 ``<|channel|>analysis<|message|>…<|end|>``, then
                                  ``<|start|>assistant<|channel|>final<|message|>``
Gemma 4                           ``<|channel>thought…<channel|>``
Apertus                           ``<|inner_prefix|>…<|inner_suffix|>``
OpenThoughts                      ``<|begin_of_thought|>…<|end_of_thought|>``, then
                                  ``<|begin_of_solution|>…<|end_of_solution|>``
Granite 3.2                       ``Here is my thought process:…Here is my response:``
================================  ================================================================

Thoughts stand before the answer. Marks further on, in an answer that speaks of them, are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNFINISHED = "the answer ended inside a thought, before anything was answered"
"""Why an answer with an open thought scores nothing."""

_PAIRS = {
    "<think>": "</think>",
    "<seed:think>": "</seed:think>",
    "<mm:think>": "</mm:think>",
    "◁think▷": "◁/think▷",
    "<thought>": "</thought>",
    "<thinking>": "</thinking>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel>thought": "<channel|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "Here is my thought process:": "Here is my response:",
}
_BY_PROMPT = (
    "<think>",
    "<seed:think>",
    "<mm:think>",
    "◁think▷",
    "<thought>",
    "[THINK]",
    "<|START_THINKING|>",
    "<|channel>thought",
    "<|inner_prefix|>",
    "<|begin_of_thought|>",
)
"""Those that a template may write at the head of an answer: the model only closes them."""

# What a family writes around the answer itself; words that may be an answer's own, only after a
# thought.
_AROUND = {
    "<|START_RESPONSE|>": "<|END_RESPONSE|>",
    "<|begin_of_solution|>": "<|end_of_solution|>",
}
_AROUND_AFTER_THOUGHT = {"<answer>": "</answer>", "<response>": "</response>"}

# Harmony's messages: those of the analysis are thoughts, wherever they stand; of the others the
# text stays. An open one ends where the next message begins, or with the text.
_ANALYSIS = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>analysis\s*<\|message\|>(.*?)"
    r"(<\|end\|>|(?=<\|start\|>)|$)",
    re.DOTALL,
)
_HEADS = re.compile(
    r"<\|channel\|>(?:final|commentary)\s*<\|message\|>|<\|start\|>assistant|<\|(?:end|return)\|>"
)
# Harmony decoded without its special tokens.
_BARE_HARMONY = re.compile(r"analysis(.*?)assistantfinal(.*)", re.DOTALL)

OPENINGS = (*_PAIRS, "<|start|>assistant", "<|channel|>", *_AROUND)
"""How an answer with thoughts, or with marks around it, begins."""

MARK_TOKENS = (
    *(mark for pair in _PAIRS.items() for mark in pair if mark[0] in "<[◁"),
    *(mark for pair in _AROUND.items() for mark in pair),
    *("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|channel>"),
)
"""Marks that may be special tokens: decoding must leave them in where thoughts are looked for."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a model wrote, taken apart.

    Attributes:
        answer: without thoughts; the very text where there are none; empty where one is open.
        thoughts: their text, without marks; several are joined by an empty line.
        unfinished: a thought was opened and never closed: there is no answer.
    """

    answer: str
    thoughts: str = ""
    unfinished: bool = False


def split_thoughts(text: str, *, opened: bool = False) -> Said:
    """Take the thoughts out of an answer.

    Args:
        text: as the model wrote it, marks that are special tokens included (``MARK_TOKENS``).
        opened: the prompt itself ended with an opening mark (:func:`opens_thought`). Without
            being told, an answer that closes a thought which it did not open is read so too.
    """
    if _is_harmony(text):
        return _harmony(text)
    thoughts: list[str] = []
    rest = text
    if opened and not _opening(rest):
        end = _closing(rest, _BY_PROMPT)
        if end is None:
            return Said("", text.strip(), unfinished=True)
        thoughts.append(rest[: end[0]])
        rest = rest[end[1] :]
    while (mark := _opening(rest)) is not None:
        start = rest.index(mark) + len(mark)
        end_mark = _PAIRS[mark]
        end_at = rest.find(end_mark, start)
        thoughts.append(rest[start:] if end_at < 0 else rest[start:end_at])
        if end_at < 0:
            return Said("", _joined(thoughts), unfinished=True)
        rest = rest[end_at + len(end_mark) :]
    if not thoughts and (end := _closing(rest, _BY_PROMPT)) is not None:
        thoughts.append(rest[: end[0]])
        rest = rest[end[1] :]
    if not thoughts and (bare := _BARE_HARMONY.fullmatch(rest)) is not None:
        return Said(bare[2].strip(), bare[1].strip())
    answer = _unwrapped(rest, after_thought=bool(thoughts))
    return Said(answer.lstrip() if thoughts else answer, _joined(thoughts))


def without_thoughts(text: str) -> str:
    """The answer in a text that is known to be whole: an open thought stays what it is, text."""
    if not may_think(text):
        return text
    said = split_thoughts(text)
    return text if said.unfinished else said.answer


def may_think(text: str) -> bool:
    """Whether it is worth looking: nearly no text holds a mark."""
    return any(sign in text for sign in ("think", "THINK", "thought", "reason", "|>", "assistant"))


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends with an opening mark, as some templates' heads of answers do."""
    return prompt.rstrip().endswith(_BY_PROMPT)


def closing_of(prompt: str) -> str | None:
    """What closes the thought that a prompt opens at its end; None where it opens none."""
    end = prompt.rstrip()
    return next((_PAIRS[mark] for mark in _BY_PROMPT if end.endswith(mark)), None)


def thinks(template: str) -> bool:
    """Whether a chat template knows thoughts: its model may think before it answers."""
    marks = (mark for opening in _BY_PROMPT for mark in (opening, _PAIRS[opening]))
    return any(mark in template for mark in (*marks, "<|channel|>analysis"))


def _opening(text: str) -> str | None:
    """The mark with which a text begins, white space aside."""
    start = text.lstrip()
    return next((mark for mark in _PAIRS if start.startswith(mark)), None)


def _closing(text: str, openings: tuple[str, ...]) -> tuple[int, int] | None:
    """Where the first closing mark of a thought that the prompt opened starts and ends."""
    found = [
        (at, at + len(_PAIRS[mark]))
        for mark in openings
        if (at := text.find(_PAIRS[mark])) >= 0 and mark not in text[:at]
    ]
    return min(found, default=None)


def without_channels(text: str) -> str:
    """Text in harmony's channels as the text alone, without thoughts; any other as it is."""
    return _HEADS.sub("", _ANALYSIS.sub("", text)) if _is_harmony(text) else text


def _is_harmony(text: str) -> bool:
    return "<|message|>" in text or "<|start|>assistant" in text


def _harmony(text: str) -> Said:
    thoughts = [found[1] for found in _ANALYSIS.finditer(text)]
    answer = without_channels(text)
    unfinished = bool(thoughts) and not answer.strip()
    return Said("" if unfinished else answer, _joined(thoughts), unfinished)


def _unwrapped(text: str, *, after_thought: bool) -> str:
    """An answer without what its family writes around it."""
    pairs = _AROUND | (_AROUND_AFTER_THOUGHT if after_thought else {})
    for start, end in pairs.items():
        if text.lstrip().startswith(start):
            inner = text.lstrip().removeprefix(start)
            at = inner.rfind(end)
            if at < 0 or not inner[at + len(end) :].strip():
                return (inner if at < 0 else inner[:at]).strip()
    return text


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(t for t in (thought.strip() for thought in thoughts) if t)
