"""The trainer's events into a job's story: read in order, each told once.

The trainer appends to a file; the queue reads on from where it was. A worker that goes on from a
checkpoint does some steps again, and a server that was killed reads from the start: both tell
nothing twice, since an event has a mark (``story.tell``) and steps only ever count up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewise.server.database import now
from tunewise.server.ids import new_id
from tunewise.server.jobs.story import model_name, tell
from tunewise.server.jobs.tables import Job, JobEvent, TunedModel

SHOWN_CHECKPOINTS = 3
_AT_ONCE = 1 << 20  # bytes
_LOOKS = ("eval", "look")
"""The trainer's words for a look at the whole validation file, and at a part of it."""

Event = Mapping[str, Any]


class EventFile:
    """The file of a trainer's events, from the place up to which they are told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told_to = 0

    def read(self) -> list[tuple[int, Event]]:
        """Further events, each with where its line ends; a line being written is left.

        Lines that are no event (of a process that was killed while it wrote) are passed over.
        """
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._told_to:
                    self._told_to = 0
                file.seek(self._told_to)
                lines = file.read(_AT_ONCE).splitlines(keepends=True)
        except OSError:
            return []
        place = self._told_to
        events: list[tuple[int, Event]] = []
        for line in lines:
            if not line.endswith(b"\n"):
                break
            place += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                events.append((place, event))
        return events

    def told(self, place: int) -> None:
        """Remember that everything before ``place`` is stored."""
        self._told_to = place


def ingest(
    session: Session,
    job: Job,
    events: Sequence[tuple[int, Event]],
    organization: str,
    *,
    last: bool,
) -> tuple[int, list[str]]:
    """Tell events in a job's story; inside ``database.writing``.

    Args:
        events: from ``EventFile.read``.
        organization: for the names of checkpoints.
        last: no further event can come.

    Returns:
        The place up to which everything is told (0 for nowhere further), and folders of
        checkpoints that are listed no more, relative to the server's home.
    """
    place = 0
    freed: list[str] = []
    for index, (end, event) in enumerate(events):
        following = events[index + 1][1] if index + 1 < len(events) else None
        if event["event"] == "step" and _looks_at_dev(job, event):
            if following is None and not last:
                break  # its look at the validation file is still to come
            if following is None or following["event"] not in _LOOKS:
                place = end  # it was killed there; the step is done again
                continue
        _tell_one(session, job, event, following, organization, freed)
        place = end
    return place, freed


def _looks_at_dev(job: Job, event: Event) -> bool:
    if job.validation_file is None:
        return False
    ends = event["step"] == event["total_steps"] or float(event["epoch"]).is_integer()
    return ends or event.get("look") is True


def _tell_one(
    session: Session,
    job: Job,
    event: Event,
    following: Event | None,
    organization: str,
    freed: list[str],
) -> None:
    kind = event["event"]
    if kind == "start":
        job.total_steps = event["total_steps"]
    elif kind == "finding" and event["severity"] != "info":
        rows = ", ".join(event["rows"][:5])
        text = f"{event['message']} ({event['count']} rows: {rows}). {event['fix']}"
        mark = f"finding {event['split']} {event['code']}"
        tell(session, job, mark[:64], text, level="warn")
    elif kind == "resume":
        text = f"Fine-tuning job goes on from step {event['step']}"
        tell(session, job, f"resume {event['time']}", text)
    elif kind == "damaged":
        text = (
            f"{event['what'][:1].upper()}{event['what'][1:]} ({event['file']}): training begins "
            "again, and ends in the same weights"
        )
        tell(session, job, f"damaged {event['time']}", text, level="warn")
    elif kind == "date":
        text = (
            f"The chat template writes a date: {event['date']} in training, and whenever the "
            "tuned model is asked"
        )
        tell(session, job, "date", text)
    elif kind == "tracker":
        text = f"{event['tracker']} is not told of the run any more: {event['error']}"
        tell(session, job, f"tracker {event['tracker']}"[:64], text, level="warn")
    elif kind == "step":
        _step(session, job, event, following)
    elif kind == "epoch_saved":
        freed += _checkpoint(session, job, event, organization)


def _step(session: Session, job: Job, event: Event, following: Event | None) -> None:
    step, total = event["step"], event["total_steps"]
    left = event["seconds_left"]
    if job.status == "running" and math.isfinite(left):
        job.estimated_finish = now() + round(left)
    if step <= job.step:
        return
    data = {"step": step, "total_steps": total, "train_loss": event["loss"], **_figures(event)}
    text = f"Step {step}/{total}: training loss={event['loss']:.2f}"
    if following is not None and following["event"] in _LOOKS and following["step"] == step:
        loss = following["dev_loss"]
        figures = _figures(following)
        data |= {"valid_loss": loss, **figures}
        full = following["event"] == "eval" or following["rows"] == following["dev_rows"]
        if full:
            data |= {f"full_{name}": value for name, value in figures.items()}
            data["full_valid_loss"] = loss
        text += f", {'full ' if full else ''}validation loss={loss:.2f}"
    data |= {new: data[old] for old, new in _OF_REWARDS.items() if old in data}
    data = {k: v for k, v in data.items() if math.isfinite(v)}  # JSON has no other numbers
    tell(session, job, f"step {step}", text, data=data)
    job.step, job.total_steps, job.attempts = step, total, 0


_OF_REWARDS = {
    "train_reward_mean": "train_mean_reward",
    "valid_reward_mean": "valid_mean_reward",
    "full_valid_reward_mean": "full_valid_mean_reward",
}
"""The names under which OpenAI's and Azure's guides show the rewards of a step as well."""


def _figures(event: Event) -> dict[str, float]:
    """A method's own figures, such as ``train_mean_token_accuracy``."""
    return {
        name: value
        for name, value in event.items()
        if name.startswith(("train_", "valid_")) and isinstance(value, int | float)
    }


def _checkpoint(session: Session, job: Job, event: Event, organization: str) -> list[str]:
    """List the weights of an epoch; the folders of those that are now too many."""
    step = event["step"]
    name = model_name(job, organization, step)
    known = session.scalar(
        select(TunedModel.seq).where(TunedModel.job_id == job.id, TunedModel.step == step)
    )
    if known is not None:
        return []
    metrics = session.scalar(
        select(JobEvent.data).where(JobEvent.job_id == job.id, JobEvent.mark == f"step {step}")
    )
    session.add(
        TunedModel(
            id=new_id("ftckpt_"),
            project=job.project,
            name=name,
            job_id=job.id,
            model=job.model,
            base=job.base,
            folder=f"jobs/{job.id}/run/epochs/{step}",
            sha256=event.get("sha256"),
            step=step,
            metrics={k: v for k, v in (metrics or {"step": step}).items() if k != "total_steps"},
        )
    )
    text = f"Checkpoint created at step {step} with Snapshot ID: {name}"
    tell(session, job, f"checkpoint {step}", text)
    listed = session.scalars(
        select(TunedModel)
        .where(
            TunedModel.job_id == job.id,
            TunedModel.step.is_not(None),
            TunedModel.deleted_at.is_(None),
        )
        .order_by(TunedModel.step.desc())
        .offset(SHOWN_CHECKPOINTS)
    ).all()
    for old in listed:
        old.deleted_at = now()
    return [old.folder for old in listed]
