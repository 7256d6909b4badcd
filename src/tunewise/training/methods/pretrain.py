"""Continued pretraining: plain text, every token learnt.

Documents stand one after the other, each followed by the end-of-text token, and are cut into rows
of the length limit, so that no row is short and none is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewise.data.chat import Example, text_of
from tunewise.data.documents import Document
from tunewise.data.findings import Finding, FindingBook
from tunewise.training.encode import Encoder, Trained
from tunewise.training.items import Items
from tunewise.training.label_audit import note
from tunewise.training.methods.sft import SupervisedFineTuning
from tunewise.training.rows import EncodedRow


def as_example(document: Document) -> Example:
    """A document as a row of ``pretrain``: one message of the assistant, nothing asked."""
    message = {"role": "assistant", "content": document.text}
    return Example(document.id, (message,), source=document.source)


def as_examples(documents: Sequence[Document]) -> list[Example]:
    """Documents as rows of ``pretrain``."""
    return [as_example(document) for document in documents]


class ContinuedPretraining(SupervisedFineTuning):
    """A row of one message is plain text; a conversation is rendered by the chat template."""

    name = "pretrain"

    @property
    def trained(self) -> Trained:
        return "all"

    def encode(
        self, encoder: Encoder, examples: Sequence[Example], limit: int | None
    ) -> tuple[Items, list[Finding]]:
        items, book = Items(), FindingBook()
        packer = _Packer(items, limit or 1 << 30)
        for number, example in enumerate(examples):
            if len(example.messages) == 1:
                ids = encoder.encode_text(text_of(example.messages[0]))
            else:
                ids = encoder.encode(example).ids.tolist()
            if not ids:
                note(book, "no_trained_token", example.id)
                continue
            if encoder.tokenizer.eos_token_id is None:
                note(book, "no_end_of_text", example.id)
            packer.add(example.id, ids, number)
        packer.flush()
        return items, book.findings()


class _Packer:
    """Gathers tokens and gives rows of the length limit; a row has the id of its first text."""

    def __init__(self, items: Items, limit: int) -> None:
        self._items, self._limit = items, limit
        self._held: list[int] = []
        self._id, self._source = "", 0

    def add(self, id: str, ids: Sequence[int], source: int) -> None:
        """Take a document, with its end-of-text token."""
        done = 0
        while done < len(ids):
            if not self._held:
                self._id, self._source = id, source
            part = ids[done : done + self._limit - len(self._held)]
            self._held += part
            done += len(part)
            if len(self._held) == self._limit:
                self.flush()

    def flush(self) -> None:
        """Give what is held as a row."""
        if len(self._held) > 1:  # the first token of a row is never predicted
            weights = np.ones(len(self._held), np.float32)
            weights[0] = 0.0
            row = EncodedRow(self._id, np.asarray(self._held, np.int32), weights)
            self._items.append([row], self._source)
        self._held = []
