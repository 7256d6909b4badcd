"""Tokens of an answer as text in which tool calls and thoughts can be read: their marks stay.

Many families mark them by special tokens, which decoding without special tokens would delete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunewise.data.thoughts import MARK_TOKENS
from tunewise.data.tool_calls import MARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AROUND = (
    "[ARGS]",
    "[CALL_ID]",
    "</tool_call>",
    "<|/tool_call|>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|tool_calls_section_end|>",
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|call|>",
    "<|end|>",
    "<|return|>",
    "<escape>",
    "<end_function_call>",
    '<|"|>',
    "<tool_call|>",
)


def hidden_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens that no reader of an answer with tool calls needs."""
    return _special(tokenizer) - _named(tokenizer, (*MARKS, *_AROUND))


def decode_answer(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, calls: bool = False
) -> str:
    """The tokens' text without special tokens, but for the marks of thoughts.

    Args:
        calls: the marks of tool calls stay too.
    """
    special, marks = _special(tokenizer), _named(tokenizer, MARK_TOKENS)
    if not calls and (special & marks).isdisjoint(ids):
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))
    hidden = (hidden_tokens(tokenizer) if calls else special) - marks
    return str(tokenizer.decode([i for i in ids if i not in hidden], skip_special_tokens=False))


def _special(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    return frozenset({i for i, token in added if token.special} | set(tokenizer.all_special_ids))


def _named(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> frozenset[int]:
    wanted = set(names)
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if token.content in wanted)
