"""Models that are not there, and servers that a study from a stranger names."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import refused, tunewise


@pytest.mark.parametrize("model", ["tunewise/tinny", "no-such-folder/at-all", "./nowhere"])
def test_an_unknown_model(tmp_path: Path, model: str) -> None:
    rows = "".join(f'{{"input": "question {i}", "output": "A"}}\n' for i in range(40))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "study.yaml").write_text(
        f"name: s\nmodel: {model}\ndata: {{examples: rows.jsonl}}\nmetric: exact_match\n"
        "candidates: [zero_shot]\n"
    )
    run = tunewise("run", "study.yaml", "-q", cwd=tmp_path, code=None)
    assert run.code in (2, 3) and run.err.count("error: ") == 1
    assert "study.yaml:2: model: " in run.err and model.removeprefix("./") in run.err
    assert "tunewise/tiny" in run.err or "folder" in run.err
    assert not list((tmp_path / "home").rglob("verdict.json"))


FAKE_KEY = "sk-proj-FakeKeyOfATest0123456789abcdef"


@pytest.mark.parametrize(
    ("base_url", "key", "code", "says"),
    [
        ("https://evil.example/v1", "${OPENAI_API_KEY}", 2, ["evil.example", "api.openai.com"]),
        ("http://api.openai.com/v1", "${OPENAI_API_KEY}", 2, ["unencrypted", "https://"]),
        ("https://api.openai.com@evil.example/v1", "${OPENAI_API_KEY}", 2, ["user name (`@`)"]),
        ("https://evil.example/v1", FAKE_KEY, 2, ["`${NAME}`"]),
        ("https://evil.example/v1", "${MY_KEY}", 2, ["MY_KEY_HOST=evil.example"]),
    ],
)
def test_a_key_goes_to_its_own_host_only(
    tmp_path: Path, base_url: str, key: str, code: int, says: list[str]
) -> None:
    rows = "".join(f'{{"input": "question {i}", "output": "A"}}\n' for i in range(40))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "study.yaml").write_text(
        "name: s\nmodel: theirs:big\ndata: {examples: rows.jsonl}\nmetric: exact_match\n"
        f"candidates: [zero_shot]\nservers: {{theirs: {{base_url: '{base_url}', "
        f"api_key: '{key}'}}}}\n"
    )
    env = {"OPENAI_API_KEY": FAKE_KEY, "MY_KEY": FAKE_KEY, "TUNEWISE_DEBUG": ""}
    says = ["study.yaml:6: servers.theirs.", *says]
    run = refused("run", "study.yaml", "-q", cwd=tmp_path, code=code, says=says, env=env)
    assert FAKE_KEY not in run.out + run.err
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "study.yaml":
            assert FAKE_KEY.encode() not in path.read_bytes(), path
