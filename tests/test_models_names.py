"""What a model's name means, and what is said of one that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewise.errors import ModelError
from tunewise.models.names import parse_model, tiny_folder
from tunewise.study.schema import Server

SERVERS = {"office": Server(base_url="http://localhost:8000/v1", api_key="${OFFICE_KEY}")}


def test_every_form() -> None:
    tiny = parse_model("tunewise/tiny")
    assert (tiny.kind, tiny.name, tiny.path) == ("folder", "tunewise/tiny", tiny_folder().resolve())
    hub = parse_model("HuggingFaceTB/SmolLM2-135M-Instruct@v1.0")
    assert (hub.kind, hub.name, hub.revision) == (
        "hub",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "v1.0",
    )
    luna = parse_model("openai:gpt-6-luna")
    assert (luna.kind, luna.prefix, luna.name) == ("service", "openai", "gpt-6-luna")
    assert parse_model("azure:my-deployment").name == "my-deployment"
    served = parse_model("office:org/model:7b", SERVERS)
    assert (served.kind, served.name, served.server) == (
        "server",
        "org/model:7b",
        SERVERS["office"],
    )
    assert [parse_model(s).is_local for s in ("tunewise/tiny", "a/b", "openai:x")] == [
        True,
        True,
        False,
    ]


def test_a_folder_that_is_there_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for spec in ("org/model", "./org/model", str(tmp_path / "org" / "model")):
        ref = parse_model(spec)
        assert (ref.kind, ref.path) == ("folder", (tmp_path / "org" / "model").resolve())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("opnai:gpt-6", "openai:gpt-6"),
        ("ofice:m", "office:m"),
        ("tunewise/tny", "tunewise/tiny"),
        ("tunewise-tiny", "tunewise/tiny"),
        ("openai:", "missing"),
        ("", "(empty)"),
        ("a/b/c", "owner/name"),
        ("../no-such-folder", "no such folder"),
    ],
)
def test_near_names_and_forms_are_told(spec: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_model(spec, SERVERS)
    assert said in str(caught.value)
    assert "azure:DEPLOYMENT" in str(caught.value)


def test_a_near_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    with pytest.raises(ModelError, match="my-model"):
        parse_model(str(tmp_path / "my-modle"))
