"""Templates that write the day's date: one date for all that is trained and asked together."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("peft")

from models_support import make_tokenizer
from server_support import chats, client, finished, running_server, upload_rows
from training_support import save_small_model, word_examples
from tunewise.data.chat import Example, Request
from tunewise.errors import TrainingError
from tunewise.models.engine import Engine
from tunewise.models.loading import load_local
from tunewise.models.local_engine import LocalEngine
from tunewise.models.names import parse_model
from tunewise.models.opening import open_engine
from tunewise.models.template_date import with_date
from tunewise.models.trained_as import trained_as
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import run_study
from tunewise.study.loading import load_study
from tunewise.study.schema import FineTune
from tunewise.training.encode import Encoder
from tunewise.training.job import TrainingJob, TrainingStopped
from tunewise.training.job_files import read_job, write_job
from tunewise.training.loop import train
from tunewise.workspace import Workspace

TEMPLATES = Path(__file__).parent / "chat_templates"
CLOCK = Path(__file__).parent / "fake_clock"
# Written out, these are of different lengths, so that numbers of tokens tell them apart.
BEFORE, AFTER, LATER = "2031-05-06", "2031-11-30", "2032-09-17"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template writes the date into the system turn."""
    folder = save_small_model(tmp_path_factory.mktemp("model"))
    template = (TEMPLATES / "smollm3.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder


@pytest.fixture
def today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the date of this process, and of those that it starts."""
    from tunewise.models import template_date

    spec = importlib.util.spec_from_file_location("fake_clock", CLOCK / "sitecustomize.py")
    assert spec is not None and spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    monkeypatch.setattr(template_date, "dt", fake.CLOCK)
    place = tmp_path / "today"
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("FAKE_TODAY", str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CLOCK), *([path] if path else [])]))

    def set_to(date: str) -> None:
        place.write_text(date)

    set_to(BEFORE)
    return set_to


def encoder(model: Path, date: str) -> Encoder:
    loaded = load_local(parse_model(str(model)))
    return Encoder(loaded.tokenizer, loaded.end_ids, date=date)


def prompts(engine: Engine, requests: list[Request]) -> list[Any]:
    """The tokens that a local engine asks its model with."""
    assert isinstance(engine, LocalEngine)
    return engine._prompts(engine._texts(requests))


def tokens_of(model: Path) -> Callable[[Example], int]:
    """Tokens of a row as it is trained with the date of the first day."""
    one = encoder(model, BEFORE)
    return lambda example: len(one.encode(example).ids)


def job_on(model: Path, output: Path, **options: Any) -> TrainingJob:
    rows = word_examples(20)
    return TrainingJob(
        model=str(model),
        examples=rows[:16],
        dev=rows[16:],
        fine_tune=FineTune(batch_size=4, precision="float32", lora={"rank": 4}),
        learning_rate=5e-3,
        epochs=2,
        seed=1,
        output=output,
        threads=1,
        **options,
    )


def test_a_template_with_a_date_is_what_transformers_makes_of_it_on_that_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datetime as dt

    from transformers.utils import chat_template_utils

    class Then(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Then:
            return cls(2031, 5, 6, tzinfo=tz)

    monkeypatch.setattr(chat_template_utils, "datetime", Then)
    tokenizer = make_tokenizer()
    messages = [{"role": "user", "content": "Hello"}]
    odd = [
        "\n {% if messages %}x{% endif %}\n{{ strftime_now('%d.%-m. %B %H') }}",
        "  {% if strftime_now is defined %}{{ strftime_now('%Y') + 'a' }}{% endif %}\n",
        "\n\n{{ strftime_now('%A %e %b') | upper }}{% set d = '%d %b' %}{{ strftime_now(d) }}",
        "{% macro f() %}{{ strftime_now('%x') }}{% endmacro %}\n{{ f() }}",
    ]
    texts = [path.read_text("utf-8") for path in sorted(TEMPLATES.glob("*.jinja"))]
    dated = 0
    for template in [*texts, *odd]:
        wanted = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        given = with_date(template, BEFORE)
        dated += given != template
        found = tokenizer.apply_chat_template(messages, chat_template=given, tokenize=False)
        assert found == wanted
    assert dated == len(odd) + sum("strftime_now" in text for text in texts) > len(odd)


def test_a_run_that_goes_on_after_midnight_learns_the_same(
    model: Path, tmp_path: Path, today: Callable[[str], None]
) -> None:
    whole = train(job_on(model, tmp_path / "whole"))
    events: list[dict[str, Any]] = []
    job = job_on(model, tmp_path / "run", checkpoint_seconds=0.0)
    write_job(job, tmp_path / "job")
    with pytest.raises(TrainingStopped):
        train(job, events.append, stop=lambda: sum(e["event"] == "step" for e in events) >= 3)
    today(AFTER)
    job = read_job(tmp_path / "job")
    result = train(job, events.append)
    assert [e["date"] for e in events if e["event"] == "date"] == [BEFORE, BEFORE]
    assert any(e["event"] == "resume" for e in events)
    assert result.train_loss == whole.train_loss and result.tokens == whole.tokens
    assert result.adapter is not None and whole.adapter is not None
    weights = "adapter_model.safetensors"
    assert (result.adapter / weights).read_bytes() == (whole.adapter / weights).read_bytes()
    assert trained_as(result.adapter).date == BEFORE
    assert result.tokens == 2 * sum(map(tokens_of(model), job.examples))
    assert "06 May 2031" in job_text(model, job)

    # Asked on a later day, the tuned model sees what it learnt from; another model sees that day.
    today(LATER)
    row = job.examples[0]
    tuned, base = (open_engine(str(model), adapter=a) for a in (result.adapter, None))
    asked = [Request(row.prompt)]
    assert prompts(tuned, asked) == [encoder(model, BEFORE).encode_prompt(row)]
    assert prompts(base, asked) == [encoder(model, LATER).encode_prompt(row)]
    assert base.revision.endswith(f"@{LATER}") and tuned.revision.endswith(f"@{BEFORE}")


def job_text(model: Path, job: TrainingJob) -> str:
    """What the first row is trained with."""
    one = encoder(model, job.date or "")
    return str(one.tokenizer.decode(one.encode(job.examples[0]).ids))


def test_the_date_is_part_of_a_jobs_key_only_where_the_template_writes_one(
    model: Path, tmp_path: Path
) -> None:
    plain = save_small_model(tmp_path / "plain")
    for folder, differs in ((model, True), (plain, False)):
        first = job_on(folder, tmp_path / "run", date=BEFORE)
        assert (first.key != replace(first, date=AFTER).key) is differs
    # A job of an earlier release has no date, and goes on without one.
    write_job(job_on(model, tmp_path / "run", date=None), tmp_path / "job")
    path = tmp_path / "job" / "job.json"
    value = json.loads(path.read_text())
    del value["date"]
    path.write_text(json.dumps(value))
    assert read_job(tmp_path / "job").date is None


def test_all_weights_keep_their_date_and_pass_it_on(
    model: Path, tmp_path: Path, today: Callable[[str], None]
) -> None:
    from tunewise.training.job import date_of

    job = job_on(model, tmp_path / "run")
    result = train(replace(job, fine_tune=FineTune(adapter="full", batch_size=4), epochs=1))
    assert result.model is not None
    today(LATER)
    engine = open_engine(str(result.model), date=LATER)
    row = job.examples[0]
    wanted = encoder(model, BEFORE).encode_prompt(row)
    assert prompts(engine, [Request(row.prompt)]) == [wanted]
    assert date_of(str(result.model), None, LATER) == BEFORE
    assert date_of(str(model), None, LATER) == LATER


@pytest.mark.parametrize("kind", ["judge", "grader"])
def test_who_grades_within_a_training_is_given_the_trainings_date(
    kind: str,
    model: Path,
    tmp_path: Path,
    today: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dates: list[str] = []
    answer = LocalEngine.answer

    def noted(self: LocalEngine, *given: Any, **more: Any) -> Any:
        if any("Grade" in str(m["content"]) for r in given[0] for m in r.messages):
            dates.append(self.date)
        return answer(self, *given, **more)

    monkeypatch.setattr(LocalEngine, "answer", noted)
    asked = {"role": "user", "content": "Grade {{sample.output_text}}?"}
    grader = {"type": "score_model", "name": "g", "model": str(model), "input": [asked]}
    judge = {"name": "judge", "options": {"model": str(model), "criteria": "Grade it."}}
    what = {"judge": {"reward": judge}, "grader": {"grader": grader}}[kind]
    tuned = {"method": "grpo", "batch_size": 2, "grpo": {"samples": 2, "max_tokens": 2}, **what}
    job = job_on(model, tmp_path / "run", date=BEFORE)
    today(LATER)
    with contextlib.suppress(TrainingError):  # a model of noise gives no grades to learn from
        train(replace(job, fine_tune=FineTune.model_validate(tuned), epochs=1))
    assert dates and set(dates) == {BEFORE}


def test_a_study_keeps_the_date_of_its_first_run(
    model: Path, tmp_path: Path, today: Callable[[str], None]
) -> None:
    def rows(count: int, start: int) -> str:
        words = ("fire", "ice", "sun", "snow", "soup", "frost", "stove", "hail")
        lines = (
            # Every seventh label is wrong: a perfect baseline would end the study before training.
            {"input": f"Note {n}: {words[n % 8]}.", "output": "hot" if n % 2 or n % 7 else "cold"}
            for n in range(start, start + count)
        )
        return "".join(json.dumps(line) + "\n" for line in lines)

    for name, count, start in (("train", 40, 0), ("dev", 16, 1000), ("test", 16, 2000)):
        (tmp_path / f"{name}.jsonl").write_text(rows(count, start))
    study: dict[str, Any] = {
        "name": "dated",
        "model": str(model),
        "data": {name: f"{name}.jsonl" for name in ("train", "dev", "test")},
        "metric": "exact_match",
        "candidates": ["zero_shot", "fine_tuned"],
        "fine_tune": {"epochs": 1, "learning_rate": 0.005, "seeds": [1]},
        "forgetting": {"suite": None},
        "output": {"max_tokens": 4},
        "effort": "quick",
    }
    workspace = Workspace(tmp_path / "workspace")

    def run() -> Any:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(study))
        return run_study(load_study(path), workspace, SilentReporter()).verdict

    first = run()
    assert first.reproducibility["date in prompts"] == BEFORE
    tuned = Path(first.training[0].tuned_model)
    assert trained_as(tuned).date == BEFORE
    answers = sorted((workspace.root / "answers").rglob("*"))
    today(LATER)
    again = run()
    assert again.model_copy(update={"created": first.created}) == first
    study["target"] = {"minimal_gain": 1}
    study["metric"] = "contains"
    changed = run()
    assert changed.reproducibility["date in prompts"] == BEFORE
    assert changed.training[0].tuned_model == str(tuned), "nothing was trained again"
    assert sorted((workspace.root / "answers").rglob("*")) == answers, "nothing was asked again"
    # Other rows are another question.
    (tmp_path / "train.jsonl").write_text(rows(41, 0))
    study["candidates"] = ["zero_shot"]
    other = run()
    assert other.reproducibility["date in prompts"] == LATER


@pytest.mark.soak
def test_a_servers_job_is_trained_and_asked_with_one_date(
    model: Path, tmp_path: Path, today: Callable[[str], None]
) -> None:
    rows = [json.loads(line) for line in chats(12).splitlines()]
    examples = [Example(f"{n}", tuple(row["messages"])) for n, row in enumerate(rows)]
    with (
        running_server(tmp_path, models={"dated": str(model)}, worker_threads=1) as server,
        client(server) as api,
    ):
        job = api.fine_tuning.jobs.create(
            model="dated",
            training_file=upload_rows(api, rows),
            method={
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 20, "batch_size": 1}},
            },
        )

        def told() -> list[str]:
            events = api.fine_tuning.jobs.list_events(job.id, limit=100)
            return [event.message for event in events.data]

        end = time.monotonic() + 100
        while not any(message.startswith("Step ") for message in told()):
            assert time.monotonic() < end, told()
            time.sleep(0.05)
        api.fine_tuning.jobs.pause(job.id)
        today(AFTER)
        api.fine_tuning.jobs.resume(job.id)
        done = finished(api, job.id)
        assert any("goes on from step" in e.message for e in events_of(api, job.id))
        assert sum(BEFORE in e.message for e in events_of(api, job.id)) == 1
        learnt = sum(map(tokens_of(model), examples))
        assert done.trained_tokens == 20 * learnt

        today(LATER)
        asked = api.chat.completions.create(
            model=done.fine_tuned_model, messages=rows[0]["messages"][:1], max_tokens=3
        )
        wanted, wrong = (
            len(encoder(model, date).encode_prompt(examples[0])) for date in (BEFORE, LATER)
        )
        assert asked.usage is not None
        assert asked.usage.prompt_tokens == wanted != wrong
        # A further job on the tuned model is trained, and asked, with the date of the first.
        child = api.fine_tuning.jobs.create(
            model=done.fine_tuned_model,
            training_file=upload_rows(api, rows),
            hyperparameters={"n_epochs": 1},
        )
        assert finished(api, child.id).trained_tokens == learnt


def events_of(api: Any, job_id: str) -> list[Any]:
    """All events of a job."""
    return list(api.fine_tuning.jobs.list_events(job_id, limit=100))
