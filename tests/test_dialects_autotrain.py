"""AutoTrain's configurations: all parse; what is wrong is told with its line; nothing is silent."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cli_support import jsonl, tunewise
from dialect_configs import CONFIGS
from tunewise.dialects.autotrain.config import Config, read_config
from tunewise.dialects.autotrain.flags import flags_of, parse_flags
from tunewise.dialects.autotrain.parameters import FLAG_ALIASES, PARAMETERS
from tunewise.dialects.autotrain.tasks import BACKENDS, TASK_NAMES, TASKS, VERBS
from tunewise.dialects.autotrain.translate import translate
from tunewise.dialects.sources import read_source
from tunewise.errors import StudyError, TunewiseError, UsageError

BASE = """\
task: llm-sft
base_model: tunewise/tiny
project_name: mine
log: none
backend: local
data:
  path: owner/rows
  train_split: train
  valid_split: null
  chat_template: tokenizer
  column_mapping:
    text_column: messages
params:
  lr: 2e-5
"""


def _rows(folder: Path) -> None:
    """One conversation, where ``BASE`` looks for its rows."""
    folder.mkdir(parents=True)
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    jsonl(folder / "train.jsonl", [{"messages": said}])


def _config(text: str, folder: Path) -> Config:
    file = folder / "config.yml"
    file.write_text(text, "utf-8")
    return read_config(read_source(str(file)))


def test_every_parameter_of_every_task_stands_in_the_table_and_the_table_has_no_other() -> None:
    used = {name for task in TASKS for name in task.defaults}
    assert used <= PARAMETERS.keys()
    assert PARAMETERS.keys() - used == {"script_path", "env", "args"}  # of spacerunner
    assert set(FLAG_ALIASES.values()) <= used


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_of_all_tasks_parse_and_each_key_is_told(name: str, tmp_path: Path) -> None:
    text = CONFIGS[name]
    told = translate(_config(text, tmp_path))
    raw = yaml.safe_load(text)
    lines = {row.line for row in told.told}
    for number, line in enumerate(text.splitlines(), 1):
        key = re.match(r"\s*([a-z_0-9]+):(?: (.*))?$", line)
        if key and key[1] not in ("data", "params", "hub", "column_mapping"):
            assert number in lines, line
    assert {row.key.rpartition(".")[2] for row in told.told} >= set(raw["params"])
    has_trainer = raw["task"].startswith("llm")
    assert (told.study is not None) == has_trainer
    assert bool(told.missing) == (not has_trainer or raw["backend"].startswith(("spaces", "ep-")))


def test_two_configurations_at_least_of_each_task_are_tried() -> None:
    tried = [TASK_NAMES[yaml.safe_load(text)["task"]][0].name for text in CONFIGS.values()]
    assert len(CONFIGS) >= 72
    assert all(tried.count(task.name) >= 2 for task in TASKS)
    assert {yaml.safe_load(text)["task"] for text in CONFIGS.values()} == set(TASK_NAMES)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("task: llm-sft\n", "", ["config.yml:1: task: `task` is missing", "task: llm-sft"]),
        ("log: none\n", "", ["`log` is missing"]),
        ("params:\n  lr: 2e-5\n", "", ["`params` is missing", "params: {}"]),
        ("  path: owner/rows\n", "", ["config.yml:6: data.path", "`path` is missing"]),
        ("task: llm-sft", "task: llm-stf", ["config.yml:1: task", "Did you mean `llm-sft`"]),
        ("  lr: 2e-5", "  learning_rate: 2e-5", ["config.yml:14", "Did you mean `lr`"]),
        ("  lr: 2e-5", "  epoch: 2", ["unknown key", "Did you mean `epochs`"]),
        ("  lr: 2e-5", "  lr: fast", ["config.yml:14: params.lr: should be a number, not 'fast'"]),
        ("  lr: 2e-5", "  epochs: 1.5", ["should be a whole number, not 1.5"]),
        ("  lr: 2e-5", "  lr: -1", ["config.yml:14: params.lr: should be greater than 0"]),
        ("  lr: 2e-5", "  peft: maybe", ["should be true or false, not 'maybe'"]),
        ("  lr: 2e-5", "  quantization: int2", ["`int4`, `int8` or null, not 'int2'"]),
        ("  lr: 2e-5", "  lr: [1]", ["should be a number, not a list"]),
        ("log: none", "logs: none", ["`log` is missing", "Did you mean `log`?"]),
        ("log: none", "log: nowhere", ["config.yml:4: log", "'nowhere' is no tracker"]),
        (
            "backend: local",
            "backend: spaces-t4-smal",
            ["no back end", "Did you mean `spaces-t4-small`"],
        ),
        ("  path: owner", "  lr: 3\n  path: owner", ["It belongs under `params`"]),
        ("llm-sft", "llm-dpo", ["rejected_text_column", "`dpo` needs the column"]),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    old: str, new: str, says: list[str], tmp_path: Path
) -> None:
    assert old in BASE
    with pytest.raises(StudyError) as caught:
        translate(_config(BASE.replace(old, new), tmp_path))
    for part in says:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"- a\n- b\n", "not a mapping"),
        (b"task: llm\n\tlog: none\n", "a tab stands here"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\n" + b"".join(
            b"%c: &%c [%s]\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 9)) for n in range(98, 112)
        ), "grows to more than"),
        (b"task: llm\n" + b"# x\n" * 1_250_000, "1 MiB at most"),
        (bytes(range(256)), "not UTF-8"),
        (b"task: !!python/object/apply:os.system ['id']\n", "tags"),
        (b"{" * 5000, "nested too deeply"),
    ],
)  # fmt: skip
def test_hostile_files_end_in_an_error_that_says_why(
    content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.yml").write_bytes(content)
    run = tunewise("autotrain", "--config", "bad.yml", cwd=tmp_path, code=2)
    assert says in run.err
    assert "bad.yml" in run.err


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = ["task", "base_model", "project_name", "log", "backend", "data", "params", "hub"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), values), st.sampled_from(list(CONFIGS)))
def test_any_values_are_understood_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any], name: str
) -> None:
    raw = {**yaml.safe_load(CONFIGS[name]), **changed}
    folder = tmp_path_factory.mktemp("any")
    try:
        translate(_config(json.dumps(raw), folder))
    except TunewiseError as error:
        assert str(error)


def test_numbers_and_truth_are_read_as_users_write_them(tmp_path: Path) -> None:
    text = BASE.replace("lr: 2e-5", 'lr: "2e-5"\n  peft: yes\n  epochs: "3"\n  quantization: none')
    config = _config(text, tmp_path)
    assert config.values["lr"] == 2e-5
    assert config.values["peft"] is True
    assert config.values["epochs"] == 3
    assert config.values["quantization"] is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_back_ends_are_known_and_a_cloud_is_told(backend: str, tmp_path: Path) -> None:
    told = translate(_config(BASE.replace("backend: local", f"backend: {backend}"), tmp_path))
    assert bool(told.missing) == (not backend.startswith("local"))


def test_what_the_study_gets(tmp_path: Path) -> None:
    text = BASE + (
        "  epochs: 2\n  batch_size: 3\n  gradient_accumulation: 5\n  peft: true\n  lora_r: 8\n"
        "  quantization: int4\n  mixed_precision: bf16\n  model_max_length: 512\n"
        "  target_modules: q_proj,v_proj\n"
    )
    elsewhere = translate(_config(text, tmp_path), here=False)
    assert elsewhere.study is not None
    tuned = elsewhere.study["fine_tune"]
    assert tuned["batch_size"] == 15
    assert tuned["adapter"] == "qlora"
    assert tuned["precision"] == "bfloat16"
    assert tuned["max_length"] == 512
    assert tuned["lora"] == {
        "rank": 8, "alpha": 32, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]
    }  # fmt: skip
    assert elsewhere.study["data"] == {
        "train": "hf://owner/rows:train",
        "columns": {"messages": "messages"},
    }


# The command line.


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_lists_its_flags(verb: str) -> None:
    text = flags_of(VERBS[verb]).format_help()
    for name in VERBS[verb].defaults:
        assert f"--{name.replace('_', '-')}" in text


def test_flags_mean_what_the_file_says() -> None:
    line = (
        "llm --train --model tunewise/tiny --data-path owner/rows --lr 2e-5 --epochs=2 --peft "
        "--trainer sft --text_column messages --chat-template tokenizer --merge-adapter"
    )
    found = parse_flags(line.split())
    assert found.train
    assert found.config.values["lr"] == 2e-5
    assert found.config.values["peft"] is True
    assert found.config.values["merge_adapter"] is True
    told = translate(found.config)
    assert {row.key: row for row in told.told}["--lr"].state == "mapped"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("llm --train --learnin-rate 3", "Did you mean --learning-rate?"),
        ("llm --train --lr fast", "--lr: should be a number, not 'fast'"),
        ("llm --train --image-column x", "It is a flag of other tasks."),
        ("llm --inference", "tunewise chat"),
        ("llm --train --trainer ppo", "no trainer of language models"),
        ("llms --train", "Did you mean `llm`?"),
        ("spacerunner --train", "not run"),
        ("tools merge-llm-adapter", "--merge-adapter"),
    ],
)
def test_wrong_flags_are_told(line: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parse_flags(line.split())
    assert says in str(caught.value)


def test_without_train_nothing_is_trained(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    jsonl(tmp_path / "data" / "train.jsonl", [{"text": "one two"}])
    run = tunewise(
        "autotrain", "llm", "--model", "tunewise/tiny", "--data-path", "data", cwd=tmp_path
    )
    assert "give --train" in run.out
    assert not (tmp_path / "project-name").exists()


# Secrets, tasks without a trainer, clouds.


def test_a_task_without_trainer_says_so_and_shows_what_was_understood(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(CONFIGS["text-classification 1"], "utf-8")
    run = tunewise("autotrain", "--config", "c.yml", cwd=tmp_path, code=3)
    assert "the trainer for text classification is not here yet" in run.err
    assert "max_seq_length" in run.err


def test_without_a_token_an_upload_is_an_error_before_training(tmp_path: Path) -> None:
    text = BASE + "hub:\n  username: ${HF_USERNAME}\n  token: ${HF_TOKEN}\n  push_to_hub: true\n"
    _rows(tmp_path / "owner" / "rows")
    (tmp_path / "c.yml").write_text(text, "utf-8")
    env = {"HF_TOKEN": "", "HF_USERNAME": ""}
    run = tunewise("autotrain", "--config", "c.yml", cwd=tmp_path, code=2, env=env)
    assert "c.yml:17: hub.token" in run.err
    assert not (tmp_path / ".tunewise").exists()


@pytest.mark.parametrize("written", ["tok-plain-1234567890", "${HF_TOKEN}"])
def test_a_token_is_in_no_output(written: str, tmp_path: Path) -> None:
    secret = "tok-plain-1234567890"
    text = BASE + f"hub:\n  username: me\n  token: {written}\n  push_to_hub: true\n"
    _rows(tmp_path / "owner" / "rows")
    (tmp_path / "c.yml").write_text(text, "utf-8")
    for more in ((), ("--json",)):
        run = tunewise(
            "autotrain", "--config", "c.yml", "--dry-run", *more,
            cwd=tmp_path, env={"HF_TOKEN": secret},
        )  # fmt: skip
        assert secret not in run.out + run.err
        assert "[secret]" in run.out


def test_a_secret_by_its_name_becomes_no_name_on_the_hub(tmp_path: Path) -> None:
    text = BASE + "hub:\n  username: ${AWS_SECRET}\n  token: abc\n  push_to_hub: true\n"
    _rows(tmp_path / "owner" / "rows")
    (tmp_path / "c.yml").write_text(text, "utf-8")
    env = {"AWS_SECRET": "do-not-tell-me"}
    run = tunewise("autotrain", "--config", "c.yml", cwd=tmp_path, code=2, env=env)
    assert "do-not-tell-me" not in run.out + run.err
    assert "hub.username" in run.err


def test_rows_that_are_not_there_are_told_and_stop_a_training(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(BASE.replace("owner/rows", "nowhere"), "utf-8")
    run = tunewise("autotrain", "--config", "c.yml", "--dry-run", cwd=tmp_path)
    assert "c.yml:7: data.path: there is no such folder" in " ".join(run.out.split())
    run = tunewise("autotrain", "--config", "c.yml", cwd=tmp_path, code=3)
    assert "train.csv or train.jsonl" in run.err


def test_a_key_that_stands_twice_counts_as_the_last_and_is_told(tmp_path: Path) -> None:
    config = _config(BASE + "  lr: 3e-5\n", tmp_path)
    assert config.values["lr"] == 3e-5
    twice = [row for row in translate(config).told if "line 15" in row.why]
    assert [(row.key, row.line) for row in twice] == [("lr", 14)]


def test_what_a_study_refuses_is_told_with_the_line(tmp_path: Path) -> None:
    _rows(tmp_path / "owner" / "rows")
    (tmp_path / "c.yml").write_text(BASE + "  weight_decay: -1\n", "utf-8")
    run = tunewise("autotrain", "--config", "c.yml", "--dry-run", cwd=tmp_path, code=2)
    assert "c.yml:15: params.weight_decay" in run.err
    more = ("--set", "fine_tune.learning_rate=1e-3")
    run = tunewise(
        "autotrain", "--config", "c.yml", "--set", "fine_tune.weight_decay=0", *more,
        "--dry-run", cwd=tmp_path,
    )  # fmt: skip
    assert run.out


def test_a_file_behind_an_address_is_read_within_limits() -> None:
    answers = {
        "/good.yml": (200, {}, BASE.encode()),
        "/moved.yml": (302, {"Location": "/good.yml"}, b""),
        "/elsewhere.yml": (302, {"Location": "http://example.org/x.yml"}, b""),
        "/large.yml": (200, {}, b"# x\n" * 400_000),
        "/round.yml": (302, {"Location": "/round.yml"}, b""),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader leaves a large one early
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        assert read_config(read_source(f"{here}/moved.yml")).values["lr"] == 2e-5
        for path, says in (
            ("/none.yml", "answers 404"),
            ("/elsewhere.yml", "https:// only"),
            ("/large.yml", "1 MiB"),
            ("/round.yml", "more than 5 times"),
        ):
            with pytest.raises(StudyError, match=says):
                read_source(here + path)
        server.shutdown()


def test_addresses_are_encrypted_ones() -> None:
    with pytest.raises(StudyError, match="https:// only"):
        read_source("http://example.org/config.yml")
