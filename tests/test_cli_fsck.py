"""``tunewise fsck``: what a workspace holds against what was written there."""

from __future__ import annotations

from pathlib import Path

from cli_support import recorded, tunewise
from tunewise.data.chat import Completion
from tunewise.models.answer_cache import AnswerStore


def test_an_empty_workspace(tmp_path: Path) -> None:
    assert "nothing is damaged" in tunewise("fsck", cwd=tmp_path).out
    assert not list(tmp_path.glob(".tunewise")), "it makes none"


def test_each_damaged_file_is_told_with_its_study_and_the_way_back(tmp_path: Path) -> None:
    study = recorded(tmp_path, {"few_shot": 0.5, "fine_tuned": 0.9})
    home = tmp_path / "home"
    ran = tunewise("run", study, "--workspace", home, cwd=tmp_path, code=None)
    assert ran.code in (0, 1), ran
    store = AnswerStore(home / "answers" / "answers.sqlite")
    for number in range(300):
        store.put(str(number), Completion(text="x" * 200))
    store.close()
    assert "nothing is damaged" in tunewise("fsck", "--workspace", home, cwd=tmp_path).out

    (folder,) = (path.parent for path in home.glob("studies/*/*/verdict.json"))
    (stage, *_), (items, *_) = sorted(folder.glob("stages/*")), sorted(folder.glob("items/*.jsonl"))
    stage.write_bytes(stage.read_bytes()[:-20])
    lines = items.read_bytes().splitlines(keepends=True)
    items.write_bytes(b"".join([lines[0], lines[1][:9], b"\n", *lines[2:]]))
    with (home / "test-ledger.jsonl").open("ab") as ledger:
        ledger.write(b'{"look": "cut\n')
    with (home / "answers" / "answers.sqlite").open("r+b") as base:
        base.seek(3 * 4096)
        base.write(b"\xff" * 4096)
    told = tunewise("fsck", "--workspace", home, cwd=tmp_path, code=1).out
    for path in (stage, items, home / "test-ledger.jsonl", home / "answers" / "answers.sqlite"):
        assert f"damaged: {path.relative_to(home)}\n" in told
    assert "line 2 is no JSON" in told and "run the study again" in told
    assert f"belongs to study {folder.parent.name}" in told and "asked for again" in told
    assert "4 are damaged" in told


def test_what_is_told_is_what_helps(tmp_path: Path) -> None:
    study = recorded(tmp_path, {"few_shot": 0.5, "fine_tuned": 0.9})
    home = tmp_path / "home"
    tunewise("run", study, "--workspace", home, cwd=tmp_path, code=None)
    (stage, *_) = sorted(home.glob("studies/*/*/stages/*"))
    stage.write_bytes(stage.read_bytes()[:-20])
    again = tunewise("run", study, "--workspace", home, cwd=tmp_path, code=None)
    assert str(stage) in again.out + again.err and "Delete the file" in again.out + again.err
    stage.unlink()
    ran = tunewise("run", study, "--workspace", home, cwd=tmp_path, code=None)
    assert ran.code in (0, 1), ran
    assert "nothing is damaged" in tunewise("fsck", "--workspace", home, cwd=tmp_path).out
