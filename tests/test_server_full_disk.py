"""A disk that is really full: what cannot be stored is refused, what is computed is sent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from server_support import call, chats, client, envelope, start_server

MODEL = "tunewise/tiny"
QUESTION = [{"role": "user", "content": "What is 1 plus one?"}]


@pytest.mark.parametrize("small_disk", ["6m"], indirect=True)
def test_everything_that_stores_says_so_and_answers_are_sent(
    small_disk: Path, tmp_path: Path
) -> None:
    server = start_server(small_disk / "server")
    running = server.running
    try:
        with client(running) as api:
            file = api.files.create(file=("rows.jsonl", chats(10)), purpose="fine-tune")
            gone = api.files.create(file=("a.txt", b"x"), purpose="user_data")
            spare = api.files.create(file=("b.txt", b"x"), purpose="user_data")
            asked = {"model": MODEL, "messages": QUESTION, "max_tokens": 4, "store": True}
            call(running, "POST", "/v1/chat/completions", json=asked)  # the engine has started
            batch = {"input_file_id": file.id, "endpoint": "/v1/x", "completion_window": "24h"}
            filler = small_disk / "filler"
            with filler.open("wb", buffering=0) as out:
                for size in (4096, 512, 64, 1):
                    with pytest.raises(OSError, match="No space"):
                        while True:
                            out.write(b"x" * size)
            # SQLite's log may still have some pages that it writes over: they are used up.
            job = {"model": MODEL, "training_file": file.id}
            deadline = time.monotonic() + 30
            while call(running, "DELETE", f"/v1/files/{gone.id}").status_code != 507:
                assert time.monotonic() < deadline
                call(running, "POST", "/v1/chat/completions", json=asked)
            for method, path, body in (
                ("POST", "/v1/fine_tuning/jobs", job),
                ("DELETE", f"/v1/files/{spare.id}", None),
                ("POST", "/v1/uploads", {"filename": "a", "purpose": "user_data", "bytes": 1,
                                         "mime_type": "text/plain"}),
            ):  # fmt: skip
                answer = call(running, method, path, json=body)
                error = envelope(answer, 507, "insufficient_storage")
                assert "disk is full" in error["message"], (path, error)
            answer = call(
                running, "POST", "/v1/files", files={"file": ("big.txt", b"x" * 100_000)},
                data={"purpose": "user_data"},
            )  # fmt: skip
            envelope(answer, 507, "insufficient_storage")
            assert call(running, "POST", "/v1/batches", json=batch).status_code == 400

            answer = call(running, "POST", "/v1/chat/completions", json=asked)
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["message"]["content"] is not None
            assert "not stored" in answer.headers["x-tunewise-warning"]
            answer = call(running, "POST", "/v1/chat/completions", json={**asked, "stream": True})
            assert answer.text.endswith("data: [DONE]\n\n") and '"error"' not in answer.text
            response = api.responses.create(model=MODEL, input="Hi", max_output_tokens=4)
            assert response.output_text is not None and response.store is False  # type: ignore[attr-defined]

            filler.unlink()
            assert api.files.delete(spare.id).deleted
            answer = call(running, "POST", "/v1/chat/completions", json=asked)
            assert "x-tunewise-warning" not in answer.headers
            assert api.chat.completions.retrieve(answer.json()["id"]).model == MODEL
            assert api.fine_tuning.jobs.create(**job).status == "validating_files"
    finally:
        server.stop()
    log = server.log.read_text()
    assert "the disk is full" in log and "Traceback" not in log, log
