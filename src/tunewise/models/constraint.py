"""Answers that must keep a form: the tokens that may come next, by llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewise.data.chat import AnswerForm, canonical_hash
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

    def rest(self) -> list[int]:
        """The tokens to the answer's end, where no other answer is left; empty otherwise."""
        forced = list(self._matcher.compute_ff_tokens())
        if not forced:
            return []
        ahead = self._matcher.deep_copy()
        ahead.consume_tokens(forced)
        return forced if ahead.is_stopped() and not ahead.is_error() else []

    @property
    def complete(self) -> bool:
        """Nothing can follow: the answer is a whole value."""
        return bool(self._matcher.is_stopped()) and not self.error

    @property
    def error(self) -> str:
        """Why the schema could not be followed; empty if it was."""
        return str(self._matcher.get_error()) if self._matcher.is_error() else ""


# Keywords whose value is a schema, or holds schemas by name or in a list.
_ONE = frozenset({"items", "contains", "additionalItems", "if", "then", "else", "not"})
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_LISTED = frozenset({"anyOf", "oneOf", "prefixItems", "items"})
_COMPOSED = frozenset({"allOf", "anyOf", "oneOf", "$ref", "if", "not", "unevaluatedProperties"})


def closed(schema: Any) -> Any:
    """The schema with objects that have no further properties than those that it names.

    Almost no schema says ``additionalProperties: false``, and almost all mean it: left open, a
    small model writes keys of its own until its budget is gone. llama.cpp closes them too. What
    says ``additionalProperties`` itself stays as it is; so does an object without ``properties``,
    and one that other keywords (``allOf``, ``$ref`` beside ``properties``) extend.
    """
    if not isinstance(schema, Mapping):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, Mapping):
            out[key] = {name: closed(inner) for name, inner in value.items()}
        elif key in _LISTED and isinstance(value, list):
            out[key] = [closed(inner) for inner in value]
        elif key in _ONE:
            out[key] = closed(value)
        else:  # `allOf` among them: its parts add up, so none may close the whole
            out[key] = value
    named = isinstance(schema.get("properties"), Mapping)
    if named and not (_COMPOSED | {"additionalProperties", "patternProperties"}) & set(schema):
        out["additionalProperties"] = False
    return out


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
        """A guide at the beginning of an answer; objects are ``closed``.

        Raises:
            SchemaError: the schema uses what llguidance cannot enforce, or the tokenizer is of a
                kind that it cannot read.
            TunewiseError: llguidance is not installed, or does not load.
        """
        schema = closed(schema)
        key = canonical_hash(schema)
        if key not in self._compiled:
            self._compiled[key] = self._compile(schema)
        return SchemaGuide(self._compiled[key].deep_copy())

    def form(self, form: AnswerForm) -> SchemaGuide:
        """A guide for an answer that is held to a form.

        Raises:
            SchemaError, TunewiseError: as ``guide``.
        """
        values = form.schema.get("enum")
        if not (form.bare and values and all(isinstance(value, str) for value in values)):
            return self.guide(form.schema)
        key = canonical_hash(["texts", values])
        if key not in self._compiled:
            texts = " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
            self._compiled[key] = self._matcher("grammar_from_lark", f"start: {texts}")
        return SchemaGuide(self._compiled[key].deep_copy())

    def _compile(self, schema: Mapping[str, Any]) -> Any:
        return self._matcher("grammar_from_json_schema", json.dumps(schema), overrides=OPTIONS)

    def _matcher(self, language: str, text: str, **options: Any) -> Any:
        """What follows answers of a grammar that is written in one of llguidance's languages."""
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
        grammar = getattr(llguidance.LLMatcher, language)(text, **options)
        matcher = llguidance.LLMatcher(self._tokens, grammar, log_level=0)
        if matcher.is_error():
            raise SchemaError(
                f"this JSON Schema cannot be enforced: {matcher.get_error().splitlines()[0]}",
                where="output.json_schema",
                hint="llguidance's documentation lists the keywords that it knows.",
            )
        return matcher
