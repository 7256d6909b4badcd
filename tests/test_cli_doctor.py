"""`tunewise doctor`, and what a user sees of a failure that nobody foresaw."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cli_support import environment, tunewise


def test_doctor_compares_with_what_was_tested(tmp_path: Path) -> None:
    run = tunewise("doctor", "--json", cwd=tmp_path)
    checks = {check["name"]: check for check in run.json}
    assert {"python", "core", "extra local", "releases", "processor", "workspace"} <= set(checks)
    assert checks["extra local"]["state"] == "ok"
    assert not (tmp_path / ".tunewise").exists()  # it looks, and leaves nothing


def test_doctor_says_what_an_extra_is_for_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewise import doctor

    there = doctor.installed_version
    monkeypatch.setattr(
        doctor, "installed_version", lambda name: None if name == "model2vec" else there(name)
    )
    run = tunewise("doctor", cwd=tmp_path, env={"COLUMNS": "120"})
    assert 'for retrieval by meaning: pip install "tunewise[dense]"' in run.out


def test_doctor_gives_the_command_for_tested_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewise import doctor, releases

    there = doctor.installed_version
    monkeypatch.setattr(
        doctor, "installed_version", lambda name: "0.0.1" if name == "peft" else there(name)
    )
    (check,) = doctor._releases()
    tested = releases.tested_versions()["peft"][0]
    assert f"peft 0.0.1 (tested: {tested})" in check.found
    assert check.advice is not None and f'"peft=={tested}"' in check.advice


@pytest.mark.parametrize(
    "failure", ["raise AttributeError('no such thing')", "raise ImportError('jinja2>=99 needed')"]
)
def test_doctor_outlives_a_package_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    from tunewise import doctor

    (tmp_path / "odd_release.py").write_text(failure)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "_LOADED", {"local": ("odd_release",)})
    (check,) = [c for c in doctor._extras() if c.name == "extra local"]
    assert check.state is doctor.State.FAILED
    assert "odd_release" in check.found and check.advice is not None
    assert "pip install" in check.advice


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    run = tunewise("doctor", "--json", "--workspace", "/proc/none", cwd=tmp_path, code=1)
    (check,) = [c for c in run.json if c["name"] == "workspace"]
    assert check["state"] == "failed" and "TUNEWISE_HOME" in check["advice"]


BROKEN = """
import sys
from tunewise import cli
from tunewise.cli import app

def broken(*args, **kwargs):
    raise KeyError("sk-abcdefghijklmnopqrstuvwxyz0123456789ABCD and more")

sys.argv = ["tunewise", *sys.argv[1:]]
import tunewise.pipeline.audits as audits
audits.audit_files = broken
cli.main()
"""


def test_no_traceback_reaches_the_user(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    env = environment(MY_API_KEY="very-secret-value-1234567890", TUNEWISE_HOME=str(tmp_path / "w"))
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, "audit", "rows.jsonl"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 70
    assert "Traceback" not in done.stderr and "KeyError" in done.stderr
    assert "What was finished is kept" in done.stderr
    (report,) = (tmp_path / "w" / "crashes").iterdir()
    assert str(report) in done.stderr.replace("\n", "")
    text = report.read_text()
    assert "Traceback (most recent call last)" in text and "audit rows.jsonl" in text
    assert "sk-abcdef" not in text + done.stderr and "very-secret" not in text
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_debugging_shows_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, "audit", "rows.jsonl"],
        cwd=tmp_path,
        env=environment(TUNEWISE_DEBUG="1"),
        capture_output=True,
        text=True,
    )
    assert "Traceback" in done.stderr


def test_python_dash_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunewise", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("tunewise ")
