"""Forms with one file, streamed: the file goes to disk as it comes, and is never held in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from tunewise.server.blobs import CHUNK, Incoming
from tunewise.server.errors import ApiError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_FIELDS = 50
_LONGEST_FIELD = 64 * 1024
_LONGEST_HEADERS = 16 * 1024


@dataclass
class Form:
    """What a form held.

    Attributes:
        fields: its plain fields by name; the last of equal names.
        filename: of the file, as sent; None where the form had no file.
        content_type: of the file, as sent.
    """

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    content_type: str | None = None


async def read_form(request: Request, file_field: str, target: Incoming, most: int) -> Form:
    """Read a ``multipart/form-data`` body; write its file to ``target``.

    Args:
        file_field: name of the field that holds the file.
        most: bytes that the file may have.

    Raises:
        ApiError: 400 where it is no such form or has no file, 413 where the file is too large.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError(
            400,
            "This request must be sent as multipart/form-data, with the file in the field "
            f"'{file_field}'.",
        )
    reader = _Reader(file_field, most)
    try:
        parser = MultipartParser(boundary, reader.callbacks)
        async for chunk in request.stream():
            for start in range(0, len(chunk), CHUNK):
                parser.write(chunk[start : start + CHUNK])
            if reader.pending:
                await run_in_threadpool(target.write, reader.take())
        parser.finalize()
    except FormParserError as error:
        raise ApiError(400, "The form could not be parsed: it is broken or cut off.") from error
    except ClientDisconnect as error:
        raise ApiError(400, "The connection was closed before the form was complete.") from error
    if not reader.ended:
        raise ApiError(400, "The form is cut off: its end is missing.")
    if reader.form.filename is None:
        raise ApiError(
            400, f"Missing required parameter: '{file_field}'.", param=file_field,
            code="missing_required_parameter",
        )  # fmt: skip
    return reader.form


class _Reader:
    """Gathers what the parser calls out."""

    def __init__(self, file_field: str, most: int) -> None:
        self.form = Form()
        self.pending = False
        self.ended = False
        self._file_field = file_field
        self._most = most
        self._file = bytearray()
        self._file_bytes = 0
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }

    def take(self) -> bytes:
        """The bytes of the file that came since the last call."""
        data = bytes(self._file)
        self._file.clear()
        self.pending = False
        return data

    def _on_part_begin(self) -> None:
        self._headers.clear()
        self._value.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_headers()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_headers()

    def _check_headers(self) -> None:
        if len(self._header_name) + len(self._header_value) > _LONGEST_HEADERS:
            raise ApiError(400, "A header of the form is too long.")

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        # A file may come without a name; a plain field may not stand in for it.
        self._is_file = self._name == self._file_field
        if self._is_file:
            if self.form.filename is not None:
                raise ApiError(
                    400, f"The form holds more than one '{self._file_field}'; send one.",
                    param=self._file_field,
                )  # fmt: skip
            self.form.filename = (filename or b"").decode("utf-8", "replace")
            kind = self._headers.get(b"content-type")
            self.form.content_type = kind.decode("latin-1") if kind else None
        elif filename is not None:
            raise ApiError(
                400, f"Unknown parameter: '{self._name[:64]}'. The file belongs in the field "
                f"'{self._file_field}'.", param=self._name[:64], code="unknown_parameter",
            )  # fmt: skip

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file_bytes += end - start
            if self._file_bytes > self._most:
                raise ApiError(
                    413,
                    f"The file is larger than the {self._most:,} bytes that this server takes. "
                    "(Larger files can be sent in parts, with /v1/uploads.)",
                    param=self._file_field,
                    code="file_too_large",
                )
            self._file += data[start:end]
            self.pending = True
            return
        self._value += data[start:end]
        if len(self._value) > _LONGEST_FIELD:
            raise ApiError(400, f"The field '{self._name[:64]}' is too long.")

    def _on_part_end(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = self._value.decode("utf-8", "replace")
            if len(self.form.fields) > _MOST_FIELDS:
                raise ApiError(400, "The form has too many fields.")

    def _on_end(self) -> None:
        self.ended = True
