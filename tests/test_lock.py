"""The lock: complete, inside the bounds, without places, and the one source of what was tested."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tunewise import releases

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def requirements(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [r for r in map(Requirement, lines) if r.name != "tunewise"]


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("local", ["local"]),
        ("dev", ["parquet", "dense", "local", "server", "postgres", "dev"]),
    ],
)
def test_the_lock_holds_what_the_bounds_allow(lock: str, extras: list[str]) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE):
        pins.setdefault(name, []).append(version)
    for requirement in requirements(*extras):
        if requirement.name == "torch":
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in pins, f"{name} is not locked: make lock"
        assert all(requirement.specifier.contains(Version(v)) for v in pins[name]), name


def test_every_locked_release_has_hashes_and_no_place() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text("utf-8")
        assert "://" not in text and "file:" not in text
        blocks = re.split(r"\n(?=[a-z0-9])", text)
        assert all("--hash=sha256:" in b for b in blocks if not b.startswith("#"))


def test_what_was_tested_is_what_is_locked() -> None:
    written = {name: list(versions) for name, versions in releases.tested_versions().items()}
    assert written == script("lock").tested_versions(), "python scripts/lock.py --versions-only"
    assert written["torch"] == ["2.13.0"]


def test_bounds_have_an_upper_limit_and_the_newest_has_none() -> None:
    dated = {"regex"}  # its versions are dates
    for requirement in requirements("parquet", "dense", "local", "server", "postgres"):
        upper = any(s.operator in ("<", "<=") for s in requirement.specifier)
        assert upper or requirement.name in dated, requirement.name
    newest = script("newest")
    assert newest.unlimited("peft>=0.19,!=0.20.0,<0.22") in ("peft!=0.20.0,>=0.19",)
    assert newest.unlimited("tunewise[local]") is None
