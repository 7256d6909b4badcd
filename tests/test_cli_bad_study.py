"""A study that cannot be run: what is wrong, where, what to do; exit code 2; nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli_support import recorded, refused, tunewise

SHARES = {"tuned": 0.9, "zero_shot": 0.5}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return recorded(tmp_path, SHARES, dev=10, test=20)


def no_workspace(folder: Path) -> None:
    assert not (folder / "home").exists()
    assert not (folder / ".tunewise").exists()


def test_the_file_is_missing_or_a_folder(study: Path) -> None:
    folder = study.parent
    refused("run", "study.yml", cwd=folder, code=2, says=["study.yml", "Did you mean study.yaml?"])
    refused("report", "x.yaml", cwd=folder, code=2, says=["x.yaml: there is no such study file"])
    refused("run", ".", cwd=folder, code=2, says=["this is a folder", "study.yaml"])
    no_workspace(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "name: [open\nmetric: x\n",
            ["study.yaml:2", "bracket of line 1, column 7 has no end", "Close it"],
        ),
        ("name: s\n\tmetric: recorded\n", ["study.yaml:2:1", "tab", "spaces"]),
        ("just words\n", ["study.yaml:1", "name: my-study"]),
        ("", ["study.yaml: the study file is empty", "tunewise init"]),
        ("name: s\nname: t\n", ["study.yaml:2", "second time", "line 1"]),
        ("name: !!python/object:os.system x\n", ["study.yaml:1", "tags"]),
    ],
)
def test_not_a_study(tmp_path: Path, text: str, says: list[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    refused("run", path.name, cwd=tmp_path, code=2, says=says)
    no_workspace(tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tarffic: {requests_per_month: 3}", [":6: tarffic: unknown key", "`traffic`"]),
        ("target: {minimal_gian: 3}", [":6: target.minimal_gian", "`target.minimal_gain`"]),
        ("target: {minimal_gain: lots}", [":6: target.minimal_gain", "a number, not 'lots'"]),
        ("target: {minimal_gain: .nan}", [":6: target.minimal_gain", "number"]),
        ("effort: fast", [":6: effort", "'quick', 'standard' or 'thorough', not 'fast'"]),
        ("data: {examples: tuned.jsn}", [":6: data.examples", "tuned.jsn", "tuned.jsonl"]),
        ("costs: {prices: prices.yaml}", [":6: costs.prices", "there is no such file"]),
        ("primary: [zero_shot, tuned]", [":6: primary[0]", ":6: primary[1]", "tuned"]),
        ("primary: [tuned, zero]", [":6: primary[1]", "'zero'", "zero_shot"]),
        ("dev_fraction: 1.5", [":6: dev_fraction", "less than 1"]),
        ("servers: {ours: {base_url: https://x/v1, api_key: sk-abc}}", [":6:", "${NAME}"]),
    ],
)
def test_a_key_or_value_is_wrong(study: Path, line: str, says: list[str]) -> None:
    study.write_text(study.read_text().rstrip("\n") + "\n" + line + "\n")
    refused("run", study.name, cwd=study.parent, code=2, says=["study.yaml", *says])
    no_workspace(study.parent)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("metric: recorded", "metric: exact_mach", ["study.yaml:2: metric", "exact_match"]),
        (
            "metric: recorded",
            "metric: {name: numeric, options: {tolerence: 2}}",
            ["study.yaml:2: metric.options.tolerence", "Did you mean `tolerance`?"],
        ),
        ("metric: recorded", "metric: regex", ["study.yaml:2: metric", "needs", "`pattern`"]),
        ("metric: recorded\n", "", ["`metric` is missing"]),
        ("kind: recorded, answers: tuned", "kind: recoded, answers: tuned", ["`recorded`"]),
        ("name: zero_shot", "name: tuned", ["candidates", "two candidates are called 'tuned'"]),
        ("answers: tuned.jsonl", "answers: tunde.jsonl", [":4:", "Did you mean tuned.jsonl"]),
        (", answers: zero_shot.jsonl", "", [":5: candidates[1]", "`answers: FILE.jsonl`"]),
        ("name: quick", "name: ../elsewhere", [":1: name", "letters, digits"]),
    ],
)
def test_a_line_is_wrong(study: Path, old: str, new: str, says: list[str]) -> None:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new, 1))
    refused("run", study.name, cwd=study.parent, code=2, says=says)


def test_usage_errors(study: Path) -> None:
    folder = study.parent
    for arguments in (["run"], ["run", "study.yaml", "--frob"], ["frob"], ["clean", "--keep", "x"]):
        run = tunewise(*arguments, cwd=folder, code=2)
        assert run.err.startswith("Usage: tunewise") and "Try 'tunewise" in run.err
    refused("run", "study.yaml", "--set", "effort", cwd=folder, code=2, says=["not KEY=VALUE"])
    refused("run", "study.yaml", "--set", "efort=quick", cwd=folder, code=2, says=["`effort`"])
    no_workspace(folder)


def test_several_things_are_told_at_once(study: Path) -> None:
    study.write_text(study.read_text() + "effort: fast\ntarffic: 3\n")
    run = refused("run", study.name, cwd=study.parent, code=2, says=["2 things are wrong"])
    assert run.err.index("effort") < run.err.index("tarffic")


def test_a_file_where_the_workspace_should_be(study: Path) -> None:
    (study.parent / "taken").write_text("mine")
    arguments = ["run", study.name, "-q", "--workspace", "taken"]
    says = ["taken: results cannot be written here", "Move the file away"]
    refused(*arguments, cwd=study.parent, code=3, says=says)
    assert (study.parent / "taken").read_text() == "mine"


def test_a_folder_that_cannot_be_read(study: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    study.chmod(0)
    refused("run", study.name, cwd=study.parent, code=2, says=["cannot be read", "study.yaml"])
