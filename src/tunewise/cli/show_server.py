"""The server's keys on stdout."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.table import Table

from tunewise.cli.output import Output, put

_COLUMNS = ("id", "project", "project's id", "name", "may", "per minute", "last used", "requests",
            "tokens")  # fmt: skip


def show_keys(keys: list[dict[str, Any]], as_json: bool) -> None:
    """A table of keys, or JSON."""
    if as_json:
        put(json.dumps(keys, ensure_ascii=False, indent=2) + "\n")
        return
    if not keys:
        put("No keys yet. Make one: tunewise server key create\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column)
    for key in keys:
        may = "nothing: revoked" if key["revoked_at"] else "all" if key["admin"] else "its project"
        tokens = key["prompt_tokens"] + key["completion_tokens"]
        table.add_row(
            key["id"], key["project"], key["project_id"], key["name"], may,
            str(key["requests_per_minute"] or "–"), _moment(key["last_used_at"]),
            f"{key['requests']:,}", f"{tokens:,}",
        )  # fmt: skip
    Output(markup=False, highlight=False).print(table)


def _moment(seconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "never"
