"""The floors of the house, and the light at its door."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewise.models.services import SERVICES

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = {
    "accelerate",
    "datasets",
    "fastapi",
    "matplotlib",
    "numpy",
    "openai",
    "pandas",
    "peft",
    "scipy",
    "sklearn",
    "starlette",
    "torch",
    "transformers",
    "trl",
}


def _loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.split(".")[0] for name in json.loads(out.stdout.splitlines()[-1])}


def test_floors() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import tunewise",
        "import tunewise.cli.app",
        "import tunewise.study.loading",
        "import tunewise.verdict.decision",
    ],
)
def test_light_at_the_door(code: str) -> None:
    heavy = HEAVY if "verdict" not in code else HEAVY - {"numpy", "scipy"}
    assert not (_loaded_by(code) & heavy)


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['tunewise', '--help']\nfrom tunewise.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass"
    assert not (_loaded_by(code) & HEAVY)


SANDBOXED = ROOT / "src" / "tunewise" / "scoring" / "sandbox" / "worker.py"
"""Runs a user's grader, inside walls that it has put around itself: what it is there for."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_what_may_never_happen(path: Path) -> None:
    """No remote code, no pickle, no eval of text."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "joblib", "marshal"} & {n.split(".")[0] for n in names}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            may = {"exec"} if path == SANDBOXED else set()
            assert node.func.id not in {"eval", "exec"} - may, f"{path}:{node.lineno}"


def test_children_are_started_in_one_way() -> None:
    """Without the working directory on their path: the command is made in one place."""
    makers = {"processes.py", "scoring/sandbox/walls.py"}
    found = {
        str(path.relative_to(ROOT / "src" / "tunewise"))
        for path in SOURCES
        if "sys.executable" in path.read_text("utf-8")
    }
    assert found == makers


def _compared(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Text that something is compared with, and its line."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                parts += getattr(side, "elts", [side])
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "startswith":
            parts = node.args
        for part in parts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.lineno, part.value


WORDS_OF_OTHERS = {
    ("data/propose.py", "json_fields"): "what this very file has proposed",
    ("data/propose.py", "list_f1"): "what this very file has proposed",
    ("scoring/graders/similarity.py", "rouge_l"): "a measure of OpenAI's graders",
}
"""Names of ours that mean something else where they are compared with."""


def test_nothing_goes_by_the_name_of_a_part() -> None:
    """Routes, kinds of candidates, metrics, trackers and services declare what they are."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    homes: dict[str, set[str]] = {name: {"models/services.py"} for name in SERVICES}
    for name, target in (item for named in groups.values() for item in named.items()):
        module = target.partition(":")[0].removeprefix("tunewise.")
        homes.setdefault(name, set()).add(f"{module.replace('.', '/')}.py")
    del homes["tool_calls"]  # also a key of messages
    found = []
    for path in SOURCES:
        place = str(path.relative_to(ROOT / "src" / "tunewise"))
        for line, text in _compared(ast.parse(path.read_text("utf-8"))):
            if text in homes and place not in homes[text] and (place, text) not in WORDS_OF_OTHERS:
                found.append(f"{place}:{line}: {text!r}")
    assert not found
    compared = [text for _, text in _compared(ast.parse("if k in ('rag', x) or k == 'local': 0"))]
    assert compared == ["rag", "local"]
