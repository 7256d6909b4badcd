"""The body of ``POST /v1/responses``, and its items as a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunewise.server.chat.bodies import (
    Body,
    Function,
    Metadata,
    Name,
    StreamOptions,
    WholeBody,
    bad,
)
from tunewise.server.chat.conversation import (
    chosen_tools,
    engine_messages,
    function_definition,
    part_text,
)
from tunewise.server.ids import new_id
from tunewise.study.requirements import complaint

LOGPROBS = "message.output_text.logprobs"
_ROLES = ("user", "assistant", "system", "developer")


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> TextFormat:
        if self.type == "json_schema" and (self.name is None or self.schema_ is None):
            raise bad("text.format", "The format `json_schema` needs a `name` and a `schema`")
        return self


class TextConfig(Body):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Body):
    effort: Literal["none"] | None = None
    summary: None = None
    generate_summary: None = None


class ResponseTool(Function):
    type: Literal["function"]


class ResponseBody(WholeBody):
    """``POST /v1/responses``: text and function tools.

    What the original does beside that (tools of its own, prompts and conversations kept on the
    server, work in the background) is refused by name.
    """

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    text: TextConfig | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    # Of the original's own tools, or hints that change no answer.
    max_tool_calls: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _input(cls, given: object) -> object:
        items = given if isinstance(given, list) else []
        if not isinstance(given, str | list) or not all(isinstance(item, dict) for item in items):
            raise bad("input", "`input` is text, or a list of items", "invalid_type")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> ResponseBody:
        for asked in self.include or ():
            if asked != LOGPROBS:
                raise bad("include", f"`include` can have {LOGPROBS!r} only, not {asked[:60]!r}")
        return self

    @property
    def stored(self) -> bool:
        """Whether later responses may go on from this one; as in the original, unless refused."""
        return self.store is not False

    @property
    def logprobs(self) -> int | None:
        """How many alternatives beside each token; None for no log-probabilities."""
        wanted = self.top_logprobs is not None or LOGPROBS in (self.include or ())
        return (self.top_logprobs or 0) if wanted else None

    @property
    def format(self) -> TextFormat:
        """The shape of the answer."""
        given = self.text.format if self.text is not None else None
        return given or TextFormat(type="text")


def response_tools(body: ResponseBody) -> tuple[tuple[dict[str, Any], ...], Any]:
    """The tools that the model is offered, and the engine's ``tool_choice``.

    Raises:
        ApiError: 400 for a tool that is no function, or a choice that cannot be meant.
    """
    tools = []
    for index, given in enumerate(body.tools or ()):
        if given.get("type") != "function":
            raise bad(
                f"tools[{index}].type",
                f"`tools[{index}]` is of type {str(given.get('type'))[:60]!r}; this server knows "
                "function tools, which you run yourself",
                "unsupported_value",
            )
        tools.append(function_definition(_function(given, index)))
    choice = body.tool_choice
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        choice = {
            "type": "allowed_tools",
            "allowed_tools": {key: choice.get(key) for key in ("mode", "tools")},
        }
    return chosen_tools(tuple(tools), choice, "tool_choice")


def _function(given: Mapping[str, Any], index: int) -> Function:
    from pydantic import ValidationError

    known = {key: given[key] for key in Function.model_fields if key in given}
    try:
        return Function.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = f"`tools[{index}].{place}` {complaint(first, 'an object')}"
        raise bad(f"tools[{index}]", message) from None


def input_items(body: ResponseBody) -> list[dict[str, Any]]:
    """The input as a list of items with ids."""
    given = body.input
    if isinstance(given, str):
        part = {"type": "input_text", "text": given}
        given = [{"type": "message", "role": "user", "content": [part]}]
    items = []
    for item in given:
        kind = item.get("type") or "message"
        prefix = {"function_call": "fc_", "function_call_output": "fco_"}.get(str(kind), "msg_")
        own = item.get("id")
        items.append({**item, "type": kind, "id": own if isinstance(own, str) else new_id(prefix)})
    return items


def conversation(
    items: Sequence[Mapping[str, Any]], instructions: str | None
) -> tuple[dict[str, Any], ...]:
    """Items as the messages that the engine takes.

    Calls that follow each other, and the assistant's text before them, are one message.

    Raises:
        ApiError: 400 for an item that is neither a message nor a call nor its output.
    """
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    for index, item in enumerate(items):
        where = f"input[{index}]"
        kind = item.get("type") or "message"
        if kind == "message":
            messages.append(_message(item, where))
        elif kind == "function_call":
            call = _call(item, where)
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            call_id = item.get("call_id")
            if not isinstance(call_id, str):
                raise bad(where, f"`{where}` has no `call_id`")
            text = _text(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
        else:
            raise bad(
                where,
                f"`{where}` is of type {str(kind)[:60]!r}; this server knows message, "
                "function_call and function_call_output",
            )
    if not messages:
        raise bad("input", "`input` is empty")
    return engine_messages(messages)


def _message(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in _ROLES:
        raise bad(
            where, f"`{where}` has the role {str(role)[:60]!r}; use one of {', '.join(_ROLES)}"
        )
    return {"role": role, "content": _text(item.get("content"), f"{where}.content")}


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad(where, f"`{where}` is neither text nor a list of parts")
    return "".join(part_text(part, f"{where}[{i}]") for i, part in enumerate(content))


def _call(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key in ("call_id", "name", "arguments"):
        if not isinstance(item.get(key), str):
            raise bad(where, f"`{where}` has no `{key}`")
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}
