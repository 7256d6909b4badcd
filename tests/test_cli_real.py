"""`tunewise demo real`: it asks before it brings anything, and ends with commands that work.

The model that ships with the package stands in for the real one, on a few of the mails.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from cli_support import tunewise
from tunewise.cli import real
from tunewise.models.packaged import Packaged
from tunewise.synthetic import tickets

FEW = {"train": 12, "dev": 6, "test": 6}


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is here; what is brought is the small model. The list has what was brought."""
    names: list[str] = []

    def bring(model: Packaged, models: Path, tell: object) -> str:
        names.append(model.title)
        return "tunewise/tiny"

    monkeypatch.setattr(tickets, "SIZES", FEW)
    monkeypatch.setattr(real, "here", lambda model, models: None)
    monkeypatch.setattr(real, "bring", bring)
    return names


def test_nothing_is_brought_unasked(
    brought: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tunewise("demo", "real", cwd=tmp_path, code=2)
    for said in ("Apache-2.0", "MB", "smollm2-135m-instruct", "eight minutes", "--yes"):
        assert said in run.err
    answers = io.StringIO("no\n")
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", answers)
    assert "nothing was brought" in tunewise("demo", "real", cwd=tmp_path, code=2).err
    assert brought == [] and not (tmp_path / "tunewise-demo").exists()


def test_it_runs_alone(brought: list[str], tmp_path: Path) -> None:
    assert "alone" in tunewise("demo", "pattern", "real", "--yes", cwd=tmp_path, code=2).err
    assert "real" in tunewise("demo", "poem", cwd=tmp_path, code=2).err


def test_it_ends_with_a_command_that_asks_the_winner(
    brought: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "CANDIDATES", tickets.CANDIDATES[:1])  # nothing is trained
    run = tunewise("demo", "real", "--yes", "--quiet", cwd=tmp_path, env={"COLUMNS": "400"})
    (use,) = re.findall(r"Ask zero_shot: tunewise (use .*)", run.out)
    assert tunewise(*shlex.split(use), cwd=tmp_path).out.startswith('{"summary"')
    assert "Talk to its weights" not in run.out


@pytest.mark.soak
def test_it_ends_with_answers_side_by_side_and_commands_that_work(
    brought: list[str], tmp_path: Path
) -> None:
    run = tunewise("demo", "real", "--yes", "--quiet", cwd=tmp_path, env={"COLUMNS": "400"})
    assert brought == ["SmolLM2-135M-Instruct"]
    assert re.search(r"untuned.*\{", run.out) and re.search(r"│ tuned.*\{", run.out)
    for name in ("zero_shot", "few_shot", "constant", "fine_tuned"):
        assert name in run.out
    (use,) = re.findall(r"Ask .*?: tunewise (use .*)", run.out)
    record = json.loads(tunewise(*shlex.split(use), cwd=tmp_path).out)
    assert list(record) == list(tickets.SCHEMA["properties"])
    (chat,) = re.findall(r"Talk .*?: tunewise (chat .*)", run.out)
    assert tunewise(*shlex.split(chat), "--message", "Hello", cwd=tmp_path).out.strip()
