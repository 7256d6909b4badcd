"""Calls to a hosted service: what may be repeated is, what may not is looked for first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tunewise.errors import TrainingError
from tunewise.models.retry import Patience, retry_after
from tunewise.models.services import Place

if TYPE_CHECKING:
    import openai
    from openai import OpenAI

T = TypeVar("T")

READ_RETRIES = 4
_OTHER_ROADS = (
    "Train on this machine (`fine_tune.route: local`, with a model that has weights), against your "
    "own `tunewise serve` (set OPENAI_BASE_URL), or on Azure (`route: azure`)"
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """In what services that speak OpenAI's API differ.

    Attributes:
        uploads_are_ready: a file can be trained on as soon as it is uploaded; else only when it
            has been processed, which takes seconds to minutes.
        filters_jobs: the list of jobs can be relied on to filter by metadata.
    """

    uploads_are_ready: bool = True
    filters_jobs: bool = True


@dataclass(frozen=True)
class Connection:
    """A service that is spoken to.

    Attributes:
        prefix: how a study names it: ``openai``, ``azure``, or a name under ``servers``.
        place: address and key.
        client: without retries, for calls that make something.
        reading: the same with retries, for calls that only look.
        dialect: how it speaks.
    """

    prefix: str
    place: Place
    client: OpenAI
    reading: OpenAI
    dialect: Dialect

    @property
    def is_loopback(self) -> bool:
        """Whether it is a server on this machine, which does not mind being asked often."""
        from tunewise.study.keys import parse_base_url

        return parse_base_url(self.place.base_url).is_loopback


def connect(prefix: str, place: Place, dialect: Dialect) -> Connection:
    """Open the official client for a place; nothing is sent yet."""
    from tunewise.models.openai_client import open_client

    client = open_client(
        place.base_url,
        None,
        place.api_key,
        place.timeout,
        place.azure_version,
        entra=place.entra,
        keep_alive=False,  # asked every few seconds for hours, by handles that nobody closes
    )
    reading = client.with_options(max_retries=READ_RETRIES)
    return Connection(prefix, place, client, reading, dialect)


class UnknownOutcome(TrainingError):
    """No answer came: whether the service did what it was asked is not known."""


def made_once(
    make: Callable[[], T], find: Callable[[], T | None], patience: Patience, where: str
) -> tuple[T, bool]:
    """Make something that must not be made twice; also whether an attempt stayed unanswered.

    After a failure that may pass, ``find`` looks whether it was made all the same before ``make``
    is called again.

    Raises:
        openai.APIStatusError: refused for good, or still failing when patience ends.
        UnknownOutcome: no answer came, and nothing is to be found.
    """
    import openai

    attempts, unanswered = patience.start(), False
    while True:
        wait: float | None = None
        failure: openai.APIError
        try:
            return make(), unanswered
        except openai.APIStatusError as error:
            if not _may_pass(error):
                raise
            failure, wait = error, retry_after(error.response.headers)
        except openai.APIConnectionError as error:
            failure, unanswered = error, True
        pause = attempts.next_pause(wait)
        time.sleep(patience.first_s if pause is None else pause)
        try:
            found = find()
        except openai.APIConnectionError as error:
            raise _unknown(error, where) from None
        if found is not None:
            return found, unanswered
        if pause is None:
            if isinstance(failure, openai.APIStatusError):
                raise failure
            raise _unknown(failure, where) from None


def _may_pass(error: openai.APIStatusError) -> bool:
    if error.status_code == 429:
        # No credit and full queues do not pass by waiting a minute.
        return error.code not in ("insufficient_quota", "quotaExceeded", "too_many_jobs")
    return error.status_code in (408, 409) or error.status_code >= 500


def _unknown(error: Exception, where: str) -> UnknownOutcome:
    from tunewise.models.openai_client import reason_of

    return UnknownOutcome(
        f"the service does not answer: {reason_of(error)}",
        where=where,
        hint="Run the same again later: if the job was made after all, it is found by its mark, "
        "and none is made twice.",
    )


def explained(error: Exception, where: str) -> TrainingError:
    """The client's error in plain words, with what to do."""
    import openai

    from tunewise.models.openai_client import reason_of

    reason = reason_of(error)
    if not isinstance(error, openai.APIStatusError):
        return TrainingError(
            f"the service cannot be reached: {reason}",
            where=where,
            hint="Is the address right, and is it up? Run the same again: nothing is made twice.",
        )
    status, code = error.status_code, str(error.code or _inner_code(error) or "")
    if code == "training_not_available":
        return TrainingError(
            "this organisation cannot start fine-tuning jobs there any more "
            f"(training_not_available): {reason}",
            where=where,
            hint="OpenAI closed fine-tuning to new organisations on 2026-05-07, to those without "
            "recent use on 2026-07-02, and to all after 2027-01-06; models tuned earlier still "
            f"answer. {_OTHER_ROADS}.",
        )
    if "does not support fine-tuning" in reason:
        hint = "The name may be wrong, or this region lacks the model for the training type: try "
        hint += "`fine_tune.hosted.training_type: GlobalStandard`, which is not bound to a region."
    elif status in (401, 403):
        hint = "Check the key: is it set, for this host, and allowed to fine-tune?"
    elif status == 404:
        hint = "Check the model's name and the address (most end in /v1)."
    elif status == 429:
        hint = "Wait, cancel a job, or ask the provider for a higher limit; then run again."
    elif status >= 500:
        hint = "The service has a fault. Run the same again later: nothing is made twice."
    else:
        param = getattr(error, "param", None)
        hint = f"It is about `{param}`." if param else "Mend it and run again."
    return TrainingError(f"the service refused: {reason}", where=where, hint=hint)


def _inner_code(error: openai.APIStatusError) -> Any:
    """Azure's envelope may stand within another."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error", body)
    return inner.get("code") if isinstance(inner, dict) else None
