"""Examples as hosted fine-tuning services read them, and what such a service would refuse."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunewise.data.chat import Example, Message, drop_thoughts, text_of
from tunewise.data.findings import Finding, FindingBook
from tunewise.data.tokens import CountTokens, default_epochs, estimate_tokens, row_tokens
from tunewise.models.raw_form import raw_text
from tunewise.training.encode import with_prompt
from tunewise.training.job import TrainingJob
from tunewise.words import plural

METHODS: Mapping[str, str] = {"sft": "supervised", "dpo": "dpo", "grpo": "reinforcement"}
"""What the services call the methods that they have."""

MIN_ROWS = 10
MAX_FILE_BYTES = 512 * 1024**2
MAX_EPOCHS, MAX_BATCH = 50, 256

_MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "weight")
_HONOURED = frozenset(
    {
        "route",
        "method",
        "epochs",
        "batch_size",
        "seeds",
        "trained_rows",
        "thoughts",
        "dpo",
        "grader",
        "hosted",
    }
)
REINFORCEMENT = ("reasoning_effort", "compute_multiplier", "eval_interval", "eval_samples")
"""Of ``fine_tune.hosted``: hyper-parameters of this method alone."""

_MULTIPLIER = "The services take a factor only: `fine_tune.hosted.learning_rate_multiplier`."


@dataclass(frozen=True, slots=True)
class RowLimits:
    """What one service takes.

    Attributes:
        row_tokens: longest row; None where it is not known.
        billed_tokens: most tokens of all epochs together.
    """

    row_tokens: int | None = None
    billed_tokens: int | None = None


def training_row(example: Example, job: TrainingJob) -> dict[str, Any]:
    """One line of a training file, in the form of the job's method."""
    example = _as_trained(example, job)
    messages = with_prompt(example.messages, job.prompt)
    tools = {"tools": [dict(tool) for tool in example.tools]} if example.tools else {}
    method = job.fine_tune.method
    if method == "dpo":
        assert example.rejected is not None
        return {
            "input": {"messages": [_message(m) for m in messages[:-1]], **tools},
            "preferred_output": [_message(messages[-1])],
            "non_preferred_output": [_message(example.rejected)],
        }
    if method == "grpo":
        question = messages[:-1] if example.target is not None else messages
        # Graders read the other fields of the row as {{item.…}}.
        fields = {k: v for k, v in example.metadata.items() if k not in ("messages", "tools")}
        if example.target is not None:
            fields.setdefault("answer", example.answer)
        return {"messages": [_message(m) for m in question], **tools, **fields}
    if job.form == "raw" and method == "sft":
        return {"prompt": raw_text(messages[:-1]), "completion": text_of(messages[-1])}
    shown = [_message(m) for m in messages]
    if job.fine_tune.trained_rows == "answers":
        # The services learn all that the assistant says; the study asks for the last answer.
        for message in shown[:-1]:
            if message["role"] == "assistant":
                message.setdefault("weight", 0)
    return {"messages": shown, **tools}


def _as_trained(example: Example, job: TrainingJob) -> Example:
    """The row without the thoughts before its answers, where the study drops them."""
    if job.fine_tune.thoughts == "keep":
        return example
    answers = [drop_thoughts(m) if m.get("role") == "assistant" else m for m in example.messages]
    rejected = drop_thoughts(example.rejected) if example.rejected is not None else None
    return replace(example, messages=tuple(answers), rejected=rejected)


def _message(message: Message) -> dict[str, Any]:
    return {k: message[k] for k in _MESSAGE_KEYS if message.get(k) is not None}


def epochs_of(job: TrainingJob) -> int:
    """Passes over the rows: as the study says, or OpenAI's published heuristic.

    Sent as a number rather than ``auto``, so that the forecast is what will be billed.
    """
    given = job.fine_tune.epochs
    return default_epochs(len(job.examples)) if given is None else int(given)


def check_rows(job: TrainingJob, limits: RowLimits, count: CountTokens) -> list[Finding]:
    """What the service would refuse or silently change, before anything is sent."""
    book = FindingBook()
    for part, examples in (("train", job.examples), ("dev", job.dev)):
        for example in examples:
            _check_row(book, example, job, limits, count, part)
    return [*_whole_job(job, limits, count), *book.findings()]


def _check_row(
    book: FindingBook,
    example: Example,
    job: TrainingJob,
    limits: RowLimits,
    count: CountTokens,
    part: str,
) -> None:
    row, method = example.source or example.id, job.fine_tune.method
    if method != "grpo" and example.target is None:
        text = "a row does not end with the assistant's answer"
        book.add("no_answer", row, "error", text, "Add the answer, or leave the row out.")
        return
    if method == "dpo" and example.rejected is None:
        text = "a row has no rejected answer"
        fix = "Give `preferred_output` and `non_preferred_output`, or use `method: sft`."
        book.add("no_rejected_answer", row, "error", text, fix)
    if method == "grpo":
        asked = example.messages[:-1] if example.target is not None else example.messages
        if not asked or asked[-1]["role"] != "user":
            text = "a question does not end with a user message"
            book.add("no_question", row, "error", text, "End it so, or leave the row out.")
    for message in example.messages:
        unknown = sorted(set(message) - {*_MESSAGE_KEYS, "refusal"})
        if unknown:
            text = f"keys that hosted services do not take are left out: {', '.join(unknown)}"
            book.add("message_keys_left_out", row, "warning", text, "Check that none matters.")
        weight = message.get("weight")
        if weight is not None and weight not in (0, 1):
            text = f"a message's weight is {weight!r}; the services take 0 and 1"
            book.add("fractional_weight", row, "error", text, "Use 0 or 1, or train locally.")
    tokens = row_tokens(example, count)[0]
    if limits.row_tokens is not None and tokens > limits.row_tokens:
        text = f"a row has {tokens:,} tokens; beyond {limits.row_tokens:,} the service cuts it"
        fix = "Shorten the row: what is cut is its end, the answer."
        book.add("row_too_long", row, "error" if part == "train" else "warning", text, fix)


def _whole_job(job: TrainingJob, limits: RowLimits, count: CountTokens) -> Iterator[Finding]:
    fine_tune = job.fine_tune

    def error(code: str, message: str, fix: str) -> Finding:
        return Finding(code, "error", 1, (), message, fix)

    if len(job.examples) < MIN_ROWS:
        yield error(
            "invalid_n_examples",
            f"the job has {plural(len(job.examples), 'training row')}, but hosted services want "
            f"{MIN_ROWS}",
            "Add rows, or train locally (`fine_tune.route: local`).",
        )
    if fine_tune.method not in METHODS:
        yield error(
            "method_not_hosted",
            f"hosted services cannot train by {fine_tune.method!r}",
            f"They have {', '.join(METHODS)}; the local route has the others.",
        )
    if fine_tune.method == "grpo" and fine_tune.grader is None:
        yield error(
            "no_grader",
            "hosted reinforcement needs a grader, which runs at the provider",
            "Write `fine_tune.grader` in the form of OpenAI's graders.",
        )
    elif fine_tune.grader is not None and fine_tune.method == "grpo":
        yield from _check_grader(fine_tune.grader)
    others = [name for name in REINFORCEMENT if getattr(fine_tune.hosted, name) is not None]
    if others and fine_tune.method != "grpo":
        yield error(
            "options_of_another_method",
            f"only reinforcement knows `fine_tune.hosted`'s {', '.join(others)}",
            f"Remove them, or use `method: grpo` in place of {fine_tune.method}.",
        )
    if fine_tune.learning_rate is not None:
        yield error("learning_rate_not_hosted", "`fine_tune.learning_rate` is set", _MULTIPLIER)
    if fine_tune.trained_rows == "all":
        yield error(
            "trained_rows_not_hosted",
            "hosted services learn what the assistant says, never everything",
            "Set `fine_tune.trained_rows` to answers or all_assistant.",
        )
    epochs = fine_tune.epochs
    if epochs is not None and (epochs != int(epochs) or not 1 <= epochs <= MAX_EPOCHS):
        yield error(
            "epochs_not_hosted",
            f"hosted services take 1 to {MAX_EPOCHS} whole epochs, not {epochs:g}",
            "Change `fine_tune.epochs`.",
        )
    if fine_tune.batch_size is not None and fine_tune.batch_size > MAX_BATCH:
        yield error(
            "batch_size_not_hosted",
            f"hosted services take batches of at most {MAX_BATCH} rows",
            "Change `fine_tune.batch_size`.",
        )
    ignored = sorted(fine_tune.model_fields_set - _HONOURED - {"learning_rate"})
    if ignored:
        yield Finding(
            "options_not_hosted",
            "warning",
            1,
            (),
            f"hosted services choose these themselves: {', '.join(ignored)}",
            "Remove them from `fine_tune`, or train locally.",
        )
    most = limits.billed_tokens
    if most is not None and (total := epochs_of(job) * file_tokens(job, count)) > most:
        yield error(
            "too_many_tokens",
            f"the job would learn from about {total:,} tokens; the service takes {most:,}",
            "Use fewer rows or epochs.",
        )


def _check_grader(grader: Mapping[str, Any]) -> Iterator[Finding]:
    """A warning only: a service may know graders that are not known here."""
    from tunewise.scoring.graders.errors import GraderError
    from tunewise.scoring.graders.schema import parse_grader

    try:
        parse_grader(grader)
    except GraderError as refusal:
        text = f"the service may refuse `fine_tune.grader`: {refusal.message}"
        where = (refusal.where,) if refusal.where else ()
        fix = refusal.hint or "Compare it with the form of OpenAI's graders."
        yield Finding("grader", "warning", 1, where, text, fix)


def file_tokens(job: TrainingJob, count: CountTokens) -> int:
    """Tokens of the training file, as a service bills one epoch of it."""
    total = 0
    for example in job.examples:
        total += row_tokens(example, count)[0]
        if job.prompt and not any(m["role"] == "system" for m in example.messages):
            total += count(job.prompt)
        if job.fine_tune.method == "dpo" and example.rejected is not None:
            total += row_tokens(Example("", (example.rejected,)), count)[0]
    return total


def token_counter(model: str) -> tuple[CountTokens, str]:
    """What counts the tokens of a hosted model, and how it is called in reports.

    Exact by tiktoken where it is installed and has the model's vocabulary at hand; else estimated.
    """
    try:
        tiktoken: Any = importlib.import_module("tiktoken")
        try:
            encoding = tiktoken.encoding_for_model(model)
        except KeyError:
            encoding = tiktoken.get_encoding("o200k_base")
    except Exception:  # it fetches vocabularies, which may fail in any way
        return estimate_tokens, "estimated at 4 bytes a token"

    def count(text: str) -> int:
        return len(encoding.encode(text, disallowed_special=()))

    return count, f"counted by tiktoken ({encoding.name})"
