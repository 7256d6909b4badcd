"""Tokens of an answer as text in which tool calls can be read: the marks of calls stay.

Many families mark calls by special tokens, which decoding without special tokens would delete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    special = {
        index for index, token in tokenizer.added_tokens_decoder.items() if token.special
    } | set(tokenizer.all_special_ids)
    shown = (*MARKS, *_AROUND)
    return frozenset(i for i in special if tokenizer.convert_ids_to_tokens(i) not in shown)


def decode_calls(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The tokens' text without special tokens, but for those that mark calls."""
    hidden = hidden_tokens(tokenizer)
    return str(tokenizer.decode([i for i in ids if i not in hidden], skip_special_tokens=False))
