"""Distillation from a teacher's recorded log-probabilities, against plain computations."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training_support import gradients, save_small_model, setup_of, small_model, word_examples
from tunewise.errors import DataError, TrainingError
from tunewise.models.loading import load_local
from tunewise.models.names import parse_model
from tunewise.models.token_bytes import TokenBytes
from tunewise.study.fine_tune import Distill, FineTune
from tunewise.training import loss
from tunewise.training.items import Items, Ragged
from tunewise.training.job import TrainingJob
from tunewise.training.loop import train
from tunewise.training.methods import make_method
from tunewise.training.methods.base import Context
from tunewise.training.methods.distill import top_k_divergence
from tunewise.training.ready import encoder_of
from tunewise.training.rows import EncodedRow
from tunewise.training.teacher import Teacher, Vocabulary, read_answer

torch.set_num_threads(1)


@given(
    seed=st.integers(0, 10_000),
    places=st.integers(1, 9),
    width=st.integers(1, 6),
    softcap=st.sampled_from([None, 2.5]),
    sharp=st.sampled_from([0.3, 3.0, 30.0]),
)
@settings(max_examples=60, deadline=None)
def test_loss_and_gradients_are_those_of_a_plain_computation(seed, places, width, softcap, sharp):
    """In float64, chunk by chunk, over k tokens and the rest as one more."""
    r = np.random.default_rng(seed)
    vocabulary, dim = 23, 5
    hidden = torch.tensor(r.normal(size=(places, dim)) * sharp, requires_grad=True)
    head = torch.nn.Linear(dim, vocabulary, bias=bool(seed % 2)).double()
    tokens = torch.tensor(np.stack([r.permutation(vocabulary)[:width] for _ in range(places)]))
    recorded = r.dirichlet(np.full(vocabulary, 0.4), places)
    teacher = torch.tensor(recorded).gather(1, tokens).clamp(min=1e-12)
    teacher[r.random((places, width)) < 0.2] = 0.0  # not recorded, or found impossible
    weights = torch.tensor(r.random(places))

    logits = head(hidden)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    inside = torch.zeros(places, vocabulary, dtype=torch.bool).scatter(1, tokens, True)
    expected = torch.zeros((), dtype=torch.float64)
    for place in range(places):
        student = logits[place].softmax(-1)
        pairs = [
            *zip(teacher[place].tolist(), student[tokens[place]], strict=True),
            (1 - float(teacher[place].sum()), student[~inside[place]].sum()),
        ]
        terms = [p * (math.log(p) - q.log()) for p, q in pairs if p > 0]
        expected = expected + weights[place] * sum(terms) if terms else expected
    expected.backward()
    wanted = [hidden.grad.clone(), *(p.grad.clone() for p in head.parameters())]
    hidden.grad = None
    head.zero_grad()

    before, loss.CHUNK_LOGITS = loss.CHUNK_LOGITS, 3 * vocabulary
    try:
        logps, rest, right = loss.linear_top_k(hidden, head, tokens, softcap)
        got = (weights * top_k_divergence(logps, rest, teacher.log())).sum()
        got.backward()
    finally:
        loss.CHUNK_LOGITS = before
    assert got.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    for mine, theirs in zip(
        [hidden.grad, *(p.grad for p in head.parameters())], wanted, strict=True
    ):
        scale = max(1.0, float(theirs.abs().max()))
        assert (mine - theirs).abs().max().item() <= 1e-9 * scale
    assert right.tolist() == (logits.argmax(-1) == tokens[:, 0]).tolist()
    plain = loss.top_k_of(logits.detach(), tokens)
    assert (plain[0] - logps).abs().max().item() < 1e-9
    assert (plain[1] - rest).abs().max().item() < 1e-9


def taught_items(count: int) -> Items:
    """Rows with a shared beginning; of two in three the teacher's tokens are known in part."""
    r = np.random.default_rng(4)
    items = Items()
    tokens, log_probs = Ragged(np.int32), Ragged(np.float32)
    shared = r.integers(3, 97, 20).tolist()
    for number in range(count):
        tail = r.integers(3, 97, 6).tolist()
        ids = np.asarray([1, *shared, *r.integers(3, 97, number).tolist(), *tail], np.int32)
        weights = np.zeros(len(ids), np.float32)
        weights[-6:] = [1, 1, 0.5, 1, 1, 1]
        items.append([EncodedRow(f"row {number}", ids, weights)], number)
        width = 1 + number % 4
        own = np.repeat(ids[-6:, None], width, axis=1)
        found = np.full(own.shape, -np.inf, np.float32)
        if number % 3:
            for place in range(5):  # not the end of the turn
                others = r.permutation([i for i in range(3, 97) if i != own[place, 0]])
                own[place, 1:] = others[: width - 1]
                found[place] = np.log(r.dirichlet(np.ones(width)) * 0.9)
        tokens.append(own)
        log_probs.append(found)
    items.ragged = {"teacher_tokens": tokens, "teacher_log_probs": log_probs}
    return items


@pytest.mark.parametrize("flat", [True, False])
def test_a_model_learns_what_it_learns_one_row_at_a_time(flat):
    weight = 0.3
    fine_tune = FineTune(method="distill", distill={"divergence_weight": weight})
    network = small_model("qwen3")
    network.set_attn_implementation("eager")
    items = taught_items(7)
    expected = torch.zeros(())
    for item in items:
        (row,) = item.rows
        ids = torch.from_numpy(row.ids.astype(np.int64))
        logps = network(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1)
        tokens = item.values["teacher_tokens"].reshape(6, -1)
        teacher = np.exp(item.values["teacher_log_probs"].astype(np.float64)).reshape(6, -1)
        for place in range(6):
            at = logps[len(ids) - 6 + place - 1]
            share = weight if teacher[place].sum() else 0.0
            entropy = -at[ids[len(ids) - 6 + place]]
            rest = 1 - teacher[place].sum()
            divergence = torch.zeros(())
            if share:
                student = at.exp()[torch.from_numpy(tokens[place]).long()]
                for p, q in [*zip(teacher[place], student, strict=True), (rest, 1 - student.sum())]:
                    divergence = divergence + float(p) * (math.log(p) - q.log())
            each = (1 - share) * entropy + share * divergence
            expected = expected + float(row.weights[len(ids) - 6 + place]) * each
    total = sum(float(i.rows[0].weights.sum()) for i in items)
    (expected / total).backward()
    wanted = gradients(network)
    method = make_method(fine_tune)
    stub = SimpleNamespace(fine_tune=fine_tune)
    context = Context(stub, setup_of(network, flat=flat), 60, lambda _: None, lambda: False)
    got = 0.0
    parts = context.parts(items[:])
    assert len(parts) > 1
    for part in parts:
        found = method.loss(context, part)
        (found.summed / method.weigh(items[:])).backward()
        got += float(found.summed.detach())
        sums = (part.items[i].rows[0].weights.sum() * e for i, e in enumerate(found.each))
        assert sum(sums) == pytest.approx(float(found.summed.detach()), rel=1e-5)
    mine = gradients(network)
    assert got == pytest.approx(float(expected.detach()), rel=2e-5)
    scale = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert (mine[name] - gradient).abs().max().item() <= 3e-5 * scale, name


def test_some_of_the_items_keep_what_is_theirs():
    items = taught_items(6)
    some = items.subset([4, 1])
    for name in ("teacher_tokens", "teacher_log_probs"):
        assert (some[0].values[name] == items[4].values[name]).all()
        assert some[1].values[name].dtype == items[1].values[name].dtype
    assert items.digest() == taught_items(6).digest() != some.digest()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A student and another model as its teacher, with one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    save_small_model(folder / "student")
    save_small_model(folder / "teacher", initializer_range=0.4)
    return folder


def recorded(folder, examples, top: int = 5) -> dict[str, dict[str, Any]]:
    """What a chat completion of the teacher would say of these answers, as choices by row."""
    loaded = load_local(parse_model(str(folder / "teacher")))
    encoder = encoder_of(SimpleNamespace(fine_tune=FineTune(), prompt=None, date=None), loaded)
    name = TokenBytes(loaded.tokenizer)
    choices = {}
    for example in examples:
        row = encoder.encode(example)
        with torch.no_grad():
            ids = torch.from_numpy(row.ids.astype(np.int64))
            logps = loaded.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        content = []
        for at in np.flatnonzero(row.weights > 0)[:-1]:  # without the end of the turn
            best = logps[at - 1].topk(top)

            def entry(token, value):
                text = name(int(token))
                return {
                    "token": text.decode("utf-8", "replace"),
                    "bytes": list(text),
                    "logprob": float(value),
                }

            content.append(
                {
                    **entry(ids[at], logps[at - 1, ids[at]]),
                    "top_logprobs": [
                        entry(*b) for b in zip(best.indices, best.values, strict=True)
                    ],
                }
            )
        choices[example.id] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": example.answer, "refusal": None},
            "logprobs": {"content": content, "refusal": None},
        }
    return choices


@pytest.fixture
def job(models, tmp_path):
    rows = word_examples(32)
    found = recorded(models, rows)
    lines = [{"id": e.id, "answer": found[e.id]} for e in rows]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {"answers": str(tmp_path / "answers.jsonl"), "divergence_weight": 1.0}
    return TrainingJob(
        model=str(models / "student"),
        examples=rows[:24],
        dev=rows[24:],
        fine_tune=FineTune(method="distill", batch_size=8, lora={"rank": 8}, distill=options),
        learning_rate=2e-2,
        epochs=6,
        seed=1,
        output=tmp_path / "run",
        threads=1,
    )


def with_options(job: TrainingJob, **options: Any) -> TrainingJob:
    given = {**job.fine_tune.distill.model_dump(), **options}
    changed = {**job.fine_tune.model_dump(), "distill": given}
    return replace(job, fine_tune=FineTune.model_validate(changed))


def test_a_student_comes_nearer_to_its_teacher(job, tmp_path):
    events: list = []
    result = train(job, events.append)
    divergence = [e["train_divergence"] for e in events if e["event"] == "step"]
    assert np.mean(divergence[-3:]) < 0.7 * np.mean(divergence[:3])
    # All tokens but the end of the turn have a distribution; that one counts by its text.
    assert result.train_loss[-1] < result.train_loss[0]
    assert [e["code"] for e in events if e["event"] == "finding"] == []
    # Without its share the text alone is learnt: what supervised fine-tuning does.
    text = train(replace(with_options(job, divergence_weight=0.0), output=tmp_path / "text"))
    sft = replace(job, fine_tune=FineTune(method="sft", batch_size=8, lora={"rank": 8}))
    assert text.train_loss == train(replace(sft, output=tmp_path / "sft")).train_loss
    assert with_options(job, divergence_weight=0.25).key != job.key


def test_the_column_of_a_row_may_hold_a_choice(job, models, tmp_path):
    found = recorded(models, [*job.examples, *job.dev])
    given = {
        name: [replace(e, metadata={"said": found[e.id]}) for e in rows]
        for name, rows in (("examples", job.examples), ("dev", job.dev))
    }
    by_column = replace(with_options(job, answers=None, column="said"), **given)
    events: list = []
    train(replace(by_column, output=tmp_path / "column", max_steps=1), events.append)
    first = [e["loss"] for e in events if e["event"] == "step"]
    assert first == train(replace(job, output=tmp_path / "file", max_steps=1)).train_loss


def cut_otherwise(choice: dict[str, Any]) -> dict[str, Any]:
    """The same text in single bytes, as another tokenizer might cut it."""
    data = choice["message"]["content"].encode()
    one = {"logprob": -0.1, "top_logprobs": []}
    content = [{**one, "token": chr(byte), "bytes": [byte]} for byte in data]
    return {**choice, "logprobs": {"content": content}}


def rewrite(job: TrainingJob, change: Any) -> TrainingJob:
    path = job.output.with_name("answers.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(i, line)) + "\n" for i, line in enumerate(lines)))
    return replace(job)


def test_a_teacher_with_another_tokenizer_is_refused_or_told(job):
    def change(number, line):
        return {**line, "answer": cut_otherwise(line["answer"])} if number == 2 else line

    job = rewrite(job, change)
    with pytest.raises(TrainingError, match=r"into other tokens.*row 'row-2'") as caught:
        train(job)
    assert "on_mismatch: text" in caught.value.hint and not (job.output / "checkpoints").exists()
    events: list = []
    train(replace(with_options(job, on_mismatch="text"), max_steps=1), events.append)
    (finding,) = [e for e in events if e["event"] == "finding"]
    assert (finding["code"], finding["count"]) == ("teacher_tokens_not_used", 1)
    assert finding["severity"] == "warning" and finding["rows"] == ["row-2"]


def test_rows_without_log_probabilities_are_learnt_by_their_text_and_counted(job):
    def change(number, line):
        choice = {**line["answer"], "logprobs": None}
        return {**line, "answer": choice if number % 2 else choice["message"]["content"]}

    mixed = rewrite(job, lambda n, line: change(n, line) if n in (1, 2) else line)
    events: list = []
    train(replace(mixed, max_steps=1), events.append)
    assert [(e["code"], e["count"]) for e in events if e["event"] == "finding"] == [
        ("no_teacher_tokens", 2)
    ]


def test_tokens_are_matched_by_their_bytes(models):
    loaded = load_local(parse_model(str(models / "student")))
    tokenizer, vocabulary = loaded.tokenizer, Vocabulary(loaded.tokenizer)
    ids = tokenizer(" red ünd", add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    row = EncodedRow("r", np.asarray([5, *ids, end], np.int32), np.ones(len(ids) + 2, np.float32))
    row.weights[0] = 0
    pieces = [*map(TokenBytes(tokenizer), ids)]
    assert b"".join(pieces) == " red ünd".encode() and any(len(p) == 1 for p in pieces)

    def answer(*more: dict[str, Any], first_top: Any = ()):
        content = [{"token": "?", "bytes": list(p), "logprob": -0.5} for p in pieces]
        content[0]["top_logprobs"] = list(first_top)
        return read_answer(
            {"message": {"content": " red ünd"}, "logprobs": {"content": [*content, *more]}}, "here"
        )

    top = [
        {"token": "b", "bytes": None, "logprob": -2.0},
        {"token": "of a vocabulary that is not the student's", "logprob": -1.5},
        {"token": "", "bytes": list(pieces[0]), "logprob": -0.5},
        {"token": "tree", "logprob": -9999.0},  # what the API writes for a probability of 0
        {"token": "tree", "logprob": -9999.0},
    ]
    tokens, log_probs = vocabulary.align(row, answer(first_top=top))
    assert tokens.shape == log_probs.shape and len(tokens) == len(ids) + 1
    b = tokenizer.convert_tokens_to_ids("b")
    known = {int(t): float(v) for t, v in zip(tokens[0], log_probs[0], strict=True) if v > -9}
    assert known == {ids[0]: -0.5, b: -2.0}, "what the student lacks belongs to the rest"
    assert tokens[0, 0] == ids[0] and np.isinf(log_probs[-1]).all(), "the end was not recorded"
    # The end of the turn: the student's own is learnt, another's is no part of the text.
    own = {"token": tokenizer.eos_token, "bytes": None, "logprob": -0.25}
    assert vocabulary.align(row, answer(own))[1][-1, 0] == np.float32(-0.25)
    other = {"token": "<|another end|>", "bytes": None, "logprob": -0.25}
    assert np.isinf(vocabulary.align(row, answer(other))[1][-1]).all()
    # But a last token that is text must be the student's.
    cut = answer()
    short = replace(row, ids=row.ids[:-2], weights=row.weights[:-2])
    assert vocabulary.align(short, cut) is None


@pytest.mark.parametrize(
    "entry,message",
    [
        ({"token": "x"}, "cannot be read"),
        ({"token": "x", "logprob": 0.7}, r"0.7 is no log-probability"),
        ({"token": "x", "bytes": [300], "logprob": -1}, "cannot be read"),
        ({"token": "x", "bytes": 10**12, "logprob": -1}, "cannot be read"),
        (
            {"token": "x", "logprob": -0.1, "top_logprobs": [{"token": "y", "logprob": -0.1}]},
            r"add up to 1.810",
        ),
        ("x", "cannot be read"),
    ],
)
def test_log_probabilities_that_cannot_be_meant_name_their_line(tmp_path, entry, message):
    file = tmp_path / "answers.jsonl"
    line = {"id": "row-0", "answer": "x", "logprobs": {"content": [entry]}}
    file.write_text("\n" + json.dumps(line) + "\n")
    teacher = Teacher(Distill(answers=str(file)))
    (example,) = word_examples(1)
    with pytest.raises(DataError, match=message) as caught:
        teacher.answer(example)
    assert caught.value.where == f"{file}:2"
    assert "logprobs" in caught.value.hint


def test_a_log_probability_that_is_no_number_names_its_line(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "row-0", "answer": "x", "logprobs": {"content": [{"logprob": NaN}]}}\n')
    (example,) = word_examples(1)
    with pytest.raises(DataError, match="NaN is not a JSON value") as caught:
        Teacher(Distill(answers=str(file))).answer(example)
    assert caught.value.where == f"{file}:1"
