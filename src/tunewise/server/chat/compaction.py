"""A long conversation made short: a summary by the model itself, carried in an item of its own.

The item's content is opaque to clients, who send it back as it is; it holds the summary, and what
the operator had said (system and developer messages), which must not be lost.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunewise.server.chat.bodies import bad
from tunewise.server.ids import new_id

_LEAST_TOKENS, _MOST_TOKENS = 64, 1024
"""Of a summary."""
_MARK = "tunewise.1."
_OPERATOR = ("system", "developer")
_ASK = (
    "Summarize our conversation so far, so that somebody who reads only your summary can go on "
    "with it: facts, decisions, results of tools, and what is still open. Write the summary and "
    "nothing else."
)


def summary_budget(tokens: int) -> int:
    """Most tokens of a summary of so many: a quarter, within limits."""
    return max(_LEAST_TOKENS, min(_MOST_TOKENS, tokens // 4))


def asking_for_summary(messages: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The conversation with the request for a summary at its end."""
    asked = [dict(message) for message in messages]
    if asked[-1]["role"] == "user":  # most templates want user and assistant in turn
        asked[-1]["content"] = f"{asked[-1]['content']}\n\n{_ASK}"
    else:
        asked.append({"role": "user", "content": _ASK})
    return tuple(asked)


def compacted(
    items: Sequence[Mapping[str, Any]], operator: Sequence[str], summary: str
) -> list[dict[str, Any]]:
    """The items that stand for a conversation: what the user said, then one compaction.

    Args:
        items: of the conversation.
        operator: what system and developer messages say.
        summary: the model's.
    """
    text = json.dumps({"operator": list(operator), "summary": summary}, ensure_ascii=False)
    sealed = _MARK + base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode()
    item = {"id": new_id("cmp_", 48), "type": "compaction", "encrypted_content": sealed}
    said = [_shown(item) for item in items if item["type"] == "message" and item["role"] == "user"]
    return [*said, item]


def operator_words(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What system and developer messages say."""
    return [str(message["content"]) for message in messages if message["role"] in _OPERATOR]


def unfold(item: Mapping[str, Any], messages: list[dict[str, Any]], where: str) -> None:
    """Put what a compaction holds into the messages before it.

    Raises:
        ApiError: 400, it is not one of this server's.
    """
    sealed = item.get("encrypted_content")
    try:
        if not isinstance(sealed, str) or not sealed.startswith(_MARK):
            raise ValueError
        held = json.loads(base64.b64decode(sealed[len(_MARK) :], altchars=b"-_", validate=True))
        operator, summary = held["operator"], held["summary"]
        if not isinstance(summary, str) or not all(isinstance(text, str) for text in operator):
            raise ValueError
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError):
        raise bad(
            where,
            f"`{where}` is a compaction that this server has not made; send it back as "
            "/v1/responses/compact gave it",
        ) from None
    said = [messages.pop() for _ in range(_users_at_the_end(messages))]
    messages.extend({"role": "system", "content": text} for text in operator)
    if said:
        text = "\n\n".join(str(message["content"]) for message in reversed(said))
        messages.append({"role": "user", "content": text})
    messages.append({"role": "assistant", "content": f"Summary of what was said:\n{summary}"})


def _users_at_the_end(messages: Sequence[Mapping[str, Any]]) -> int:
    count = 0
    while count < len(messages) and messages[-1 - count]["role"] == "user":
        count += 1
    return count


def _shown(item: Mapping[str, Any]) -> dict[str, Any]:
    content = item["content"]
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    return {**item, "content": parts, "status": "completed"}
