"""Write the reference pages in ``docs/`` from the program's own schemas.

python scripts/write_docs.py
"""

from __future__ import annotations

from pathlib import Path

from tunewise.dialects.autotrain.reference import markdown_reference as autotrain_reference
from tunewise.report.schema import reference as verdict_reference
from tunewise.scoring.registry import describe
from tunewise.study.json_schema import json_schema
from tunewise.study.reference import markdown_reference

DOCS = Path(__file__).parent.parent / "docs"

_STUDY = """\
# The study file

A study is one question asked of one task: would fine-tuning be worth it? `tunewise init ROWS`
writes one from your data, `tunewise schema` prints this page as a JSON Schema for editors. Unknown
keys are errors. Relative paths are relative to the study file. Short forms: `metric: list_f1` for
`metric: {name: list_f1}`, `- few_shot` for `- {name: few_shot, kind: few_shot}`.

`effort` sets what is tried: `quick` trains once; `standard` adds a pilot on a quarter of the rows
and three seeds; `thorough` adds a learning curve (an eighth, a quarter, a half) and five seeds.
Each sweeps three learning rates on dev where the study names none.

Keys of servers are written as `${NAME}` of an environment variable and travel only to the host
that they belong to: `OPENAI_API_KEY` to api.openai.com, any other `NAME` to the host in
`NAME_HOST`.

This page is generated from the program's own schema.
"""

_METRICS = """\
# Metrics

The metric of a study scores each answer from 0 to 1; reports show points (0..100). A failed
request scores 0. Thoughts before an answer (`<think>…</think>` and other families' marks) are taken
out of it first; an answer that ends inside one scores 0. Options stand under `metric.options`.
Metrics of other packages come by entry point (`tunewise.scorers`).

This page is generated from the program itself.
"""


def pages() -> dict[str, str]:
    """The pages by file name."""
    return {
        "study-file.md": markdown_reference(json_schema(), _STUDY, defaults=True),
        "verdict-json.md": verdict_reference(),
        "metrics.md": _metrics(),
        "autotrain-parameters.md": autotrain_reference(),
    }


def _metrics() -> str:
    lines = [_METRICS]
    for info in (info for info in describe() if info.package is None):
        lines += [f"## {info.name}\n", f"{info.help}\n"]
        if info.options:
            lines += ["| option | default | meaning |", "|---|---|---|"]
            for option in info.options:
                default = "required" if option.required else f"`{option.default}`"
                lines.append(f"| `{option.name}` | {default} | {option.help} |")
            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, "utf-8")
        print(DOCS / name)
