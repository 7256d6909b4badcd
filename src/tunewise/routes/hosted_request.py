"""A training job as a request to a hosted service, and the mark by which it is found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunewise.data.chat import canonical_hash
from tunewise.data.write import write_jsonl
from tunewise.routes.hosted_calls import Connection
from tunewise.routes.hosted_files import LocalFile
from tunewise.routes.hosted_rows import METHODS, REINFORCEMENT, epochs_of, training_row
from tunewise.training.job import TrainingJob

MARK = "tunewise_job"
"""The key in a job's metadata whose value is the mark."""

DEAD = frozenset({"failed", "cancelled"})
_PAGE = 100


@dataclass(frozen=True)
class JobRequest:
    """What is sent for one job, but for the ids of its files.

    Attributes:
        body: model, method, seed, suffix.
        training, validation: the files; dev rows are only looked at, so they cost nothing.
    """

    body: Mapping[str, Any]
    training: LocalFile
    validation: LocalFile | None

    @property
    def files(self) -> list[LocalFile]:
        """All files of the job."""
        return [self.training] if self.validation is None else [self.training, self.validation]

    @property
    def key(self) -> str:
        """SHA-256 of all that determines the job: 64 hex digits."""
        return canonical_hash([self.body, *(file.sha256 for file in self.files)])

    @property
    def mark(self) -> str:
        """What the job is marked with at the service."""
        return self.key[:32]

    def complete(self, ids: Mapping[str, str]) -> dict[str, Any]:
        """The body with the files' ids, given by SHA-256."""
        body = {**self.body, "training_file": ids[self.training.sha256]}
        if self.validation is not None:
            body["validation_file"] = ids[self.validation.sha256]
        return body


def write_request(job: TrainingJob, model: str) -> JobRequest:
    """Write a job's files into ``output/upload`` and put together what is sent.

    Args:
        model: the base model's name at the service.

    Raises:
        WorkspaceError: the disk is full.
    """
    folder = job.output / "upload"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # rows may hold personal data
    files = []
    for name, examples in (("train", job.examples), ("dev", job.dev)):
        if examples:
            path = folder / f"{name}.jsonl"
            write_jsonl(path, (training_row(example, job) for example in examples))
            files.append(LocalFile.of(path))
    hosted = job.fine_tune.hosted
    body: dict[str, Any] = {"model": model, "method": _method(job), "seed": job.seed}
    if hosted.suffix is not None:
        body["suffix"] = hosted.suffix
    return JobRequest(body, files[0], files[1] if len(files) > 1 else None)


def _method(job: TrainingJob) -> dict[str, Any]:
    fine_tune = job.fine_tune
    kind = METHODS[fine_tune.method]
    values: dict[str, Any] = {"n_epochs": epochs_of(job)}
    if fine_tune.batch_size is not None:
        values["batch_size"] = fine_tune.batch_size
    if fine_tune.hosted.learning_rate_multiplier is not None:
        values["learning_rate_multiplier"] = fine_tune.hosted.learning_rate_multiplier
    if kind == "dpo" and "beta" in fine_tune.dpo.model_fields_set:
        values["beta"] = fine_tune.dpo.beta
    method: dict[str, Any] = {"hyperparameters": values}
    if kind == "reinforcement":
        method["grader"] = fine_tune.grader
        values |= fine_tune.hosted.model_dump(include=set(REINFORCEMENT), exclude_none=True)
    return {"type": kind, kind: method}


def jobs_like(
    connection: Connection, request: JobRequest, ids: Mapping[str, str]
) -> tuple[list[Any], int]:
    """The service's jobs that are this one, oldest first, and how many dead ones there are.

    Args:
        ids: ids of the request's files that lie at the service already, by SHA-256. Where a
            service keeps no metadata (Azure's older versions), a job of the same files, model,
            seed and numbers is the same job.

    Raises:
        openai.APIError: the service cannot be asked.
    """
    alive, dead = [], 0
    for job in _listed(connection, request.mark):
        if not _is_ours(job, request, ids):
            continue
        if job.status in DEAD:
            dead += 1
        else:
            alive.append(job)
    return alive[::-1], dead


def _listed(connection: Connection, mark: str) -> Iterator[Any]:
    jobs = connection.reading.fine_tuning.jobs
    if not connection.dialect.filters_jobs:
        return iter(jobs.list(limit=_PAGE))
    return iter(jobs.list(limit=_PAGE, metadata={MARK: mark}))


def _is_ours(job: Any, request: JobRequest, ids: Mapping[str, str]) -> bool:
    metadata = job.metadata
    if metadata:
        return bool(metadata.get(MARK) == request.mark)
    if any(file.sha256 not in ids for file in request.files):
        return False
    body = request.complete(ids)
    asked = body["method"][body["method"]["type"]]["hyperparameters"]
    kept = job.hyperparameters.model_dump() if job.hyperparameters else {}
    return (
        all(getattr(job, k, None) == body.get(k) for k in ("training_file", "model", "seed"))
        and (job.validation_file or None) == body.get("validation_file")
        and all(kept.get(k) in (v, None) for k, v in asked.items())
    )
