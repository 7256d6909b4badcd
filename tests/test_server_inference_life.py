"""The engine's process over time: models that come and go, a process that dies, too much work."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from inference_support import ask, save_adapter, text_of
from models_support import save_model
from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.server.inference.client import InferenceClient
from tunewise.server.inference.limits import EngineLimits
from tunewise.server.inference.protocol import Done, Embed, EngineError, Failed, ModelRef


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def client() -> Iterator[InferenceClient]:
    engine = InferenceClient(EngineLimits(threads=1, models=2, rows=4, waiting=4))
    engine.start()
    yield engine
    engine.stop()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_least_recently_used_model_makes_place(
    client: InferenceClient, folder: Path, tmp_path: Path
) -> None:
    refs = [ModelRef(str(shutil.copytree(folder, tmp_path / n)), None, n) for n in "abc"]
    wanted = text_of(client.generate_sync(ask(refs[0])))
    client.generate_sync(ask(refs[1]))
    client.generate_sync(ask(refs[0]))
    client.generate_sync(ask(refs[2]))
    assert {Path(m.base).name for m in client.loaded()} == {"a", "c"}
    assert text_of(client.generate_sync(ask(refs[1]))) == wanted  # and comes back
    # All three at once, where two fit: nobody is turned away.
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(client.generate_sync, [ask(r, n=2) for r in refs]))
    assert [text_of(a) for a in answers] == [wanted] * 3


def test_an_adapter_trained_anew_at_the_same_place_is_another_one(
    client: InferenceClient, folder: Path, tmp_path: Path
) -> None:
    ref = ModelRef(str(folder), str(save_adapter(folder, tmp_path / "a", seed=1)), "tuned")
    first = text_of(client.generate_sync(ask(ref)))
    save_adapter(folder, tmp_path / "a", seed=2)
    assert text_of(client.generate_sync(ask(ref))) != first
    (info,) = [m for m in client.loaded() if m.base == str(folder)]
    assert len(info.adapters) == 1
    shutil.rmtree(tmp_path / "a")
    (failed,) = client.generate_sync(ask(ref))
    assert isinstance(failed, Failed)
    assert failed.code == "model_not_loadable"


@pytest.mark.parametrize("base", ["./nothing-here", "openai:gpt-4o", "", "not a name"])
def test_what_cannot_be_loaded_is_refused_by_its_public_name(
    client: InferenceClient, base: str
) -> None:
    (failed,) = client.generate_sync(ask(ModelRef(base, None, "my-model")))
    assert isinstance(failed, Failed)
    assert failed.code == "model_not_loadable"
    assert "my-model" in failed.message
    with pytest.raises(EngineError) as caught:
        client.embed_sync(Embed("e", ModelRef(base, None, "my-model"), ("a",)))
    assert caught.value.failed.code == "model_not_loadable"


def test_more_than_may_wait_is_turned_away_at_once(client: InferenceClient, folder: Path) -> None:
    ref = ModelRef(str(folder), None, "test")
    slow = ask(ref, max_tokens=900, logit_bias={20: 100}, n=8)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.generate_sync, slow)
        wait_for(lambda: slow.id in client._sinks)
        (failed,) = client.generate_sync(ask(ref))
        assert isinstance(failed, Failed)
        assert failed.code == "overloaded"
        client.cancel(slow.id)
        running.result(20)
    assert isinstance(client.generate_sync(ask(ref))[-1], Done)


def test_a_killed_process_fails_its_requests_and_comes_back(
    client: InferenceClient, folder: Path
) -> None:
    ref = ModelRef(str(folder), None, "test")
    wanted = text_of(client.generate_sync(ask(ref)))
    before = client.pid
    assert before is not None
    slow = ask(ref, max_tokens=900, logit_bias={20: 100}, n=8)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.generate_sync, slow)
        wait_for(lambda: any(m.running for m in client.loaded()))
        os.kill(before, signal.SIGKILL)
        failed = running.result(20)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "server_error"
    assert "ended" in failed.message
    assert text_of(client.generate_sync(ask(ref))) == wanted
    assert client.pid not in (None, before)


def test_weights_count_in_the_type_that_they_will_have(folder: Path, tmp_path: Path) -> None:
    half = shutil.copytree(folder, tmp_path / "half")
    load_local(parse_model(str(half))).model.to(torch.bfloat16).save_pretrained(half)
    limit = int(1.5 * (half / "model.safetensors").stat().st_size)
    ref, answers = ModelRef(str(half), None, "test"), {}
    for dtype in ("float32", "bfloat16"):
        engine = InferenceClient(EngineLimits(threads=1, bytes=limit, dtypes={str(half): dtype}))
        engine.start()
        answers[dtype] = engine.generate_sync(ask(ref))[-1]
        engine.stop()
    assert isinstance(answers["bfloat16"], Done)
    refused = answers["float32"]
    assert isinstance(refused, Failed) and "its weights take" in refused.message


def test_stop_ends_the_process_and_all_waiting(folder: Path) -> None:
    engine = InferenceClient(EngineLimits(threads=1))
    (failed,) = engine.generate_sync(ask(ModelRef(str(folder), None, "test")))
    assert isinstance(failed, Failed)
    engine.start()
    pid = engine.pid
    assert pid is not None
    answers: list[object] = []
    request = ask(ModelRef(str(folder), None, "test"))
    thread = threading.Thread(target=lambda: answers.extend(engine.generate_sync(request)))
    thread.start()
    wait_for(lambda: request.id in engine._sinks)
    engine.stop()
    thread.join(20)
    assert isinstance(answers[-1], Failed)
    assert engine.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
