"""Objects under fixed ids: put once, or put back before each request."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from cli_support import refused
from tunewise.errors import UsageError
from tunewise.server.app import create_app
from tunewise.server.fixtures import Fixtures, load_fixtures
from tunewise.server.settings import load_settings

SEEDS = {
    "projects": [{"id": "proj_friend"}],
    "files": [{"id": "file-1", "text": "one", "purpose": "fine-tune"}],
    "uploads": [{"id": "upload_1", "parts": [{"id": "part_1", "text": "abc"}]}],
    "jobs": [
        {
            "id": "ftjob-1",
            "model": "tunewise/tiny",
            "training_file": "file-1",
            "events": [{"id": "ftevent-1", "message": "Made"}],
        }
    ],
    "models": [
        {"id": "ftmodel_1", "name": "ft:tiny:a", "model": "tunewise/tiny", "job": "ftjob-1"}
    ],
    "permissions": [{"id": "cp_1", "model": "ft:tiny:a", "project": "proj_friend"}],
}
CHANGES = (
    ("DELETE", "/v1/files/file-1"),
    ("POST", "/v1/uploads/upload_1/cancel"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-1/cancel"),
    ("DELETE", "/v1/fine_tuning/checkpoints/ft:tiny:a/permissions/cp_1"),
    ("DELETE", "/v1/models/ft:tiny:a"),
)


def asked(home: Path, fixtures: Fixtures) -> TestClient:
    settings = load_settings(None, {"home": home, "auth": False, "workers": 0})
    return TestClient(create_app(settings, fixtures), base_url="http://127.0.0.1")


def test_seeded_objects_change_like_any_other(tmp_path: Path) -> None:
    api = asked(tmp_path, Fixtures.model_validate(SEEDS))
    assert api.get("/v1/files/file-1/content").text == "one"
    upload = api.post("/v1/uploads/upload_1/complete", json={"part_ids": ["part_1"]}).json()
    assert upload["status"] == "completed" and upload["file"]["bytes"] == 3
    events = api.get("/v1/fine_tuning/jobs/ftjob-1/events").json()["data"]
    assert [e["message"] for e in events] == ["Made"]
    for change in (*CHANGES[2:], CHANGES[0]):  # the file last: the job that waits needs it
        assert api.request(*change).status_code == 200, change
        assert api.request(*change).status_code in (400, 404), change


def test_they_are_put_back_before_each_request(tmp_path: Path) -> None:
    seeds = {**SEEDS, "restore": "each_request"}
    seeds["jobs"] = [{**SEEDS["jobs"][0], "status": "failed"}]  # type: ignore[dict-item]
    api = asked(tmp_path, Fixtures.model_validate(seeds))
    for change in (*CHANGES[:2], *CHANGES[3:]) * 2:
        assert api.request(*change).status_code == 200, change
    assert api.get("/v1/files/file-1/content").text == "one"
    assert [f["id"] for f in api.get("/v1/files").json()["data"]] == ["file-1"]


def test_bad_fixtures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seeds.yaml"
    path.write_text(yaml.safe_dump({"files": [{"id": "f", "text": "", "colour": "red"}]}))
    with pytest.raises(UsageError, match="unknown key"):
        load_fixtures(path)
    path.write_text(yaml.safe_dump({"jobs": [{**SEEDS["jobs"][0], "model": "gpt-9"}]}))  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="not on this server"):
        asked(tmp_path / "home", load_fixtures(path))
    path.write_text(yaml.safe_dump({"project": "other", "files": SEEDS["files"]}))
    asked(tmp_path / "home", Fixtures.model_validate({"files": SEEDS["files"]}))
    with pytest.raises(UsageError, match="another project's"):
        asked(tmp_path / "home", load_fixtures(path))
    path.write_text("- 1")
    arguments = ("serve", "--port", "0", "--home", tmp_path / "home", "--seed-fixtures", path)
    refused(*arguments, cwd=tmp_path, code=2, says=["fixtures are a mapping"])
