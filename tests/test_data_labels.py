"""Labels that are one value written in several ways, or none."""

from __future__ import annotations

import pytest

from tunewise.data.labels import LabelCounts


@pytest.mark.parametrize(
    ("labels", "code", "told"),
    [
        (["1", "1.0", "2"], "label_spelling", ["'1'", "'1.0'"]),
        (["1", "0", "True", "False"], "label_truth", ["'True'", "'1'"]),
        (["1", "2", "nan"], "label_missing", ["'nan'"]),
        (["1.1", "1.10"], None, []),
        (["true", "false"], None, []),
    ],
)
def test_one_value_in_several_ways_is_told(
    labels: list[str], code: str | None, told: list[str]
) -> None:
    counts = LabelCounts()
    for label in labels * 12:
        counts.add(label, f"row {label}")
    found = {finding.code: finding for finding in counts.findings()}
    assert set(found) == ({code} if code else set())
    assert code is None or all(text in found[code].message for text in told)
