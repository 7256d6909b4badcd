"""The last act of a job: its result file, its model, its last words, all at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tunewise.server import metrics
from tunewise.server.database import reading, writing
from tunewise.server.file_store import RESULTS, add_file
from tunewise.server.ids import new_id
from tunewise.server.jobs.results import FILENAME, results_csv
from tunewise.server.jobs.story import end, model_name, tell
from tunewise.server.jobs.tables import Job, JobEvent, TunedModel
from tunewise.server.jobs.worker import RUN
from tunewise.server.state import ServerState


def succeed(state: ServerState, job_id: str, folder: Path) -> None:
    """Make a job's model known and end it, unless it was cancelled at the last moment."""
    result = json.loads((folder / RUN / "training.json").read_text("utf-8"))
    with reading(state.sessions) as session:
        steps = session.scalars(
            select(JobEvent.data)
            .where(JobEvent.job_id == job_id, JobEvent.type == "metrics")
            .order_by(JobEvent.seq)
        ).all()
    with state.blobs.receive() as incoming:
        incoming.write(results_csv(steps))
        received = incoming.finish()
        with writing(state.sessions) as session:
            job = session.scalar(select(Job).where(Job.id == job_id))
            if job is None or job.status != "running":
                return
            file = add_file(
                session,
                state.blobs,
                received,
                project=job.project,
                filename=FILENAME,
                purpose=RESULTS,
            )
            name = model_name(job, state.settings.organization)
            session.add(
                TunedModel(
                    id=new_id("ftmodel_"),
                    project=job.project,
                    name=name,
                    job_id=job.id,
                    model=job.model,
                    base=job.base,
                    folder=f"jobs/{job.id}/{RUN}/adapter",
                    sha256=result.get("sha256"),
                )
            )
            job.fine_tuned_model = name
            job.result_files = [file.id]
            job.trained_tokens = result["tokens"]
            metrics.TOKENS.labels("trained").inc(result["tokens"])
            end(session, job, "succeeded")
            tell(session, job, "model", f"New fine-tuned model created: {name}")
            tell(session, job, "succeeded", "The job has successfully completed")


def fail(state: ServerState, job_id: str, error: Mapping[str, Any]) -> None:
    """End a job that cannot go on, unless it was cancelled at the last moment."""
    with writing(state.sessions) as session:
        job = session.scalar(select(Job).where(Job.id == job_id))
        if job is not None and job.status == "running":
            end(session, job, "failed", error)
