"""Errors as OpenAI's API gives them: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.exceptions import HTTPException

from tunewise.digests import DamagedError
from tunewise.errors import TunewiseError
from tunewise.study.complaints import dotted
from tunewise.study.keys import redact
from tunewise.study.requirements import complaint, requirement

log = logging.getLogger("tunewise.server")

_POSTGRES_FULL = "53100"
_POSTGRES_AWAY = frozenset({"57P01", "57P02", "57P03"})
"""It is being stopped, has crashed, or is starting."""
_SQLITE_UNWRITTEN = frozenset(
    {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE,
     sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP}
)  # fmt: skip
"""What SQLite says where its log or the file of its locks cannot grow."""
_NO_OBJECT = frozenset({"dict_type", "model_type", "model_attributes_type"})
"""Of pydantic's errors: JSON's word for what they want is not YAML's."""


class ApiError(Exception):
    """An answer with an error envelope.

    Attributes:
        status: of HTTP, 400 and up.
        message: what is wrong and what to do; shown to the user as it stands.
        code: for programs, for instance ``model_not_found``.
        type: ``invalid_request_error``, ``server_error``, ``requests`` (a rate limit), …
        param: the parameter that is wrong, dotted.
        headers: of the answer, for instance ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        type: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.type = type
        self.param = param
        self.headers = dict(headers or {})

    @property
    def envelope(self) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class Json(JSONResponse):
    """JSON that can always be written: half of a surrogate pair becomes a question mark."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def render(error: ApiError) -> Json:
    """The HTTP answer for ``error``."""
    return Json(error.envelope, status_code=error.status, headers=error.headers)


def as_api_error(error: Exception) -> ApiError:
    """Any exception as an answer; what nobody foresaw is logged, and its inside is not told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, DamagedError):
        log.error("%s", error)
        return ApiError(
            500,
            f"{error.message[:1].upper()}{error.message[1:]}, so it is not used. Upload or train "
            "it again; whoever runs the server can look with: tunewise server fsck",
            type="server_error",
            code="damaged_content",
        )
    if isinstance(error, TunewiseError):
        message = f"{error.message}. {error.hint}" if error.hint else error.message
        code, param = getattr(error, "code", None), getattr(error, "param", None)
        return ApiError(400, redact(message), code=code, param=param)
    if isinstance(error, UnicodeEncodeError):
        return ApiError(400, "The request holds text that is not valid Unicode (a lone surrogate).")
    if disk_is_full(error):
        log.error("the disk is full")
        return ApiError(
            507, "The server's disk is full; nothing was stored.", type="server_error",
            code="insufficient_storage",
        )  # fmt: skip
    if database_is_away(error):
        log.error("the database does not answer")
        return ApiError(
            503,
            "The server's database does not answer just now. Send the request again, best with an "
            "Idempotency-Key: it may have been stored.",
            type="server_error",
            code="database_unavailable",
            headers={"Retry-After": "2"},
        )
    log.error("a request failed", exc_info=error)
    return ApiError(
        500,
        "The server had an error while processing your request. Its log says more.",
        type="server_error",
        code="server_error",
    )


def disk_is_full(error: BaseException) -> bool:
    """Whether something could not be written for want of space, by us or by the database."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    origin = getattr(error, "orig", None)  # of SQLAlchemy's errors: the driver's
    if getattr(origin, "sqlstate", None) == _POSTGRES_FULL:
        return True
    code = getattr(origin, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF == sqlite3.SQLITE_FULL or code in _SQLITE_UNWRITTEN)


def database_is_away(error: BaseException) -> bool:
    """Whether the database's own server was stopped or killed, or is just starting again."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # no answer at all
        return error.connection_invalidated or isinstance(error, OperationalError)
    return state in _POSTGRES_AWAY or state.startswith("08")


def told(error: BaseException, what: str) -> None:
    """Log why something in the background failed: a full disk needs no traceback."""
    if disk_is_full(error):
        log.error("%s: the disk is full; it is tried again", what)
    elif database_is_away(error):
        log.error("%s: the database does not answer; it is tried again", what)
    else:
        log.error("%s; it is tried again", what, exc_info=error)


def install(app: FastAPI) -> None:
    """Let every error of ``app``'s handlers be answered with the envelope."""

    async def answer(request: Request, error: Exception) -> Json:
        return render(as_api_error(error))

    async def http(request: Request, error: Exception) -> Json:
        assert isinstance(error, HTTPException)
        return render(_http_error(request, error))

    for kind in (ApiError, RequestValidationError, TunewiseError, UnicodeEncodeError, OSError):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(HTTPException, http)


def _http_error(request: Request, error: HTTPException) -> ApiError:
    method, path = request.method, request.url.path
    if error.status_code == 404:
        return ApiError(404, f"Invalid URL ({method} {path})", code="unknown_url")
    if error.status_code == 405:
        return ApiError(
            405,
            f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different "
            "HTTP method?)",
            code="method_not_supported",
            headers=error.headers,
        )
    if error.status_code == 400:
        return _unreadable()
    return ApiError(error.status_code, str(error.detail), headers=error.headers)


def _unreadable(reason: str = "") -> ApiError:
    where = f" ({reason})" if reason else ""
    return ApiError(
        400,
        f"We could not parse the JSON body of your request{where}. "
        "(HINT: it must be one JSON object, sent as application/json.)",
    )


def _invalid(errors: Sequence[Any]) -> ApiError:
    """The first of pydantic's errors in the words of the API; the number of others is told."""
    first = errors[0]
    location = [part for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = dotted(tuple(location)) or None
    kind = str(first["type"])
    others = len(errors) - 1
    more = f" ({others} more {'error' if others == 1 else 'errors'}.)" if others else ""
    if kind == "json_invalid":
        return _unreadable(str(first.get("ctx", {}).get("error", "")))
    if kind == "missing":
        if param is None:
            return _unreadable("it is empty")
        return ApiError(
            400, f"Missing required parameter: '{param}'.{more}", param=param,
            code="missing_required_parameter",
        )  # fmt: skip
    if param is None and kind in _NO_OBJECT:
        return _unreadable("it is no JSON object")
    if kind == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: '{param}'.{more}", param=param,
                        code="unknown_parameter")  # fmt: skip
    if kind == "value_error":
        return ApiError(400, f"{complaint(first)}{more}", param=param, code="invalid_value")
    should = requirement(first, mapping="an object")
    return ApiError(
        400,
        f"Invalid value for '{param or 'body'}': it {should}.{more}",
        param=param,
        code="invalid_type" if kind.endswith("_type") else "invalid_value",
    )
