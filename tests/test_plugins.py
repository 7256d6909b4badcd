"""A package from a folder brings a route, a candidate, a metric and a tracker: what is said of the
built-in ones holds for them, and nothing goes by a name.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import contracts
import tunewise
from candidates_kit import LIMITS, LookingEngine
from cli_support import COMMAND, environment
from models_support import save_model
from tunewise import plugins
from tunewise.candidates.build import build_candidate
from tunewise.candidates.context import BuildContext
from tunewise.data.chat import Example
from tunewise.errors import StudyError, TrainingError
from tunewise.pipeline.prepare import read_rows
from tunewise.plugins import Group
from tunewise.routes.base import ROUTES, open_route
from tunewise.scoring.registry import SCORERS, get_scorer
from tunewise.study.loading import load_study
from tunewise.study.parts import KINDS, traits_of
from tunewise.study.schema import CandidateSpec, FineTune
from tunewise.training.job import TrainingJob
from tunewise.training.own_trackers import TensorBoard
from tunewise.training.trackers import TRACKERS, TrackedRun

PACKAGE = Path(__file__).parent / "plugin_package"
WORDS = ("red", "green", "blue")


def pip_install(source: Path, target: Path) -> Path:
    """What lies in ``source`` as pip installs it, in a folder of its own."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--no-index", "--target", target, source], capture_output=True, text=True
    )
    if "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip")
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PACKAGE, folder / "source")
    return pip_install(source, folder / "site")


@pytest.fixture
def plugin(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("ACME_NOTES", str(tmp_path / "notes.jsonl"))
    yield installed
    for name in [m for m in sys.modules if m.startswith("acme_tunewise")]:
        del sys.modules[name]


def examples(n: int) -> list[Example]:
    return [
        Example(
            f"row-{i}",
            (
                {"role": "user", "content": f"Say the last word of: note {i} {WORDS[i % 3]}."},
                {"role": "assistant", "content": WORDS[i % 3] if i % 5 else "green"},
            ),
        )
        for i in range(n)
    ]


def job(folder: Path) -> TrainingJob:
    return TrainingJob(
        model=str(save_model(folder / "model")),
        examples=examples(12),
        dev=examples(4),
        fine_tune=FineTune(batch_size=4, lora={"rank": 4}, precision="float32"),
        learning_rate=1e-3,
        epochs=1,
        seed=0,
        output=folder / "job",
        threads=1,
    )


@pytest.mark.parametrize("name", ["local", "acme"])
def test_routes_keep_their_contract(plugin: Path, tmp_path: Path, name: str) -> None:
    route = open_route(name)
    assert route.name == name and name in ROUTES.names()
    contracts.check_route(route, job(tmp_path))


class Document:
    id, text, title = "d", "Red, green and blue are colours. " * 20, None


@pytest.mark.parametrize("kind", [*KINDS.names(), "nth_word"])
def test_candidates_keep_their_contract(plugin: Path, tmp_path: Path, kind: str) -> None:
    contracts.check_kind(KINDS.load(kind))
    rows = examples(60)
    answers = [json.dumps({"id": row.id, "answer": row.answer}) + "\n" for row in rows]
    (tmp_path / "answers.jsonl").write_text("".join(answers))
    more = {"answers": "answers.jsonl"} if traits_of(kind).recorded else {}
    more = {"options": {"place": 0}} if kind == "nth_word" else more
    spec = CandidateSpec.model_validate({"name": "mine", "kind": kind, **more})
    context = BuildContext(
        scorer=get_scorer("accuracy"),
        limits=LIMITS,
        engine=LookingEngine(),
        tuned_engine=LookingEngine(model="tuned"),
        documents=[Document()],
        folder=tmp_path,
        effort="quick",
    )
    candidate = build_candidate(spec, context=context)
    assert (candidate.name, candidate.kind) == ("mine", kind)
    contracts.check_candidate(candidate, rows[:45], rows[45:])


@pytest.mark.parametrize("name", ["exact_match", "token_f1", "macro_f1", "same_length"])
def test_metrics_keep_their_contract(plugin: Path, name: str) -> None:
    contracts.check_scorer(get_scorer(name), examples(9))


def test_trackers_keep_their_contract(plugin: Path, tmp_path: Path) -> None:
    from acme_tunewise.tracker import AcmeLog

    run = TrackedRun("0" * 16, "a run", tmp_path, {"model": "m"}, resumed=False)
    for open_it in (TensorBoard, AcmeLog):
        contracts.check_tracker(open_it, run)
        contracts.check_tracker(open_it, replace(run, resumed=True))


def run_study(installed: Path, folder: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """The command on a study that uses all four, in a process of its own."""
    save_model(folder / "model")
    lines = [json.dumps({"input": e.user_text, "output": e.answer}) + "\n" for e in examples(90)]
    (folder / "rows.jsonl").write_text("".join(lines))
    study = {
        "name": "acme",
        "model": "./model",
        "data": {"examples": "rows.jsonl", "max_test_rows": 20},
        "metric": {"name": "same_length", "options": {"slack": 1}},
        "candidates": [{"name": "nth_word", "options": {"place": -1}}, "zero_shot", "fine_tuned"],
        "fine_tune": {"route": "acme", "epochs": 1},
        "forgetting": {"suite": None},
        "servers": {"mine": {"base_url": "http://localhost:1/v1"}},
        "output": {"max_tokens": 3},
        "effort": "quick",
        **changes,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    env = environment(
        PYTHONPATH=str(installed),
        ACME_NOTES=str(folder / "notes.jsonl"),
        TUNEWISE_HOME=str(folder / "ws"),
    )
    return subprocess.run(
        [COMMAND, "run", "study.yaml", "--json"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_a_study_on_somebody_else_s_route(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(
        "date: 2026-11-01\nsource: a test\nmodels: {}\ntraining: {}\n"
    )
    done = run_study(installed, tmp_path, costs={"prices": "prices.yaml"})
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["metric"] == "same_length" and verdict["ended_at"] == "G5"
    assert {c["name"] for c in verdict["candidates"]} == {
        "nth_word",
        "zero_shot",
        "fine_tuned",
        "constant",
    }
    # Once, with one learning rate: nothing was swept on this machine, and it got what it takes.
    (told,) = map(json.loads, (tmp_path / "notes.jsonl").read_text().splitlines())
    assert told["servers"] == ["mine"] and told["prices"] == "2026-11-01"
    (run,) = verdict["training"]
    assert run["route"] == "acme" and run["learning_rate"] == told["learning_rate"]
    assert verdict["cost"]["spent_usd"] == pytest.approx(3.0)


def test_the_budget_holds_on_every_route(installed: Path, tmp_path: Path) -> None:
    done = run_study(installed, tmp_path, costs={"max_usd": 2.5})
    assert done.returncode == 3 and "about 3.00 US dollars, the limit is 2.50" in done.stderr
    assert not (tmp_path / "notes.jsonl").exists()


GROUPS = [
    (ROUTES, "openai"),
    (KINDS, "few_shot"),
    (SCORERS, "exact_match"),
    (TRACKERS, "mlflow"),
]


def package(folder: Path, name: str, *lines: str) -> Path:
    """A folder in which a package is installed that brings nothing but these entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(("group", "own"), GROUPS, ids=lambda value: getattr(value, "what", value))
def test_a_broken_package_harms_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: Group, own: str
) -> None:
    (tmp_path / "broken_module.py").write_text("import not_there\n")
    broken = package(tmp_path, "broken", f"[{group.name}]", "broken = broken_module:Part")
    monkeypatch.syspath_prepend(broken)
    assert callable(group.load(own)) and {own, "broken"} <= set(group.names())
    with pytest.raises(group.error, match="cannot be loaded: No module named") as caught:
        group.load("broken")
    assert caught.value.hint is not None and "broken 1.0" in caught.value.hint


@pytest.mark.parametrize(("group", "own"), GROUPS, ids=lambda value: getattr(value, "what", value))
def test_two_packages_with_one_name_are_told_to_those_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: Group, own: str
) -> None:
    lines = (f"[{group.name}]", f"{own} = other_module:Part", "twice = other_module:Part")
    monkeypatch.syspath_prepend(package(tmp_path / "one", "rival", *lines))
    monkeypatch.syspath_prepend(
        package(tmp_path / "two", "other", f"[{group.name}]", "twice = third:Part")
    )
    others = [name for name in group.names() if name not in (own, "twice")]
    assert callable(group.load(others[0]))  # the clash is told to those whom it concerns
    with pytest.raises(group.error, match=rf"two packages .*'{own}': tunewise .* and rival 1\.0"):
        group.load(own)
    with pytest.raises(group.error, match=r"called 'twice': (other|rival) 1\.0 and (other|rival)"):
        group.load("twice")


def test_a_package_installed_while_the_process_runs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError, match="no metric called 'late'"):
        get_scorer("late")
    (tmp_path / "late_module.py").write_text(
        "from tunewise.scoring.text import ExactMatch as Late\n"
    )
    package(tmp_path, "late", "[tunewise.scorers]", "late = late_module:Late")
    assert get_scorer("late").name == "exact_match"


def test_an_install_that_is_older_than_its_source_tree_has_all_parts(tmp_path: Path) -> None:
    """As after a pull without another `pip install -e .`: what pip wrote then has no parts."""
    site = package(tmp_path, "tunewise", "[tunewise.routes]", "gone = tunewise.gone:Gone")
    code = (
        "from tunewise.routes.base import ROUTES\n"
        "from tunewise.scoring.registry import SCORERS, get_scorer\n"
        "get_scorer('exact_match')\n"
        "print(*ROUTES.names())"
    )
    source = Path(tunewise.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(PYTHONPATH=f"{site}:{source}"),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["azure", "local", "openai"], done.stderr


def test_an_install_without_its_own_parts_says_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plugins, "_of_source_tree", dict)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    plugins._installed.cache_clear()
    try:
        with pytest.raises(TrainingError, match="no route called 'local'") as caught:
            open_route("local")
    finally:
        plugins._installed.cache_clear()
    assert caught.value.hint is not None and "pip install" in caught.value.hint


def test_a_tracker_of_a_package_follows_a_study_s_run(installed: Path, tmp_path: Path) -> None:
    fine_tune = {"epochs": 1, "learning_rate": 1e-3, "report_to": ["acme_log"]}
    done = run_study(installed, tmp_path, fine_tune=fine_tune)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["training"]
    (log,) = (tmp_path / "ws").rglob("acme.jsonl")
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert "train/loss" in told[0] and told[-1] == {"succeeded": True}
    assert run["route"] == "local" and len(told) > 2


PAGE = Path(__file__).parent.parent / "docs" / "plugins.md"


def test_the_page_s_package_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    files = dict(blocks)
    assert files.keys() == {"pyproject.toml", "acme_plugin.py", "study.yaml"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    lines = [json.dumps({"input": e.user_text, "output": e.answer}) + "\n" for e in examples(90)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    site = pip_install(tmp_path, tmp_path / "site")
    done = subprocess.run(
        [COMMAND, "run", "study.yaml", "--json"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(site), TUNEWISE_HOME=str(tmp_path / "ws")),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found = {c["name"]: c["chosen"] for c in json.loads(done.stdout)["candidates"]}
    monkeypatch.syspath_prepend(site)
    contracts.check_scorer(get_scorer("begins_with", {"ignore_case": True}), examples(9))
    contracts.check_kind(KINDS.load("majority"))
    spec = CandidateSpec.model_validate({"name": "majority"})
    context = BuildContext(scorer=get_scorer("begins_with"), limits=LIMITS)
    rows = examples(30)
    contracts.check_candidate(build_candidate(spec, context=context), rows[:20], rows[20:])
    run = TrackedRun("0" * 16, "a run", tmp_path, {}, resumed=False)
    contracts.check_tracker(TRACKERS.load("csv"), run)
    study = load_study(tmp_path / "study.yaml")
    train = read_rows(study.study, [], study.directory).split.train
    (first, _), (second, _) = Counter(row.answer for row in train).most_common(2)
    assert (found["majority"]["answer"], found["second"]["answer"]) == (first, second)
    assert (tmp_path / "figures.csv").read_text().splitlines()[1] == "2,train/loss,0.5"
    sys.modules.pop("acme_plugin")


def test_misspelt_parts_are_told_with_their_lines_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: s\nmetric: exactmatch\nfine_tune:\n  route: lokal\n  report_to: [mlflow, wandbb]\n"
    )
    with pytest.raises(StudyError) as caught:
        load_study(path)
    for told in (
        "study.yaml:2: metric: there is no metric called 'exactmatch'. Did you mean exact_match?",
        "study.yaml:4: fine_tune.route: there is no route called 'lokal'. Did you mean local?",
        "study.yaml:5: fine_tune.report_to[1]: there is no tracker called 'wandbb'. Did you mean",
    ):
        assert told in str(caught.value)
