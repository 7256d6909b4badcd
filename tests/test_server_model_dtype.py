"""A served model's numeric type, from the settings file to the weights in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tunewise.models.names import tiny_folder
from tunewise.server.app import create_app
from tunewise.server.settings import load_settings


def test_each_model_is_held_in_its_own_type(tmp_path: Path) -> None:
    half = shutil.copytree(tiny_folder(), tmp_path / "half")
    config = tmp_path / "server.yaml"
    config.write_text(
        f"home: home\nauth: false\nworkers: 0\nmodels:\n  half: {{model: {half}, dtype: float16}}\n"
        f"  same: {{model: {half}, dtype: float16}}\n"
        "  brain: {model: tunewise/tiny, dtype: bfloat16}\n"
    )
    app = create_app(load_settings(config))
    with TestClient(app, base_url="http://127.0.0.1") as http:
        found = {}
        for name in ("half", "same", "brain"):
            body = {"model": name, "messages": [{"role": "user", "content": "Hello"}]}
            answer = http.post(
                "/v1/chat/completions",
                json={**body, "max_tokens": 4, "temperature": 0, "logprobs": True},
            )
            assert answer.status_code == 200, answer.text
            found[name] = [
                item["logprob"] for item in answer.json()["choices"][0]["logprobs"]["content"]
            ]
        held = {info.base: info.dtype for info in app.state.tunewise.inference.loaded()}
    assert held == {str(half): "float16", "tunewise/tiny": "bfloat16"}
    assert found["half"] == found["same"]
    assert found["half"][0] == pytest.approx(found["brain"][0], abs=0.2)
    assert found["half"] != found["brain"]
