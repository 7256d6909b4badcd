"""The date that a chat template writes, where it asks for today's.

Templates of some families (Llama 3, Mistral Small, gpt-oss) put the day's date into the prompt, by
a function ``strftime_now`` that transformers gives them. A tuned model would be asked with another
prompt every day than it was trained with; so one date is given to all that belongs together.

The function is put before the template as a macro: transformers makes placeholders of functions
that it is handed beside the messages (from 5.24 on).
"""

from __future__ import annotations

import datetime as dt
import json
from functools import lru_cache
from pathlib import Path

_FUNCTION = "strftime_now"
_DIRECTIVES = "aAbBcCdDeFgGhHIjklmMpPrRsSTuUVwWxXyYzZ"
_FILES = ("tokenizer_config.json", "chat_template.json", "*.jinja", "additional_chat_templates/*")


def today() -> str:
    """Today's date on this machine, as ISO 8601 writes it."""
    return dt.date.today().isoformat()


def asks_for_date(template: object) -> bool:
    """Whether a chat template (or a tokenizer's table of several) asks for the day's date."""
    return _FUNCTION in str(template)


def model_asks_for_date(folder: Path) -> bool:
    """``asks_for_date`` for the templates in a model's folder, which is not loaded for that."""
    files = (path for pattern in _FILES for path in sorted(folder.glob(pattern)))
    return any(asks_for_date(path.read_text("utf-8", "replace")) for path in files)


@lru_cache(256)
def with_date(template: str, date: str) -> str:
    """The template with ``date`` (ISO 8601) as today's; the time of day is midnight."""
    if not asks_for_date(template):
        return template
    day = dt.datetime.combine(dt.date.fromisoformat(date), dt.time())
    value = "format"
    for letter in _DIRECTIVES:
        for directive in (f"%{letter}", f"%-{letter}"):
            if directive in template:
                value += f".replace({json.dumps(directive)}, {json.dumps(day.strftime(directive))})"
    # The line break is no part of the text: blocks take the one that follows them away.
    return f"{{%- macro {_FUNCTION}(format) %}}{{{{ {value} }}}}{{%- endmacro %}}\n{template}"
