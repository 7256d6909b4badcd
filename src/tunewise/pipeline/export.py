"""A prompt that won, as files: what is sent, and a few lines of Python that send it."""

from __future__ import annotations

import json
from pathlib import Path

from tunewise.data.chat import Request
from tunewise.errors import StudyError
from tunewise.pipeline.use import InUse
from tunewise.workspace import write_json_atomic, write_text_atomic

QUESTION = "{question}"
_MARK = "d41f6e0a 7c52 question b93e8a17"
_MOST_TRIED = 200

_SNIPPET = '''\
"""Ask the model as the study did: python ask.py "a question"   (needs tunewise)"""

import json
import sys
from pathlib import Path

from tunewise.data.chat import AnswerForm, Request
from tunewise.models.opening import open_engine

asked = json.loads((Path(__file__).parent / "prompt.json").read_text("utf-8"))
text = json.dumps(asked["messages"]).replace("{question}", json.dumps(sys.argv[1])[1:-1])
request = Request(
    tuple(json.loads(text)),
    tools=tuple(asked["tools"]),
    max_tokens=asked["max_tokens"],
    stop=tuple(asked["stop"]),
    json_schema=asked["json_schema"],
    form=AnswerForm(*asked["form"]) if asked["form"] else None,
)
adapter = Path(asked["adapter"]) if asked["adapter"] else None
answer = open_engine(asked["model"], adapter=adapter, form=asked["asked_in"]).answer([request])[0]
sys.exit(answer.error) if answer.error else print(answer.text)
'''


def export_prompt(used: InUse, folder: Path) -> list[Path]:
    """Write ``prompt.json`` and ``ask.py``; where they lie.

    Raises:
        StudyError: what is sent is not alike for all questions, or nothing is sent.
    """
    template = _request(used, _MARK)
    rows = [row.user_text for row in used.session.dev[:_MOST_TRIED]]
    alike = template is not None and all(
        _request(used, text) == template.replace(_MARK, json.dumps(text)[1:-1]) for text in rows
    )
    if template is None or not alike or used.session.study.servers:
        raise StudyError(
            "it is no prompt that is alike for every question, so no file can stand for it",
            where=used.name,
            hint="Ask it where the study lies: tunewise use STUDY QUESTION",
        )
    model = used.spec.model or used.session.study.model
    tuned = used.folders or {}
    asked = {
        "model": tuned.get("model") or tuned.get("remote") or model,
        "adapter": tuned.get("adapter"),
        "asked_in": used.session.form(model) if model else "chat",
        "form": None,
        **json.loads(template.replace(_MARK, QUESTION)),
    }
    paths = [folder / "prompt.json", folder / "ask.py"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(paths[0], asked)
    write_text_atomic(paths[1], _SNIPPET)
    return paths


def _request(used: InUse, question: str) -> str | None:
    """What is sent for a question, as JSON; None where nothing is sent."""
    asked = used.example([{"role": "user", "content": question}])
    request: Request | None = used.fitted.request(asked)
    return None if request is None else json.dumps(request.as_dict())
