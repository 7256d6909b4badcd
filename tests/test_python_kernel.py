"""A run in a real kernel: one output that is written anew, then the verdict's card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli_support import recorded

nbformat: Any = pytest.importorskip("nbformat", reason="notebooks need nbformat")
nbclient: Any = pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel")
pytest.importorskip("ipykernel", reason="notebooks need ipykernel")


def test_a_run_draws_in_one_place_and_the_verdict_shows_itself(tmp_path: Path) -> None:
    study = recorded(tmp_path, {"few_shot": 0.5, "fine_tuned": 0.9})
    code = ["import tunewise as tw", f"verdict = tw.run({str(study)!r})"]
    cells = [nbformat.v4.new_code_cell(text) for text in ("\n".join(code), "verdict")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    ).execute()
    ran, shown = (cell.outputs for cell in notebook.cells)
    assert [output.output_type for output in ran] == ["display_data"]
    assert "<b>G0</b>" in ran[0].data["text/html"] and "<progress" not in ran[0].data["text/html"]
    (card,) = shown
    assert card.output_type == "execute_result" and "<iframe" in card.data["text/html"]
    assert "Report: " in card.data["text/plain"]
