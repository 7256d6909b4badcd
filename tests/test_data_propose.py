"""A proposed study is valid, and says why it is as it is. Documents for retrieval are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewise.data.documents import read_documents
from tunewise.data.propose import Proposal, propose
from tunewise.errors import DataError
from tunewise.pipeline.propose import write_study
from tunewise.study.loading import load_study
from tunewise.study.schema import Columns, Forgetting, Study

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
KINDS: list[tuple[str, list[Any]]] = [
    ("accuracy", ["yes", "no"]),
    ("json_fields", ['{"a": 1}', '{"b": "x"}']),
    ("list_f1", ['["a", "b"]', "[]"]),
    ("numeric", [f"{i}.5" for i in range(40)]),
    ("normalized_match", [f"Mr Number {i}" for i in range(40)]),
    ("token_f1", [f"a sentence with {i} words, " * 4 for i in range(40)]),
    ("rouge_l", [f"a long text with {i} words, " * 30 for i in range(40)]),
]


def file(tmp_path: Path, answers: list[Any], **more: Any) -> Path:
    path = tmp_path / "my data.jsonl"
    rows = [{"input": f"q{i}", "output": answers[i % len(answers)], **more} for i in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def valid(proposal: Proposal) -> Study:
    assert proposal.reasons
    return Study.model_validate(proposal.study)


@pytest.mark.parametrize(("metric", "answers"), KINDS)
def test_the_metric_fits_the_answers(tmp_path: Path, metric: str, answers: list[Any]) -> None:
    proposal = propose(file(tmp_path, answers))
    study = valid(proposal)
    assert study.metric.name == metric and study.name == "my-data"
    assert any(f"metric {metric}" in reason for reason in proposal.reasons)
    kinds = [c.kind for c in study.candidates or []]
    assert ("classifier" in kinds) == (metric in ("accuracy", "list_f1"))
    assert any("40 rows leave 13 to test on" in warning for warning in proposal.warnings)


def test_tool_calls_prompts_and_retrieval(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    row = {
        "messages": [
            {"role": "system", "content": "Use tools."},
            {"role": "user", "content": "q"},
            {"role": "assistant", "tool_calls": [CALL]},
        ]
    }
    path.write_text("\n".join(json.dumps({**row, "id": i}) for i in range(10)))
    study = valid(propose(path))
    assert study.metric.name == "tool_calls" and study.prompt is None
    assert study.name == tmp_path.name[:64]
    documents = tmp_path / "docs"
    proposal = propose(file(tmp_path, ["yes", "no"], doc_id=1), documents=documents)
    study = valid(proposal)
    assert "rag" in [c.kind for c in study.candidates or []]
    assert study.data.documents == str(documents) and "no, yes" in str(study.prompt)


def test_the_column_map_and_splits_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("f,a,t\n" + "".join(f"q{i},a{i},2026-01-{i + 1:02d}\n" for i in range(20)))
    proposal = propose(path, columns=Columns(input="f", output="a", time="t"))
    assert valid(proposal).data.columns.input == "f"
    assert any("splits by time" in reason for reason in proposal.reasons)
    path.write_text("f,a\n")
    with pytest.raises(DataError, match="no rows"):
        propose(path)


def test_real_data(shared: Path) -> None:
    expected = {
        "banking77": ("accuracy", "classifier"),
        "recipes": ("list_f1", "fine_tuned"),
        "snips/train.jsonl": ("json_fields", "fine_tuned"),
        "xquad_en/qa.jsonl": ("normalized_match", "few_shot"),
    }
    for name, (metric, kind) in expected.items():
        study = valid(propose(shared / "data" / name))
        assert study.metric.name == metric and kind in [c.kind for c in study.candidates or []]


def test_documents_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.md").write_text("# Title here\n\nText")
    (tmp_path / "sub" / "b.txt").write_bytes("\ufeffÖl".encode())
    (tmp_path / "c.pdf").write_text("not read")
    found = read_documents(tmp_path)
    assert [(d.id, d.title) for d in found] == [("a.md", "Title here"), ("sub/b.txt", "")]
    assert found[1].text == "Öl"
    (tmp_path / "d.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="byte offset 0"):
        read_documents(tmp_path)


def test_documents_from_tables(tmp_path: Path, shared: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("id,text,title\n7,Seven,T\n8,Eight,\n")
    assert [(d.id, d.text, d.title) for d in read_documents(path)] == [
        ("7", "Seven", "T"),
        ("8", "Eight", ""),
    ]
    corpus = read_documents(shared / "data" / "xquad_en" / "corpus.jsonl")
    assert len(corpus) == 240 and corpus[0].id == "0" and corpus[0].title == "Super_Bowl_50"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}', "two documents have the id '1'"),
        ('{"id": 1}', "the document has no text"),
        ("[1]", "not a JSON object"),
        ('{"id": 1, "te', "in the middle of a row"),
        ("", "no documents"),
    ],
)
def test_documents_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_documents(path)
    with pytest.raises(DataError, match="no such file"):
        read_documents(tmp_path / "none.txt")
    with pytest.raises(DataError, match="no documents"):
        read_documents(_empty(tmp_path))


def _empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir(exist_ok=True)
    return folder


def test_lists_of_labels_are_named_in_the_prompt_and_get_a_classifier(tmp_path: Path) -> None:
    labels = ["anger", "joy", "neutral"]
    rows = [
        {"input": f"text {i}", "output": json.dumps(labels[: i % 3 + 1] if i % 2 else labels[1:])}
        for i in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = propose(path).study
    assert study["metric"] == "list_f1"
    assert "classifier" in study["candidates"]
    assert all(label in study["prompt"] for label in labels)


def test_the_study_says_what_forgetting_does(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"input": f"text {i}", "output": "ab"[i % 2]} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = write_study(str(path), tmp_path / "study.yaml")
    text = written.path.read_text()
    above, _, block = text.partition("\nforgetting:\n")
    assert "suite: general" in block and "veto: false" in block
    comment = above.splitlines()[-3:]
    assert all(line.startswith("# ") for line in comment)
    told = " ".join(comment)
    assert "veto" in told and "must_pass" in told
    assert load_study(written.path).study.forgetting == Forgetting()


def test_a_note_in_the_study_reads_as_one_text(tmp_path: Path) -> None:
    written = write_study(str(file(tmp_path, ["yes", "no"])), tmp_path / "study.yaml")
    lines = [x for x in written.path.read_text().splitlines() if x.startswith("#")]
    told = " ".join(line.removeprefix("# ") for line in lines)
    assert written.proposal.warnings
    for warning in written.proposal.warnings:
        assert f"Note: {warning}" in told
