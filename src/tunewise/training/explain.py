"""What a run would use, with the reason for each default, before its first step.

The values are read from the run itself, made ready up to step 0: what is shown is what is used.
Only the reasons stand here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tunewise.study.schema import FineTune

if TYPE_CHECKING:
    from tunewise.training.job import TrainingJob
    from tunewise.training.ready import Ready

GIVEN = "as given"

_REASONS: Mapping[str, tuple[str, str | None]] = {
    "learning_rate": (
        "LoRA: a factor of two around 2e-4, where most reports agree; all weights want about a "
        "tenth; models under 50M parameters are narrow and want about ten times as much; "
        "preference methods a tenth, since they move a model that answers already",
        "2405.09673; Schulman et al., LoRA Without Regret, 2025; 2305.18290",
    ),
    "sweep": (
        "each rate gets this share of the epochs with a whole schedule; the lowest dev loss wins",
        "2405.09673",
    ),
    "epochs": (
        "two or three passes fit most sets; the best look at dev is kept, so that one too many "
        "does no harm",
        "Unsloth's guide; Schulman et al., 2025",
    ),
    "seeds": (
        "one run may be lucky; from three on a verdict is about the recipe, not about one run",
        "2402.12819",
    ),
    "batch_size": (
        "LoRA loses more than full fine-tuning when batches grow; fewer rows a step for small "
        "sets, so that an epoch has about 20 steps",
        "Schulman et al., LoRA Without Regret, 2025",
    ),
    "steps": ("rows by batch size by epochs", None),
    "adapter": (
        "it learns as much as all weights do on sets of this kind, at two thirds of the "
        "computing, and forgets less",
        "2106.09685; 2405.09673; Schulman et al., 2025",
    ),
    "lora.rank": ("16 to 32 fits most tasks; instruction data need no more", "2405.09673"),
    "lora.alpha": ("twice the rank", "2405.09673"),
    "lora.dropout": ("few epochs and a small adapter need none", None),
    "lora.target_modules": (
        "all linear layers: attention alone is worse, even with as many parameters",
        "2405.09673; Schulman et al., LoRA Without Regret, 2025",
    ),
    "max_length": (
        "the model's context; a longer row is left out whole and counted, never cut",
        None,
    ),
    "trained_rows": (
        "the loss is on what the model shall write; what it only reads is not learnt",
        None,
    ),
    "thoughts": (
        "answers that begin with thoughts teach to think; what a template keeps of them is trained",
        None,
    ),
    "precision": (
        "the frozen weights; bfloat16 on a GPU or a processor with units for it, which halves "
        "memory, else float32; what learns is float32 in any case",
        None,
    ),
    "optimiser": ("decoupled weight decay; the usual choice", "1711.05101"),
    "weight_decay": ("short runs of few parameters need none", "2405.09673"),
    "gradient_norm": ("a single odd step cannot throw the weights far", "1211.5063"),
    "warmup_ratio": ("the first steps' moments are noise; the rate rises meanwhile", "1706.02677"),
    "scheduler": (
        "linear warm-up, then half a cosine down to a tenth: rates of the first step, the peak "
        "and the last",
        "1608.03983",
    ),
    "early_stopping": (
        "looks at dev in a row without a lower loss that end the run; the weights of the lowest "
        "are kept",
        None,
    ),
    "loss_spike": (
        "robust standard deviations above the recent steps; broken rows and too high a rate show "
        "there first",
        None,
    ),
    "recompute": (
        "activations are computed again only where a row would not fit the memory otherwise",
        "1604.06174",
    ),
    "tokens_per_pass": (
        "what is estimated to fit this machine's free memory; a step is cut into as many passes "
        "as it takes, with the same result",
        None,
    ),
    "path": ("flat batches where every layer is known to allow them, proved by a probe", None),
    "kernel": (
        "of attention: FlexAttention on a GPU where it agrees with blocks on some rows, else those",
        "2412.05496",
    ),
    "threads": ("all that this process may use; part of what makes a run repeatable", None),
    "trainable_parameters": ("what the adapter adds, or all weights", None),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that a run would use.

    Attributes:
        name: the key of ``fine_tune``, or what else it is called.
        value: a JSON value.
        given: the user has set it; else it is a default.
        reason: for the default.
        source: papers by number, guides by name; None where the reason stands for itself.
    """

    name: str
    value: Any
    given: bool
    reason: str
    source: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def setting(name: str, value: Any, fine_tune: FineTune, reason: str | None = None) -> Setting:
    """A setting with its reason: ``reason``, or the one that stands here under its name."""
    given = _is_given(name, fine_tune)
    if given:
        return Setting(name, value, True, GIVEN)
    why, source = (reason, None) if reason is not None else _REASONS[name]
    return Setting(name, value, False, why or "", source)


def settings_of(job: TrainingJob) -> list[Setting]:
    """What ``job`` would use, from the run made ready: rows encoded, model loaded, no step done.

    Nothing is written.

    Raises:
        TrainingError: what would stop the job itself before step 0, such as wrong labels.
        DataError, ModelError: a row or the model cannot be used.
    """
    from tunewise.training.ready import Ready
    from tunewise.training.surroundings import available_threads, computing

    run = Ready(job, lambda _: None, lambda: False)
    with computing(job.threads or available_threads()):
        run.prepare()
        return list(_settings(run))


def _settings(run: Ready) -> Iterator[Setting]:
    from tunewise.training.evaluation import PATIENCE
    from tunewise.training.loop import GRADIENT_NORM

    job, fine_tune, chosen, total = run.job, run.job.fine_tune, run.chosen, run.plan.total_steps

    def one(name: str, value: Any, reason: str | None = None) -> Setting:
        return setting(name, value, fine_tune, reason)

    yield one("batch_size", chosen["batch_size"])
    yield one("steps", total)
    yield one("adapter", fine_tune.adapter)
    if fine_tune.adapter != "full":
        yield from _adapter(run)
    yield one("trainable_parameters", sum(p.numel() for p in run.setup.weights.values()))
    yield one("max_length", chosen["max_length"])
    if fine_tune.method in ("sft", "distill"):
        yield one("trained_rows", fine_tune.trained_rows)
        yield one("thoughts", fine_tune.thoughts)
    yield from _method(fine_tune)
    yield one("precision", chosen["precision"])
    options = run.optimiser.defaults
    name = type(run.optimiser).__name__
    yield one("optimiser", {"name": name, "betas": list(options["betas"]), "eps": options["eps"]})
    yield one("weight_decay", options["weight_decay"])
    yield one("gradient_norm", GRADIENT_NORM)
    yield one("warmup_ratio", fine_tune.warmup_ratio)
    yield one("scheduler", _rates(run))
    stops = job.keep == "best" and len(run.dev) > 0
    yield one("early_stopping", PATIENCE if stops else None)
    yield one("loss_spike", fine_tune.loss_spike if run.method.steady else None)
    yield one("recompute", chosen["recompute"])
    yield one("tokens_per_pass", chosen["tokens_per_batch"])
    yield one("path", chosen["path"], run.path_reason or None)
    yield one("kernel", chosen["kernel"], run.kernel_reason or None)
    yield one("threads", chosen["threads"])


def _adapter(run: Ready) -> Iterator[Setting]:
    """From the adapter that is in the model."""
    lora, config = run.job.fine_tune.lora, run.setup.outer.peft_config["default"]
    values = {
        "rank": config.r,
        "alpha": config.lora_alpha,
        "dropout": config.lora_dropout,
        "target_modules": sorted(config.target_modules),
        "rslora": config.use_rslora,
        "dora": config.use_dora,
    }
    for name, value in values.items():
        key = f"lora.{name}"
        described = type(lora).model_fields[name].description
        yield setting(key, value, run.job.fine_tune, None if key in _REASONS else described)


def _method(fine_tune: FineTune) -> Iterator[Setting]:
    """The method's own options; their descriptions and papers are the schema's."""
    section = {"reward": "reward_model"}.get(fine_tune.method, fine_tune.method)
    options = getattr(fine_tune, section, None)
    if options is None or section not in FineTune.model_fields:
        return
    for name, field in type(options).model_fields.items():
        reason = field.description or ""
        yield setting(f"{section}.{name}", getattr(options, name), fine_tune, reason)


def _rates(run: Ready) -> list[float]:
    """The learning rates of the first step, the highest, and the last."""
    from tunewise.training.schedule import learning_rate

    total, ratio = run.plan.total_steps, run.job.fine_tune.warmup_ratio
    steps = (0, min(total - 1, math.ceil(total * ratio)), total - 1)
    return [learning_rate(step, total, run.job.learning_rate, ratio) for step in steps]


def _is_given(name: str, fine_tune: FineTune) -> bool:
    section, _, key = name.rpartition(".")
    part: Any = getattr(fine_tune, section) if section else fine_tune
    return key in part.model_fields_set and getattr(part, key) is not None
