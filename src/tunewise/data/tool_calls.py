"""Tool calls read back from what a model wrote, in the forms of the families' templates.

============================  ====================================================================
Hermes, Qwen                  ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``
Qwen3-Coder                   ``<function=NAME><parameter=KEY>VALUE</parameter></function>``
Mistral                       ``[TOOL_CALLS] [{…}, …]``, later ``[TOOL_CALLS]NAME[ARGS]{…}``, of
                              which some tokenizers drop ``[ARGS]``
Llama 3.1                     ``<|python_tag|>{"name": …, "parameters": {…}}``, also without the
                              tag; several are joined by ``; ``
Phi-4-mini                    ``<|tool_call|>[{…}, …]<|/tool_call|>``, and ``functools[{…}, …]``
DeepSeek                      ``<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>``
Kimi K2                       ``<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}``
gpt-oss (harmony)             ``<|channel|>commentary to=functions.NAME json<|message|>{…}<|call|>``
FunctionGemma, Gemma 4        ``call:NAME{KEY:<escape>TEXT<escape>,KEY:7}`` (``gemma_calls.py``)
============================  ====================================================================

Held against the examples in vLLM's tests of its tool parsers (https://github.com/vllm-project/vllm,
``tests/tool_use`` and ``tests/entrypoints/openai/tool_parsers``: Hermes, Qwen3-Coder, Mistral
before and from v11, Llama 3, Phi-4-mini, DeepSeek V3 and V3.1, Kimi K2), its ``examples/
tool_chat_template_gemma4.jinja``, and SGLang's ``function_call/gpt_oss_detector.py`` (harmony).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunewise.data.gemma_calls import read_call
from tunewise.data.thoughts import without_channels

Tools = Sequence[Mapping[str, Any]]
Found = tuple[list[dict[str, Any]], int]

_JSON = json.JSONDecoder()
_SPACE = re.compile(r"\s*")
_FUNCTION = re.compile(r"\s*<function=([^<>\s]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^<>\s]+)>(.*?)</parameter>", re.DOTALL)
_NAMED = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\]\s*|\s*(?=\{))")
_DEEPSEEK = re.compile(r"(?:function<｜tool▁sep｜>([\w.-]+)\s*```json|([\w.-]+)<｜tool▁sep｜>)\s*")
_KIMI = re.compile(r"\s*(?:functions\.)?([\w.-]+?)(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*")
_KIMI_SECTIONS = re.compile(r"<\|tool_calls_section_(?:begin|end)\|>")
_HARMONY = re.compile(
    r"([\w.-]+)\s*(?:<\|channel\|>\s*(?:commentary|analysis)\s*)?(?:<\|constrain\|>)?\s*(?:json)?"
    r"\s*<\|message\|>"
)
_CUT_OBJECT = re.compile(
    r'\s*\[?\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*'
    r'(?:,\s*(?:"(?:arguments|parameters)"\s*:\s*(.*)|"?\w*"?\s*:?\s*))?$',
    re.DOTALL,
)
_CUT_FUNCTION = re.compile(r"\s*<function=([^<>\s]+)>")
_CUT_PARAMETER = re.compile(r"<parameter=([^<>\s]+)>(.*)", re.DOTALL)
_DEEPSEEK_ENDS = re.compile(r"\s*(?:```)?\s*<｜tool▁call▁end｜>(?:\s*<｜tool▁calls▁end｜>)?")


def parse_tool_calls(text: str, tools: Tools = ()) -> tuple[str, tuple[dict[str, Any], ...]]:
    """Split an answer into its text and its tool calls.

    Read are any number of calls in the forms of this module, or an answer that is nothing but bare
    objects with a name and arguments. What only looks like a call stays text.

    Args:
        text: with the marks of calls still in it (``models/tool_calls.py``).
        tools: definitions in OpenAI's form; their schemas give the types of XML parameters.

    Returns:
        The text around the calls, and the calls in OpenAI's form (arguments as a JSON string).
    """
    calls: list[dict[str, Any]] = []
    around: list[str] = []
    at = start = 0
    while (match := _OPENING.search(text, at)) is not None:
        found = _READERS[match.group()](text, match.end(), tools)
        if found is None:
            at = match.end()
            continue
        around.append(text[start : match.start()])
        calls += found[0]
        at = start = found[1]
    if calls:
        return _plain("".join([*around, text[start:]])), _numbered(calls)
    bare = _llama(text, 0, tools)
    if bare is None or text[bare[1] :].strip() or not text.lstrip().startswith("{"):
        return without_channels(text), ()
    return "", _numbered(bare[0])


def _plain(text: str) -> str:
    """What stands around calls, without the marks of their lists."""
    plain = _KIMI_SECTIONS.sub("", text).replace("<｜tool▁calls▁begin｜>", "")
    return without_channels(plain).strip()


def cut_call(text: str, tools: Tools = ()) -> tuple[str, dict[str, Any]] | None:
    """An answer that ends in the middle of a call: the text before, and the call so far.

    The call's arguments are what was written of them, which is no JSON yet (of XML parameters, what
    JSON would begin with). A bare object is a call where its name is one of the tools'. Calls in
    Gemma's forms, whose values are in no JSON, stay text.

    Args:
        text: what ``parse_tool_calls`` has left.

    Returns:
        None where no call is open, or its name is not whole.
    """
    marks = list(_OPENING.finditer(text))
    if not marks:
        if not text.lstrip().startswith("{"):
            return None
        call = _cut_object(text)
        names = [(tool.get("function") or {}).get("name") for tool in tools]
        return ("", call) if call is not None and call["name"] in names else None
    opened = marks[-1]
    rest = text[opened.end() :]
    start = opened.start()
    if opened.group() == "<function=":  # Qwen3-Coder writes it inside <tool_call>
        rest = "<function=" + rest
        start = outer if (outer := text.rfind("<tool_call>", 0, start)) >= 0 else start
    call = _cut_object(rest) or _cut_named(rest) or _cut_xml(rest, tools)
    return (_plain(text[:start]), call) if call is not None else None


def _cut_object(text: str) -> dict[str, Any] | None:
    match = _CUT_OBJECT.match(text)
    if match is None:
        return None
    name, rest = json.loads(f'"{match.group(1)}"', strict=False), match.group(2) or ""
    read = _object(rest, 0)
    return {"name": name, "arguments": rest[: read[1]] if read is not None else rest}


def _cut_named(text: str) -> dict[str, Any] | None:
    forms = (_NAMED, _DEEPSEEK, _KIMI, _HARMONY)
    match = next((found for form in forms if (found := form.match(text))), None)
    if match is None:
        return None
    name = next(group for group in match.groups() if group)
    rest = text[match.end() :]
    return {"name": name, "arguments": rest if rest.startswith("{") else ""}


def _cut_xml(text: str, tools: Tools) -> dict[str, Any] | None:
    head = _CUT_FUNCTION.match(text)
    if head is None:
        return None
    name, body = head.group(1), text[head.end() :]
    whole = _PARAMETER.findall(body)
    values = {key: _parameter(value, _schema(tools, name, key)) for key, value in whole}
    written = json.dumps(values, ensure_ascii=False)[:-1]
    begun = _CUT_PARAMETER.fullmatch(_PARAMETER.sub("", body).strip())
    if begun is not None:
        key, value = begun.group(1), begun.group(2).removeprefix("\n")
        schema = _schema(tools, name, key)
        if isinstance(schema, Mapping) and schema.get("type") == "string":
            value = json.dumps(value, ensure_ascii=False)[:-1]
        comma = ", " if values else ""
        written += f"{comma}{json.dumps(key, ensure_ascii=False)}: {value}"
    return {"name": name, "arguments": written}


def _object(text: str, at: int) -> tuple[Any, int] | None:
    try:
        value: tuple[Any, int] = _JSON.raw_decode(text, _skip(text, at))
    except (ValueError, RecursionError):
        return None
    return value


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _objects(text: str, at: int) -> Found | None:
    """An object or a list of objects, each a call."""
    read = _object(text, at)
    if read is None:
        return None
    calls = [_call_from(value) for value in (read[0] if isinstance(read[0], list) else [read[0]])]
    whole = [call for call in calls if call is not None]
    return (whole, read[1]) if whole and len(whole) == len(calls) else None


def _call_from(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"name": value["name"], "arguments": arguments} if isinstance(arguments, str) else None


def _closed(found: Found | None, text: str, end: str, *, optional: bool = False) -> Found | None:
    if found is None:
        return None
    at = _skip(text, found[1])
    if text.startswith(end, at):
        return found[0], at + len(end)
    return found if optional else None


def _hermes(text: str, at: int, tools: Tools) -> Found | None:
    return _closed(_objects(text, at) or _xml(text, at, tools), text, "</tool_call>")


def _coder(text: str, at: int, tools: Tools) -> Found | None:
    return _xml(text, at - len("<function="), tools)


def _xml(text: str, at: int, tools: Tools) -> Found | None:
    match = _FUNCTION.match(text, at)
    if match is None or _PARAMETER.sub("", match.group(2)).strip():
        return None
    name = match.group(1)
    values = {
        key: _parameter(value, _schema(tools, name, key))
        for key, value in _PARAMETER.findall(match.group(2))
    }
    return [{"name": name, "arguments": json.dumps(values, ensure_ascii=False)}], match.end()


def _schema(tools: Tools, name: str, key: str) -> Any:
    for tool in tools:
        function = tool.get("function") or {}
        if function.get("name") == name:
            return ((function.get("parameters") or {}).get("properties") or {}).get(key)
    return None


def _parameter(value: str, schema: Any) -> Any:
    return _typed(value.removeprefix("\n").removesuffix("\n"), schema)


def _typed(value: str, schema: Any) -> Any:
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _mistral(text: str, at: int, tools: Tools) -> Found | None:
    match = _NAMED.match(text, at)
    if match is None:
        return _objects(text, at)
    return _with_name(match.group(1), text, match.end())


def _with_name(name: str, text: str, at: int) -> Found | None:
    read = _object(text, at)
    if read is None or not isinstance(read[0], dict):
        return None
    return [{"name": name, "arguments": json.dumps(read[0], ensure_ascii=False)}], read[1]


def _llama(text: str, at: int, tools: Tools) -> Found | None:
    found = _objects(text, at)
    while found is not None and text.startswith(";", _skip(text, found[1])):
        more = _objects(text, _skip(text, found[1]) + 1)
        if more is None:
            break
        found = found[0] + more[0], more[1]
    return found


def _phi(text: str, at: int, tools: Tools) -> Found | None:
    return _closed(_objects(text, at), text, "<|/tool_call|>", optional=True)


def _functools(text: str, at: int, tools: Tools) -> Found | None:
    return _objects(text, at - 1)


def _deepseek(text: str, at: int, tools: Tools) -> Found | None:
    match = _DEEPSEEK.match(text, at)
    if match is None:
        return None
    found = _with_name(match.group(1) or match.group(2), text, match.end())
    end = _DEEPSEEK_ENDS.match(text, found[1]) if found else None
    return (found[0], end.end()) if found and end else None


def _gemma(text: str, at: int, tools: Tools) -> Found | None:
    return _closed(_gemma_call(text, at, "<escape>"), text, "<end_function_call>")


def _gemma4(text: str, at: int, tools: Tools) -> Found | None:
    return _closed(_gemma_call(text, at, '<|"|>'), text, "<tool_call|>")


def _gemma_call(text: str, at: int, quote: str) -> Found | None:
    read = read_call(text, _skip(text, at), quote)
    if read is None:
        return None
    name, arguments, end = read
    return [{"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}], end


def _kimi(text: str, at: int, tools: Tools) -> Found | None:
    match = _KIMI.match(text, at)
    found = _with_name(match.group(1), text, match.end()) if match else None
    return _closed(found, text, "<|tool_call_end|>")


def _harmony(text: str, at: int, tools: Tools) -> Found | None:
    match = _HARMONY.match(text, at)
    found = _with_name(match.group(1), text, match.end()) if match else None
    return _closed(found, text, "<|call|>", optional=True)  # the token that ends such an answer


_READERS: dict[str, Callable[[str, int, Tools], Found | None]] = {
    "<tool_call>": _hermes,
    "<function=": _coder,
    "[TOOL_CALLS]": _mistral,
    "<|python_tag|>": _llama,
    "<|tool_call|>": _phi,
    "functools[": _functools,
    "<｜tool▁call▁begin｜>": _deepseek,
    "<|tool_call_begin|>": _kimi,
    "<|channel|>commentary to=functions.": _harmony,
    "to=functions.": _harmony,
    "<start_function_call>": _gemma,
    "<|tool_call>": _gemma4,
}
MARKS = (*_READERS, "<｜tool▁calls▁begin｜>", "<|tool_calls_section_begin|>")
"""How calls begin: text from there on is held back while an answer is streamed."""
_OPENING = re.compile("|".join(map(re.escape, _READERS)))


def _numbered(calls: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"id": f"call_{number}", "type": "function", "function": call}
        for number, call in enumerate(calls)
    )
