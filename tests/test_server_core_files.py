"""Files and uploads over the real API, with the real client."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError

from server_support import (
    Running,
    async_client,
    call,
    chats,
    client,
    envelope,
    make_key,
    running_server,
)

KB = 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = {"max_file_bytes": 256 * KB, "max_part_bytes": 64 * KB, "max_upload_bytes": 512 * KB}
    with running_server(tmp_path_factory.mktemp("core"), **limits) as running:
        yield running


def test_a_file_goes_through_its_whole_life(server: Running) -> None:
    content = b"\xef\xbb\xbf" + chats()
    with client(server) as api:
        file = api.files.create(
            file=("rows.jsonl", content),
            purpose="fine-tune",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        assert (file.bytes, file.filename, file.status) == (len(content), "rows.jsonl", "processed")
        assert file.expires_at == file.created_at + 3600
        assert api.files.retrieve(file.id) == file
        assert api.files.wait_for_processing(file.id).status == "processed"
        read = api.files.content(file.id)
        assert read.read() == content
        assert read.response.headers["content-disposition"] == 'attachment; filename="rows.jsonl"'
        assert read.response.headers["content-type"] == "application/jsonl"
        for name, kind in (
            ("a.csv", "text/csv; charset=utf-8"),
            ("a.html", "application/octet-stream"),
        ):
            other = api.files.create(file=(name, b"<script>"), purpose="user_data")
            assert api.files.content(other.id).response.headers["content-type"] == kind
            api.files.delete(other.id)
        assert api.files.delete(file.id).deleted
        with pytest.raises(NotFoundError):
            api.files.retrieve(file.id)
        with pytest.raises(NotFoundError):
            api.files.content(file.id)


def test_lists_go_by_purpose_order_and_cursor_even_after_a_deleted_file(server: Running) -> None:
    key = make_key(server.home, project="lists")
    with client(server, key=key) as api:
        made = [
            api.files.create(file=(f"{n}.txt", b"%d" % n), purpose="user_data").id for n in range(5)
        ]
        evals = api.files.create(file=("e.txt", b"e"), purpose="evals")
        assert (evals.purpose, evals.uploaded_for) == ("user_data", "evals")  # type: ignore[attr-defined]
        assert [f.id for f in api.files.list(purpose="evals")] == [evals.id]
        assert api.files.list(limit=0).data == [] and api.files.list(limit=0).has_more
        assert [f.id for f in api.files.list(purpose="user_data", order="asc", limit=2)] == made
        seen = []
        for file in api.files.list(purpose="user_data", limit=2):
            seen.append(file.id)
            api.files.delete(file.id)
        assert seen == made[::-1]
        empty = api.files.list(purpose="user_data")
        assert (empty.data, empty.has_more) == ([], False)
    for query in ("limit=-1", "limit=10001", "order=up", "after=file-nothing"):
        envelope(call(server, "GET", f"/v1/files?{query}", key=key), 400)


def test_projects_share_contents_on_disk_and_see_nothing_of_each_other(server: Running) -> None:
    content = b"the same words in two projects"
    one, two = (make_key(server.home, project=name) for name in ("one", "two"))
    with client(server, key=one) as first, client(server, key=two) as second:
        mine = first.files.create(file=("a.txt", content), purpose="user_data")
        theirs = second.files.create(file=("b.txt", content), purpose="user_data")
        blob = server.home / "files" / _digest(content)[:2] / _digest(content)
        assert blob.read_bytes() == content
        assert [f.id for f in first.files.list()] == [mine.id]
        for act in ("", "/content"):
            envelope(call(server, "GET", f"/v1/files/{theirs.id}{act}", key=one), 404)
        envelope(call(server, "DELETE", f"/v1/files/{theirs.id}", key=one), 404)
        envelope(call(server, "GET", f"/v1/files?after={theirs.id}", key=one), 400)
        first.files.delete(mine.id)
        assert second.files.content(theirs.id).read() == content
        second.files.delete(theirs.id)
        assert not blob.exists()


HOSTILE = {
    "../../etc/passwd": "passwd",
    "C:\\Windows\\evil.txt": "evil.txt",
    "a\x00b\nc\rd.txt": "abcd.txt",
    "photo\u202egnp.exe": "photognp.exe",
    "x" * 300 + ".txt": ("x" * 300)[:255],
    "häßlich „1“.txt": "häßlich „1“.txt",
    "/": "upload",
    "..": "..",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_outside_are_shown_and_never_used_as_paths(server: Running, name: str) -> None:
    body = json.dumps(
        {"filename": name, "purpose": "user_data", "bytes": 3, "mime_type": "text/plain"}
    )
    before = set(server.home.parent.rglob("*"))
    with client(server) as api:
        upload = api.uploads.create(**json.loads(body))
        part = api.uploads.parts.create(upload.id, data=b"abc")
        file = api.uploads.complete(upload.id, part_ids=[part.id]).file
        assert file is not None and file.filename == HOSTILE[name]
        read = api.files.content(file.id)
        assert read.read() == b"abc"
        disposition = read.response.headers["content-disposition"]
        assert disposition.isascii() and disposition.isprintable()
        assert disposition.startswith("attachment; filename")
        sent = api.files.create(file=(name.replace("\x00", "%00"), b"abc"), purpose="user_data")
        assert "/" not in sent.filename and sent.filename.isprintable()
    made = set(server.home.parent.rglob("*")) - before
    assert all(_is_ours(path, server.home) for path in made), made


def _is_ours(path: Path, home: Path) -> bool:
    inside = path.relative_to(home).parts
    hexadecimal = all(c in "0123456789abcdef" for c in inside[-1])
    return (inside[0] == "files" and hexadecimal) or inside[0].startswith("tunewise.db")


def test_oversize_files_are_refused_while_they_come(server: Running) -> None:
    with client(server) as api:
        exact = api.files.create(file=("a", b"x" * 256 * KB), purpose="user_data")
        assert exact.bytes == 256 * KB
    for size, code in ((256 * KB + 1, "file_too_large"), (4096 * KB, "request_too_large")):
        files = {"file": ("a", b"x" * size)}
        answer = call(server, "POST", "/v1/files", files=files, data={"purpose": "user_data"})
        envelope(answer, 413, code)
    assert list((server.home / "files" / "incoming").iterdir()) == []

    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 64 * KB

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = call(server, "POST", "/v1/files", content=endless(), headers=headers)
    assert answer.status_code in (400, 413)
    answer = call(server, "POST", "/v1/uploads", content=b"{" + b" " * 33 * KB * KB)
    envelope(answer, 413, "request_too_large")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "world-domination"}, "purpose"),
        ({"purpose": "evals", "expires_after[seconds]": "4000"}, "expires_after.anchor"),
        (
            {
                "purpose": "evals",
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": "5",
            },
            "expires_after.seconds",
        ),
    ],
)
def test_wrong_fields_are_named(server: Running, fields: dict[str, str], param: str) -> None:
    answer = call(server, "POST", "/v1/files", files={"file": ("a", b"a")}, data=fields)
    assert envelope(answer, 400)["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf a fi',
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nevals\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx\r\n--b--\r\n',
        b"--b\r\nX: " + b"y" * 20_000 + b"\r\n\r\n\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + b"y" * 70_000,
        b"\x00\xff" * 100,
    ],
)
def test_broken_forms_are_refused(server: Running, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    envelope(call(server, "POST", "/v1/files", content=body, headers=headers), 400)
    envelope(call(server, "POST", "/v1/files", json={"file": "a", "purpose": "evals"}), 400)


def test_lines_that_are_no_examples_are_told_at_upload(server: Running) -> None:
    rows = chats().splitlines(keepends=True)
    rows[4] = b'"not a row"\n'
    with client(server) as api, pytest.raises(BadRequestError) as refused:
        api.files.create(file=("rows.jsonl", b"".join(rows)), purpose="fine-tune")
    assert "Line 5" in str(refused.value) or "line 5" in str(refused.value)


def test_an_upload_joins_its_parts_in_the_order_given(server: Running) -> None:
    content = bytes(range(256)) * 400
    parts = [content[start : start + 40_000] for start in range(0, len(content), 40_000)]
    with client(server) as api:
        upload = api.uploads.create(
            filename="big.bin", purpose="user_data", bytes=len(content), mime_type="x/y"
        )
        assert (upload.status, upload.expires_at) == ("pending", upload.created_at + 3600)
        ids = [api.uploads.parts.create(upload.id, data=part).id for part in reversed(parts)][::-1]
        for wrong, param in ((ids[:-1], "part_ids"), ([*ids[:-1], ids[0]], "part_ids")):
            with pytest.raises(BadRequestError) as refused:
                api.uploads.complete(upload.id, part_ids=wrong)
            assert refused.value.param == param
        with pytest.raises(BadRequestError) as refused:
            api.uploads.complete(upload.id, part_ids=ids, md5="0" * 32)
        assert refused.value.code == "checksum_mismatch"
        md5 = hashlib.md5(content).hexdigest()
        done = api.uploads.complete(upload.id, part_ids=ids, md5=md5)
        assert done.status == "completed" and done.file is not None
        assert api.files.content(done.file.id).read() == content
        # A client whose connection broke asks once more.
        assert api.uploads.complete(upload.id, part_ids=ids, md5=md5) == done
        with pytest.raises(BadRequestError):
            api.uploads.parts.create(upload.id, data=b"late")
        with pytest.raises(BadRequestError):
            api.uploads.cancel(upload.id)
        api.files.delete(done.file.id)
    assert not (server.home / "files" / _digest(parts[0])[:2] / _digest(parts[0])).exists()


def test_cancelled_foreign_and_oversize_uploads(server: Running) -> None:
    with client(server) as api:
        upload = api.uploads.create(
            filename="a", purpose="user_data", bytes=3, mime_type="text/plain"
        )
        path = f"/v1/uploads/{upload.id}"
        other = make_key(server.home, project="other")
        part = api.uploads.parts.create(upload.id, data=b"abc")
        for act in ("parts", "cancel", "complete"):
            answer = call(
                server, "POST", f"{path}/{act}", key=other,
                **({"files": {"data": b"a"}} if act == "parts" else {"json": {"part_ids": ["p"]}}),
            )  # fmt: skip
            envelope(answer, 404, "upload_not_found")
        big = call(server, "POST", f"{path}/parts", files={"data": b"x" * (64 * KB + 1)})
        envelope(big, 413, "file_too_large")
        more = call(server, "POST", f"{path}/parts", files={"data": b"x" * 4})
        envelope(more, 400)
        assert api.uploads.cancel(upload.id).status == "cancelled"
        with pytest.raises(BadRequestError):
            api.uploads.complete(upload.id, part_ids=[part.id])
        with pytest.raises(BadRequestError):
            api.uploads.create(filename="a", purpose="evals", bytes=513 * KB, mime_type="a/b")


def test_the_clients_own_chunked_upload_sync_and_async(server: Running, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(chats(200))
    with client(server) as api:
        done = api.uploads.upload_file_chunked(
            file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=5_000
        )
        assert done.file is not None and done.file.bytes == path.stat().st_size

    async def both() -> bytes:
        async with async_client(server) as api:
            done = await api.uploads.upload_file_chunked(
                file=path.read_bytes(), filename="r.jsonl", bytes=path.stat().st_size,
                mime_type="text/jsonl", purpose="fine-tune", part_size=10_000,
            )  # fmt: skip
            assert done.file is not None
            await api.files.create(file=io.BytesIO(b"x"), purpose="user_data")
            ids = [file.id async for file in api.files.list(limit=1)]
            assert done.file.id in ids
            return (await api.files.content(done.file.id)).read()

    assert asyncio.run(both()) == path.read_bytes()


def test_the_same_request_with_the_same_idempotency_key_is_done_once(server: Running) -> None:
    key = make_key(server.home, project="twice")
    headers = {"Idempotency-Key": "once"}
    with client(server, key=key) as api:
        made = [
            api.files.create(file=("a", b"same"), purpose="evals", extra_headers=headers)
            for _ in range(2)
        ]
        assert made[0] == made[1] and len(list(api.files.list())) == 1
        answer = call(
            server, "POST", "/v1/files", key=key, headers=headers,
            files={"file": ("a", b"other")}, data={"purpose": "evals"},
        )  # fmt: skip
        envelope(answer, 409, "idempotency_key_reused")
        # Another project's key of the same name is another key.
        with client(server) as other:
            theirs = other.files.create(file=("a", b"same"), purpose="evals", extra_headers=headers)
        assert theirs.id != made[0].id
        body = {"filename": "a", "purpose": "evals", "bytes": 1, "mime_type": "a/b"}
        uploads = [api.uploads.create(**body, extra_headers={"Idempotency-Key": "u"}) for _ in "ab"]
        assert uploads[0] == uploads[1]
    long = call(server, "POST", "/v1/uploads", headers={"Idempotency-Key": "x" * 256}, json=body)
    envelope(long, 400)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
