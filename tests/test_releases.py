"""An import that fails is told as what it is: an extra that is missing, or releases at odds."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tunewise.errors import MissingExtraError
from tunewise.releases import ReleaseError, import_failed, installed_version


def failed_import(name: str) -> ImportError:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return error
    raise AssertionError("it should not be importable")


def test_an_absent_package_is_a_missing_extra() -> None:
    error = import_failed("Reading stars", "local", failed_import("no_such_package_anywhere"))
    assert isinstance(error, MissingExtraError)
    assert error.hint == 'Install them with: pip install "tunewise[local]"'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real package ``starlib`` that fails when it is imported."""
    folder = tmp_path / "starlib"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop("starlib", None)


def test_releases_at_odds_are_both_named(package: Path) -> None:
    text = "raise ImportError('peft>=99 is required for this, but found another')"
    (package / "__init__.py").write_text(text)
    error = import_failed("LoRA", "local", failed_import("starlib"))
    assert isinstance(error, ReleaseError)
    assert f"peft {installed_version('peft')}" in error.message
    assert "starlib" in error.message and "peft>=99 is required" in error.message
    assert error.hint is not None and 'pip install "peft==' in error.hint


def test_a_name_that_another_release_no_longer_has(package: Path) -> None:
    (package / "__init__.py").write_text("from tokenizers import NoLongerThere")
    error = import_failed("The model x", "local", failed_import("starlib"))
    assert isinstance(error, ReleaseError)
    assert f"tokenizers {installed_version('tokenizers')}" in error.message


def test_a_package_that_lacks_its_own_dependency_is_not_a_missing_extra(package: Path) -> None:
    (package / "__init__.py").write_text("import no_such_dependency")
    error = import_failed("The model x", "local", failed_import("starlib"))
    assert isinstance(error, ReleaseError)
    assert "starlib" in error.message and "no_such_dependency not installed" in error.message


def test_the_cause_within_another_import_error_is_told(package: Path) -> None:
    text = """
try:
    from tokenizers import NoLongerThere
except ImportError as error:
    raise ModuleNotFoundError("Could not import module 'Star'") from error
"""
    (package / "__init__.py").write_text(text)
    error = import_failed("The model x", "local", failed_import("starlib"))
    assert isinstance(error, ReleaseError)
    assert "NoLongerThere" in error.message
    assert f"tokenizers {installed_version('tokenizers')}" in error.message
