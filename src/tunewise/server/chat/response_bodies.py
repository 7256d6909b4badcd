"""The body of ``POST /v1/responses``, and its items as a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunewise.server.chat.bodies import (
    Body,
    Effort,
    Function,
    Metadata,
    Name,
    StreamOptions,
    Verbosity,
    WholeBody,
    bad,
)
from tunewise.server.chat.compaction import unfold
from tunewise.server.chat.conversation import (
    chosen_tools,
    engine_messages,
    function_definition,
    part_text,
)
from tunewise.server.ids import new_id
from tunewise.study.requirements import complaint

LOGPROBS = "message.output_text.logprobs"
REASONING = "reasoning.encrypted_content"
_PREFIXES = {"function_call": "fc_", "function_call_output": "fco_", "compaction": "cmp_"}
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
    verbosity: Verbosity | None = None


class Reasoning(Body):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class ResponseTool(Function):
    type: Literal["function"]


class InputBody(WholeBody):
    """What a response is answered from; ``POST /v1/responses/input_tokens`` counts it."""

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    text: TextConfig | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _input(cls, given: object) -> object:
        items = given if isinstance(given, list) else []
        shaped = given is None or isinstance(given, str | list)
        if not shaped or not all(isinstance(item, dict) for item in items):
            raise bad("input", "`input` is text, or a list of items", "invalid_type")
        return given

    @property
    def effort(self) -> Effort | None:
        """How much to reason."""
        return self.reasoning.effort if self.reasoning is not None else None

    @property
    def without_effect(self) -> list[str]:
        """The parameters that are taken and do nothing."""
        names = []
        if self.reasoning is not None:
            asked = self.reasoning.model_dump(exclude_none=True)
            names += [f"reasoning.{name}" for name in asked if name != "effort"]
        if self.text is not None and self.text.verbosity not in (None, "medium"):
            names.append("text.verbosity")
        if self.truncation == "auto":
            names.append("truncation")
        return names


class ResponseBody(InputBody):
    """``POST /v1/responses``: text and function tools.

    What the original does beside that (tools of its own, prompts and conversations kept on the
    server, work in the background) is refused by name.
    """

    model: str
    input: str | list[dict[str, Any]]
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: Literal[False] | None = None
    # Of the original's own tools, or hints that change no answer.
    max_tool_calls: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ResponseBody:
        for asked in self.include or ():
            if asked not in (LOGPROBS, REASONING):
                raise bad(
                    "include",
                    f"`include` can have {LOGPROBS!r} and {REASONING!r}, not {asked[:60]!r}",
                )
        return self

    @property
    def without_effect(self) -> list[str]:
        """The parameters that are taken and do nothing."""
        included = [f"include ({REASONING})"] if REASONING in (self.include or ()) else []
        return [*super().without_effect, *included]

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


def response_tools(body: InputBody) -> tuple[tuple[dict[str, Any], ...], Any]:
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


def input_items(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An input as a list of items with ids."""
    if isinstance(given, str):
        part = {"type": "input_text", "text": given}
        given = [{"type": "message", "role": "user", "content": [part]}]
    items = []
    for item in given:
        kind = item.get("type") or "message"
        prefix = _PREFIXES.get(str(kind), "msg_")
        own = item.get("id")
        items.append({**item, "type": kind, "id": own if isinstance(own, str) else new_id(prefix)})
    return items


def conversation(
    items: Sequence[Mapping[str, Any]], instructions: str | None
) -> tuple[dict[str, Any], ...]:
    """Items as the messages that the engine takes.

    Calls that follow each other, and the assistant's text before them, are one message. A
    compaction (``compaction.py``) stands for what was said before it: what the user said is one
    message, the summary is the assistant's.

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
        elif kind == "compaction":
            unfold(item, messages, where)
        else:
            raise bad(
                where,
                f"`{where}` is of type {str(kind)[:60]!r}; this server knows message, "
                "function_call, function_call_output and compaction",
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
