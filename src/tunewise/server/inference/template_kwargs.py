"""What a request tells the chat template beside the messages, and what of it the template reads."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewise.errors import ModelError
from tunewise.models.template_variables import variables_of
from tunewise.server.inference.protocol import Generate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SWITCHES = ("enable_thinking", "thinking")
"""How templates of models that reason at will call it (Qwen 3, SmolLM3; DeepSeek, Granite)."""


def template_variables(
    request: Generate, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], str]:
    """The variables for the template, and a warning of those that it does not read.

    A wanted effort is the template's ``reasoning_effort``; where it only has a switch, ``none``
    switches reasoning off and the others on. ``chat_template_kwargs`` stand over both.

    Raises:
        ModelError: a name is one of ours, which would change what is done, not what is said.
    """
    known = inspect.signature(tokenizer.apply_chat_template).parameters
    for name in request.template:
        if name in known or name == "messages":
            raise ModelError(
                f"chat_template_kwargs: {name[:60]!r} is not for the template",
                hint="It takes the template's own variables, such as enable_thinking.",
            )
    reads = variables_of(str(tokenizer.get_chat_template(None, list(tools) or None)))  # type: ignore[arg-type]
    given = {name: value for name, value in request.template.items() if name in reads}
    ignored = [f"chat_template_kwargs.{name}" for name in request.template if name not in reads]
    if request.effort is not None:
        switches = [name for name in _SWITCHES if name in reads]
        if "reasoning_effort" in reads:
            given.setdefault("reasoning_effort", request.effort)
        elif switches:
            given.setdefault(switches[0], request.effort != "none")
        elif request.effort != "none":
            ignored.append("reasoning effort")
    if not ignored:
        return given, ""
    names = ", ".join(name[:80] for name in ignored[:8])
    return given, f"no effect, since the model's chat template does not read it: {names}"
