"""The queue: makes it so that jobs are what the database says they should be.

One thread looks at all jobs again and again: it stores what workers report, starts waiting jobs,
stops those that were paused or cancelled, and starts workers that died again. Everything it knows
is in the database and in the jobs' folders, so a server that was killed goes on where it was; a
worker that outlived it is watched like any other. A second thread checks files.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tunewise.server.database import now, reading, writing
from tunewise.server.errors import told
from tunewise.server.jobs.checking import check
from tunewise.server.jobs.ending import fail, succeed
from tunewise.server.jobs.ingest import EventFile, ingest
from tunewise.server.jobs.integrations import trackers
from tunewise.server.jobs.process import Worker
from tunewise.server.jobs.story import OVER, tell
from tunewise.server.jobs.tables import Job, TunedModel
from tunewise.server.jobs.worker import JOB, OUTCOME, RUN, Assignment
from tunewise.server.state import ServerState
from tunewise.server.tables import File
from tunewise.workspace import write_json_atomic

EVERY_SECONDS = 0.25
"""Between two looks at the workers, while there are any."""
IDLE_SECONDS = 5.0
"""Between two looks while there are none: whoever changes a job rings the bell."""
RETRY_SECONDS = 5.0
"""Until the next look where one failed, for instance because the disk is full."""
STOP_SECONDS = 10.0
"""A worker that was asked to stop and has not is ended after this."""
SILENT_SECONDS = 60.0
"""A worker without a heartbeat is ended, and started again, after this."""
MAX_ATTEMPTS = 5
"""Starts in a row that brought no step further."""

log = logging.getLogger("tunewise.server")


class JobQueue:
    """Runs the jobs of a server; ``ServerState.jobs``."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._folder = state.settings.home / "jobs"
        self._workers: dict[str, Worker] = {}
        self._events: dict[str, EventFile] = {}
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._files = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin; jobs that ran when the server ended go on."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for target, bell in ((self._turn, self._wake), (self._check_next, self._files)):
            thread = threading.Thread(
                target=self._repeat, args=(target, bell), name=target.__name__, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    @property
    def alive(self) -> bool:
        """Whether its threads run."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def wake(self) -> None:
        """Something has changed: look now."""
        self._wake.set()
        self._files.set()

    def stop(self) -> None:
        """End all workers, with a checkpoint; their jobs go on when the server starts again."""
        self._stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join(timeout=STOP_SECONDS)
        left = [worker for worker in self._workers.values() if worker.alive()]
        pause = threading.Event()
        while left:
            for worker in left:
                worker.ask_to_stop(STOP_SECONDS)
            pause.wait(0.05)
            left = [worker for worker in left if worker.alive()]

    def folder(self, job_id: str) -> Path:
        """Where everything of a job lies."""
        return self._folder / job_id

    def _repeat(self, target: Callable[[], bool], bell: threading.Event) -> None:
        """Call ``target``, which says whether there is something to look after, for ever."""
        while not self._stopping.is_set():
            bell.clear()
            try:
                seconds = EVERY_SECONDS if target() else IDLE_SECONDS
            except Exception as error:
                if not self._stopping.is_set():
                    told(error, "the queue of jobs failed")
                seconds = RETRY_SECONDS
            bell.wait(seconds)

    def _turn(self) -> bool:
        with reading(self._state.sessions) as session:
            active = session.scalars(select(Job.id).where(Job.has_worker)).all()
        failure: Exception | None = None
        busy = bool(active)
        for job_id in active:
            try:
                self._look_after(job_id)
            except Exception as error:  # one job's trouble is not the others'
                failure = error
        while not self._stopping.is_set() and self._start_next():
            busy = True
        if failure is not None:
            raise failure
        return busy

    def _look_after(self, job_id: str) -> None:
        worker = self._workers.setdefault(job_id, Worker(self.folder(job_id)))
        alive = worker.alive()  # before its events are read, so that a dead worker's are all there
        self._store_events(job_id, last=not alive)
        with reading(self._state.sessions) as session:
            status = session.scalar(select(Job.status).where(Job.id == job_id))
        if alive:
            if status != "running":
                worker.ask_to_stop(STOP_SECONDS)
            elif worker.silent(SILENT_SECONDS):
                log.warning("the worker of %s gives no sign of life; it is ended", job_id)
                worker.end()
            return
        outcome = worker.outcome() or {}
        if status == "running" and outcome.get("state") == "succeeded":
            succeed(self._state, job_id, self.folder(job_id))
        elif status == "running" and outcome.get("state") == "failed":
            fail(self._state, job_id, outcome["error"])
        elif status == "running":
            self._start_again(job_id, worker, stopped=outcome.get("state") == "stopped")
            return
        self._let_go(job_id)

    def _store_events(self, job_id: str, *, last: bool) -> None:
        file = self._events.setdefault(
            job_id, EventFile(self.folder(job_id) / RUN / "events.jsonl")
        )
        while events := file.read():
            with writing(self._state.sessions) as session:
                job = _job(session, job_id)
                organization = self._state.settings.organization
                place, freed = ingest(session, job, events, organization, last=last)
            for folder in freed:
                shutil.rmtree(self._state.settings.home / folder, ignore_errors=True)
            if not place:
                return
            file.told(place)

    def _start_again(self, job_id: str, worker: Worker, *, stopped: bool) -> None:
        """Start the worker of a job that is to run and has none.

        Args:
            stopped: it ended as it was asked to, by a server that was stopped.
        """
        with writing(self._state.sessions) as session:
            job = _job(session, job_id)
            if job.status != "running":
                return  # cancelled or paused just now: the next look lets it go
            job.attempts += 0 if stopped else 1
            attempts = job.attempts
        if attempts > MAX_ATTEMPTS:
            text = (
                f"The process that trains died {attempts} times in a row without a step. Perhaps "
                "it needs more memory than there is: try a smaller model or shorter examples."
            )
            fail(self._state, job_id, {"code": "worker_died", "message": text, "param": None})
            self._let_go(job_id)
            return
        (self.folder(job_id) / OUTCOME).unlink(missing_ok=True)
        worker.start()

    def _let_go(self, job_id: str) -> None:
        """The job has no process any more; what only a process needs is removed."""
        with writing(self._state.sessions) as session:
            job = _job(session, job_id)
            job.has_worker = False
            over = job.status in OVER
        self._workers.pop(job_id, None)
        self._events.pop(job_id, None)
        if over:
            for name in ("checkpoints", "job"):  # the latter is a copy of the user's rows
                shutil.rmtree(self.folder(job_id) / RUN / name, ignore_errors=True)

    def _start_next(self) -> bool:
        """Start the job whose turn it is, where a worker is free; whether there was one."""
        limits = self._state.settings.workers, self._state.settings.max_running_jobs
        with reading(self._state.sessions) as session:
            if next_job(session, *limits) is None:
                return False  # nearly always, and nobody need wait for a writer then
        with writing(self._state.sessions) as session:
            job = next_job(session, *limits)
            if job is None:
                return False
            self._assign(session, job)
            job.status, job.has_worker, job.attempts = "running", True, 1
            job.started_at = now()
            tell(session, job, "started", "Fine-tuning job started")
            job_id = job.id
        worker = self._workers[job_id] = Worker(self.folder(job_id))
        (self.folder(job_id) / OUTCOME).unlink(missing_ok=True)
        worker.start()
        return True

    def _assign(self, session: Session, job: Job) -> None:
        """Write what the worker reads."""
        place = self.folder(job.id) / JOB
        if place.exists():
            return
        assert job.resolved is not None and job.rows is not None
        blobs = self._state.blobs
        paths = [
            None if name is None else str(blobs.path(self._blob(session, name)))
            for name in (job.training_file, job.validation_file)
        ]
        folder, sha256 = self._start_folder(session, job)
        assert paths[0] is not None
        value = Assignment(
            method=job.method["type"],
            model=job.base,
            training=paths[0],
            training_rows=job.rows[0],
            validation=paths[1],
            validation_rows=job.rows[1],
            hyperparameters=job.resolved,
            seed=job.seed,
            grader=job.grader,
            trackers=trackers(job.integrations),
            threads=self._state.settings.worker_threads,
            start=folder,
            start_sha256=sha256,
            form=job.resolved.get("form", "chat"),
        )
        place.parent.mkdir(mode=0o700, exist_ok=True)
        write_json_atomic(place, asdict(value))

    def _start_folder(self, session: Session, job: Job) -> tuple[str | None, str | None]:
        if job.parent is None:
            return None, None
        parent = session.scalar(select(TunedModel).where(TunedModel.name == job.parent))
        assert parent is not None  # a model is not deleted while a job begins with it
        return str(self._state.settings.home / parent.folder), parent.sha256

    def _blob(self, session: Session, file_id: str) -> str:
        digest = session.scalar(select(File.blob).where(File.id == file_id))
        assert digest is not None
        return digest

    def _check_next(self) -> bool:
        """Check the files of jobs that are new, the oldest first; none is left then."""
        while not self._stopping.is_set():
            with reading(self._state.sessions) as session:
                job = session.scalar(
                    select(Job).where(Job.status == "validating_files").order_by(Job.seq).limit(1)
                )
                if job is None:
                    return False
                files = [job.training_file, job.validation_file]
                blobs = [None if f is None else self._blob(session, f) for f in files]
            if check(self._state, job, blobs[0], blobs[1]):
                self._wake.set()
        return False


def next_job(session: Session, workers: int, per_project: int) -> Job | None:
    """The waiting job whose turn it is, or None.

    The highest priority first; then the project with the fewest running jobs; then the one whose
    last start is longest ago; then in order of creation.

    Args:
        workers: processes that may run at once.
        per_project: of them, for one project.
    """
    busy = session.execute(
        select(Job.project, func.count()).where(Job.has_worker).group_by(Job.project)
    )
    running = {row[0]: row[1] for row in busy}
    if sum(running.values()) >= workers:
        return None
    waiting = session.scalars(
        select(Job)
        .where(Job.status == "queued", Job.has_worker.is_(False))
        .order_by(Job.priority.desc(), Job.seq)
    ).all()
    waiting = [job for job in waiting if running.get(job.project, 0) < per_project]
    if not waiting:
        return None
    starts = session.execute(
        select(Job.project, func.max(Job.started_at))
        .where(Job.project.in_({job.project for job in waiting}))
        .where(Job.started_at <= now())  # later ones are of a clock that was wrong
        .group_by(Job.project)
    )
    last = {row[0]: row[1] or 0 for row in starts}
    return min(
        waiting,
        key=lambda job: (
            -job.priority,
            running.get(job.project, 0),
            last.get(job.project, 0),
            job.seq,
        ),
    )


def _job(session: Session, job_id: str) -> Job:
    job = session.scalar(select(Job).where(Job.id == job_id))
    assert job is not None  # rows of jobs are never removed
    return job
