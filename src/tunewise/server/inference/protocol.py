"""What passes between the API and the engine's process: requests, pieces of answers, outcomes.

Everything here is made of plain values, so it crosses the pipe as JSON (``wire.py``) and imports
nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which weights answer.

    Attributes:
        base: a local model as ``models.names.parse_model`` takes it: a folder, a hub id, or
            ``tunewise/tiny``. A full fine-tune is a base of its own.
        adapter: the folder of a peft adapter over that base, or None.
        name: the public name, for messages to the user.
        sha256: of the adapter's folder when it was made (``digests.of_folder``); None where
            nobody has noted it.
    """

    base: str
    adapter: str | None
    name: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    """One request for text: a conversation (``messages``) or a plain prompt, never both.

    Attributes:
        id: chosen by the caller, unique among running requests; ``cancel`` takes it.
        model: who answers.
        messages: the conversation in OpenAI's form.
        prompt: plain text, or token ids.
        tools: tool definitions in OpenAI's form.
        tool_choice: None or ``"auto"``, ``"none"``, ``"required"``, or
            ``{"type": "function", "function": {"name": …}}``.
        max_tokens: most tokens of each answer; None means all that fit in the context. 0 gives
            no tokens (with ``echo``, the prompt's log-probabilities only).
        temperature: 0 is greedy.
        top_p: the nucleus of probability mass that is sampled from.
        seed: equal seeds give equal answers; None is fresh randomness.
        n: how many answers.
        stop: strings that end an answer and are left out of it.
        schema: the answer is JSON that fits this JSON Schema.
        json_object: the answer is some JSON object.
        logprobs: None for none, else how many alternatives (0..20) beside each token.
        echo: the answer begins with the prompt.
        frequency_penalty, presence_penalty: subtracted from the logits of tokens already written,
            per occurrence and once.
        logit_bias: added to the logits of these token ids; -100 bans, 100 forces.
        top_k: only so many of the likeliest tokens are drawn from; 0 is all.
        min_p: tokens less likely than this part of the likeliest one's chance are not drawn.
        repetition_penalty: logits of tokens that the prompt or the answer holds are divided by it
            where they are positive, else multiplied; 1 is none.
        template: variables that the chat template is given.
        effort: how much to reason, for templates that read it; None leaves it to the template.
        fitting: ``max_tokens`` is as many of them as the context has room for.
        count_only: nothing is computed; ``Done`` says how many tokens the prompt has.
        scope: whose request it is. Kept prompts are reused within one scope only, since
            ``cached_tokens`` would tell one project what another one has asked.
    """

    id: str
    model: ModelRef
    messages: tuple[dict[str, Any], ...] | None
    prompt: str | tuple[int, ...] | None
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = None
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    json_object: bool = False
    logprobs: int | None = None
    echo: bool = False
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    template: Mapping[str, Any] = field(default_factory=dict)
    effort: str | None = None
    count_only: bool = False
    fitting: bool = False
    scope: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token with its log-probability (natural logarithm) under the model's own distribution.

    Attributes:
        token: its text, with U+FFFD where its bytes alone are no text.
        bytes: the UTF-8 bytes it stands for; of a special token, those of its name.
        logprob: before temperature, top_p, penalties, biases and constraints. NaN for the first
            token of an echoed prompt, which nothing predicts (JSON null on the wire of the API).
        top: the likeliest alternatives, best first, in the same form.
    """

    token: str
    bytes: tuple[int, ...]
    logprob: float
    top: tuple[tuple[str, tuple[int, ...], float], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """More of one answer.

    Attributes:
        choice: which of the ``n`` answers.
        text: what is new; joined, the pieces' texts are the answer.
        logprobs: of the tokens that are new (their text may be held back in a later piece).
        finish_reason: on the last piece of a choice: ``stop``, ``length`` or ``tool_calls``.
        tool_calls: on the last piece only, in OpenAI's form. With the finish reason ``length`` the
            last of them is cut: its arguments break off.
        warning: on the first piece, what of the request has no effect; empty for nothing.
        thoughts: what is new of them, where the model marks them by channels (gpt-oss).
    """

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    warning: str = ""
    thoughts: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a request: tokens read, written in all choices, and read from the cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of a request that went wrong.

    Attributes:
        message: for the user.
        code: the caller's doing: ``context_length_exceeded``, ``invalid_schema``,
            ``invalid_request``, ``model_not_loadable``; the engine's: ``overloaded`` (too many
            requests wait), ``cancelled``, ``server_error``.
    """

    message: str
    code: str


@dataclass(frozen=True, slots=True)
class Embed:
    """One request for vectors of texts (or token ids)."""

    id: str
    model: ModelRef
    inputs: tuple[str | tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Unit vectors (mean-pooled last hidden states), one an input, and the tokens read."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class LoadedInfo:
    """A base model in memory.

    Attributes:
        base: as in ``ModelRef.base``.
        adapters: folders of its adapters in memory.
        bytes: of weights, its adapters' included.
        context_length: in tokens.
        running: requests that are being answered.
        dtype: numeric type of its weights (``bfloat16``).
    """

    base: str
    adapters: tuple[str, ...]
    bytes: int
    context_length: int
    running: int
    dtype: str


class EngineError(Exception):
    """``embed_sync`` could not answer; ``failed`` says why."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


Event = Piece | Done | Failed
"""What ``generate`` gives: pieces, then one ``Done`` or one ``Failed``."""
