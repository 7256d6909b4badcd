"""A job of OpenAI's fine-tuning API, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewise.dialects.rules import (
    LEFT_OUT,
    Dialect,
    Reading,
    Rule,
    data_place,
    need,
)


def _openai(reading: Reading) -> None:
    model = str(need(reading, "model"))
    hosted = "/" not in model and not Path(data_place(reading, model)).is_dir()
    reading.put("model", "model", f"openai:{model}" if hosted else data_place(reading, model))
    reading.keys["fine_tune.route"] = ("model", "openai" if hosted else "local")
    kind = reading.get("method.type")
    if kind is not None:
        reading.put("method.type", "fine_tune.method", kind)
    for key, ours in (("training_file", "data.train"), ("validation_file", "data.dev")):
        file = reading.get(key)
        if file is None:
            reading.drop(key, "none")
            continue
        place = data_place(reading, file)
        if not Path(place).exists():
            reading.notes.append(
                f"`{key}` {file} is a file at the provider: write its path into `{ours}`"
            )
        reading.put(key, ours, place)
    tools = reading.get("integrations")
    if isinstance(tools, list) and tools:
        named = [t["type"] for t in tools if isinstance(t, dict) and isinstance(t.get("type"), str)]
        reading.put("integrations", "fine_tune.report_to", named)
    grader = reading.source.value.get("method")
    grader = grader.get("reinforcement", {}) if isinstance(grader, dict) else {}
    if isinstance(grader, dict) and isinstance(grader.get("grader"), dict):
        reading.keys["fine_tune.grader"] = ("method.reinforcement.grader", grader["grader"])
        for key in [k for k in reading.values if k.startswith("method.reinforcement.grader.")]:
            reading.done.add(key)
        reading.values["method.reinforcement.grader"] = "…"
        reading.put("method.reinforcement.grader", "fine_tune.grader", grader["grader"])


def _unless_auto(value: Any) -> Any:
    return LEFT_OUT if value == "auto" else value


_AUTO = "auto: chosen by the trainer"
OPENAI = Dialect(
    "openai",
    "OpenAI fine-tuning job",
    frozenset(("training_file", "validation_file", "n_epochs", "learning_rate_multiplier")),
    {
        "n_epochs": Rule("fine_tune.epochs", _AUTO, _unless_auto),
        "batch_size": Rule("fine_tune.batch_size", _AUTO, _unless_auto),
        "learning_rate_multiplier": Rule(
            "fine_tune.hosted.learning_rate_multiplier", _AUTO, _unless_auto
        ),
        "beta": Rule("fine_tune.dpo.beta", _AUTO, _unless_auto),
        "reasoning_effort": Rule("fine_tune.hosted.reasoning_effort"),
        "compute_multiplier": Rule("fine_tune.hosted.compute_multiplier", _AUTO, _unless_auto),
        "eval_interval": Rule("fine_tune.hosted.eval_interval", _AUTO, _unless_auto),
        "eval_samples": Rule("fine_tune.hosted.eval_samples", _AUTO, _unless_auto),
        "suffix": Rule("fine_tune.hosted.suffix"),
        "seed": Rule("fine_tune.seeds", "", lambda v: [int(v)]),
        **dict.fromkeys(
            ("id", "object", "created_at", "finished_at", "fine_tuned_model", "organization_id",
             "status", "trained_tokens", "result_files", "estimated_finish", "metadata", "error",
             "code", "message", "param", "user_provided_suffix", "usage_metrics"),
            Rule("", "what became of a job, not what it asks for"),
        ),
    },
    {},
    _openai,
)  # fmt: skip
