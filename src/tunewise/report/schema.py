"""What ``verdict.json`` holds, for machines (JSON Schema) and for readers (Markdown)."""

from __future__ import annotations

from typing import Any

from tunewise.report.document import SCHEMA, Verdict
from tunewise.study.reference import markdown_reference

_OPENING = f"""\
# verdict.json

`tunewise run` ends with this file, and every other rendering of the verdict is made from it. The
first key, `schema`, is `{SCHEMA}`; the number goes up when a key changes its meaning or
goes away, not when one is added. `tunewise schema --verdict` prints the JSON Schema.

`tunewise compare STUDY…` puts several side by side: verdicts, scores, costs, and what differs in
their study files; `--html FILE` writes a page, `--json` a document.

Scores, gains and their limits are in points (0..100), money is in US dollars, tokens are per
request, latencies are in milliseconds. `null` means unknown or not reached, never zero. All keys
are always there.

This page is generated from the program's own schema.
"""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``verdict.json`` as Tunewise writes it."""
    schema = Verdict.model_json_schema(by_alias=True, mode="serialization")
    schema["properties"]["schema"]["const"] = SCHEMA
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def reference() -> str:
    """``docs/verdict-json.md``: every key with its type and meaning."""
    return markdown_reference(json_schema(), _OPENING)
