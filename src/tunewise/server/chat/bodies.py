"""What requests for text have in common, and the body of chat completions, by OpenAI's document.

What the document allows and this server cannot do is refused by name, never ignored in silence: a
parameter that has no effect would be mistaken for one that has. What clients send to every model
and only models of another kind heed (how much to reason, how much to say) is taken, and a header
says that it does nothing. Hints that change no answer (cache keys, service tiers, predictions,
end-user ids) are taken and left alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from tunewise.data.findings import RowError
from tunewise.data.messages import check_text
from tunewise.server.errors import ApiError

MAX_STOPS = 4
DEEPEST = 100
"""Levels of lists and objects in a body."""

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
"""Of a function or a schema."""


class Body(BaseModel):
    """A JSON object from a client: exact types and no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class WholeBody(Body):
    """All of a request: its text can be encoded, and its depth can be written out again."""

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: object) -> object:
        _check(value, 0)
        return value


def bad(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """A refusal of one parameter; raised in a validator, it passes through pydantic as it is.

    Args:
        param: as the user wrote it, for instance ``messages[0].role``.
        message: what is wrong and what to do, without a full stop at the end.
        code: for programs.
    """
    return ApiError(400, f"{message}.", code=code, param=param)


def no_effect(*names: str) -> str:
    """The warning of parameters that are taken and do nothing; empty for none."""
    return f"no effect on this server's models: {', '.join(names)}" if names else ""


def _check(value: object, depth: int) -> None:
    if depth > DEEPEST:
        raise ApiError(
            400, f"The body is nested deeper than {DEEPEST} levels.", code="invalid_value"
        )
    if isinstance(value, str):
        try:
            check_text(value)
        except RowError as error:
            raise ApiError(400, f"In the body, {error.message}.", code="invalid_value") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Sampling(WholeBody):
    """How an answer is drawn: what chat completions and completions have in common."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    # vLLM's, by its names.
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, stop: object) -> object:
        several = [stop] if isinstance(stop, str) else stop
        if several is None:
            return None
        if not isinstance(several, list) or not all(isinstance(one, str) for one in several):
            raise bad("stop", "`stop` is text or a list of texts", "invalid_type")
        if not 1 <= len(several) <= MAX_STOPS:
            raise bad("stop", f"Give 1 to {MAX_STOPS} stop strings, not {len(several)}")
        if "" in several:
            raise bad("stop", "A stop string is empty and would end every answer at once")
        return stop

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for key in bias or {}:
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                raise bad("logit_bias", f"`logit_bias`: {key[:60]!r} is not the number of a token")
        return bias

    @model_validator(mode="after")
    def _streaming(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise bad("stream_options", "`stream_options` is only allowed when `stream` is true")
        return self

    def sampling(self) -> dict[str, Any]:
        """How to draw, as keyword arguments of the engine's ``Generate``."""
        return {
            "temperature": 1.0 if self.temperature is None else float(self.temperature),
            "top_p": 1.0 if self.top_p is None else float(self.top_p),
            "seed": self.seed,
            "n": self.n or 1,
            "stop": (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            "frequency_penalty": float(self.frequency_penalty or 0),
            "presence_penalty": float(self.presence_penalty or 0),
            "logit_bias": {int(key): float(v) for key, v in (self.logit_bias or {}).items()},
            "top_k": max(0, self.top_k or 0),
            "min_p": float(self.min_p or 0),
            "repetition_penalty": float(self.repetition_penalty or 1),
        }

    @property
    def usage_at_end(self) -> bool:
        """Whether a stream shall end with a chunk of token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class JsonSchema(Body):
    name: Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise bad(
                "response_format.json_schema",
                "`json_schema` is needed where the type is `json_schema`, and only there",
            )
        return self

    @property
    def schema_asked(self) -> dict[str, Any] | None:
        """The schema that the answer must fit; None where there is none."""
        return self.json_schema.schema_ if self.json_schema is not None else None

    @property
    def any_object(self) -> bool:
        """Whether the answer shall be JSON of any shape."""
        return self.type != "text" and self.schema_asked is None


class Function(Body):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class ChatBody(Sampling):
    """``POST /v1/chat/completions``."""

    messages: list[dict[str, Any]]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Field(min_length=1, max_length=128)] | None = None
    function_call: str | dict[str, Any] | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Effort | None = None
    verbosity: Verbosity | None = None
    # Refused unless they ask for what is done anyway; see _refuse_what_cannot_be_done.
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    # Hints that change no answer.
    prediction: dict[str, Any] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ChatBody:
        if not self.messages:
            raise bad("messages", "`messages` is empty; send at least one")
        if self.top_logprobs is not None and not self.logprobs:
            raise bad("top_logprobs", "`top_logprobs` is only allowed when `logprobs` is true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise bad("max_tokens", "Give `max_tokens` or `max_completion_tokens`, not both")
        if self.metadata and not self.store:
            raise bad("metadata", "`metadata` is kept with a stored chat; set `store` to true, too")
        if self.functions is not None and self.tools is not None:
            raise bad("functions", "Give `tools` or the older `functions`, not both")
        return self

    @model_validator(mode="after")
    def _refuse_what_cannot_be_done(self) -> ChatBody:
        refused = {
            "modalities": self.modalities not in (None, [], ["text"]),
            "audio": self.audio is not None,
            "web_search_options": self.web_search_options is not None,
            "moderation": self.moderation is not None,
        }
        for name, wrong in refused.items():
            if wrong:
                raise bad(
                    name,
                    f"`{name}` is not supported: this server's models read and write plain text. "
                    "Leave it out",
                    "unsupported_parameter",
                )
        return self

    @property
    def without_effect(self) -> str:
        """A warning of what is taken and does nothing; empty for nothing."""
        return no_effect(*(["verbosity"] if self.verbosity not in (None, "medium") else []))

    @property
    def budget(self) -> int | None:
        """Most tokens of each answer; None is as many as the context holds."""
        given = self.max_completion_tokens
        return given if given is not None else self.max_tokens
