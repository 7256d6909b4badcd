"""What is to be trained, and what came of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tunewise.data.chat import Example, canonical_hash
from tunewise.errors import DataError, ModelError, TrainingError
from tunewise.models.names import ModelRef, parse_model
from tunewise.models.raw_form import Form
from tunewise.models.template_date import model_asks_for_date, today
from tunewise.study.schema import FineTune
from tunewise.study.trusted_code import named_code
from tunewise.training.methods import METHODS

OnEvent = Callable[[Mapping[str, Any]], None]
"""Called with each event of a run: JSON values, with ``event`` naming its kind."""

# Part of a job's key: raised when the same job would lead to other weights than before.
RECIPE = 2


class TrainingStopped(TrainingError):
    """Stopped on request; a checkpoint is on disk and the same job goes on from there."""


class NotFiniteError(TrainingError):
    """The loss or gradient is not a number; the last good checkpoint is on disk."""


class LossSpikeError(TrainingError):
    """The loss has jumped far above its recent past; the last good checkpoint is on disk."""


@dataclass(frozen=True)
class TrainingJob:
    """One fine-tune with everything that determines its weights.

    Attributes:
        model: spec or folder of the base model.
        examples: rows to learn from.
        dev: rows whose loss chooses the checkpoint; may be empty.
        fine_tune: method, adapter, lengths, precision.
        learning_rate: peak of the schedule.
        epochs: passes over the rows; may be a fraction.
        seed: of the adapter's start, the order of rows and dropout.
        output: folder for checkpoints and the result; it belongs to this job alone.
        prompt: instructions, where a row has no system message.
        max_steps: ends earlier, with the schedule of this shorter run.
        threads: for torch; None takes what the machine has. Not part of the key, but a run that
            goes on keeps the number that it began with.
        checkpoint_seconds: time between checkpoints; one is made after each epoch anyway.
        keep_epochs: of how many last epochs the weights stay in ``output/epochs/<step>/``, each in
            the form of the result. Not part of the key.
        keep: the weights that the result holds: those of the lowest dev loss, which also ends a
            run early, or the last.
        start: folder of an adapter (peft's format) whose weights training begins with; preference
            methods then stay close to it rather than to the base. None begins anew.
        eval_every, eval_rows: look at this many rows of dev each so many steps, besides the whole
            of dev after each epoch; None never does. Not part of the key: nothing is chosen by it.
        dev_before: look at the whole of dev before step 0 too, to compare with. Likewise.
        date: ISO 8601, what a chat template that asks for today's date is given; part of the key
            only where the model's does. The tuned model is asked with the same one. None is of a
            job of earlier releases: whatever day it is.
        form: ``raw`` trains on bare text instead of the chat template's (``models/raw_form.py``);
            the tuned model is asked in the same form.

    Raises:
        TrainingError: an unknown method, a number that is not above 0, or a method that cannot
            begin with an adapter.
    """

    model: str
    examples: Sequence[Example]
    dev: Sequence[Example]
    fine_tune: FineTune
    learning_rate: float
    epochs: float
    seed: int
    output: Path
    prompt: str | None = None
    max_steps: int | None = None
    threads: int | None = None
    checkpoint_seconds: float = 120.0
    keep_epochs: int = 0
    keep: Literal["best", "last"] = "best"
    start: Path | None = None
    eval_every: int | None = None
    eval_rows: int = 1
    dev_before: bool = False
    date: str | None = field(default_factory=today)
    form: Form = "chat"

    def __post_init__(self) -> None:
        if self.fine_tune.method not in METHODS:
            raise TrainingError(
                f"no such method: {self.fine_tune.method!r}",
                where="fine_tune.method",
                hint=f"On this machine there is: {', '.join(METHODS)}.",
            )
        for name in ("learning_rate", "epochs"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TrainingError(
                    f"{value!r} cannot be meant", where=f"fine_tune.{name}", hint="Above 0, please."
                )
        if self.start is None:
            return
        if self.fine_tune.adapter == "full":
            raise TrainingError(
                "training of all weights cannot begin with an adapter",
                where="fine_tune.adapter",
                hint="Use `adapter: lora`, or a model that the adapter is merged into.",
            )
        if self.fine_tune.method == "grpo" and self.fine_tune.grpo.beta > 0:
            raise TrainingError(
                "the divergence from the model that training begins with is not computed",
                where="fine_tune.grpo.beta",
                hint="Set `beta: 0` to train on top of a tuned model.",
            )

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that determines the weights: 64 hex digits.

        Raises:
            ModelError: when the model is not there.
        """
        return self.key_of(rows_digest(self.examples, self.dev, self.fine_tune.method))

    def key_of(self, rows: str) -> str:
        """The key, where the digest of the rows is known: reading a million takes a while."""
        return canonical_hash(
            {
                "recipe": RECIPE,
                "model": model_revision(self.model),
                "rows": rows,
                "fine_tune": learning_options(self.fine_tune),
                "learning_rate": self.learning_rate,
                "epochs": self.epochs,
                "seed": self.seed,
                "prompt": self.prompt,
                "max_steps": self.max_steps,
                **_contents(self.fine_tune),
                # Only where it is not the default, so that older runs keep their keys.
                **({} if self.keep == "best" else {"keep": self.keep}),
                **({} if self.start is None else {"start": adapter_revision(self.start)}),
                **({} if self.form == "chat" else {"form": self.form}),
                **({"date": self.date} if self.date is not None and self._asks_for_date else {}),
            }
        )

    @property
    def _asks_for_date(self) -> bool:
        from tunewise.models.weights import locate

        return self.form == "chat" and model_asks_for_date(locate(local_model(self.model)))


def date_of(model: str, start: Path | None, otherwise: str) -> str:
    """The date that a job's chat template is given: tuned weights keep theirs, others take one.

    Args:
        model: spec or folder of a local model.
        start: folder of the adapter that the job begins with.
        otherwise: ISO 8601.

    Raises:
        ModelError: when the model is not there.
    """
    from tunewise.models.trained_as import trained_as
    from tunewise.models.weights import locate

    own = trained_as(start).date if start is not None else None
    return own or trained_as(locate(local_model(model))).date or otherwise


def rows_digest(examples: Sequence[Example], dev: Sequence[Example], method: str) -> str:
    """SHA-256 of all that a training by ``method`` reads of its rows."""
    rows = hashlib.sha256()
    for part, found in (("train", examples), ("dev", dev)):
        rows.update(part.encode())
        for example in found:
            rows.update(canonical_hash(_row(example, method)).encode())
    return rows.hexdigest()


def model_revision(spec: str) -> str:
    """The content of a local model's files as a digest; a hub model is fetched first.

    Raises:
        ModelError: when it is not there, or is not a model of this machine.
    """
    from tunewise.models.weights import locate, revision_of

    return revision_of(
        locate(local_model(spec)), ("*.safetensors", "config.json", "tokenizer*", "*.jinja")
    )


def local_model(spec: str) -> ModelRef:
    """A model whose weights this machine can hold.

    Raises:
        ModelError: the spec cannot be meant, or names a model that runs on a server.
    """
    ref = parse_model(spec)
    if not ref.is_local:
        raise ModelError(
            "this model runs on a server, so its weights and tokenizer are not here",
            where=spec,
            hint="Name a model with weights: a folder, a hub id, or tunewise/tiny.",
        )
    return ref


def adapter_revision(folder: Path) -> str:
    """The content of an adapter's files as a digest.

    Raises:
        ModelError: no adapter lies there, or only as a pickle.
    """
    from tunewise.models.weights import require_safetensors, revision_of

    if not (folder / "adapter_config.json").is_file():
        raise ModelError("no adapter_config.json, so this is no adapter", where=str(folder))
    require_safetensors(folder, "adapter_model.safetensors")
    return revision_of(folder, ("adapter_model.safetensors", "adapter_config.json"))


def _row(example: Example, method: str) -> list[Any]:
    """What training reads of an example."""
    messages = [dict(m) for m in example.messages]
    row: list[Any] = [example.id, messages, [dict(t) for t in example.tools], example.rejected]
    if method == "kto":
        row.append(example.desirable)
    if method in ("kto", "distill", "grpo"):  # labels, a teacher's answers, what graders read
        row.append(dict(example.metadata))
    if method == "grpo" and example.references:  # what metrics compare with
        row.append([dict(m) for m in example.references])
    return row


def _contents(fine_tune: FineTune) -> dict[str, str]:
    """Digests of the files that training reads beside its rows.

    Raises:
        DataError: one is not there.
        StudyError: it is the code of a reward.
    """
    if code := named_code(fine_tune):
        return {"code": code.sha256}
    if fine_tune.method != "distill" or fine_tune.distill.answers is None:
        return {}
    path = Path(fine_tune.distill.answers)
    try:
        return {"answers": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as error:
        raise DataError(
            "the teacher's answers cannot be read",
            where=str(path),
            hint="Correct `fine_tune.distill.answers`.",
        ) from error


_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "dpo": ("dpo",),
    "orpo": ("orpo",),
    "kto": ("kto",),
    "reward": ("reward_model",),
    "grpo": ("grpo", "reward", "grader"),
    "distill": ("distill",),
}
"""What a method reads of ``fine_tune`` for itself alone."""


def learning_options(fine_tune: FineTune) -> dict[str, Any]:
    """The options that determine the weights, beside rows, epochs, learning rate and seed."""
    # Where it runs, who watches, what the caller has already chosen from, how memory is spent and
    # when to give up do not change the weights; nor do the options of other methods.
    others = {name for method in _SECTIONS for name in _SECTIONS[method]}
    others -= set(_SECTIONS.get(fine_tune.method, ()))
    spared = {"route", "epochs", "learning_rate", "seeds", "recompute", "loss_spike", "hosted"}
    if fine_tune.thoughts == "keep":  # as before the option, so that older runs keep their keys
        spared |= {"thoughts"}
    return fine_tune.model_dump(mode="json", exclude=spared | others | {"report_to"})


@dataclass(frozen=True)
class TrainingResult:
    """A finished fine-tune.

    Attributes:
        adapter: folder in peft's format, or None for a full fine-tune.
        model: folder of the whole model, or None for an adapter.
        steps: optimiser steps done.
        best_step: the step whose weights were kept.
        tokens: tokens learnt from, as rows hold them, summed over epochs.
        trained_tokens: those of them that count in the loss.
        rows: rows learnt from; ``rows_left_out`` counts others by reason.
        seconds: of training, over all runs if it was interrupted.
        peak_memory_bytes: of the process.
        train_loss: one value per step; dev_loss: (step, loss) pairs.
        path: ``flat`` or ``plain``, with ``path_reason`` for the latter.
        config: what ran, with every default filled in.
        metrics: the method's figures (``train_…`` of the last step, ``valid_…`` of the last look
            at dev), and what was counted.
        remote: the tuned model as a study names it (``openai:ft:…``, ``azure:DEPLOYMENT``), where
            a server keeps the weights; then there is neither ``adapter`` nor ``model``.
    """

    adapter: Path | None
    model: Path | None
    steps: int
    best_step: int
    tokens: int
    trained_tokens: int
    rows: int
    rows_left_out: Mapping[str, int]
    seconds: float
    peak_memory_bytes: int
    train_loss: Sequence[float]
    dev_loss: Sequence[tuple[int, float]]
    path: str
    path_reason: str
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    remote: str | None = None

    @property
    def best_dev_loss(self) -> float | None:
        """The dev loss of the kept weights."""
        losses = dict(self.dev_loss)
        return losses.get(self.best_step)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, for ``training.json``; folders by name."""
        value = asdict(self)
        value["adapter"] = self.adapter.name if self.adapter else None
        value["model"] = self.model.name if self.model else None
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], folder: Path) -> TrainingResult:
        """The inverse of ``as_dict`` for a result that lies in ``folder``."""
        names = set(cls.__dataclass_fields__)
        known = {k: v for k, v in value.items() if k in names}
        for key in ("adapter", "model"):
            known[key] = folder / known[key] if known[key] else None
        known["dev_loss"] = [(int(s), float(v)) for s, v in known["dev_loss"]]
        return cls(**known)
