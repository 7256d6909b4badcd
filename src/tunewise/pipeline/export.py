"""A candidate that won, as files: what is sent and Python that sends it, or what answers alone."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from tunewise.candidates.plain_files import AnswersAlone
from tunewise.data.chat import Request
from tunewise.errors import StudyError, WorkspaceError
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
here = Path(__file__).parent
adapter = here / asked["adapter"] if asked["adapter"] else None
model = str(here / asked["model"]) if asked["model"] == "model" else asked["model"]
engine = open_engine(model, adapter=adapter, form=asked["asked_in"], date=asked["date"])
answer = engine.answer([request])[0]
sys.exit(answer.error) if answer.error else print(answer.text)
'''


def export_candidate(used: InUse, folder: Path) -> list[Path]:
    """Write what answers as the candidate did; where the files lie.

    A prompt becomes ``prompt.json`` and ``ask.py``, with a copy of the tuned weights; a classifier
    and a constant answer become files that need nothing but Python.

    Raises:
        StudyError: what is sent is not alike for all questions, or it cannot be written.
    """
    if isinstance(used.fitted, AnswersAlone) and (files := used.fitted.files()) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text_atomic(folder / name, text)
        return [folder / name for name in files]
    return _export_prompt(used, folder)


def _export_prompt(used: InUse, folder: Path) -> list[Path]:
    template = _request(used, _MARK)
    rows = [row.user_text for row in used.session.dev[:_MOST_TRIED]]
    alike = template is not None and all(
        _request(used, text) == template.replace(_MARK, json.dumps(text)[1:-1]) for text in rows
    )
    if template is None or not alike or used.session.study.servers:
        asking = ["tunewise", "use", *used.session.command, "--candidate", used.name, "QUESTION"]
        raise StudyError(
            "it is no prompt that is alike for every question, so no file can stand for it",
            where=used.name,
            hint=f"Ask it where the study lies: {shlex.join(asking)}",
        )
    model = used.spec.model or used.session.study.model
    tuned = used.folders or {}
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        part: _copied(Path(tuned[part]), folder / part)
        for part in ("adapter", "model")
        if tuned.get(part)
    }
    asked = {
        "model": "model" if "model" in weights else tuned.get("remote") or model,
        "adapter": "adapter" if "adapter" in weights else None,
        "asked_in": used.session.form(model) if model else "chat",
        "date": used.session.date,
        "form": None,
        **json.loads(template.replace(_MARK, QUESTION)),
    }
    paths = [folder / "prompt.json", folder / "ask.py"]
    write_json_atomic(paths[0], asked)
    write_text_atomic(paths[1], _SNIPPET)
    return [*paths, *weights.values()]


def _copied(source: Path, target: Path) -> Path:
    """A copy of a folder of weights, whole or not at all."""
    half = target.with_name(f".{target.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    try:
        shutil.copytree(source, half)
        shutil.rmtree(target, ignore_errors=True)
        half.rename(target)
    except OSError as error:
        shutil.rmtree(half, ignore_errors=True)
        raise WorkspaceError(
            f"the tuned weights cannot be copied: {error.strerror or error}", where=str(target)
        ) from error
    return target


def _request(used: InUse, question: str) -> str | None:
    """What is sent for a question, as JSON; None where nothing is sent."""
    asked = used.example([{"role": "user", "content": question}])
    request: Request | None = used.fitted.request(asked)
    return None if request is None else json.dumps(request.as_dict())
