"""A request made ready to compute: its tokens, its limits, what holds it to a form."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any

from tunewise.errors import ModelError
from tunewise.models.chat_format import render_prompt
from tunewise.models.constraint import SchemaError
from tunewise.models.embedding import require_embedded
from tunewise.models.raw_form import RAW_STOP
from tunewise.models.trained_as import TrainedAs
from tunewise.server.inference.protocol import Failed, Generate
from tunewise.server.inference.sequence import RequestState, Sampling, Sequence, random_of
from tunewise.server.inference.serving import Serving
from tunewise.server.inference.template_kwargs import template_variables
from tunewise.server.inference.text import TextStream

_MOST_CHOICES = 128
_ANYHOW = TrainedAs()


class RefusedError(Exception):
    """The request cannot be answered; ``failed`` says why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.failed = Failed(message, code)


def prepare(
    request: Generate, serving: Serving, adapter: int, trained: TrainedAs = _ANYHOW
) -> RequestState:
    """Read a request; the model is in memory and stays there.

    Args:
        adapter: its number, 0 for none.
        trained: how the weights want to be asked.

    Raises:
        RefusedError: it is too long, malformed, or asks for what cannot be held to.
    """
    if not 1 <= request.n <= _MOST_CHOICES:
        raise RefusedError(f"n must be between 1 and {_MOST_CHOICES}", "invalid_request")
    prompt, stop, warning = _prompt(request, serving, trained)
    budget = _budget(request, len(prompt), serving.loaded.context_length)
    _check_bias(request, serving)
    sampling = Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        bias=request.logit_bias,
        logprobs=request.logprobs,
        top_k=request.top_k,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
    )
    state = RequestState(
        id=request.id,
        serving=serving,
        adapter=adapter,
        scope=request.scope,
        prompt=prompt,
        budget=budget,
        sampling=sampling,
        echo=_echo(request, prompt, serving) if request.echo else None,
        warning=warning,
    )
    schema = _schema(request)
    tools = request.tools if request.tool_choice != "none" else ()
    penalised = bool(request.frequency_penalty or request.presence_penalty)
    for choice in range(request.n):
        state.sequences.append(
            Sequence(
                request=state,
                choice=choice,
                text=TextStream(
                    serving.loaded.tokenizer, stop, tools, chat=request.messages is not None
                ),
                random=random_of(request.seed, choice),
                tokens=list(prompt),
                guide=_guide(schema, serving) if schema is not None else None,
                counts={} if penalised else None,
                seen=set(prompt) if request.repetition_penalty != 1 else None,
            )
        )
    state.open = request.n
    return state


def count_tokens(request: Generate, serving: Serving, trained: TrainedAs) -> int:
    """How many tokens the prompt has, also where it does not fit in the context.

    Raises:
        RefusedError: it is malformed, or longer than what can be counted.
    """
    return len(_prompt(request, serving, trained)[0])


def prompt_ids(text: str | Items[int], serving: Serving) -> list[int]:
    """Token ids of plain text (with what the tokenizer puts before it), or ids as they are.

    Raises:
        RefusedError: ids that the model does not have, or nothing at all.
    """
    if isinstance(text, str):
        _check_size(text, "prompt", serving)
        ids = _embedded(list(serving.loaded.tokenizer(text, verbose=False)["input_ids"]), serving)
    else:
        ids = list(text)
        known = min(serving.vocabulary, serving.loaded.embedded)
        odd = [i for i in ids if not 0 <= i < known]
        if odd:
            raise RefusedError(
                f"token id {odd[0]} is not one of the model's, which are 0 to {known - 1}",
                "invalid_request",
            )
    start = serving.loaded.tokenizer.bos_token_id
    if not ids and isinstance(start, int):
        ids = [start]
    if not ids:
        raise RefusedError("the prompt is empty", "invalid_request")
    return ids


def _embedded(ids: list[int], serving: Serving) -> list[int]:
    """``ids``, if the model has an embedding for each.

    Raises:
        RefusedError: the tokenizer is larger than the model.
    """
    try:
        require_embedded(serving.loaded.tokenizer, ids, serving.loaded.embedded)
    except ModelError as error:
        raise RefusedError(str(error), "invalid_request") from error
    return ids


def too_long(limit: int, tokens: int | str, what: str = "messages") -> RefusedError:
    """The refusal of what does not fit, in OpenAI's words."""
    return RefusedError(
        f"This model's maximum context length is {limit} tokens. However, your {what} resulted "
        f"in {tokens} tokens. Please reduce the length of the {what}.",
        "context_length_exceeded",
    )


def _check_size(text: str, what: str, serving: Serving) -> None:
    """Refuse what cannot fit whatever its tokens are: to cut megabytes into tokens takes minutes.

    Raises:
        RefusedError: it is longer than all the longest tokens that fit.
    """
    limit = serving.loaded.context_length
    if len(text) > limit * serving.longest_token:
        raise too_long(limit, f"at least {len(text) // serving.longest_token}", what)


def _prompt(
    request: Generate, serving: Serving, trained: TrainedAs
) -> tuple[list[int], tuple[str, ...], str]:
    """Its tokens, what ends an answer, and a warning of what has no effect."""
    stop = tuple(s for s in request.stop if s)
    if request.messages is None:
        if request.prompt is None:
            raise RefusedError("neither messages nor a prompt was given", "invalid_request")
        return prompt_ids(request.prompt, serving), stop, ""
    tokenizer, stops = serving.loaded.tokenizer, serving.loaded.stop
    if trained.form == "raw" != serving.loaded.form:
        tokenizer, stops = serving.raw_tokenizer, RAW_STOP
    tools = request.tools if request.tool_choice != "none" else ()
    try:
        variables, warning = template_variables(request, tokenizer, tools)
        text = render_prompt(
            tokenizer, request.messages, tools, date=trained.date, variables=variables
        )
    except ModelError as error:
        raise RefusedError(str(error), "invalid_request") from error
    _check_size(text, "messages", serving)
    ids = _embedded(
        list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]), serving
    )
    if not ids:
        raise RefusedError("the conversation is empty", "invalid_request")
    return ids, (*stop, *stops), warning


def _budget(request: Generate, length: int, limit: int) -> int:
    what = "messages" if request.messages is not None else "prompt"
    room = limit - length
    wanted = request.max_tokens
    if room < 0 or (room == 0 and wanted != 0):
        raise too_long(limit, length, what)
    if wanted is None:
        return room
    if wanted < 0:
        raise RefusedError("max_tokens must not be negative", "invalid_request")
    if wanted > room and request.fitting:
        return room
    if wanted > room:
        raise RefusedError(
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{length + wanted} tokens ({length} in the {what}, {wanted} in the completion). "
            f"Please reduce the length of the {what} or of the completion.",
            "context_length_exceeded",
        )
    return wanted


def _check_bias(request: Generate, serving: Serving) -> None:
    for token in request.logit_bias:
        if not 0 <= token < serving.vocabulary:
            raise RefusedError(
                f"logit_bias names the token {token}, and the model's are 0 to "
                f"{serving.vocabulary - 1}",
                "invalid_request",
            )


def _echo(request: Generate, prompt: list[int], serving: Serving) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    return str(serving.loaded.tokenizer.decode(prompt))


def _guide(schema: Mapping[str, Any], serving: Serving) -> Any:
    try:
        guide = serving.schemas.guide(schema)
    except SchemaError as error:
        raise RefusedError(error.message, "invalid_schema") from error
    except ModelError as error:
        raise RefusedError(str(error), "server_error") from error
    except Exception as error:  # a schema nested too deep for JSON, for instance
        raise RefusedError(f"this JSON Schema cannot be read: {error}", "invalid_schema") from error
    guide.allowed(serving.vocabulary)
    if guide.error:
        raise RefusedError(
            f"this JSON Schema cannot be enforced: {guide.error.splitlines()[0]}", "invalid_schema"
        )
    return guide


def _schema(request: Generate) -> Mapping[str, Any] | None:
    """The schema that holds the answer: the request's own, or that of a call it must make."""
    own = request.schema if request.schema is not None else None
    if own is None and request.json_object:
        own = {"type": "object"}
    tools = _callable(request)
    if tools is None:
        return own
    definitions: dict[str, Any] = {}
    forms: list[dict[str, Any]] = []
    if own is not None and request.tool_choice in (None, "auto"):
        definitions["answer"] = _moved(own, "#/$defs/answer")
        forms.append({"$ref": "#/$defs/answer"})
    for number, function in enumerate(tools):
        place = f"tool_{number}"
        definitions[place] = _moved(
            function.get("parameters") or {"type": "object"}, f"#/$defs/{place}"
        )
        forms.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    "arguments": {"$ref": f"#/$defs/{place}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"$defs": definitions, **({"anyOf": forms} if len(forms) > 1 else forms[0])}


def _callable(request: Generate) -> list[Mapping[str, Any]] | None:
    """The functions of which one must be called (or the schema kept); None for no such duty."""
    choice = request.tool_choice
    functions = [t["function"] for t in request.tools if isinstance(t.get("function"), Mapping)]
    if choice == "none" or (choice in (None, "auto") and request.schema is None):
        return None
    if choice in (None, "auto"):
        return functions or None
    if choice != "required":
        function = choice.get("function") if isinstance(choice, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        functions = [f for f in functions if f.get("name") == name]
        if not functions:
            raise RefusedError(f"tool_choice names {name!r}, which is no tool", "invalid_request")
    if not functions:
        raise RefusedError("tool_choice asks for a call, and there are no tools", "invalid_request")
    return functions


def _moved(value: Any, place: str) -> Any:
    """A schema with its references to itself changed for where it now stands."""
    if isinstance(value, Mapping):
        return {
            k: place + v[1:]
            if k == "$ref" and isinstance(v, str) and v.startswith("#")
            else _moved(v, place)
            for k, v in value.items()
        }
    return [_moved(v, place) for v in value] if isinstance(value, list) else value
