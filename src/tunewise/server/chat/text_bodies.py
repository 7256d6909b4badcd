"""The bodies of completions and embeddings, whose input has four shapes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tunewise.server.chat.bodies import Sampling, WholeBody, bad

MAX_INPUTS = 2048
"""Most prompts or texts in one request, as the original has it."""

Texts = str | list[str] | list[int] | list[list[int]]
"""The four shapes of a prompt: text, texts, token ids, lists of token ids."""


class CompletionBody(Sampling):
    """``POST /v1/completions``."""

    prompt: Texts | None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Annotated[int, Field(ge=0, le=20)] | None = None
    suffix: str | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompt(cls, prompt: object) -> object:
        return None if prompt is None else _texts(prompt, "prompt")

    @model_validator(mode="after")
    def _fits_together(self) -> CompletionBody:
        best, wanted = self.best_of or 0, self.n or 1
        if self.suffix is not None:
            raise bad(
                "suffix",
                "`suffix` is not supported: these models write on from the end of a prompt and "
                "cannot fill in a middle. Leave it out",
                "unsupported_parameter",
            )
        if best and best < wanted:
            raise bad("best_of", f"`best_of` ({best}) must not be smaller than `n` ({wanted})")
        if self.stream and best > wanted:
            raise bad("best_of", "`best_of` cannot be streamed: the best is known only at the end")
        return self

    @property
    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        """Each prompt, as text or as token ids."""
        return one_or_many("" if self.prompt is None else self.prompt)


class EmbeddingBody(WholeBody):
    """``POST /v1/embeddings``."""

    model: str
    input: Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _input(cls, value: object) -> object:
        for index, text in enumerate(one_or_many(_texts(value, "input"))):
            if not text:
                raise bad("input", f"`input[{index}]` is empty; there is nothing to embed")
        return value

    @property
    def inputs(self) -> tuple[str | tuple[int, ...], ...]:
        """Each text, as text or as token ids."""
        return one_or_many(self.input)


def one_or_many(value: Texts) -> tuple[str | tuple[int, ...], ...]:
    """The four shapes of a prompt as one."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value[0], int):
        return (tuple(value),)
    return tuple(v if isinstance(v, str) else tuple(v) for v in value)


def _texts(value: object, param: str) -> Texts:
    """``value``, if it has one of the four shapes."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise bad(param, f"`{param}` is text, or a list with at least one item", "invalid_type")
    if _token_ids(value):
        return value
    if len(value) > MAX_INPUTS:
        raise bad(param, f"`{param}` has {len(value)} items; give at most {MAX_INPUTS} at once")
    if not all(isinstance(item, str) for item in value) and not all(map(_token_ids, value)):
        raise bad(
            param,
            f"`{param}` is text, a list of texts, a list of token ids, or a list of such lists; "
            "token ids are whole numbers from 0",
            "invalid_type",
        )
    return value


def _token_ids(value: object) -> bool:
    """Whether it is a list of token ids, at least one."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int and 0 <= item < 2**31 for item in value)
    )
