"""Rows with several right answers, as SQuAD and `references` have them: the best one counts."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli_support import jsonl, refused, tunewise
from tunewise.candidates.choosing import DevSearch
from tunewise.data.audit import audit
from tunewise.data.chat import Completion, Example, Request
from tunewise.data.findings import Problem
from tunewise.data.fix import fix_file
from tunewise.data.formats import to_row
from tunewise.data.propose import propose
from tunewise.data.read import read_examples
from tunewise.pipeline.measure import scored_items
from tunewise.scoring.base import ItemScore
from tunewise.scoring.best import score_answer, score_answers
from tunewise.scoring.registry import get_scorer
from tunewise.study.schema import Columns, FineTune, Study
from tunewise.training.job_files import RowFile, write_row
from tunewise.training.rewards import open_rewards

SQUAD = {
    "id": "56be4db0",
    "title": "Super_Bowl_50",
    "context": "Super Bowl 50 was played in Santa Clara, at Levi's Stadium.",
    "question": "Where was it played?",
    "answers": {
        "text": ["Santa Clara", "Levi's Stadium", "Santa Clara"],
        "answer_start": [28, 44, 28],
    },
}


def texts(row: Example) -> list[str]:
    return [row.answer, *(str(m["content"]) for m in row.references)]


def one(path: Path) -> Example:
    (row,) = read_examples(path)
    return row


def test_squad(tmp_path: Path) -> None:
    row = one(jsonl(tmp_path / "squad.jsonl", [SQUAD]))
    assert row.user_text == f"{SQUAD['context']}\n\n{SQUAD['question']}"
    assert (row.id, texts(row)) == ("56be4db0", ["Santa Clara", "Levi's Stadium"])
    assert row.metadata == {"title": "Super_Bowl_50"}
    proposal = propose(jsonl(tmp_path / "more.jsonl", [{**SQUAD, "id": i} for i in range(30)]))
    assert Study.model_validate(proposal.study).metric.name == "normalized_match"
    assert any("scored by the best" in reason for reason in proposal.reasons)


def test_squad_in_parquet_and_csv(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist([SQUAD]), tmp_path / "squad.parquet")
    cells = io.StringIO()
    writer = csv.DictWriter(cells, SQUAD)
    writer.writeheader()
    writer.writerow({**SQUAD, "answers": json.dumps(SQUAD["answers"])})
    (tmp_path / "squad.csv").write_text(cells.getvalue())
    for name in ("squad.parquet", "squad.csv"):
        row = one(tmp_path / name)
        assert texts(row) == ["Santa Clara", "Levi's Stadium"]
        assert row.user_text.endswith("Where was it played?")


def test_questions_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    empty = {**SQUAD, "id": "no", "answers": {"text": [], "answer_start": []}}
    path = jsonl(tmp_path / "squad.jsonl", [empty, SQUAD])
    problems: list[Problem] = []
    assert [row.id for row in read_examples(path, on_problem=problems.append)] == ["56be4db0"]
    assert [(p.code, p.where) for p in problems] == [("no_answer", f"{path}:1")]


USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"input": "q", "output": "a", "references": ["b", "a", "c"]}, ["a", "b", "c"]),
        ({"input": "q", "references": ["a", "b"]}, ["a", "b"]),
        ({"input": "q", "output": "", "references": ["a", "b"]}, ["a", "b"]),
        ({"prompt": "q", "references": '["a", "b"]'}, ["a", "b"]),
        ({"question": "q", "answers": ["a", "b"]}, ["a", "b"]),
        ({"query": "q", "answers": [{"text": "a", "answer_start": 1}, {"text": "b"}]}, ["a", "b"]),
        ({"instruction": "q", "output": "a", "references": ["b"]}, ["a", "b"]),
        ({"messages": [USER, BOT], "references": ["b"]}, ["a", "b"]),
        ({"messages": [USER], "references": ["a", BOT | {"content": "b"}]}, ["a", "b"]),
        ({"conversations": [{"from": "human", "value": "q"}], "references": ["a"]}, ["a"]),
        ({"question": "q", "answer": "a", "answers": ["x"]}, ["a"]),  # a column of its own
        ({"input": "q", "output": "a", "references": [{"url": "x"}]}, ["a"]),
    ],
)
def test_the_forms(tmp_path: Path, row: dict[str, Any], wanted: list[str]) -> None:
    found = one(jsonl(tmp_path / "rows.jsonl", [row]))
    assert (found.user_text, texts(found)) == ("q", wanted)
    again = one(jsonl(tmp_path / "again.jsonl", [to_row(found)]))
    assert texts(again) == wanted and again.id == found.id
    with (tmp_path / "job.jsonl").open("wb") as file:
        write_row(file, found)
    assert RowFile(tmp_path / "job.jsonl")[0].references == found.references


def test_a_column_of_references_with_another_name(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"input": "q", "output": "a", "gold": ["b"]}])
    (row,) = read_examples(path, columns=Columns(references="gold"))
    assert texts(row) == ["a", "b"]


ROW = Example(
    "r",
    ({"role": "user", "content": "q"}, {"role": "assistant", "content": "New York City"}),
    references=({"role": "assistant", "content": "NYC"}, {"role": "assistant", "content": "York"}),
)


class Plain:
    """A setting that asks the row's own prompt."""

    settings: dict[str, Any] = {}  # noqa: RUF012

    def request(self, example: Example) -> Request:
        return Request(example.prompt)


@pytest.mark.parametrize(
    ("answer", "score"), [("NYC", 1.0), ("New York City", 1.0), ("York", 1.0), ("Rome", 0.0)]
)
def test_every_way_of_scoring_takes_the_best(answer: str, score: float) -> None:
    scorer, completion = get_scorer("exact_match"), Completion(text=answer)
    assert score_answer(scorer, ROW, completion).value == score
    (item,) = scored_items("x", "dev", [ROW], [completion], scorer)
    assert item.score == score
    reward = open_rewards(FineTune.model_validate({"method": "grpo", "reward": "exact_match"}))
    assert list(reward([ROW], [completion])) == [score]
    search: DevSearch[Plain] = DevSearch(
        lambda asked, _: [completion for _ in asked], scorer, [ROW]
    )
    search.race([Plain()])
    assert search.settle().dev_score == score


@pytest.mark.parametrize(
    "grader",
    [
        {"type": "string_check", "operation": "eq", "reference": "{{item.answer}}"},
        {
            "type": "python",
            "source": "def grade(sample, item):\n"
            '    return float(sample["output_text"] == item["answer"])\n',
        },
        {
            "type": "python",
            "source": "def grade(sample, item):\n"
            "    return float(sample['output_text'] in item['references'])\n",
        },
    ],
    ids=["template", "python", "all"],
)
def test_graders_give_the_best_grade(grader: dict[str, Any]) -> None:
    more = {"name": "g"} | ({"input": "{{sample.output_text}}"} if "reference" in grader else {})
    reward = open_rewards(FineTune.model_validate({"method": "grpo", "grader": grader | more}))
    answers = ["NYC", "New York City", "York", "Rome"]
    own = replace(ROW, metadata={"answer": "Rome"})  # the row's own column is not written over
    given = [Completion(text=text) for text in answers]
    with closing(reward._run):  # type: ignore[attr-defined]
        assert list(reward([ROW] * 4, given)) == [1.0, 1.0, 1.0, 0.0]
        if "references" not in str(grader):
            assert list(reward([own] * 4, given)) == [0.0, 0.0, 0.0, 1.0]


def test_a_grader_that_does_not_read_the_answer_is_asked_once() -> None:
    source = (
        "def grade(sample, item):\n"
        '    return {"NYC": 0.25}.get(sample["output_text"], 0.0) + len(item["references"])\n'
    )
    grader = {"type": "python", "name": "g", "source": source}
    reward = open_rewards(FineTune.model_validate({"method": "grpo", "grader": grader}))
    with closing(reward._run):  # type: ignore[attr-defined]
        assert list(reward([ROW], [Completion(text="NYC")])) == [3.25]
    assert reward._run.graded == 1  # type: ignore[attr-defined]


def test_metrics_that_score_many_at_once_are_asked_once() -> None:
    calls: list[int] = []

    class Batch:
        name, binary, corpus = "b", True, False

        def score(self, example: Example, completion: Completion) -> ItemScore:
            raise AssertionError("one by one")

        def score_all(self, examples: Any, completions: Any, progress: Any = None) -> Any:
            calls.append(len(examples))
            pairs = zip(examples, completions, strict=True)
            return [ItemScore(float(e.answer == c.text)) for e, c in pairs]

        def aggregate(self, items: Any) -> float:
            return sum(i.value for i in items) / len(items)

    plain = Example("p", ROW.messages)
    given = [Completion(text="NYC")] * 3 + [Completion(error="refused")]
    found = score_answers(Batch(), [ROW, plain, ROW, ROW], given)
    assert [item.value for item in found] == [1.0, 0.0, 1.0, 0.0]
    assert calls == [3 + 1 + 3 + 1]


def test_a_study_counts_the_best_for_candidates_that_choose_and_on_test(tmp_path: Path) -> None:
    rows = [
        {"input": f"colour {i} {'sky' if i % 2 else 'leaf'}", "references": pair}
        for i in range(120)
        for pair in [["blue", "azure"] if i % 2 else ["green", "verdant"]]
    ]
    answers = [{"id": f"r{i}", "answer": ["verdant", "azure"][i % 2]} for i in range(120)]
    jsonl(tmp_path / "rows.jsonl", [{"id": f"r{i}", **row} for i, row in enumerate(rows)])
    jsonl(tmp_path / "answers.jsonl", answers)
    (tmp_path / "study.yaml").write_text(
        "name: s\nmetric: exact_match\ndata: {examples: rows.jsonl}\neffort: quick\ncandidates:\n"
        "  - classifier\n  - {name: others, kind: recorded, answers: answers.jsonl}\n"
    )
    verdict = tunewise("run", "study.yaml", "-q", "--json", cwd=tmp_path).json
    scores = {c["name"]: c["score"] for c in verdict["candidates"]}
    assert (scores["classifier"], scores["others"]) == (100.0, 100.0)


TEXTS = [{"id": f"t{i}", "text": f"A text about thing {i}.", "url": f"u{i}"} for i in range(20)]


def test_texts_alone_are_audited_and_proposed_for_pretraining(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "texts.jsonl", [*TEXTS, {**TEXTS[0], "id": "again"}])
    report = audit(path)
    assert report.rows == {"train": 21} and report.left_out == 0
    counts = {f.code: f.count for f in report.findings}
    assert counts == {"text_alone": 21, "exact_duplicate": 1}
    fix_file(path, tmp_path / "clean.jsonl")
    assert audit(tmp_path / "clean.jsonl").rows == {"train": 20}
    told = tunewise("init", "texts.jsonl", cwd=tmp_path).out
    assert "method pretrain" in told and told.rstrip().endswith("Next: tunewise train study.yaml")
    found = tunewise("train", "study.yaml", "--forecast", "--json", "-q", cwd=tmp_path).json
    assert found["rows"]["train"] + found["rows"]["dev"] == 21


def test_texts_alone_cannot_be_asked_about(tmp_path: Path) -> None:
    jsonl(tmp_path / "texts.jsonl", TEXTS)
    (tmp_path / "study.yaml").write_text(
        "name: s\nmodel: tunewise/tiny\nmetric: exact_match\ndata: {examples: texts.jsonl}\n"
    )
    says = ["nothing that is asked", "--method pretrain", "data.documents"]
    refused("run", "study.yaml", "-q", cwd=tmp_path, code=3, says=says)


def test_a_text_with_a_label_of_another_name_is_no_text_alone(tmp_path: Path) -> None:
    rows = [{"text": f"a text {i}", "Kategorie": "ab"[i % 2]} for i in range(20)]
    jsonl(tmp_path / "rows.jsonl", rows)
    says = ["--columns input=text,output=Kategorie"]
    refused("audit", "rows.jsonl", cwd=tmp_path, code=3, says=says)
