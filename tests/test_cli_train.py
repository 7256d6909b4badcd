"""`tunewise train` from flags alone: the study behind them, the rows, the run and what it says."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli_support import jsonl, tunewise
from training_support import WORDS, save_small_model
from tunewise.cli.show import training_words
from tunewise.data.chat import Request
from tunewise.errors import DataError, StudyError, TrainingError, UsageError
from tunewise.models.opening import open_engine
from tunewise.pipeline.alone import explain_study, train_study
from tunewise.pipeline.audits import row_tokens
from tunewise.pipeline.quick import training_study
from tunewise.pipeline.reporter import SilentReporter
from tunewise.pipeline.run import plan_study, training_usd
from tunewise.pipeline.session import open_session
from tunewise.pipeline.sources import sources_of
from tunewise.pipeline.training_rows import TrainingRows, read_training_rows
from tunewise.report.token_page import render_tokens
from tunewise.routes.base import Forecast
from tunewise.study.loading import LoadedStudy, load_study
from tunewise.workspace import Workspace


def _rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        a, b = draw.choice(WORDS), draw.choice(WORDS)
        rows.append({"prompt": f"{a} {b} {number}", "completion": f"{b} {a}"})
    return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    save_small_model(folder / "model")
    jsonl(folder / "rows.jsonl", _rows(40))
    return folder


FLAGS: dict[str, tuple[str, Any]] = {
    "--method": ("fine_tune.method", "orpo"),
    "--adapter": ("fine_tune.adapter", "full"),
    "--epochs": ("fine_tune.epochs", 2.0),
    "--learning-rate": ("fine_tune.learning_rate", 2e-4),
    "--batch-size": ("fine_tune.batch_size", 6),
    "--max-length": ("fine_tune.max_length", 99),
    "--seed": ("fine_tune.seeds", [7]),
    "--report-to": ("fine_tune.report_to", ["tensorboard"]),
}


def test_flags_mean_what_the_keys_of_a_study_file_mean(place: Path) -> None:
    model = {"--model": ("model", str(place / "model"))}
    by_flags = training_study(str(place / "rows.jsonl"), {**model, **FLAGS}).study.fine_tune
    lines = "".join(f"  {key.split('.')[1]}: {json.dumps(v)}\n" for key, v in FLAGS.values())
    file = place / "flags.yaml"
    file.write_text(
        f"name: s\nmodel: ./model\ndata: {{train: rows.jsonl}}\nmetric: exact_match\n"
        f"fine_tune:\n{lines}"
    )
    assert load_study(file).study.fine_tune == by_flags
    file.write_text("name: s\nmodel: ./model\ndata: {train: rows.jsonl}\nmetric: exact_match\n")
    assert training_study(str(file), FLAGS).study.fine_tune == by_flags


@pytest.mark.parametrize(
    ("flag", "key", "value", "says"),
    [
        ("--epochs", "fine_tune.epochs", -1.0, "greater than 0"),
        ("--adapter", "fine_tune.adapter", "loar", "lora"),
        ("--batch-size", "fine_tune.batch_size", 0, "greater than 0"),
        ("--learning-rate", "fine_tune.learning_rate", float("nan"), ""),
        ("--dev", "data.dev", "nowhere.jsonl", "no such file"),
    ],
)
def test_errors_name_the_flag(place: Path, flag: str, key: str, value: Any, says: str) -> None:
    flags = {"--model": ("model", str(place / "model")), flag: (key, value)}
    with pytest.raises(StudyError) as error:
        training_study(str(place / "rows.jsonl"), flags)
    assert error.value.where == flag
    assert says in error.value.message


def test_what_else_can_be_wrong(place: Path) -> None:
    with pytest.raises(UsageError, match="which model"):
        training_study(str(place / "rows.jsonl"), {})
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        training_study(str(place / "rows.jsnl"), {"--model": ("model", "tunewise/tiny")})


def test_an_unknown_key_is_named_with_its_option(place: Path) -> None:
    model = {"--model": ("model", str(place / "model"))}
    with pytest.raises(StudyError) as error:
        training_study(str(place / "rows.jsonl"), model, ["fine_tune.epohcs=2"])
    assert "--set fine_tune.epohcs" in str(error.value)


def _read(study: LoadedStudy, folder: Path, **more: Any) -> TrainingRows:
    (spec,) = study.study.candidates or ()
    return read_training_rows(study.study, spec, folder / "work", SilentReporter(), **more)


def _study(place: Path, rows: Path, **flags: tuple[str, Any]) -> LoadedStudy:
    return training_study(str(rows), {"--model": ("model", str(place / "model")), **flags})


def test_a_tenth_is_for_dev_and_nothing_is_lost(place: Path, tmp_path: Path) -> None:
    rows = _rows(400)
    found = _read(_study(place, jsonl(tmp_path / "rows.jsonl", rows)), tmp_path)
    assert (len(found.train), len(found.dev), found.held_out) == (360, 40, 0)
    asked = {e.user_text for e in (*found.train, *found.dev)}
    assert asked == {r["prompt"] for r in rows}
    # By content: another order of the same rows, the same dev.
    random.Random(1).shuffle(rows)
    again = _read(_study(place, jsonl(tmp_path / "other.jsonl", rows)), tmp_path)
    assert {e.user_text for e in again.dev} == {e.user_text for e in found.dev}
    whole = _read(_study(place, tmp_path / "rows.jsonl"), tmp_path, with_dev=False)
    assert (len(whole.train), len(whole.dev)) == (400, 0)


def test_few_rows_still_give_some_to_dev(place: Path, tmp_path: Path) -> None:
    found = _read(_study(place, jsonl(tmp_path / "rows.jsonl", _rows(40))), tmp_path)
    assert (len(found.train), len(found.dev)) == (32, 8)
    few = _read(_study(place, jsonl(tmp_path / "few.jsonl", _rows(3))), tmp_path)
    assert (len(few.train), len(few.dev)) == (3, 0)


def test_groups_and_equal_questions_stay_on_one_side(place: Path, tmp_path: Path) -> None:
    rows = [{**r, "group": f"g{i % 50}"} for i, r in enumerate(_rows(400))]
    found = _read(_study(place, jsonl(tmp_path / "rows.jsonl", rows)), tmp_path)
    assert {e.group for e in found.dev}.isdisjoint({e.group for e in found.train})
    assert 30 <= len(found.dev) <= 50
    twice = [*_rows(100), *[{**r, "completion": "other"} for r in _rows(100)]]
    found = _read(_study(place, jsonl(tmp_path / "twice.jsonl", twice)), tmp_path)
    assert {e.user_text for e in found.dev}.isdisjoint({e.user_text for e in found.train})


def test_rows_that_call_themselves_test_are_not_learnt(place: Path, tmp_path: Path) -> None:
    names = ["train", "test", "dev", None]
    rows = [{**r, "split": names[i % 4]} for i, r in enumerate(_rows(40))]
    found = _read(_study(place, jsonl(tmp_path / "rows.jsonl", rows)), tmp_path)
    assert (len(found.train), len(found.dev), found.held_out) == (20, 10, 10)


def test_a_prompt_of_the_study_stands_in_each_row(place: Path, tmp_path: Path) -> None:
    study = _study(place, place / "rows.jsonl", prompt=("prompt", "Turn the words around."))
    found = _read(study, tmp_path)
    assert found.train[0].messages[0] == {"role": "system", "content": "Turn the words around."}
    assert found.train[:2] == [found.train[0], found.train[1]]


def test_weights_of_earlier_turns_are_kept(place: Path, tmp_path: Path) -> None:
    turn = [
        {"role": "user", "content": "red green"},
        {"role": "assistant", "content": "wrong", "weight": 0},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "green red"},
    ]
    rows = jsonl(tmp_path / "rows.jsonl", [{"messages": turn}] * 4)
    found = _read(_study(place, rows, prompt=("prompt", "Turn them.")), tmp_path)
    assert [m.get("weight") for m in found.train[0].messages] == [None, None, 0, None, None]


PAIRS = [{"prompt": r["prompt"], "chosen": r["completion"], "rejected": "no"} for r in _rows(30)]
METHODS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "sft": (_rows(30), []),
    "distill": ([{**r, "teacher": "blue sun"} for r in _rows(30)], []),
    "pretrain": ([{"id": str(i), "text": r["prompt"] * 9} for i, r in enumerate(_rows(30))], []),
    "dpo": (PAIRS, ["fine_tune.dpo.beta=0.3"]),
    "orpo": (PAIRS, []),
    "kto": (PAIRS, []),
    "reward": (PAIRS, []),
    "grpo": (_rows(30), ["fine_tune.reward=exact_match"]),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_reached_and_explained(place: Path, tmp_path: Path, method: str) -> None:
    rows, overrides = METHODS[method]
    flags = {
        "--model": ("model", str(place / "model")),
        "--method": ("fine_tune.method", method),
        "--max-length": ("fine_tune.max_length", 128),
    }
    study = training_study(str(jsonl(tmp_path / "rows.jsonl", rows)), flags, overrides)
    found = explain_study(study, Workspace(tmp_path / "home"), SilentReporter())
    by_name = {s.name: s for s in found}
    assert by_name["max_length"].given and by_name["max_length"].value == 128
    assert not by_name["epochs"].given and all(s.reason for s in found)
    assert by_name["steps"].value > 0
    if method == "dpo":
        assert (by_name["dpo.beta"].value, by_name["dpo.beta"].given) == (0.3, True)
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_hosted_model_and_an_unknown_method_are_refused(place: Path, tmp_path: Path) -> None:
    home = Workspace(tmp_path / "home")
    flags = {"--model": ("model", str(place / "model")), "--method": ("fine_tune.method", "sfd")}
    study = training_study(str(place / "rows.jsonl"), flags)
    with pytest.raises(TrainingError, match="no such method") as error:
        explain_study(study, home, SilentReporter())
    assert error.value.where == "--method"
    study = training_study(str(place / "rows.jsonl"), {"--model": ("model", "openai:gpt-x")})
    with pytest.raises(StudyError, match="cannot be fine-tuned"):
        explain_study(study, home, SilentReporter())


def test_from_rows_to_an_adapter_and_what_was_explained_is_what_ran(place: Path) -> None:
    flags = ["--model", "model", "--epochs", "1", "--learning-rate", "0.01", "--seed", "3"]
    home = {"TUNEWISE_HOME": str(place / "home")}
    prompt = ["--set", "prompt=Turn the words around."]
    run = tunewise("train", "rows.jsonl", *flags, *prompt, "--out", "tuned", cwd=place, env=home)
    assert "adapter: tuned" in run.out and "learnt from 32 rows; dev 8" in run.out
    told = run.out.replace(f"{place}/", "")
    assert "tunewise chat model --adapter tuned --system 'Turn the words around.'" in told
    (events,) = re.findall(r"losses of all steps: (.*)", run.out)
    assert '"event": "end"' in Path(events).read_text()
    for text in ("tokens an epoch", "step 1 of", "step 8: dev loss", "the lowest so far"):
        assert text in run.err
    assert "tunewise serve" in run.out
    before, after = re.findall(r"dev loss ([\d.]+) before, after each epoch ([\d.]+);", run.out)[0]
    assert float(after) < float(before)
    (training,) = (place / "home").rglob("training.json")
    config = json.loads(training.read_text())["config"]
    study = training_study(
        str(place / "rows.jsonl"),
        {
            "--model": ("model", str(place / "model")),
            "--epochs": ("fine_tune.epochs", 1.0),
            "--learning-rate": ("fine_tune.learning_rate", 0.01),
            "--seed": ("fine_tune.seeds", [3]),
        },
    )
    told = explain_study(study, Workspace(place / "other"), SilentReporter())
    explained = {s.name: s.value for s in told}
    same = {
        "learning_rate": config["learning_rate"],
        "epochs": config["epochs"],
        "seeds": [config["seed"]],
        "steps": config["total_steps"],
        "recompute": config["recompute"],
        "tokens_per_pass": config["tokens_per_batch"],
        **{k: config[k] for k in ("batch_size", "max_length", "precision", "path", "threads")},
    }
    assert {k: explained[k] for k in same} == same
    adapter = json.loads((place / "tuned" / "adapter_config.json").read_text())
    assert (explained["lora.rank"], explained["lora.alpha"]) == (
        adapter["r"],
        adapter["lora_alpha"],
    )
    engine = open_engine(str(place / "model"), adapter=place / "tuned")
    try:
        question = Request(({"role": "user", "content": "red green 1"},), max_tokens=4)
        assert engine.answer([question])[0].error is None
    finally:
        engine.close()
    with pytest.raises(StudyError, match="the folder exists already"):
        train_study(study, Workspace(place / "other"), SilentReporter(), place / "tuned")


def test_the_test_rows_of_a_study_stay_out(place: Path, tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "rows.jsonl", _rows(60))
    study = tmp_path / "study.yaml"
    study.write_text(
        f"name: split\nmodel: {place / 'model'}\ndata: {{examples: {rows}}}\n"
        "metric: exact_match\nfine_tune: {epochs: 1, learning_rate: 0.01, adapter: full}\n"
    )
    tuned = train_study(load_study(study), Workspace(tmp_path / "home"), SilentReporter())
    assert sum(tuned.rows.values()) == 60 and tuned.rows["test"] == 20
    assert tuned.adapter is None and Path(tuned.run.tuned_model).name == "model"
    assert all(0 < step <= tuned.run.steps for step, _ in tuned.run.dev_loss)


def test_the_tokens_of_a_row_as_a_page(place: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "<script>x</script> \u202e", "completion": "a & <b>"}]
    jsonl(tmp_path / "odd.jsonl", rows)
    sources = sources_of(str(tmp_path / "odd.jsonl"), model=str(place / "model"))
    row = row_tokens(sources, "1")
    page = render_tokens(row.id, row.source, "<i>model</i>", row.answers)
    assert "<script" not in page and "<i>" not in page and "<b>" not in page
    assert "\u202e" not in page and "&lt;" in page
    ((name, tokens),) = row.answers
    assert name == "wanted" and "odd.jsonl:1" in page
    assert page.count('class="t l"') == 1 + sum(1 for _, w in tokens if w)
    assert "http" not in page.replace("http-equiv", "")
    policy = re.search(r'content="(default-src[^"]*)"', page)
    assert policy is not None and "script-src" not in policy[1]


def test_training_here_costs_what_the_price_file_says_or_is_unknown(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "prices.yaml").write_text(
        "date: 2026-11-01\nsource: a bill\ntraining: {local: {usd_per_hour: 3600}}\n"
    )
    lines = (
        f"name: money\nmodel: {place / 'model'}\ndata: {{examples: {place / 'rows.jsonl'}}}\n"
        "metric: exact_match\ncandidates: [fine_tuned]\n"
        "fine_tune: {epochs: 1, learning_rate: 0.01}\n"
    )
    study = tmp_path / "study.yaml"
    study.write_text(lines + "costs: {prices: prices.yaml}\n")
    home = Workspace(tmp_path / "home")
    plan = plan_study(load_study(study), home, SilentReporter())
    training = plan.candidates[0].training
    assert training is not None
    assert training["usd"] == pytest.approx(training["seconds"])  # a dollar a second
    unknown = replace(plan.candidates[0], training={**training, "usd": None})
    assert "money unknown" in training_words(unknown)
    assert "money unknown" not in training_words(plan.candidates[0])
    with open_session(load_study(study, ["costs.prices=null"]), home, SilentReporter()) as session:
        found = Forecast(1.0, 1, 0.0, 1, 1, "")
        assert training_usd(session, str(place / "model"), found) is None
