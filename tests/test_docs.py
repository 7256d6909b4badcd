"""The pages in docs/ say what the program does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = runpy.run_path(str(ROOT / "scripts" / "write_docs.py"))["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_reference_pages_are_what_the_program_writes(name: str) -> None:
    assert (ROOT / "docs" / name).read_text("utf-8") == PAGES[name], "run scripts/write_docs.py"


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_commands_in_the_readme_exist() -> None:
    from tunewise.cli.app import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    known |= {group.name for group in app.registered_groups if group.name}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "".join(p.read_text("utf-8") for p in pages)
    named = set(re.findall(r"(?:^|`)tunewise ([a-z]+)\b", text, re.MULTILINE))
    assert named
    assert named <= known, named - known
