"""Text from data sets and models, made safe to look at.

Such text can hold characters that are not seen, that reorder what is seen, or that command a
terminal. They are named instead (``⟨U+202E⟩``): an invisible character is often the very reason
why two answers that look alike do not match.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

from tunewise.report.document import Part

_Document = TypeVar("_Document", bound=Part)

# Control characters except newline and tab; invisible and directional formatting (UAX #9) except
# the joiners that emoji and Indic scripts need; line separators; tags; lone surrogates.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def visible(text: str) -> str:
    """``text`` with unseen and direction-changing characters named by their code points."""
    return _HIDDEN.sub(lambda m: f"⟨U+{ord(m.group()):04X}⟩", text.replace("\r\n", "\n"))


def visible_copy(document: _Document) -> _Document:
    """A copy of a document in which every string has gone through ``visible``.

    The renderings start from this copy, so that no place in them can forget to.
    """
    return type(document).model_validate(_walk(document.model_dump(by_alias=True)))


def _walk(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {_walk(k): _walk(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(v) for v in value]
    return value
