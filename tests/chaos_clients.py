"""Clients that go on while their server is killed: what got no answer is sent again."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx2

from chaos_ledger import Ledger, PromisedJob
from server_support import Running, chats

MODEL = "tunewise/tiny"
ROWS, EPOCHS = 20, 3
OVER = ("succeeded", "failed", "cancelled")
PATIENCE_SECONDS = 120


class Client(ABC):
    """One thread that works against the server until it is told to stop."""

    def __init__(self, running: Running, ledger: Ledger, seed: int) -> None:
        self.running = running
        self.ledger = ledger
        self.name = type(self).__name__
        self.random = random.Random(f"{self.name} {seed}")
        self.turns = 0
        self._keys = count()
        self._headers = {"Authorization": f"Bearer {running.key}"}
        self._http = httpx2.Client(base_url=running.root, verify=False, timeout=PATIENCE_SECONDS)

    def run(self, stop: threading.Event) -> None:
        """Take turns until ``stop``; the last one is finished."""
        with self._http:
            while not stop.is_set():
                self.turn()
                self.turns += 1
                stop.wait(self.random.uniform(0.02, 0.3))

    @abstractmethod
    def turn(self) -> None:
        """One piece of work, with all its promises noted."""

    def key(self) -> dict[str, str]:
        """A header with a new ``Idempotency-Key``."""
        return {"Idempotency-Key": f"{self.name}-{next(self._keys)}"}

    def once(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """One request; None where the server, or its database, died before it answered in full."""
        headers = {**self._headers, **options.pop("headers", {})}
        try:
            answer = self._http.request(method, path, headers=headers, **options)
        except httpx2.TransportError:
            return None
        away = answer.status_code == 503 and "database_unavailable" in answer.text
        return None if away else answer

    def insist(self, method: str, path: str, **options: Any) -> tuple[httpx2.Response, bool]:
        """Send a request until it is answered; and whether it was sent more than once."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        again = False
        while (answer := self.once(method, path, **options)) is None:
            again = True
            assert time.monotonic() < deadline, f"{method} {path} is not answered"
            time.sleep(0.25)
        assert answer.status_code < 500, (method, path, answer.text)
        self.ledger.answers += 1
        return answer, again

    def made(self, method: str, path: str, **options: Any) -> Any:
        """The body of the 200 that ``insist`` ends with."""
        answer, _ = self.insist(method, path, **options)
        assert answer.status_code == 200, (method, path, answer.text)
        return answer.json()


class Files(Client):
    """Uploads files in one piece, sometimes the same once more, and deletes some."""

    def turn(self) -> None:
        size = self.random.choice((10, 2_000, 50_000, 1_500_000))
        data = self.random.randbytes(size)
        request: dict[str, Any] = {
            "files": {"file": ("a.bin", data)},
            "data": {"purpose": "user_data"},
            "headers": self.key(),
        }
        file = self.made("POST", "/v1/files", **request)["id"]
        assert file not in self.ledger.files
        self.ledger.files[file] = hashlib.sha256(data).hexdigest()
        self.ledger.note("file", id=file, bytes=size)
        if self.random.random() < 0.3:
            assert self.made("POST", "/v1/files", **request)["id"] == file
        if self.random.random() < 0.3:
            answer, again = self.insist("DELETE", f"/v1/files/{file}")
            assert answer.status_code == 200 or (again and answer.status_code == 404), answer.text
            self.ledger.deleted.add(file)
            del self.ledger.files[file]
            self.ledger.note("file deleted", id=file)


class Parts(Client):
    """Uploads files in parts, which come in any order, and gives some up."""

    def turn(self) -> None:
        pieces = [self.random.randbytes(self.random.randint(1, 60_000)) for _ in range(3)]
        whole = b"".join(pieces)
        body = {"filename": "b.bin", "purpose": "user_data", "bytes": len(whole)}
        upload = self.made(
            "POST", "/v1/uploads", json={**body, "mime_type": "a/b"}, headers=self.key()
        )["id"]
        path = f"/v1/uploads/{upload}"
        self.ledger.uploads[upload] = "pending"
        parts: dict[int, str] = {}
        for place in self.random.sample(range(3), 3):
            form = {"data": ("blob", pieces[place])}
            parts[place] = self.made("POST", f"{path}/parts", files=form, headers=self.key())["id"]
        if self.random.random() < 0.25:
            answer, again = self.insist("POST", f"{path}/cancel")
            assert answer.status_code == 200 or (again and answer.status_code == 400), answer.text
            self.ledger.uploads[upload] = "cancelled"
            self.ledger.note("upload cancelled", id=upload)
            return
        end = {"part_ids": [parts[n] for n in range(3)], "md5": hashlib.md5(whole).hexdigest()}
        done = self.made("POST", f"{path}/complete", json=end)
        self.ledger.uploads[upload] = done["status"]
        self.ledger.files[done["file"]["id"]] = hashlib.sha256(whole).hexdigest()
        self.ledger.note("upload completed", id=upload, file=done["file"]["id"])


class Chats(Client):
    """Asks, in one piece and as a stream, and has the answers stored."""

    def turn(self) -> None:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"Say {self.random.randint(1, 99)}."}],
            "max_tokens": self.random.randint(1, 40),
            "store": True,
            "stream": self.random.random() < 0.5,
        }
        answer = self.once("POST", "/v1/chat/completions", json=body)
        if answer is None:
            return  # nobody knows whether it is stored, and nobody was told
        if answer.status_code >= 500:  # the process that computes was killed; the answer says so
            assert answer.json()["error"]["code"] == "server_error", answer.text
            assert "again" in answer.json()["error"]["message"], answer.text
            return
        assert answer.status_code == 200, answer.text
        self.ledger.answers += 1
        if "x-tunewise-warning" in answer.headers:
            return  # it was computed while the database was away, and says that it is not stored
        found = _streamed(answer.text) if body["stream"] else _plain(answer.json())
        if found is not None:
            self.ledger.chats[found[0]] = found[1]
            self.ledger.note("chat", id=found[0])


def _plain(completion: Mapping[str, Any]) -> tuple[str, str]:
    return completion["id"], completion["choices"][0]["message"]["content"] or ""


def _streamed(text: str) -> tuple[str, str] | None:
    """Id and text of a stream; None where it ended with an error, as it must say."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    if "error" in json.loads(lines[-1] if lines[-1] != "[DONE]" else "{}"):
        return None
    assert lines[-1] == "[DONE]", text
    chunks = [json.loads(line) for line in lines[:-1]]
    pieces = [c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]]
    return chunks[0]["id"], "".join(pieces)


class Jobs(Client):
    """Makes a number of equal fine-tuning jobs, one after the other, each asked for twice at once
    with one key; watches them, pauses and cancels some."""

    def __init__(self, running: Running, ledger: Ledger, seed: int, jobs: int) -> None:
        super().__init__(running, ledger, seed)
        self._wanted = jobs
        self._file = ""
        self._paused: set[str] = set()

    def turn(self) -> None:
        if not self._file:
            rows = {"file": ("rows.jsonl", chats(ROWS))}
            form = {"purpose": "fine-tune"}
            made = self.made("POST", "/v1/files", files=rows, data=form, headers=self.key())
            self._file = made["id"]
            self.ledger.files[self._file] = hashlib.sha256(chats(ROWS)).hexdigest()
        jobs = self.ledger.jobs
        running = sum(job.over is None for job in jobs.values())
        if running < 2 and len(jobs) < self._wanted:
            self._create()
        for job_id, job in jobs.items():
            if job.over is None:
                self._watch(job_id, job)

    @property
    def finished(self) -> bool:
        """Whether all jobs are made and over."""
        jobs = self.ledger.jobs
        return len(jobs) == self._wanted and all(job.over for job in jobs.values())

    def _create(self) -> None:
        body = {
            "model": MODEL, "training_file": self._file, "seed": 11,
            "hyperparameters": {"n_epochs": EPOCHS, "batch_size": 1},
        }  # fmt: skip
        key = self.key()
        with ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(self.made, "POST", "/v1/fine_tuning/jobs", json=body, headers=key)
                for _ in range(2)
            ]
        one, two = (answer.result()["id"] for answer in asked)
        assert one == two, "an equal key makes one job"
        self.ledger.jobs[one] = PromisedJob(steps=ROWS * EPOCHS)
        self.ledger.note("job", id=one)

    def _watch(self, job_id: str, job: PromisedJob) -> None:
        path = f"/v1/fine_tuning/jobs/{job_id}"
        for event in self.made("GET", f"{path}/events?limit=20")["data"]:
            job.events.setdefault(event["id"], event["message"])
        shown = self.made("GET", path)
        status = shown["status"]
        if job_id in self._paused:
            assert shown["paused"] or status in OVER, f"{job_id} goes on by itself: {status}"
            answer, again = self.insist("POST", f"{path}/resume")
            assert answer.status_code == 200 or again, answer.text
            self._paused.discard(job_id)
            return
        if status in OVER:
            job.over = status
            self.ledger.note("job over", id=job_id, status=status)
            return
        # The first job is left to its fate, which the kills are.
        act = self.random.random() if job_id != next(iter(self.ledger.jobs)) else 1.0
        if act < 0.05:
            answer, again = self.insist("POST", f"{path}/cancel")
            if answer.status_code == 200 or again:
                job.over = self.made("GET", path)["status"]
                self.ledger.note("job cancelled", id=job_id, status=job.over)
        elif act < 0.15:
            answer, _ = self.insist("POST", f"{path}/pause")
            if answer.status_code == 200:
                self._paused.add(job_id)
                self.ledger.note("job paused", id=job_id)
