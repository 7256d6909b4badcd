"""From ``validating_files`` to ``queued``: the files against the method, ``auto`` into numbers."""

from __future__ import annotations

import logging

from sqlalchemy import select

from tunewise.data.findings import Finding
from tunewise.digests import DamagedError
from tunewise.server.database import writing
from tunewise.server.jobs.form import NO_COMPLETIONS, TOLD, form_of
from tunewise.server.jobs.hyperparameters import AUTO, remarks, resolved
from tunewise.server.jobs.integrations import notices
from tunewise.server.jobs.story import end, tell
from tunewise.server.jobs.tables import Job
from tunewise.server.jobs.training_files import TrainingFileError, check_for_method
from tunewise.server.state import ServerState

log = logging.getLogger("tunewise.server")


def check(state: ServerState, job: Job, training: str | None, validation: str | None) -> bool:
    """Check a new job's files; it is queued, or fails. Whether it is queued.

    Args:
        job: as it was read; its files may take minutes to check, so it is read again after.
        training, validation: digests of their contents.
    """
    warnings: list[tuple[str, Finding]] = []
    counts = [0, 0]
    completions = False
    error: TrainingFileError | None = None
    try:
        for index, (digest, param) in enumerate(
            ((training, "training_file"), (validation, "validation_file"))
        ):
            if digest is None:
                continue
            path = state.blobs.verified(digest, again=True)
            minimum = {"minimum": 1} if param == "validation_file" else {}
            found = check_for_method(path, job.method["type"], param=param, **minimum)
            counts[index] = found.rows
            completions |= index == 0 and found.format == "completion"
            warnings += [(param, finding) for finding in found.warnings]
    except TrainingFileError as refusal:
        error = refusal
    except DamagedError as damaged:
        log.error("%s", damaged)
        error = TrainingFileError(
            f"The {param.replace('_', ' ')} cannot be used: {damaged.message}. Upload it again.",
            code="damaged_content",
            param=param,
        )
    except Exception:  # else it would be tried for ever, and other jobs would wait for it
        log.exception("the files of %s cannot be checked", job.id)
        error = TrainingFileError(
            "The files could not be checked; the server's log says more.", code="server_error"
        )
    with writing(state.sessions) as session:
        fresh = session.scalar(select(Job).where(Job.id == job.id))
        if fresh is None or fresh.status != "validating_files":
            return False  # cancelled meanwhile
        if error is not None:
            reason = {"code": error.code, "message": error.message, "param": error.param}
            end(session, fresh, "failed", reason)
            return False
        for param, finding in warnings:
            lines = ", ".join(finding.rows[:5])
            text = f"{param}: {finding.message} ({finding.count} times: {lines})"
            tell(session, fresh, f"warning {param} {finding.code}"[:64], text, level="warn")
        for place, (level, text) in enumerate(notices(fresh.integrations or ())):
            tell(session, fresh, f"integration {place}", text, level=level)
        for name, text in remarks(fresh.requested, counts[1]):
            tell(session, fresh, f"hyperparameter {name}", text, level="warn")
        fresh.rows = counts
        values = resolved(fresh.requested, *counts)
        if completions:
            form = values["form"] = form_of(session, state.settings.home, fresh)
            tell(session, fresh, "form", TOLD[form])
        elif fresh.requested.get("form", AUTO) != AUTO:
            values["form"] = "chat"
            tell(session, fresh, "form", NO_COMPLETIONS, level="warn")
        fresh.resolved = values
        fresh.status = "queued"
        tell(session, fresh, "queued", "Files validated, moving job to queued state")
    return True
