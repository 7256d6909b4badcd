"""A key of one project against everything that another one owns."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from azure_support import VERSION, manage
from server_support import Running, call, chats, client, envelope, make_key

MODEL = "tunewise/tiny"


def test_nothing_of_one_project_is_there_for_another(
    server: Running, record_property: Callable[[str, object], None]
) -> None:
    """Every kind of object, every way to it, with a key of another project, admin or not."""
    with client(server) as api:
        file = api.files.create(file=("rows.jsonl", chats(10)), purpose="fine-tune").id
        upload = api.uploads.create(filename="a", purpose="evals", bytes=3, mime_type="a/b").id
        part = api.uploads.parts.create(upload, data=b"abc").id
        job = api.fine_tuning.jobs.create(
            model=MODEL, training_file=file, hyperparameters={"n_epochs": 1, "batch_size": 10}
        ).id
        stored = api.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=2, store=True
        ).id
        response = api.responses.create(model=MODEL, input="Hi", max_output_tokens=2).id
        deadline = time.monotonic() + 150
        while (found := api.fine_tuning.jobs.retrieve(job)).status != "succeeded":
            assert found.status != "failed" and time.monotonic() < deadline, found
            time.sleep(0.1)
        model = str(found.fine_tuned_model)
        (checkpoint,) = api.fine_tuning.jobs.checkpoints.list(job).data
        event = api.fine_tuning.jobs.list_events(job).data[0].id
        ask = {"method": "POST", "url": "/v1/completions", "custom_id": "a"}
        line = {**ask, "body": {"model": MODEL, "prompt": "Hi", "max_tokens": 1}}
        asked_for = api.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = api.batches.create(
            completion_window="24h", endpoint="/v1/completions", input_file_id=asked_for.id
        ).id
        own = [batch, file, upload, part, job, stored, response, model, checkpoint.id, event]
    say: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    complete = {"part_ids": [part]}
    score = {
        "type": "score_model", "name": "s", "model": model,
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    }  # fmt: skip
    base = {"model": MODEL, "training_file": file}
    ways: list[tuple[str, str, dict[str, Any] | None]] = [
        *(("GET", f"/v1/files/{file}{end}", None) for end in ("", "/content")),
        ("DELETE", f"/v1/files/{file}", None),
        ("GET", f"/v1/files?after={file}", None),
        ("POST", f"/v1/uploads/{upload}/complete", complete),
        ("POST", f"/v1/uploads/{upload}/cancel", None),
        *(
            ("GET", f"/v1/fine_tuning/jobs/{job}{end}", None)
            for end in ("", "/events", "/checkpoints", f"/events?after={event}")
        ),
        *(
            ("POST", f"/v1/fine_tuning/jobs/{job}/{act}", None)
            for act in ("cancel", "pause", "resume")
        ),
        ("GET", f"/v1/fine_tuning/jobs?after={job}", None),
        ("POST", "/v1/fine_tuning/jobs", base),
        ("POST", "/v1/fine_tuning/jobs", {**base, "model": model}),
        *(("GET", f"/v1/models/{name}", None) for name in (model, f"{model}:ckpt-step-1")),
        ("DELETE", f"/v1/models/{model}", None),
        ("POST", "/v1/chat/completions", {"model": model, **say}),
        ("POST", "/v1/completions", {"model": model, "prompt": "Hi", "max_tokens": 1}),
        ("POST", "/v1/embeddings", {"model": model, "input": "Hi"}),
        ("POST", "/v1/responses", {"model": model, "input": "Hi"}),
        (
            "POST",
            "/v1/responses",
            {"model": MODEL, "input": "Hi", "previous_response_id": response},
        ),
        ("GET", f"/v1/responses/{response}", None),
        ("GET", f"/v1/responses/{response}/input_items", None),
        ("DELETE", f"/v1/responses/{response}", None),
        *(("GET", f"/v1/chat/completions/{stored}{end}", None) for end in ("", "/messages")),
        ("POST", f"/v1/chat/completions/{stored}", {"metadata": {"a": "b"}}),
        ("DELETE", f"/v1/chat/completions/{stored}", None),
        ("GET", f"/v1/chat/completions?after={stored}", None),
        ("POST", "/v1/fine_tuning/alpha/graders/run", {"grader": score, "model_sample": "x"}),
    ]
    ids = {
        "file_id": file, "upload_id": upload, "job_id": job, "checkpoint": checkpoint.id,
        "completion_id": stored, "response_id": response, "model": model, "batch_id": batch,
        "permission_id": "cp_none",
    }  # fmt: skip
    ways += list(_every_way(server, ids))
    sent = 0
    for admin in (False, True):
        stranger = make_key(server.home, project="stranger", admin=admin)
        for method, path, body in ways:
            answer = call(server, method, path, key=stranger, json=body)
            fitting = (204, 400, 403, 404) if "/openai/" in path else (400, 403, 404)
            assert answer.status_code in fitting, (method, path, answer.text)
            # Nobody learns that the thing is there: it is answered like one that never was.
            asked = _renamed([path, body], own)
            sent += 2
            ghost = call(server, method, asked[0], key=stranger, json=asked[1])
            assert ghost.status_code == answer.status_code, (method, path, ghost.text)
            assert _renamed(_told(answer), own) == _told(ghost), (method, path)
        for path in ("files", "fine_tuning/jobs", "chat/completions"):
            assert call(server, "GET", f"/v1/{path}", key=stranger).json()["data"] == []
        shown = call(server, "GET", "/v1/models", key=stranger).text
        assert model not in shown
        form = {"data": ("blob", b"abc")}
        answer = call(server, "POST", f"/v1/uploads/{upload}/parts", key=stranger, files=form)
        envelope(answer, 404)
        sent += 5
    record_property("tried", f"{sent} requests for what belongs to another project")
    with client(server) as api:
        assert api.uploads.complete(upload, part_ids=[part]).status == "completed"
        assert api.models.retrieve(model).id == model
        assert api.files.retrieve(file).id == file
        assert api.fine_tuning.jobs.retrieve(job).status == "succeeded"
        assert api.batches.retrieve(batch).status not in ("cancelling", "cancelled")
        assert api.responses.retrieve(response).id == response
        assert api.chat.completions.retrieve(stored).metadata in (None, {})


def test_a_deployment_of_another_project_is_none(server: Running) -> None:
    body = {"properties": {"model": {"name": MODEL}}}
    key, stranger = (make_key(server.home, project=name) for name in ("owner", "passer-by"))
    assert manage(server, "PUT", "/shop", body, key=key).status_code == 201
    for method in ("GET", "DELETE"):
        theirs = manage(server, method, "/shop", key=stranger)
        nobodys = manage(server, method, "/none", key=stranger)
        assert theirs.status_code == nobodys.status_code == (404 if method == "GET" else 204)
        assert theirs.text.replace("shop", "none") == nobodys.text
        names = {*theirs.headers} ^ {*nobodys.headers}
        assert not names, names
    assert manage(server, "GET", "", key=stranger).json() == {"value": []}
    assert manage(server, "GET", "/shop", key=key).status_code == 200


def _every_way(
    server: Running, ids: dict[str, str]
) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Every operation of both dialects on a thing with an id, with the ids filled in."""
    paths = call(server, "GET", "/openapi.json").json()["paths"]
    for path, operations in sorted(paths.items()):
        named = re.findall(r"\{(\w+)\}", path)
        if not named or not {*named} <= {*ids}:
            continue
        url = re.sub(r"\{(\w+)\}", lambda m: ids[m[1]], path)
        if not path.startswith("/v1/"):
            url += f"?api-version={'preview' if '/v1/' in path else VERSION}"
        for method in operations:
            yield method.upper(), url, {} if method == "post" else None


def _told(answer: httpx2.Response) -> Any:
    if not answer.content:
        return None
    told = answer.json()
    # OpenAI's envelope is looked at whole; Azure's names the request, each another one.
    return envelope(answer, answer.status_code) if "param" in told.get("error", {}) else told


def _renamed(value: Any, names: list[str]) -> Any:
    """A value of JSON with each of ``names`` in it turned into one that nothing has."""
    text = json.dumps(value)
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, f"{name[:-4]}none")
    return json.loads(text)
