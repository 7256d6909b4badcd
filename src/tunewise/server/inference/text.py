"""An answer's tokens as text that can be streamed: whole characters, and no part of a stop string.

Text is given out as late as needed and as early as possible. Held back are bytes that are no whole
character yet, an end that may become a stop string, and what may become a tool call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers.decoders import DecodeStream

from tunewise.data.tool_calls import MARKS, Tools, cut_call, parse_tool_calls
from tunewise.models.token_bytes import TokenBytes
from tunewise.models.tool_calls import hidden_tokens
from tunewise.server.inference.channels import MARKS as CHANNEL_MARKS
from tunewise.server.inference.channels import Channels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class _SlowStream:
    """What ``DecodeStream`` does, for tokenizers that are not of the ``tokenizers`` library."""

    def __init__(self, tokenizer: Any, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids: list[int] = []
        self._given = 0

    def step(self, token: int) -> str | None:
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids, skip_special_tokens=self._skip)
        if text.endswith("\ufffd") or len(text) <= self._given:
            return None
        new: str = text[self._given :]
        self._given = len(text)
        return new


class TextStream:
    """The text of one answer.

    Args:
        tokenizer: of the model.
        stop: strings that end the answer and do not belong to it.
        tools: definitions in OpenAI's form; with any, the answer may hold tool calls.
        chat: the answer to a conversation, in which gpt-oss' channels are told apart.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: tuple[str, ...],
        tools: Tools = (),
        *,
        chat: bool = True,
    ) -> None:
        self._tokenizer: Any = tokenizer
        speaks = chat and tokenizer.get_added_vocab().keys() >= CHANNEL_MARKS
        self._channels = Channels(calls=bool(tools)) if speaks else None
        self._raw = 0
        plain = not tools and not speaks
        self._fast = getattr(tokenizer, "_tokenizer", None)
        self._decode: Any = (
            DecodeStream(skip_special_tokens=plain)
            if self._fast is not None
            else _SlowStream(tokenizer, plain)
        )
        self._stop = stop
        self._tools = tools
        self._plain = plain
        self._hidden = frozenset() if plain else hidden_tokens(tokenizer)
        self._ids: list[int] = []
        self._decoded = ""
        self._at = 0
        self.stopped = False
        self.cut_in_call = False

    def add(self, token: int) -> str:
        """Take a token; return the text that can be given out now.

        ``stopped`` tells that a stop string has come: the answer ends before it.
        """
        if token in self._hidden:
            return ""
        self._ids.append(token)
        if self._fast is not None:
            new = self._decode.step(self._fast, token)
        else:
            new = self._decode.step(token)
        if not new:
            return ""
        self._raw += len(new)
        return self._take(new if self._channels is None else self._channels.add(new))

    def take_thoughts(self) -> str:
        """The thoughts that are new, where the model marks them by channels."""
        return "" if self._channels is None else self._channels.take_thoughts()

    def finish(self, *, cut: bool = False) -> tuple[str, tuple[dict[str, Any], ...]]:
        """What was held back: the rest of the text, and the tool calls.

        Args:
            cut: the answer ends where its budget does. Where that is in the middle of a call, the
                last call is what there is of it, and ``cut_in_call`` is true.
        """
        if not self.stopped:
            # Bytes that never became a character are shown as U+FFFD, as in the whole text.
            whole = self._tokenizer.decode(self._ids, skip_special_tokens=self._plain)
            if self._channels is not None:
                self._decoded += self._channels.add(whole[self._raw :], last=True)
                self._cut_at_stop(max(0, self._at - self._longest))
            elif len(whole) > len(self._decoded) and whole.startswith(self._decoded):
                self._decoded = whole
                self._cut_at_stop(max(0, self._at - self._longest))
        rest = self._decoded[self._at :]
        self._at = len(self._decoded)
        if not self._tools:
            return rest, ()
        rest, calls = parse_tool_calls(rest, self._tools)
        begun = cut_call(rest, self._tools) if cut else None
        if begun is None:
            return rest, calls
        call = {"id": f"call_{len(calls)}", "type": "function", "function": begun[1]}
        self.cut_in_call = True
        return begun[0], (*calls, call)

    @property
    def _longest(self) -> int:
        return max(map(len, self._stop), default=0)

    def _take(self, new: str) -> str:
        if not self._stop and not self._tools:
            self._decoded += new
            self._at = len(self._decoded)
            return new
        searched = max(0, len(self._decoded) - self._longest)
        self._decoded += new
        self._cut_at_stop(searched)
        end = self._safe_end()
        out = self._decoded[self._at : end]
        self._at = end
        return out

    def _cut_at_stop(self, start: int) -> None:
        found = [at for s in self._stop if (at := self._decoded.find(s, start)) >= 0]
        if found:
            self._decoded = self._decoded[: min(found)]
            self.stopped = True

    def _safe_end(self) -> int:
        """Up to where the text can be given out; never less than what was given."""
        text = self._decoded
        end = len(text)
        if not self.stopped:
            end = min((_without_partial(text, s) for s in self._stop), default=end)
        if self._tools:
            if text.lstrip()[:1] in ("", "{"):  # perhaps a bare call
                return self._at
            for mark in MARKS:
                call = text.find(mark, self._at)
                end = min(end, call if call >= 0 else _without_partial(text, mark))
        return max(end, self._at)


def _without_partial(text: str, stop: str) -> int:
    """Where the longest beginning of ``stop`` at the end of ``text`` starts."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return len(text) - length
    return len(text)


class TokenTexts:
    """A token's own text and bytes, for log-probabilities; each computed once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._bytes = TokenBytes(tokenizer)
        self._known: dict[int, tuple[str, tuple[int, ...]]] = {}

    def __call__(self, token: int) -> tuple[str, tuple[int, ...]]:
        """Its text (U+FFFD for parts of characters) and its UTF-8 bytes."""
        if token not in self._known:
            raw = self._bytes(token)
            self._known[token] = (raw.decode("utf-8", "replace"), tuple(raw))
        return self._known[token]
