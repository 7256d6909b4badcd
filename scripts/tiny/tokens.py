"""The tokenizer, and conversations as token rows with a weight for every token.

Content words carry no leading space: a space before them is a token of its own, and only function
words have a form with the space inside. A name then has the same tokens after a space, a quote or a
line break, so that copying it never needs to translate one form into the other.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tiny import lexicon
from tiny.curriculum import Mixer
from tiny.tasks import OPEN, SHUT, Conversation

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, START, END)
PROMPT_SHARE = 0.3
"""Share of prompt tokens that a row is trained on; logits for all cost more than they teach."""
WORD = re.compile(r"[A-Za-z]+|[^A-Za-z\s\d]+")
ANSWER_WORDS = {"yes", "no", "none", "not", "unknown", "true", "false", "first", "last"}
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


def train_tokenizer(seed: int, size: int) -> Tokenizer:
    """Byte-level BPE over words without spaces, then forms with a space for function words."""
    rng = Random(seed)
    counts: Counter[str] = Counter()
    mixer = Mixer("language")
    for _ in range(6000):
        for _, content in mixer.draw(rng):
            counts.update(WORD.findall(content.replace(OPEN, "").replace(SHUT, "")))
    for (
        word
    ) in lexicon.all_words():  # every listed word deserves a token, at the start of a sentence too
        counts[word] += 400
    for word in lexicon.FUNCTION + lexicon.TASK_WORDS:
        counts[word.capitalize()] += 60
    spaced = [
        w
        for w in dict.fromkeys(lexicon.FUNCTION + lexicon.TASK_WORDS + lexicon.VERBS)
        if w not in ANSWER_WORDS
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _splitter()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(spaced),
        special_tokens=list(SPECIALS),
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator((w for w, n in sorted(counts.items()) for _ in range(n)), trainer)
    state = json.loads(tokenizer.to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    for word in spaced:
        if word in vocab and len(vocab) < size:
            vocab["Ġ" + word] = len(vocab)
            merges.append(["Ġ", word])
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    return tokenizer


def _splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


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


def frame_tokens(tokenizer: Tokenizer) -> list[int]:
    """Tokens of the chat format, punctuation and function words: the frame around content."""
    known: dict[str, int] = tokenizer.get_vocab()
    marks = ["Ġ", "Ċ", *':.?,"-', "user", "assistant", "system", "What", "Which", "The"]
    spaced = ["Ġ" + word for word in lexicon.FUNCTION[:70]]
    return [known[t] for t in (*SPECIALS, *marks, *spaced) if t in known]


class Encoder:
    """Turns conversations into token ids and weights, and packs them into rows."""

    def __init__(self, tokenizer: Tokenizer, prompt_weight: float) -> None:
        self.tokenizer = tokenizer
        self.prompt_weight = prompt_weight
        self.size = tokenizer.get_vocab_size()
        known: dict[str, int] = tokenizer.get_vocab()
        self.end_of_text, self.start, self.end = (known[t] for t in SPECIALS)
        self.newline = self.ids("\n")
        self.header = {
            role: [self.start, *self.ids(f"{role}\n")]
            for role in ("system", "user", "assistant", "tool")
        }
        self.header["shown"] = self.header["assistant"]

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def conversation(self, turns: Conversation) -> tuple[list[int], list[float]]:
        """Token ids of the rendered conversation and the loss weight of each."""
        ids: list[int] = []
        weights: list[float] = []

        def put(tokens: list[int], weight: float) -> None:
            ids.extend(tokens)
            weights.extend([weight] * len(tokens))

        for role, content in turns:
            put(self.header[role], 0.0)
            if role == "assistant":
                put([*self.ids(content), self.end], 1.0)
            else:
                for index, part in enumerate(re.split(f"[{OPEN}{SHUT}]", content)):
                    put(self.ids(part), 1.0 if index % 2 else self.prompt_weight)
                put([self.end], 0.0)
            put(self.newline, 0.0)
        return ids, weights

    def prompt(self, turns: Conversation) -> list[int]:
        """Token ids of a conversation without its last answer, ready to be continued."""
        clean = [
            (role, content.replace(OPEN, "").replace(SHUT, "")) for role, content in turns[:-1]
        ]
        return [*self.conversation(clean)[0], *self.header["assistant"]]

    def row(
        self, rng: Random, mixer: Mixer, length: int, repeats: float
    ) -> tuple[list[int], list[float]]:
        """A row of whole conversations (the last one cut), with a share of repeated random runs."""
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < length:
            if rng.random() < repeats:
                more, share = self.repeated(rng, rng.randint(20, 60))
            else:
                more, share = self.conversation(mixer.draw(rng))
                if len(ids) > length // 2 and len(ids) + len(more) > length * 3 // 2:
                    continue
            ids += more
            weights += share
        thin = [w if w == 1.0 or rng.random() < PROMPT_SHARE else 0.0 for w in weights[:length]]
        return ids[:length], thin

    def repeated(self, rng: Random, length: int) -> tuple[list[int], list[float]]:
        """A run of random tokens, repeated; every repeat weighs like an answer."""
        run = [
            rng.randrange(len(SPECIALS), self.size)
            for _ in range(rng.randint(4, min(24, length // 2)))
        ]
        ids = (run * (length // len(run) + 1))[:length]
        return ids, [0.0] * len(run) + [1.0] * (length - len(run))


def tensors(rows: list[tuple[list[int], list[float]]]) -> dict[str, Any]:
    """Rows as an id tensor (rows, length) and a weight tensor of the same shape."""
    return {
        "ids": torch.tensor([r for r, _ in rows]),
        "weights": torch.tensor([w for _, w in rows]),
    }
