"""What a program sees of a run: the gate's exit codes, and output that nobody can take."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cli_support import COMMAND, environment, recorded, steady, tunewise
from tunewise.verdict.sentence import rounded

GAIN = {"tuned": 0.9, "zero_shot": 0.5, "few_shot": 0.6}


@pytest.mark.parametrize(
    ("verdict", "code", "shares", "rows"),
    [
        ("FINE_TUNE", 0, GAIN, {}),
        ("DO_NOT_FINE_TUNE", 10, {"tuned": 0.5, "zero_shot": 0.7}, {}),
        ("UNDECIDED", 11, {"tuned": 0.8, "zero_shot": 0.7}, {"dev": 10, "test": 20}),
        ("INVALID", 12, GAIN, {}),
    ],
)
def test_gate(
    tmp_path: Path, verdict: str, code: int, shares: dict[str, float], rows: dict[str, int]
) -> None:
    study = recorded(tmp_path, shares, **rows)
    if verdict == "INVALID":  # 12 of the 400 test answers are missing: more than 2 %
        lines = (tmp_path / "tuned.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "tuned.jsonl").write_text("".join(lines[:-12]))
    gated = tunewise("run", study, "--json", "--gate", cwd=tmp_path, code=code).json
    assert gated["verdict"] == verdict
    if verdict == "DO_NOT_FINE_TUNE":  # without --gate a completed run is a success
        assert steady(tunewise("run", study, "--json", cwd=tmp_path).json) == steady(gated)
    if verdict == "UNDECIDED":
        assert gated["primary"]["labels_needed"] > 20
        assert "chance if the gain is as measured" in gated["headline"]
        assert 0 < gated["primary"]["labels_chance"] <= 0.81
        more = rounded(gated["primary"]["labels_needed"] - 20)
        assert f"{more:,} more test rows" in gated["next_steps"][0]
        assert f"{more:,} more test rows" in gated["headline"]
    if verdict == "INVALID":
        assert gated["candidates"][0]["failures"] == 12
        warned = [w for w in gated["warnings"] if "12 rows without a recorded answer" in w]
        assert warned and "tuned" in warned[0] and "row-488" in warned[0]


@pytest.mark.parametrize("options", [["--json"], [], ["--gate", "--set", "target.minimal_gain=60"]])
def test_a_reader_who_leaves(tmp_path: Path, options: list[str]) -> None:
    study = recorded(tmp_path, GAIN)
    run = subprocess.Popen(
        [COMMAND, "run", study, *options],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None and run.stderr is not None
    run.stdout.close()
    err = run.stderr.read()
    run.stderr.close()
    # The gate's answer must not turn into FINE_TUNE (0) because nobody read the words.
    assert run.wait(timeout=120) == (10 if "--gate" in options else 0)
    assert "Traceback" not in err and "Broken" not in err
    assert list((tmp_path / "home").rglob("verdict.json"))


def test_stdout_on_a_full_disk(tmp_path: Path) -> None:
    study = recorded(tmp_path, GAIN)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "run", study, "--json"],
            cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=120,
        )  # fmt: skip
    assert done.returncode == 3
    assert "the disk is full" in done.stderr and "Traceback" not in done.stderr
