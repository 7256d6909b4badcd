"""The messages and tools of a request, checked and brought to the form that the engine takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunewise.data.chat import text_of
from tunewise.data.findings import RowError
from tunewise.data.messages import ROLES, messages_of
from tunewise.server.chat.bodies import ChatBody, Function, bad
from tunewise.server.errors import ApiError

_MODES = ("none", "auto", "required")
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


def engine_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Messages as the models' templates take them: text content, calls in today's form.

    ``function`` messages and ``function_call`` become ``tool`` messages and ``tool_calls``; a
    refusal in a history is what the assistant said. Keys that are not the model's business
    (``annotations``, ``weight``…) are left out.

    Raises:
        ApiError: 400, with the message's index in ``param``.
    """
    plain = [_checked(message, f"messages[{index}]") for index, message in enumerate(messages)]
    try:
        return tuple(messages_of(plain, lambda code, text: None))
    except RowError as error:
        hint = f". {error.hint.rstrip('.')}" if error.hint else ""
        raise bad("messages", f"{error.message}{hint}") from None


def _checked(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise bad(
            f"{where}.role",
            f"`{where}.role` is {_shown(role)}; use one of {', '.join(sorted(ROLES))}",
        )
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise bad(
            f"{where}.tool_call_id",
            f"`{where}` has the role 'tool' but no `tool_call_id`: name the call that it answers",
            "missing_required_parameter",
        )
    kept = {
        key: message[key]
        for key in ("role", "content", "name", "tool_call_id", "tool_calls", "function_call")
        if message.get(key) is not None
    }
    kept["content"] = _content(message, where)
    return kept


def _content(message: Mapping[str, Any], where: str) -> str | None:
    content = message.get("content")
    if isinstance(content, str):
        return text_of(message)  # with the refusal beside it
    if content is None:
        if isinstance(message.get("refusal"), str):
            return str(message["refusal"])
        if message.get("tool_calls") or message.get("function_call"):
            return None
        if message["role"] == "function":
            return ""
        raise bad(
            f"{where}.content",
            f"`{where}` ({message['role']}) has no `content`",
            "missing_required_parameter",
        )
    if not isinstance(content, list) or not content:
        raise bad(
            f"{where}.content",
            f"`{where}.content` is {_shown(content)}, neither text nor a list of parts",
            "invalid_type",
        )
    text = "".join(part_text(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    return text_of({**message, "content": text})


def part_text(part: object, where: str) -> str:
    """The text of one part of a message's content.

    Raises:
        ApiError: 400 for images, sound, files, and what is no part at all.
    """
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and isinstance(kind, str):
        value = part.get("refusal") if kind == "refusal" else part.get("text")
        if kind in _TEXT_PARTS or kind == "refusal":
            if isinstance(value, str):
                return value
            kind = None
    if isinstance(kind, str):
        raise bad(
            f"{where}.type",
            f"`{where}` is of type {_shown(kind)}; this server's models read text only. Put what "
            "it says into a text part",
            "unsupported_value",
        )
    raise bad(
        where,
        f'`{where}` is no content part; write {{"type": "text", "text": "…"}}',
        "invalid_type",
    )


def function_definition(function: Function) -> dict[str, Any]:
    """A tool definition as chat templates know it."""
    described = function.model_dump(exclude_none=True)
    described.setdefault("parameters", {"type": "object", "properties": {}})
    return {"type": "function", "function": described}


def offered_tools(body: ChatBody) -> tuple[tuple[dict[str, Any], ...], Any]:
    """The tools that the model is offered, and the engine's ``tool_choice``.

    ``allowed_tools`` narrows the offer; the older ``functions`` and ``function_call`` are read as
    ``tools`` and ``tool_choice``.

    Raises:
        ApiError: 400 for a choice that cannot be meant.
    """
    if body.functions is not None:
        functions, choice, param = body.functions, body.function_call, "function_call"
        if isinstance(choice, Mapping):
            choice = {"type": "function", "function": dict(choice)}
    else:
        functions = [tool.function for tool in body.tools or ()]
        choice, param = body.tool_choice, "tool_choice"
    tools = tuple(function_definition(function) for function in functions)
    return chosen_tools(tools, choice, param)


def chosen_tools(
    tools: tuple[dict[str, Any], ...], choice: object, param: str
) -> tuple[tuple[dict[str, Any], ...], Any]:
    """Tools and choice after the choice is checked; ``allowed_tools`` leaves only those.

    Args:
        tools: definitions in chat completions' form.
        choice: a mode, ``{"type": "function", "function": {"name": …}}``, or
            ``{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}``.
        param: what the user calls it.
    """
    if choice is None:
        return tools, None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise _bad_choice(param, f"{_shown(choice)} is none of {', '.join(_MODES)}")
        if choice == "required" and not tools:
            raise _bad_choice(param, "a call is required, but no tools are given")
        return tools, choice
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        if not isinstance(allowed, Mapping) or not isinstance(allowed.get("tools"), list):
            raise _bad_choice(param, "`allowed_tools` needs `mode` and a list `tools`")
        names = [_named(tool, param) for tool in allowed["tools"]]
        for name in names:
            _known(name, tools, param)
        kept = tuple(tool for tool in tools if tool["function"]["name"] in names)
        mode = allowed.get("mode")
        if mode not in ("auto", "required"):
            raise _bad_choice(param, f"the mode {_shown(mode)} is neither auto nor required")
        return chosen_tools(kept, mode, param)
    name = _named(choice, param)
    _known(name, tools, param)
    return tools, {"type": "function", "function": {"name": name}}


def _named(choice: object, param: str) -> str:
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        if isinstance(name, str):
            return name
    raise _bad_choice(
        param,
        'write {"type": "function", "function": {"name": "…"}} or one of ' + ", ".join(_MODES),
    )


def _known(name: str, tools: Sequence[Mapping[str, Any]], param: str) -> None:
    names = [tool["function"]["name"] for tool in tools]
    if name not in names:
        offered = f"the tools are {', '.join(names)}" if names else "no tools are given"
        raise _bad_choice(param, f"there is no tool {_shown(name)}; {offered}")


def _bad_choice(param: str, why: str) -> ApiError:
    return bad(param, f"`{param}`: {why}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
