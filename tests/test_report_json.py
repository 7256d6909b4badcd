"""verdict.json: it survives a round trip, fits its schema, and its reference page is true."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from report_support import ALL, fine_tune, hostile, invalid
from tunewise.errors import WorkspaceError
from tunewise.report.document import Verdict
from tunewise.report.files import read_verdict, write_report
from tunewise.report.schema import json_schema, reference

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("build", [*ALL, hostile])
def test_round_trip(build: Callable[[], Verdict], tmp_path: Path) -> None:
    verdict = build()
    paths = write_report(verdict, tmp_path)
    assert read_verdict(paths.verdict) == verdict
    assert paths.report.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "verdict.json"]


def test_numbers_that_are_none_become_null() -> None:
    verdict = fine_tune()
    verdict.primary.mde = math.inf
    verdict.candidates[0].score = math.nan
    value = json.loads(verdict.to_json(), parse_constant=pytest.fail)
    assert value["primary"]["mde"] is None and value["candidates"][0]["score"] is None


@pytest.mark.parametrize("build", ALL)
def test_fits_its_schema(build: Callable[[], Verdict]) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    value = json.loads(build().to_json())
    assert not list(validator.iter_errors(value))
    value["primary"]["gains"] = 1
    assert list(validator.iter_errors(value))


def test_promised_keys_are_always_there() -> None:
    value = json.loads(invalid().to_json())
    assert value["schema"] == "tunewise.verdict/1"
    assert value["test"]["n"] is None
    keys = "with, without, gain, interval, p_value, method, mde, mde_decide, n, clusters, seeds"
    assert all(value["primary"][k] is None for k in keys.split(", "))
    assert value["cost"]["status"] == "unknown"
    candidate = json.loads(fine_tune().to_json())["candidates"][0]
    keys = (
        "name, kind, score, interval, n, failures, tokens_per_request, usd_per_1k_requests, "
        "latency_ms"
    )
    assert set(keys.split(", ")) <= set(candidate)


def test_reference_page_is_what_the_schema_says() -> None:
    page = ROOT / "docs" / "verdict-json.md"
    assert page.read_text("utf-8") == reference(), (
        "docs/verdict-json.md is out of date; write tunewise.report.schema.reference() into it"
    )


def test_reference_page_names_every_part() -> None:
    text = reference()
    for part in json_schema()["$defs"]:
        assert text.count(f"## {part}\n") == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no verdict"),
        ("{", "not valid JSON"),
        ("[]", "schema None"),
        ('{"schema": "tunewise.verdict/9"}', "tunewise.verdict/9"),
        ('{"schema": "tunewise.verdict/1"}', "damaged verdict: tunewise"),
    ],
)
def test_unreadable_verdicts_are_errors_with_a_hint(
    content: str | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "verdict.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(WorkspaceError, match=says) as caught:
        read_verdict(path)
    assert caught.value.hint and caught.value.where == str(path)


def test_a_failed_rendering_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(invalid(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkspaceError, match="disk is full"):
        write_report(fine_tune(), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
