"""The tokenizer: a byte-level BPE whose merges are written, not counted.

Every invented word is two tokens (an opening syllable and an ending), every listed word one.
Look-up is learnt far sooner when what is looked up is short and always cut in the same places.

Content words carry no leading space: a space before them is a token of its own, and only function
words have a form with the space inside. A name then has the same tokens after a space, a quote or a
line break, so that copying it never needs to translate one form into the other.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tiny import lexicon
from tunewise.synthetic import words

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, START, END)
ANSWER_WORDS = {"yes", "no", "none", "not", "unknown", "true", "false", "first", "last"}
"""Function words that also begin answers, so they keep their space apart."""
MARKS = ('["', '"]', '",', '":', '{"', '"}', "->", "=>", "ĊĊ")
"""Pairs of marks that stand together in JSON, patterns and between passages."""
CHAT_TEMPLATE = """{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- 'Tools:' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\nCall one with <tool_call>{"name": …, "arguments": {…}}</tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- generation %}
{{- message.content or '' }}
{%- for call in message.tool_calls or [] %}
{%- set call = call.function if call.function is defined else call %}
{{- '<tool_call>' + ({'name': call.name, 'arguments': call.arguments} | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>' }}
{%- endgeneration %}
{{- '\\n' }}
{%- elif not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


class _Merges:
    """An ordered table of merges, each of two known pieces."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], int] = {}
        self.made: dict[str, None] = {}

    def add(self, left: str, right: str) -> None:
        if left + right not in self.made:
            self.table[left, right] = len(self.table)
            self.made[left + right] = None

    def pieces(self, word: str) -> list[str]:
        """``word`` cut as the merges so far cut it."""
        parts = list(word)
        while True:
            known = [(self.table[p], i) for i, p in enumerate(_pairs(parts)) if p in self.table]
            if not known:
                return parts
            at = min(known)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]


def _pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(pairwise(parts))


def _syllables(merges: _Merges) -> None:
    """Vowels and consonants of two letters, then opening syllables, endings and codas."""
    for vowel in words.VOWELS:
        if len(vowel) > 1:
            merges.add(*vowel)
    for onset in words.ONSETS:
        if len(onset) > 1:
            merges.add(*onset)
            merges.add(*onset.capitalize())
    for onset in words.ONSETS:
        for vowel in words.VOWELS:
            merges.add(onset, vowel)
            merges.add(onset.capitalize(), vowel)
    for ending in words.ENDINGS:
        merges.add(ending[:-1], ending[-1])
    for coda in words.CODAS:
        if len(coda) > 1:
            merges.add(*coda)


def _whole(merges: _Merges, listed: list[str]) -> None:
    """Merges that make each listed word one token, the commonest pair of pieces first."""
    cut = [merges.pieces(word) for word in dict.fromkeys(listed)]
    while pairs := Counter(pair for parts in cut for pair in _pairs(parts)):
        left, right = pairs.most_common(1)[0][0]
        merges.add(left, right)
        for parts in cut:
            for at in range(len(parts) - 2, -1, -1):
                if parts[at : at + 2] == [left, right]:
                    parts[at : at + 2] = [left + right]


def build_tokenizer() -> Tokenizer:
    """The tokenizer; there is nothing random about it."""
    merges = _Merges()
    _syllables(merges)
    framing = lexicon.FUNCTION + lexicon.TASK_WORDS
    _whole(
        merges,
        [
            *words.PLACE_ENDS,
            *words.MONTHS,
            *lexicon.all_words(),
            *(word.capitalize() for word in framing),
        ],
    )
    for word in dict.fromkeys(framing + lexicon.VERBS):
        if word not in ANSWER_WORDS and len(word) > 1:
            merges.add("Ġ", word)
    merges.add("Ġ", "a")
    for left, right in MARKS:
        merges.add(left, right)
    names = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *merges.made]
    vocabulary = {name: at for at, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges.table)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write the tokenizer files and the chat template that transformers loads."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END,
        pad_token=END_OF_TEXT,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
