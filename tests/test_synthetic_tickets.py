"""The support mails of `tunewise demo real`: whole, varied, and out of reach of surface rules."""

from __future__ import annotations

import json
import re
from collections import Counter
from random import Random
from typing import Any

import jsonschema
import pytest

from tunewise.synthetic import ticket_wording as wording
from tunewise.synthetic.tickets import SCHEMA, generate_tickets, ticket

Mail = tuple[str, dict[str, Any]]

SIX = re.compile(r"(?<!\d)\d{3}(?: - |[-./ ])?\d{3}(?!\d)")
"""Six digits in any of the ways in which they are written."""


@pytest.fixture(scope="module")
def mails() -> list[Mail]:
    rng = Random("tests")
    return [(text, json.loads(answer)) for text, answer in (ticket(rng) for _ in range(600))]


def test_a_seed_gives_the_same_files_and_another_one_others() -> None:
    one, same, other = (generate_tickets("m", seed) for seed in (0, 0, 1))
    assert one == same and one.files != other.files
    rows = [json.loads(line) for text in one.files.values() for line in text.splitlines()]
    assert len(rows) == 300
    assert len({row["messages"][0]["content"] for row in rows}) == 300
    for row in rows:
        jsonschema.validate(json.loads(row["messages"][-1]["content"]), SCHEMA)


def test_what_the_record_says_stands_in_the_mail(mails: list[Mail]) -> None:
    for text, record in mails:
        if record["order"] is not None:
            found = [re.sub(r"\D", "", number) for number in SIX.findall(text)]
            assert record["order"] in found, text
    lacking = [text for text, record in mails if record["order"] is None]
    assert 0.2 < len(lacking) / len(mails) < 0.4
    # Of mails without an order's number many hold another number of the same look.
    assert sum(bool(SIX.search(text)) for text in lacking) > 0.4 * len(lacking)
    two = [text for text, record in mails if record["order"] and len(SIX.findall(text)) > 1]
    assert len(two) > 0.25 * len(mails)


def test_mails_differ_in_more_than_their_names_and_numbers(mails: list[Mail]) -> None:
    names = "|".join(sorted(map(re.escape, wording.ITEMS), key=len, reverse=True))
    bare = re.compile(rf"\d+|{names}")
    forms = {" ".join(bare.sub("_", text.lower()).split()) for text, _ in mails}
    assert len(forms) > 0.99 * len(mails)
    lengths = sorted(len(text.split()) for text, _ in mails)
    assert lengths[30] < 26 < 50 < lengths[-30]
    written = Counter(re.sub(r"\d", "9", n) for text, _ in mails for n in SIX.findall(text))
    assert len(written) >= 6
    for key, values in (("category", 6), ("urgency", 3)):
        counts = Counter(record[key] for _, record in mails)
        assert len(counts) == values and min(counts.values()) > len(mails) / values / 2


def test_the_tone_tells_nothing_of_the_urgency(mails: list[Mail]) -> None:
    loud = [r["urgency"] for text, r in mails if re.search(r"!|URGENT|asap|furious", text)]
    assert len(loud) > 100
    assert max(Counter(loud).values()) < 0.5 * len(loud)


def by_rule(text: str) -> dict[str, Any]:
    """What a patient person writes in an hour, having seen mails but not the generator."""
    said = text.lower()
    found = re.search(rf"order[^.\d]*({SIX.pattern})", text, re.IGNORECASE) or SIX.search(text)
    words = {
        "billing": r"invoice|bill|paid|payment|money|charged|receipt|refund",
        "damage": r"broken|crack|missing|dead|stopped|pieces|dented",
        "return": r"return|send .* back|cancel|swap|exchange|size",
        "account": r"log|password|account|newsletter|mailing",
        "delivery": r"deliver|arriv|parcel|waiting|where is|address",
    }
    hurry = r"urgent|asap|today|tomorrow|tonight|immediately|!!"
    return {
        "category": next((k for k, v in words.items() if re.search(v, said)), "question"),
        "order": re.sub(r"\D", "", found[0])[-6:] if found else None,
        "urgency": "high"
        if re.search(hurry, said)
        else "low"
        if re.search(r"no hurry|time|wait", said)
        else "normal",
    }


def test_rules_on_the_surface_do_not_answer_them(mails: list[Mail]) -> None:
    right = {
        key: sum(by_rule(text)[key] == record[key] for text, record in mails) / len(mails)
        for key in ("category", "order", "urgency")
    }
    assert right["category"] < 0.7 and right["order"] < 0.8 and right["urgency"] < 0.7, right
    all_three = sum(
        all(record[key] == value for key, value in by_rule(text).items()) for text, record in mails
    )
    assert all_three < 0.3 * len(mails), all_three


def test_the_nearest_mail_has_another_record(mails: list[Mail]) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, records = zip(*mails, strict=True)
    vectors = TfidfVectorizer(ngram_range=(1, 2)).fit_transform(texts)
    alike = (vectors[400:] @ vectors[:400].T).toarray().argmax(axis=1)
    pairs = [(records[400 + i], records[int(k)]) for i, k in enumerate(alike)]
    assert sum(one["category"] == other["category"] for one, other in pairs) < 0.8 * len(pairs)
    assert sum(one == other for one, other in pairs) < 0.02 * len(pairs)
