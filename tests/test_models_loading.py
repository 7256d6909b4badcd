"""Loading is safe, says clearly what is wrong, and identifies the weights."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from models_support import make_tokenizer, save_model
from tunewise.data.chat import Request
from tunewise.data.tool_calls import parse_tool_calls
from tunewise.errors import ModelError
from tunewise.models.chat_format import render_prompt
from tunewise.models.footprint import bytes_in_memory
from tunewise.models.loading import DType, load_local, numeric_type
from tunewise.models.names import ModelRef, parse_model
from tunewise.models.opening import open_engine
from tunewise.models.weights import revision_of

TEMPLATES = Path(__file__).parent / "chat_templates"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_what_is_known_of_a_loaded_model(folder: Path) -> None:
    loaded = load_local(parse_model(str(folder)))
    ends = loaded.tokenizer.convert_ids_to_tokens(list(loaded.end_ids))
    assert set(ends) == {"</s>", "<|im_end|>"}  # the config names only the first
    assert loaded.context_length == 1024
    assert loaded.pad_id not in loaded.end_ids or loaded.tokenizer.unk_token_id is None
    assert (loaded.plain_template, loaded.stop) == (False, ())
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_a_thought_that_ends_does_not_end_an_answer_in_channels(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|return|>"]})
    ends: dict[str, set[str]] = {}
    for name in ("phi", "gpt_oss"):  # the same mark ends a turn in one, a message in the other
        tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text("utf-8")
        tokenizer.save_pretrained(folder)
        loaded = load_local(parse_model(str(folder)))
        ends[name] = set(loaded.tokenizer.convert_ids_to_tokens(list(loaded.end_ids)))
    assert "<|end|>" in ends["phi"] and "<|end|>" not in ends["gpt_oss"]


def test_only_pickles_are_refused(folder: Path, tmp_path: Path) -> None:
    bad = copy(folder, tmp_path / "bad")
    (bad / "model.safetensors").unlink()
    torch.save({}, bad / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*can run any program") as caught:
        load_local(parse_model(str(bad)))
    assert "save_pretrained" in str(caught.value)


def test_a_model_with_its_own_code_is_refused(folder: Path, tmp_path: Path) -> None:
    bad = copy(folder, tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    config.update(
        model_type="mine",
        auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    )
    (bad / "config.json").write_text(json.dumps(config))
    (bad / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_local(parse_model(str(bad)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["truncated", "no tokenizer", "no weights", "no config"])
def test_a_damaged_folder_says_so(folder: Path, tmp_path: Path, damage: str) -> None:
    bad = copy(folder, tmp_path / "bad")
    if damage == "truncated":
        weights = (bad / "model.safetensors").read_bytes()
        (bad / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    for path in bad.glob(
        {
            "no tokenizer": "tokenizer*",
            "no weights": "*.safetensors",
            "no config": "config.json",
        }.get(damage, "none")
    ):
        path.unlink()
    with pytest.raises(ModelError) as caught:
        load_local(parse_model(str(bad)))
    assert str(bad) in str(caught.value) and caught.value.hint


def test_offline_is_one_clear_error() -> None:
    with pytest.raises(ModelError) as caught:
        load_local(ModelRef("nobody/no-such-model", "hub", "nobody/no-such-model"))
    text = str(caught.value)
    assert "nobody/no-such-model" in text and "HF_HUB_OFFLINE" in text and "./folder" in text


@pytest.fixture
def hub_404(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub that knows no repository, answering as the real one does."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("X-Error-Message", "Repository not found")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    yield url
    server.shutdown()
    server.server_close()


def test_a_model_that_the_hub_does_not_have(hub_404: str) -> None:
    with pytest.raises(ModelError, match="no such model, or it is private"):
        load_local(ModelRef("nobody/no-such-model", "hub", "nobody/no-such-model"))


def test_the_revision_follows_the_content(folder: Path, tmp_path: Path) -> None:
    memory = tmp_path / "digests.json"
    first = revision_of(folder, ("*.safetensors",), memory)
    same = copy(folder, tmp_path / "same")
    assert revision_of(same, ("*.safetensors",), memory) == first
    weights = same / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert revision_of(same, ("*.safetensors",), memory) != first
    memory.write_text("{broken")  # only a memory of what can be computed again
    assert revision_of(folder, ("*.safetensors",), memory) == first


def test_the_numeric_type_loses_nothing_and_is_not_emulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tunewise.models import loading

    for real, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "processor_has_bfloat16", lambda real=real: real)
        assert numeric_type("auto", torch.bfloat16, "cpu") == wanted
        assert numeric_type("auto", torch.float16, "cpu") == wanted
        assert numeric_type("auto", torch.float32, "cpu") == torch.float32
    assert numeric_type("bfloat16", torch.float32, "cpu") == torch.bfloat16


@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["auto", "float32", "float16"])
def test_the_memory_of_weights_is_told_from_their_files(
    folder: Path, tmp_path: Path, saved: torch.dtype, dtype: DType
) -> None:
    model = load_local(parse_model(str(folder))).model.to(saved)
    copied = copy(folder, tmp_path / "saved")
    model.save_pretrained(copied)
    loaded = load_local(parse_model(str(copied)), dtype=dtype)
    assert bytes_in_memory(parse_model(str(copied)), dtype) == sum(
        weight.nbytes for weight in loaded.model.parameters()
    )


def test_the_memory_of_a_real_model_in_float32_is_twice_its_file(real_models: Path) -> None:
    folder = real_models / "smollm2-135m-instruct"
    told = bytes_in_memory(parse_model(str(folder)), "float32")
    assert told == pytest.approx(2 * (folder / "model.safetensors").stat().st_size, rel=0.001)


def test_the_memory_of_what_is_not_here_is_not_guessed(tmp_path: Path) -> None:
    assert bytes_in_memory(parse_model("nobody/has-this-model")) == 0
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)  # told when it is loaded
    assert bytes_in_memory(parse_model(str(tmp_path))) == 100


def test_the_plain_template_trains_and_asks_in_the_same_words(tmp_path: Path) -> None:
    loaded = load_local(parse_model(str(save_model(tmp_path / "base", chat=False))))
    conversation = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    )
    asked = render_prompt(loaded.tokenizer, conversation)
    assert asked == ("<s>Be brief.\n\nUser:\nHi\n\nAssistant:\nHello\n\nUser:\nBye\n\nAssistant:\n")
    answer = {"role": "assistant", "content": "Ciao", "weight": 1}
    whole = render_prompt(loaded.tokenizer, (*conversation, answer), ask=False)
    assert whole == asked + "Ciao</s>"
    assert loaded.plain_template and "\nUser:" in loaded.stop


def test_templates_without_tools_or_system_still_show_them() -> None:
    tokenizer = make_tokenizer()
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    user = {"role": "user", "content": "Hi"}
    assert '"weather"' in render_prompt(tokenizer, [user], [tool])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}[{{ m.content }}]{% endfor %}"
    )
    system = {"role": "system", "content": "Be brief."}
    assert render_prompt(tokenizer, [system, user]) == "[Be brief.\n\nHi]"
    assert render_prompt(tokenizer, [user, system]) == "[Hi][Be brief.]"


@pytest.mark.parametrize(
    ("text", "rest", "calls"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', "", [("f", {"a": 1})]),
        (
            'Yes. <tool_call>\n{"name": "f", "arguments": {"b": {"c": 2}}}\n</tool_call>'
            '<tool_call>{"name": "g", "arguments": {}}</tool_call>',
            "Yes.",
            [("f", {"b": {"c": 2}}), ("g", {})],
        ),
        ('{"name": "f", "parameters": {"a": 1}}', "", [("f", {"a": 1})]),
        ('{"name": "f"}', '{"name": "f"}', []),
        ("<tool_call>{broken}</tool_call>", "<tool_call>{broken}</tool_call>", []),
        ("Just text", "Just text", []),
    ],
)
def test_tool_calls_are_read(
    text: str, rest: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    found_rest, found = parse_tool_calls(text)
    assert found_rest == rest
    assert [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in found] == calls


def test_open_engine_shares_weights_and_keeps_answers(folder: Path, tmp_path: Path) -> None:
    one = open_engine(str(folder), cache_dir=tmp_path / "answers", threads=1)
    other = open_engine(str(folder), cache_dir=tmp_path / "answers")
    assert one._engine.loaded is other._engine.loaded  # type: ignore[attr-defined]
    request = Request(messages=({"role": "user", "content": "Hi"},), max_tokens=5)
    assert one.answer([request]) == other.answer([request])  # latency too: the kept answer
    assert one.count_tokens([{"role": "user", "content": "Hi"}]) > 5
    one.close()
    other.close()
    with pytest.raises(ModelError, match="adapter can only be added"):
        open_engine("openai:x", adapter=folder)


def test_a_name_that_is_nearly_right_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("models--HuggingFaceTB--SmolLM2-135M-Instruct", "models--gpt2"):
        (tmp_path / name).mkdir()
    with pytest.raises(ModelError) as error:
        load_local(parse_model("HuggingFaceTB/SmolLM2-135M-Instrct"))
    assert "there is HuggingFaceTB/SmolLM2-135M-Instruct." in str(error.value.hint)
    with pytest.raises(ModelError) as error:
        load_local(parse_model("somebody/something-else"))
    assert "In the cache" not in str(error.value.hint)
