"""From a conversation to token ids and loss weights, rendered as scoring renders it.

An answer's tokens are what the chat template adds between the prompt (rendered with the head of
an answer, as at inference) and the conversation with the answer. So the model learns to continue
exactly what it will be asked. Where a template renders a prompt in another way once an answer
follows (Qwen3 drops earlier thoughts), its ``{% generation %}`` marks tell instead. Rows are never
cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunewise.data.chat import Example, Message, drop_thoughts, text_of
from tunewise.data.thoughts import split_thoughts
from tunewise.errors import DataError, ModelError
from tunewise.models.chat_format import (
    plain_messages,
    render_prompt,
    template_for,
    template_forms,
)
from tunewise.models.embedding import require_embedded
from tunewise.models.template_forms import written_in
from tunewise.training.rows import EncodedRow

Trained = Literal["answers", "all_assistant", "all"]
Thoughts = Literal["keep", "drop"]

_THOUGHT_OPENS, _THOUGHT_CLOSES = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens ``start:end`` are the answer that stands as message ``message``."""

    message: int
    start: int
    end: int


def with_prompt(messages: Sequence[Message], prompt: str | None) -> tuple[Message, ...]:
    """The conversation with the study's instructions as its system message.

    A row's own system message stands.
    """
    if not prompt or (messages and messages[0].get("role") == "system"):
        return tuple(messages)
    return ({"role": "system", "content": prompt}, *messages)


class Encoder:
    """Encodes rows for one tokenizer.

    Args:
        tokenizer: a fast tokenizer of transformers with a chat template.
        end_ids: tokens that end an answer (``LoadedModel.end_ids``).
        trained: the last answer, all assistant turns, or every token.
        prompt: instructions for rows without a system message of their own.
        embedded: how many tokens the model has (``LoadedModel.embedded``); None does not ask.
        date: what a template that asks for today's date is given; None is today's.
        thoughts: whether those before the trained answers are trained too.
    """

    def __init__(
        self,
        tokenizer: Any,
        end_ids: Sequence[int],
        *,
        trained: Trained = "answers",
        prompt: str | None = None,
        embedded: int | None = None,
        date: str | None = None,
        thoughts: Thoughts = "keep",
    ) -> None:
        self.tokenizer = tokenizer
        self.date = date
        self.embedded = embedded
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        if self._fast is not None:
            self._fast.no_truncation()
            self._fast.no_padding()
        self.end_ids = frozenset(end_ids)
        self.trained = trained
        self.prompt = prompt
        self.thoughts = thoughts
        self.has_marks = "generation %}" in str(tokenizer.chat_template).replace("-%}", " %}")
        # Tokenizers of the older sentencepiece kind mark the start of every piece of text, so
        # that pieces encoded apart are not the whole encoded at once.
        pieces = ("assistant:", " an answer\n", "user: x")
        apart = [t for piece in pieces for t in self._tokens(piece)]
        self._splits_freely = tokenizer.decode(apart) == tokenizer.decode(
            self._tokens("".join(pieces))
        )

    def encode(self, example: Example) -> EncodedRow:
        """Token ids and loss weights of one row.

        Raises:
            DataError: when the template cannot render the row, or renders it in such a way that
                an answer's tokens cannot be told from the prompt's.
        """
        import numpy as np

        messages = with_prompt([self.as_trained(m) for m in example.messages], self.prompt)
        ids, spans = self._spans(messages, example)
        self._require_embedded(ids, example)
        weights = np.zeros(len(ids), dtype=np.float32)
        if self.trained == "all":
            weights[:] = 1.0
        for span in spans:
            weights[span.start : span.end] = _weight(messages[span.message], example)
        weights[:1] = 0.0
        return EncodedRow(example.id, np.asarray(ids, dtype=np.int32), weights)

    def as_trained(self, message: Message) -> Message:
        """The message as it is trained: an answer without thoughts where they are dropped."""
        drop = self.thoughts == "drop" and message.get("role") == "assistant"
        return drop_thoughts(message) if drop else message

    def encode_prompt(self, example: Example) -> list[int]:
        """Token ids of the question alone, with the head of an answer.

        Raises:
            DataError: when the template cannot render it.
        """
        messages = with_prompt(example.prompt, self.prompt)
        ids = self._tokens(self._render(messages, example, ask=True))
        self._require_embedded(ids, example)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text, ended by the tokenizer's end token; empty for no text."""
        ids = self._tokens(text)
        self._require_embedded(ids, None)
        end = self.tokenizer.eos_token_id
        return [*ids, end] if ids and end is not None else ids

    def _spans(
        self, messages: tuple[Message, ...], example: Example
    ) -> tuple[list[int], list[Span]]:
        """Token ids, and the tokens of each answer to be learnt, up to its end-of-turn token."""
        if not messages:
            raise DataError(f"row {example.id!r} has no messages", where=example.source)
        turns = [i for i, m in enumerate(messages) if m.get("role") == "assistant"]
        if self.trained == "answers":
            turns = turns[-1:] if turns and turns[-1] == len(messages) - 1 else []
        found = self._by_prefix(messages, turns, example)
        if found is None and self.has_marks:
            found = self._by_marks(messages, turns, example)
        if found is None:
            raise DataError(
                f"row {example.id!r}: the chat template renders a prompt in another way once its "
                "answer follows, so the answer's tokens cannot be told apart",
                where=example.source,
                hint="Train on the last answer only (`trained_rows: answers`), or use a template "
                "with {% generation %} marks.",
            )
        ids, spans = found
        return ids, [self._to_end_of_turn(ids, s) for s in spans]

    def _by_prefix(
        self, messages: tuple[Message, ...], turns: list[int], example: Example
    ) -> tuple[list[int], list[Span]] | None:
        whole = self._whole(messages, turns, example)
        borders: list[int] = []  # in characters: where each answer starts and ends
        for turn in turns:
            prompt = self._render(messages[:turn], example, ask=True)
            end = len(whole)
            if turn < len(messages) - 1:
                end = self._end_of(messages[: turn + 1], whole, example)
            if not whole.startswith(prompt) or end < len(prompt):
                return None
            borders += [len(prompt), end]
        if not self._splits_freely:
            return self._by_token_prefix(whole, borders, turns)
        ids: list[int] = []
        ends = []
        for start, end in zip([0, *borders], [*borders, len(whole)], strict=True):
            ids += self._tokens(whole[start:end])
            ends.append(len(ids))
        return ids, [Span(t, ends[2 * i], ends[2 * i + 1]) for i, t in enumerate(turns)]

    def _whole(self, messages: tuple[Message, ...], turns: list[int], example: Example) -> str:
        """The conversation as text, as it goes on from what the model is asked with.

        Some heads (DeepSeek R1, QwQ) open a thought: they end with ``<think>``, while an answer
        in the conversation stands without it. What the model is to write after such a head is the
        answer's thought, or nothing, then the closing tag and the answer.
        """
        if not turns or turns[-1] != len(messages) - 1:
            return self._render(messages, example)
        prompt = self._render(messages[:-1], example, ask=True)
        head, opened, rest = prompt.rpartition(_THOUGHT_OPENS)
        if not opened or rest.strip():
            return self._render(messages, example)
        answer = dict(messages[-1])
        thoughts = str(answer.pop("reasoning_content", None) or "").strip()
        said = split_thoughts(text_of(answer))
        if said.thoughts and not thoughts and not said.unfinished:
            thoughts, answer["content"] = said.thoughts, said.answer
        whole = self._render((*messages[:-1], answer), example)
        if whole.startswith(prompt) or not whole.startswith(head):
            return self._render(messages, example)
        written = whole[len(head) :].lstrip()
        gap = f"{thoughts}\n" if thoughts else ""
        return f"{prompt}{gap}{_THOUGHT_CLOSES}\n\n{written}"

    def _end_of(self, messages: tuple[Message, ...], whole: str, example: Example) -> int:
        """Where in ``whole`` the last of ``messages`` ends; -1 if it is rendered otherwise there.

        A conversation that ends here may differ by an end token or white space, no more.
        """
        alone = self._render(messages, example)
        pairs = enumerate(zip(alone, whole, strict=False))
        common = next((i for i, (a, b) in pairs if a != b), min(len(alone), len(whole)))
        rest = alone[common:]
        for token in self.end_ids:
            rest = rest.replace(self.tokenizer.convert_ids_to_tokens(token), "")
        return -1 if rest.strip() else common

    def _by_token_prefix(
        self, whole: str, borders: list[int], turns: list[int]
    ) -> tuple[list[int], list[Span]] | None:
        ids = self._tokens(whole)
        ends = []
        for border in borders:
            head = self._tokens(whole[:border])
            if ids[: len(head)] != head:
                return None
            ends.append(len(head))
        return ids, [Span(t, ends[2 * i], ends[2 * i + 1]) for i, t in enumerate(turns)]

    def _by_marks(
        self, messages: tuple[Message, ...], turns: list[int], example: Example
    ) -> tuple[list[int], list[Span]] | None:
        written, tools = written_in(
            template_forms(self.tokenizer), plain_messages(messages), example.tools
        )
        marked = self.tokenizer.apply_chat_template(
            written,
            tools=tools,
            chat_template=template_for(self.tokenizer, tools, self.date),
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, mask = list(marked["input_ids"]), list(marked["assistant_masks"])
        runs: list[tuple[int, int]] = []
        for j, inside in enumerate(mask):
            if inside and (j == 0 or not mask[j - 1]):
                runs.append((j, j + 1))
            elif inside:
                runs[-1] = (runs[-1][0], j + 1)
        answers = [i for i, m in enumerate(messages) if m.get("role") == "assistant"]
        if len(runs) != len(answers):
            return None
        return ids, [Span(m, *run) for m, run in zip(answers, runs, strict=True) if m in turns]

    def _to_end_of_turn(self, ids: list[int], span: Span) -> Span:
        """End the span with its end-of-turn token: no line break after it, and not without it."""
        for j in range(span.end - 1, span.start - 1, -1):
            if ids[j] in self.end_ids:
                return Span(span.message, span.start, j + 1)
            if self.tokenizer.decode([ids[j]]).strip():
                break  # an end token before more text is part of the answer
        if span.end < len(ids) and ids[span.end] in self.end_ids:
            return Span(span.message, span.start, span.end + 1)
        return span

    def _require_embedded(self, ids: list[int], example: Example | None) -> None:
        if self.embedded is None:
            return
        try:
            require_embedded(self.tokenizer, ids, self.embedded)
        except ModelError as error:
            if example is None:
                raise
            raise DataError(
                f"row {example.id!r}: {error.message}", where=example.source, hint=error.hint
            ) from error

    def _tokens(self, text: str) -> list[int]:
        if not text:
            return []
        if self._fast is not None:  # what the tokenizer itself does, without its overhead
            return list(self._fast.encode(text, add_special_tokens=False).ids)
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _render(self, messages: Sequence[Message], example: Example, *, ask: bool = False) -> str:
        try:
            return render_prompt(self.tokenizer, messages, example.tools, ask=ask, date=self.date)
        except ModelError as error:
            raise DataError(
                f"row {example.id!r}: {error.message}", where=example.source, hint=error.hint
            ) from error


def _weight(message: Message, example: Example) -> float:
    weight = message.get("weight", 1)
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < 1e6:
        raise DataError(
            f"row {example.id!r}: a message's weight is {weight!r}",
            where=example.source,
            hint="Give 0 (not learnt), 1 (learnt) or another number that is not negative.",
        )
    return float(weight)
