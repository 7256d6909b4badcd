"""Answers that must fit a JSON Schema: the tokens that may come next, by llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewise.data.chat import canonical_hash
from tunewise.errors import ModelError
from tunewise.releases import import_failed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# What json.dumps writes, compact, plain or indented, and no more: left open, a weak model writes
# white space until its budget is gone.
OPTIONS: Any = {
    "whitespace_flexible": True,
    "whitespace_pattern": r"(\n {0,8})?",
    "key_separator": ": ?",
    "item_separator": ", ?",
}


class SchemaError(ModelError):
    """A JSON Schema that cannot be enforced."""


class SchemaGuide:
    """Follows one answer and says which tokens keep it within the schema."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """Booleans, shape ``[vocabulary]``: True where the token may come next."""
        import torch

        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        flags = np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
        if len(flags) < vocabulary:
            flags = np.pad(flags, (0, vocabulary - len(flags)))
        return torch.from_numpy(flags)

    def accept(self, token: int) -> None:
        """Tell that ``token`` was written."""
        self._matcher.consume_token(token)

    @property
    def complete(self) -> bool:
        """Nothing can follow: the answer is a whole value."""
        return bool(self._matcher.is_stopped()) and not self.error

    @property
    def error(self) -> str:
        """Why the schema could not be followed; empty if it was."""
        return str(self._matcher.get_error()) if self._matcher.is_error() else ""


class SchemaCompiler:
    """Compiles schemas for one tokenizer, each once."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, end_ids: Sequence[int]
    ) -> None:
        self._tokenizer: Any = tokenizer
        self._vocabulary = vocabulary
        self._end_ids = list(end_ids)
        self._tokens: Any = None
        self._compiled: dict[str, Any] = {}

    def guide(self, schema: Mapping[str, Any]) -> SchemaGuide:
        """A guide at the beginning of an answer.

        Raises:
            SchemaError: the schema uses what llguidance cannot enforce, or the tokenizer is of a
                kind that it cannot read.
            TunewiseError: llguidance is not installed, or does not load.
        """
        key = canonical_hash(schema)
        if key not in self._compiled:
            self._compiled[key] = self._compile(schema)
        return SchemaGuide(self._compiled[key].deep_copy())

    def _compile(self, schema: Mapping[str, Any]) -> Any:
        try:
            import llguidance
            import llguidance.hf
        except ImportError as error:
            raise import_failed("A JSON Schema on answers", "local", error) from error
        if self._tokens is None:
            # Tokens that the model lacks are left out where logits are masked (``allowed``).
            size = max(self._vocabulary, 1 + max(self._tokenizer.get_vocab().values()))
            try:
                self._tokens = llguidance.hf.from_tokenizer(
                    self._tokenizer, n_vocab=size, eos_token=self._end_ids
                )
            except Exception as error:
                raise SchemaError(
                    f"this model's tokenizer cannot be held to a JSON Schema: {error}",
                    hint="Remove `output.json_schema`, or use another model.",
                ) from error
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(schema), overrides=OPTIONS
        )
        matcher = llguidance.LLMatcher(self._tokens, grammar, log_level=0)
        if matcher.is_error():
            raise SchemaError(
                f"this JSON Schema cannot be enforced: {matcher.get_error().splitlines()[0]}",
                where="output.json_schema",
                hint="llguidance's documentation lists the keywords that it knows.",
            )
        return matcher
