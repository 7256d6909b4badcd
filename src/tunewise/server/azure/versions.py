"""``api-version``: required by Azure's older URLs and by Resource Manager, unknown to its newer."""

from __future__ import annotations

import datetime
import re
from contextlib import suppress
from typing import Annotated

from fastapi import Query

from tunewise.server.errors import ApiError

KNOWN = frozenset(
    {
        "2023-05-15",
        "2023-12-01-preview",
        "2024-02-01",
        "2024-02-15-preview",
        "2024-03-01-preview",
        "2024-04-01-preview",
        "2024-05-01-preview",
        "2024-06-01",
        "2024-07-01-preview",
        "2024-08-01-preview",
        "2024-09-01-preview",
        "2024-10-01-preview",
        "2024-10-21",
        "2024-12-01-preview",
        "2025-01-01-preview",
        "2025-02-01-preview",
        "2025-03-01-preview",
        "2025-04-01-preview",
    }
)
"""Of the older URLs; after the last of them Azure went on without versions. All have the shapes
of 2024-06-01 in what is served here."""

_NEWEST = "2024-10-21"
_UNVERSIONED = ("v1", "preview")
_MANAGEMENT = re.compile(r"(\d{4}-\d{2}-\d{2})(-preview)?")
_MANAGEMENT_FIRST = datetime.date(2021, 10, 1)  # the first with deployments

Version = Annotated[str | None, Query(alias="api-version", max_length=64)]


async def require_version(version: Version = None) -> None:
    """Of ``/openai/...``.

    Raises:
        ApiError: 404 without a version, as Azure answers; 400 with one that is unknown.
    """
    if not version:
        raise ApiError(
            404,
            f"Resource not found: the query parameter api-version is missing. Add "
            f"?api-version={_NEWEST}, or use /openai/v1, which needs none.",
        )
    if version not in KNOWN:
        raise ApiError(
            400,
            f"API version not supported: '{version}'. Known here: {', '.join(sorted(KNOWN))}.",
            param="api-version",
        )


async def refuse_version(version: Version = None) -> None:
    """Of ``/openai/v1/...``.

    Raises:
        ApiError: 400, a version of the older URLs was given.
    """
    if version and version not in _UNVERSIONED:
        raise ApiError(
            400,
            f"api-version query parameter is not allowed when using /v1 path (it is "
            f"'{version}'). Use the client OpenAI(base_url=\".../openai/v1\") here; AzureOpenAI "
            "wants the address without /openai/v1.",
            code="BadRequest",
            param="api-version",
        )


async def require_management_version(version: Version = None) -> None:
    """Of Resource Manager's URLs: any version with deployments, whose shapes have not changed.

    Raises:
        ApiError: 400.
    """
    if not version:
        raise ApiError(
            400,
            "The api-version query parameter (?api-version=) is required for all requests.",
            code="MissingApiVersionParameter",
        )
    match = _MANAGEMENT.fullmatch(version)
    with suppress(ValueError):
        if match and datetime.date.fromisoformat(match[1]) >= _MANAGEMENT_FIRST:
            return
    raise ApiError(
        400,
        f"The api-version '{version}' is invalid. It is a date from {_MANAGEMENT_FIRST} on, for "
        "instance 2024-10-01, with '-preview' or without.",
        code="InvalidApiVersionParameter",
    )
