"""What a stranger gets: the wheel and the source distribution hold all that runs."""

from __future__ import annotations

import tarfile
import zipfile
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

builders = pytest.importorskip("hatchling.builders.wheel", reason="the build back end is absent")

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "tunewise"


def sources() -> set[str]:
    files = (p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(ROOT / "src")) for p in files}


def test_the_wheel_holds_every_file_and_working_entry_points(tmp_path: Path) -> None:
    (wheel,) = builders.WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (listed,) = (n for n in names if n.endswith(".dist-info/entry_points.txt"))
        points = ConfigParser()
        points.read_string(archive.read(listed).decode())
    inside = {n for n in names if ".dist-info/" not in n}
    assert inside == sources()
    for data in ("tested_versions.json", "models/tiny/model.safetensors", "py.typed"):
        assert f"tunewise/{data}" in inside
    assert points["console_scripts"]["tunewise"] == "tunewise.cli:main"
    for group in points.sections():
        for target in points[group].values():
            module, _, name = target.partition(":")
            assert callable(getattr(import_module(module), name)), target


def test_the_source_distribution_builds_and_tests_anywhere(tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder

    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"LICENSE", "README.md", "Makefile", "constraints.txt", "scripts/lock.py"}
    needed |= {"requirements/local.txt", "requirements/dev.txt", "tests/conftest.py"}
    assert needed | {f"src/{name}" for name in sources()} <= names
    assert not [n for n in names if n.startswith((".venv", ".tunewise", "shared/"))]
