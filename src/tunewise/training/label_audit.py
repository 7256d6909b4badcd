"""The hard gate before step 0: are the right tokens learnt, and only those?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunewise.data.chat import Example, text_of
from tunewise.data.findings import Finding, FindingBook, Severity
from tunewise.errors import DataError, TrainingError
from tunewise.models.chat_format import template_forms
from tunewise.models.template_check import missing_field
from tunewise.training.encode import Encoder
from tunewise.training.items import Items
from tunewise.training.left_out import LEFT_OUT
from tunewise.training.rows import EncodedRow

_TEXTS: dict[str, tuple[Severity, str, str]] = {
    "no_trained_token": (
        "error",
        "no token of the row would be learnt",
        "Give the row an answer (last message, role assistant, weight above 0) or remove it.",
    ),
    "end_of_turn_not_trained": (
        "error",
        "the answer's end is not learnt, so the model would not learn to stop",
        "The chat template must end an answer with the tokenizer's end-of-sequence token.",
    ),
    "prompt_in_loss": (
        "error",
        "what the user wrote would be learnt as if it were the answer",
        "The chat template's {% generation %} marks are wrong; correct or remove them.",
    ),
    "template_changes_text": (
        "error",
        "the answer does not come back whole from the tokens that are learnt",
        "Use the template that belongs to this model, or another model.",
    ),
    "unknown_characters": (
        "warning",
        "some characters are unknown to the tokenizer and cannot be learnt",
        "Use a model whose tokenizer knows them (byte-level), or expect wrong characters.",
    ),
    "empty_answer": (
        "warning",
        "the answer is empty, so the row teaches to say nothing",
        "Fill the answer in, or remove the row; keep it where nothing is the right answer.",
    ),
    "no_end_of_text": (
        "warning",
        "the tokenizer has no end-of-text token, so nothing stands between two documents",
        "Set `eos_token` in the model's tokenizer_config.json.",
    ),
    "no_chat_template": (
        "warning",
        "the model has no chat template, so rows are written as paragraphs that begin with "
        "`User:` and `Assistant:`; other programs must ask it in that form too",
        "Expected of a base model. A chat model's folder needs its chat_template.jinja.",
    ),
    "too_long": (
        "warning",
        "the row is longer than the limit; it is left out whole, never cut",
        "Raise `fine_tune.max_length`, take a model with a longer context, or shorten the row.",
    ),
    "no_pair": (
        "error",
        "the row has no answer that is not wanted, or none that is",
        "Give `chosen` and `rejected` (or `preferred_output` and `non_preferred_output`).",
    ),
    "no_label": (
        "error",
        "the row does not say whether its answer is a good one",
        "Give `kto_tag` (or `label`): true or false; or pairs with `chosen` and `rejected`.",
    ),
    "equal_answers": (
        "warning",
        "both answers are the same, so there is nothing to prefer; the row is left out",
        "Remove the row, or correct one of its answers.",
    ),
    "no_teacher_answer": (
        "warning",
        "the teacher has no answer to the row; it is left out",
        "Record the teacher's answer, or remove the row.",
    ),
    "no_teacher_tokens": (
        "warning",
        "other rows have the teacher's log-probabilities, this one has its text alone; it is "
        "learnt from the text",
        "Ask the teacher with `logprobs` and `top_logprobs` for all rows.",
    ),
    "teacher_tokens_differ": (
        "error",
        "the teacher cuts the answer into other tokens than this model, so its log-probabilities "
        "say nothing about this model's tokens",
        "Use a teacher with the same tokenizer; or learn such rows from their text with "
        "`fine_tune.distill.on_mismatch: text`, or all rows with `divergence_weight: 0`.",
    ),
    "teacher_tokens_not_used": (
        "warning",
        "the teacher cuts the answer into other tokens than this model; the row is learnt from "
        "its text alone",
        "Use a teacher with the same tokenizer to learn from its log-probabilities too.",
    ),
}


def encode_and_audit(
    encoder: Encoder, examples: Iterable[Example], max_length: int | None
) -> tuple[Items, list[Finding]]:
    """Encode all rows and check their labels.

    Args:
        max_length: most tokens of a row; longer rows are left out and counted.

    Returns:
        The rows that fit, each an item, in order, and the findings, errors first.
    """
    items, book = Items(), FindingBook()
    for number, example in enumerate(examples):
        row = audited_row(encoder, example, max_length, book)
        if row is not None:
            items.append([row], number)
    return items, book.findings()


def audited_row(
    encoder: Encoder, example: Example, max_length: int | None, book: FindingBook
) -> EncodedRow | None:
    """One row, encoded, with what is wrong with it noted in ``book``.

    None if it is too long, or cannot be rendered whole.
    """
    try:
        row = encoder.encode(example)
    except DataError as error:
        fix = error.hint or "Correct the row, or take it out."
        book.add("not_rendered", example.source or example.id, "error", error.message, fix)
        return None
    if max_length is not None and len(row.ids) > max_length:
        note_too_long(book, row.id, len(row.ids), max_length)
        return None
    for code in row_problems(encoder, example, row):
        note(book, code, row.id)
    return row


def note(book: FindingBook, code: str, row: str) -> None:
    """Count a row under one of the codes of this file."""
    book.add(code, row, *_TEXTS[code])


def note_too_long(book: FindingBook, row: str, tokens: int, limit: int) -> None:
    """Count a row that is left out for its length."""
    severity, message, fix = _TEXTS["too_long"]
    message = f"{message} (the longest has {tokens:,} tokens, the limit is {limit:,})"
    book.add("too_long", row, severity, message, fix, size=tokens)


def no_chat_template() -> Finding:
    """What is told of a model without a chat template; it concerns no single row."""
    severity, message, fix = _TEXTS["no_chat_template"]
    return Finding("no_chat_template", severity, 0, (), message, fix)


def row_problems(encoder: Encoder, example: Example, row: EncodedRow) -> list[str]:
    """Codes of what is wrong with one encoded row's labels."""
    problems = []
    tokenizer = encoder.tokenizer
    trained = row.ids[row.weights > 0].tolist()
    unknown = tokenizer.unk_token_id
    has_unknown = unknown is not None and unknown in trained
    if has_unknown:
        problems.append("unknown_characters")
    if not trained:
        return ["no_trained_token"]
    if encoder.trained == "all":
        return problems
    weight = (example.target or {}).get("weight", 1)
    if example.target is None or weight == 0:
        return problems
    if trained[-1] not in encoder.end_ids:
        problems.append("end_of_turn_not_trained")
    text = tokenizer.decode(trained)
    target = encoder.as_trained(example.target)
    answer = text_of(target).strip()
    forms = template_forms(tokenizer)
    if not answer and not target.get("tool_calls"):
        problems.append("empty_answer")
    if not has_unknown and missing_field(forms, target, text):
        problems.append("template_changes_text")
    elif encoder.trained == "answers":
        asked = [text_of(m).strip() for m in example.prompt if m.get("role") == "user"]
        thoughts = str(target.get("reasoning_content") or "")
        rest = _squeezed(text).replace(_squeezed(answer), "", 1).replace(_squeezed(thoughts), "", 1)
        if any(len(a) >= 8 and _squeezed(a) in rest for a in asked):
            problems.append("prompt_in_loss")
    return problems


def _squeezed(text: str) -> str:
    # Tokenizers of the sentencepiece kind may add or drop a space at a border; that is no change.
    return "".join(text.split())


def gate(findings: Sequence[Finding], rows: Sequence[object]) -> None:
    """Stop before step 0 where labels are wrong.

    Raises:
        TrainingError: for the gravest finding of severity ``error``, naming rows.
    """
    for finding in findings:
        if finding.severity == "error":
            shown = ", ".join(repr(r) for r in finding.rows[:5])
            more = f" and {finding.count - 5} more" if finding.count > 5 else ""
            raise TrainingError(
                f"{finding.message} (row {shown}{more})",
                where=f"label audit: {finding.code}",
                hint=finding.fix,
            )
    if not len(rows):
        left_out = [f for f in findings if f.code in LEFT_OUT]
        counts = "; ".join(f"{f.count}: {f.message}" for f in left_out)
        raise TrainingError(
            f"no row is left to learn from ({counts or 'there was none'})",
            where="label audit",
            hint=left_out[0].fix if left_out else "Give rows.",
        )


@dataclass(frozen=True, slots=True)
class ShownToken:
    """One token for display: its text, and the weight of its prediction (0: only read)."""

    text: str
    weight: float


def show_tokens(encoder: Encoder, example: Example) -> list[ShownToken]:
    """One row's tokens with their loss weights, for colouring.

    A token that ends within a character shows its bytes as escapes.
    """
    from tunewise.models.token_bytes import TokenBytes

    row, piece = encoder.encode(example), TokenBytes(encoder.tokenizer)
    return [
        ShownToken(piece(int(i)).decode("utf-8", "backslashreplace"), float(w))
        for i, w in zip(row.ids, row.weights, strict=True)
    ]
