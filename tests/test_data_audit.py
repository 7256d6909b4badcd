"""The audit finds what is there, names its rows, and leaves sound data alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewise.data.audit import AuditReport, audit
from tunewise.data.content import SharedText, ngrams, question_words, word_hashes, words
from tunewise.data.fix import fix_file
from tunewise.data.leaks import find_leaks
from tunewise.data.near_duplicates import NearDuplicates
from tunewise.data.personal_data import personal_data
from tunewise.data.read import read_examples
from tunewise.data.spool import Spool
from tunewise.data.tokens import default_epochs, estimate_tokens, token_stats
from tunewise.errors import DataError, UsageError

CITIES = ["Rome", "Paris", "Oslo", "Lima", "Cairo", "Delhi", "Tokyo", "Quito", "Accra", "Minsk"]
THINGS = [
    "trains",
    "boats",
    "parks",
    "bridges",
    "museums",
    "markets",
    "towers",
    "schools",
    "rivers",
    "gardens",
]


def write(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def pairs(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {
            "input": f"Tell me {n} facts about the {THINGS[n % 10]} of {CITIES[n // 10 % 10]} "
            f"in the year {1000 + 37 * n}",
            "output": f"fact {n}",
        }
        for n in range(first, last)
    ]


def codes(report: AuditReport) -> dict[str, int]:
    return {finding.code: finding.count for finding in report.findings}


def place(report: AuditReport, code: str) -> list[str]:
    return [row.rpartition(":")[2] for f in report.findings if f.code == code for row in f.rows]


def test_the_seven_format_errors_with_lines(tmp_path: Path) -> None:
    user, assistant = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    bad: list[Any] = [
        [1],
        {"note": "no messages"},
        {"messages": [{"content": "q"}, assistant]},
        {"messages": [{**user, "mood": 1}, assistant]},
        {"messages": [{**user, "role": "narrator"}, assistant]},
        {"messages": [{**user, "content": None}, assistant]},
        {"messages": [user]},
    ]
    path = write(tmp_path / "x.jsonl", [{"messages": [user, assistant]}, *bad])
    report = audit(path)
    expected = (
        "data_type",
        "missing_messages_list",
        "message_missing_key",
        "message_unrecognized_key",
        "unrecognized_role",
        "missing_content",
        "example_missing_assistant_message",
    )
    for line, code in enumerate(expected, start=2):
        assert place(report, code) == [str(line)], code
    assert report.rows == {"train": 2} and report.left_out == 6


def test_row_findings(tmp_path: Path) -> None:
    rows: list[Any] = pairs(0, 20)
    rows[3] |= {"output": "  "}
    rows[5] |= {"output": "five \n"}
    rows[7] |= {"input": rows[7]["input"] + " x" * 400}
    rows += [rows[2], {"input": rows[4]["input"], "output": "another"}]
    report = audit(write(tmp_path / "x.jsonl", rows), max_tokens=150)
    assert place(report, "empty_answer") == ["4"]
    assert place(report, "answer_whitespace") == ["6"]
    assert place(report, "too_long") == ["8"]
    assert place(report, "exact_duplicate") == ["21"]
    assert place(report, "contradicting_answers") == ["5", "22"]
    assert place(report, "near_duplicate") == ["21", "22"]
    assert report.findings[0].code == "empty_answer" and report.findings[0].severity == "error"
    assert all(f.fix and f.message for f in report.findings)
    json.dumps(report.as_dict())


def test_personal_data_is_found_and_never_shown(tmp_path: Path) -> None:
    secrets = {
        "personal_email": "ann.lee@example.org",
        "personal_phone": "+49 30 901820 44",
        "personal_card": "4111 1111 1111 1111",
        "personal_iban": "DE89 3704 0044 0532 0130 00",
        "secret": "AKIAIOSFODNN7EXAMPLE",
    }
    keys = ["sk-proj-" + "a1B2" * 8, "ghp_" + "a1B2" * 9, "-----BEGIN RSA PRIVATE KEY-----"]
    harmless = [
        "order 4111 1111 1111 1112 of 2026-11-21 12:30:45",
        "pi is 3.14159265358979 and 1234567890123456 units",
        "mail me @home, task-force sk-learn, DE12 is no account, 10.0.0.255:8080",
    ]
    rows = [{"input": f"{value} or so", "output": "a"} for value in [*secrets.values(), *keys]]
    report = audit(write(tmp_path / "x.jsonl", rows))
    for line, code in enumerate(secrets, start=1):
        assert str(line) in place(report, code), code
    assert report.count("secret") == 4
    shown = json.dumps(report.as_dict())
    assert not any(value in shown for value in [*secrets.values(), *keys])
    clean = audit(write(tmp_path / "y.jsonl", [{"input": t, "output": "a"} for t in harmless]))
    assert not [code for code in codes(clean) if code.startswith(("personal", "secret"))]


def test_labels(tmp_path: Path) -> None:
    rows = [{"text": f"{row['input']}", "label": "no"} for row in pairs(0, 60)]
    for i in range(3):
        rows[i]["label"] = "yes"
    report = audit(write(tmp_path / "x.jsonl", rows))
    assert report.labels == {"no": 57, "yes": 3}
    assert report.count("rare_labels") == 1 and report.count("label_balance") == 2
    report = audit(write(tmp_path / "y.jsonl", [{**row, "label": "no"} for row in rows]))
    assert report.labels is None and report.count("one_answer") == 60


def test_leaks_between_files(tmp_path: Path) -> None:
    train, test = pairs(0, 300), pairs(300, 500)
    source = {
        "train": write(tmp_path / "train.jsonl", train),
        "test": write(tmp_path / "test.jsonl", test),
    }
    clean = audit(source)
    assert clean.leaks is not None and not clean.leaks.invalid and clean.leave_out == ()
    # One row of 200 is reported and left out, two of 200 (1 %) void the test.
    for copies, invalid in ((1, False), (2, True)):
        copied = [{"id": f"t{i}", **row} for i, row in enumerate(test)]
        for i in range(copies):
            copied[i] |= {"input": train[i]["input"].upper() + " ?", "output": "else"}
        write(tmp_path / "test.jsonl", copied)
        report = audit(source)
        assert report.leaks is not None and report.leaks.invalid is invalid
        assert report.leave_out == ("t0", "t1")[:copies]
        severity = {f.code: f.severity for f in report.findings}["leak_exact"]
        assert severity == ("error" if invalid else "warning")


def test_near_duplicates_are_left_out_and_loose_ones_reported(tmp_path: Path) -> None:
    long = "the quick brown fox jumps over the lazy dog near the old stone bridge by the river"
    rows = pairs(0, 100)
    train = [*rows, {"input": long, "output": "a"}, {"input": "one two three four five six"}]
    train[-1]["output"] = "b"
    test = pairs(100, 200)
    test[0]["input"] = long + " bank"
    test[1]["input"] = "six five four three two one"
    report = audit(
        {
            "train": write(tmp_path / "a.jsonl", train),
            "test": write(tmp_path / "b.jsonl", [{"id": f"t{i}", **r} for i, r in enumerate(test)]),
        }
    )
    assert report.leaks is not None and not report.leaks.invalid
    assert report.leaks.near_duplicate == ("t0",) == report.leave_out
    assert report.leaks.loose == ("t1",)
    assert report.leaks.overlap == ("t0",)


def test_groups_and_times_leak(tmp_path: Path) -> None:
    train = [{**r, "group": f"u{i % 9}", "time": i} for i, r in enumerate(pairs(0, 100))]
    test = [{**r, "group": f"v{i % 9}", "time": 100 + i} for i, r in enumerate(pairs(100, 150))]
    good = find_leaks(*_parts(tmp_path, train, test))
    assert not good.invalid and {"group", "time"} <= set(good.checked)
    test[0]["group"] = "u3"
    test[1]["time"] = 20
    bad = find_leaks(*_parts(tmp_path, train, test))
    assert len(bad.group) == len(bad.time) == 1 and bad.group != bad.time and bad.invalid


def _parts(tmp_path: Path, train: Any, test: Any) -> tuple[Any, Any, Any]:
    rows = [
        list(read_examples(write(tmp_path / f"{name}.jsonl", part)))
        for name, part in (("train", train), ("test", test))
    ]
    return rows[0], [], rows[1]


def test_a_template_in_the_users_turn_is_no_overlap(tmp_path: Path) -> None:
    template = (
        "Below stands a letter from one of our customers; read it and say in one word which "
        "team should answer it, and nothing else at all please. Letter: "
    )
    rows = [{"input": template + r["input"], "output": "x"} for r in pairs(0, 200)]
    leaks = find_leaks(*_parts(tmp_path, rows[:150], rows[150:]))
    assert leaks.exact == leaks.near_duplicate == leaks.overlap == ()


def test_rows_without_a_question_are_not_alike(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": f"s{i}"},
                {"role": "assistant", "content": "a"},
            ]
        }
        for i in range(30)
    ]
    leaks = find_leaks(*_parts(tmp_path, rows[:15], rows[15:]))
    assert leaks.exact == leaks.near_duplicate == ()


def test_banking77_passes_and_its_own_repeats_are_told(shared: Path) -> None:
    parts = [
        list(read_examples(shared / "data" / "banking77" / f"{name}.jsonl"))
        for name in ("train", "test")
    ]
    leaks = find_leaks(parts[0], [], parts[1])
    assert not leaks.invalid and len(leaks.exact) == 25
    # The exact share of word-set Jaccard 0.8 is 15.9 % of 3,080; MinHash finds most of them.
    loose = len(leaks.exact) + len(leaks.near_duplicate) + len(leaks.loose)
    assert 0.14 * 3080 < loose <= 0.16 * 3080
    assert 40 <= len(leaks.near_duplicate) <= 60


def test_recipes_share_a_system_prompt_and_do_not_leak(shared: Path) -> None:
    report = audit(shared / "data" / "recipes")
    assert report.rows == {"train": 101, "dev": 100}
    assert report.count("leak_dev") == 0 and report.count("near_duplicate") == 0
    folder = shared / "data" / "recipes"
    leaks = find_leaks(
        read_examples(folder / "train.jsonl"), [], read_examples(folder / "validation.jsonl")
    )
    assert not leaks.invalid and leaks.leave_out == ()


def test_nl2bash_and_xquad(shared: Path) -> None:
    report = audit(shared / "data" / "nl2bash" / "all.jsonl", near_duplicates=False)
    assert report.rows == {"train": 12607} and report.count("contradicting_answers") == 2131
    report = audit(shared / "data" / "xquad_en" / "qa.jsonl")
    assert report.rows == {"train": 1190} and report.count("exact_duplicate") == 2


def test_minhash_finds_what_brute_force_finds(shared: Path) -> None:
    path = shared / "data" / "nl2bash" / "all.jsonl"
    rows = [question_words(r) for r in list(read_examples(path))[:800]]
    index = NearDuplicates()
    for row in rows:
        index.add(word_hashes(row))
    found = index.pairs()
    index.close()
    linked = set(found.first.tolist()) | set(found.second.tolist())
    sets = [set(row) for row in rows]
    true = {
        i
        for i, a in enumerate(sets)
        for j in range(i)
        if len(a & sets[j]) >= 0.8 * len(a | sets[j])
        for i in (i, j)
    }
    assert linked <= true and len(linked) >= 0.97 * len(true) and len(true) > 50


def test_words_keep_what_tells_questions_apart() -> None:
    assert words("Hello, World!") == words("hello world") == ["hello", "world"]
    assert words("3 + 4") != words("3 * 4") and words("5 - -3") != words("5 - 3")
    assert words("good 😀") != words("good 😢")
    assert words("ＡＢＣ　私は猫") == ["abc", "私", "は", "猫"]
    assert words("top-up") == ["top", "up"]


def test_ngrams_and_shared_text() -> None:
    text = [f"w{i}" for i in range(20)]
    assert len(ngrams(word_hashes(text))) == 8 and len(ngrams(word_hashes(text[:12]))) == 0
    common = np.intersect1d(ngrams(word_hashes(text)), ngrams(word_hashes(["x", *text[:13]])))
    assert len(common) == 1
    shared_text = SharedText([["please", "sort", f"x{i}"] for i in range(20)])
    assert shared_text.words == set(word_hashes(["please", "sort"]))
    assert SharedText([["please"]] * 19).words == frozenset()


def test_a_spool_is_the_same_in_memory_and_on_disk() -> None:
    rows = [list(range(i)) for i in (3, 0, 5, 1)] * 50
    for limit in (2**20, 64):
        spool = Spool("u4", in_memory=limit)
        for row in rows:
            spool.append(row)
        assert [list(spool.row(i)) for i in range(len(spool))] == rows
        seen = [
            (first, lengths.tolist(), values.tolist()) for first, lengths, values in spool.pieces(7)
        ]
        assert sum(len(lengths) for _, lengths, _ in seen) == len(rows)
        assert [v for _, _, values in seen for v in values] == [v for row in rows for v in row]
        spool.close()


def test_tokens_and_epochs(tmp_path: Path) -> None:
    # The runs whose number of epochs OpenAI and Microsoft show in public.
    assert [default_epochs(n) for n in (101, 103, 10, 5, 3, 20_000)] == [3, 3, 10, 20, 25, 1]
    assert estimate_tokens("") == 0 and estimate_tokens("abcde") == 2
    rows = list(read_examples(write(tmp_path / "x.jsonl", [{"input": "a b", "output": "c"}])))
    stats = token_stats(rows, lambda text: len(text.split()))
    assert (stats.total, stats.assistant, stats.estimated) == (3 + 2 * 3 + 3, 1, False)


def test_fix_mends_what_is_safe_and_counts_it(tmp_path: Path) -> None:
    rows: list[Any] = pairs(0, 10)
    rows[1] |= {"output": " "}
    rows[2] |= {"output": "two  ", "group": "g", "time": "2026-01-01", "extra": {"k": 1}}
    rows += [rows[0], "{broken", {"input": "no answer"}]
    path = write(tmp_path / "x.jsonl", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert audit(path).count("byte_order_mark") == 1
    out = tmp_path / "fixed.jsonl"
    fixes = fix_file(path, out)
    assert fixes.counts == {
        "empty_answer": 1,
        "answer_whitespace": 1,
        "exact_duplicate": 1,
        "invalid_json": 1,
        "missing_column": 1,
    }
    assert (fixes.read, fixes.written) == (13, 9)
    fixed = list(read_examples(out))
    assert fixed[1].answer == "two" and fixed[1].group == "g"
    assert fixed[1].metadata == {"extra": {"k": 1}} and not out.read_bytes().startswith(b"\xef")
    again = audit(out)
    assert not [f for f in again.findings if f.safe_fix]
    with pytest.raises(UsageError, match="overwrite"):
        fix_file(out, out)
    with pytest.raises(UsageError, match="JSON Lines"):
        fix_file(path, tmp_path / "out.csv")


def test_nothing_to_audit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        audit(write(tmp_path / "x.jsonl", []))
    report = audit(write(tmp_path / "y.jsonl", ["{", "{"]))
    assert report.rows == {} and report.left_out == 2 and report.tokens.rows == 0


@pytest.mark.parametrize(
    "text",
    [
        "12345678901237 * 7 = ?",
        "What is 4111111111111111 + 1?",
        "4111111111111111 / 3",
        "The order 1234567890123 45 2 arrived.",
    ],
)
def test_a_number_in_a_calculation_is_no_card(text: str) -> None:
    assert "card" not in personal_data(text)


def test_a_card_number_in_a_sentence_is_one() -> None:
    assert "card" in personal_data("Charge 4111 1111 1111 1111, please.")
    assert "card" in personal_data("My card: 5500-0000-0000-0004")
