"""The bytes that a token stands for, by which the tokens of two vocabularies can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenBytes:
    """From a token of a vocabulary to its UTF-8 bytes; of a special token, those of its name."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self._special = set(tokenizer.all_special_ids)
        self._bytes = _byte_decoder(self._tokenizer)

    def __call__(self, token: int) -> bytes:
        """Its bytes; none for a number that only fills the vocabulary up."""
        name = self._tokenizer.convert_ids_to_tokens(token)
        if name is None:  # padding of the vocabulary
            return b""
        if token in self._special:
            return str(name).encode()
        if self._bytes is not None and all(c in self._bytes for c in name):
            return bytes(self._bytes[c] for c in name)
        if len(name) == 6 and name.startswith("<0x"):  # SentencePiece's byte fallback
            return bytes([int(name[3:5], 16)])
        if "▁" in name:
            return str(name).replace("▁", " ").encode()
        return str(self._tokenizer.decode([token])).encode()


def _byte_decoder(tokenizer: Any) -> dict[str, int] | None:
    """GPT-2's characters for bytes, where the tokenizer writes them (byte-level BPE)."""
    fast = getattr(tokenizer, "_tokenizer", None)
    if fast is None or "ByteLevel" not in repr(fast.decoder):
        return None
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    table = {chr(b): b for b in printable}
    table.update({chr(256 + i): b for i, b in enumerate(rest)})
    return table
