"""The part of a study file that says how to fine-tune."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from tunewise.study.strict import Strict


class Lora(Strict):
    """A low-rank adapter (Hu et al., 2106.09685). Defaults: verdict method, section 3."""

    rank: PositiveInt = Field(16, description="rank of the update; 16 to 32 fits most tasks")
    alpha: PositiveFloat | None = Field(None, description="scale; twice the rank by default")
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = Field(
        "all-linear", description="which layers; all of them learn better than attention alone"
    )
    rslora: bool = Field(False, description="rank-stabilised scaling (2312.03732)")
    dora: bool = Field(False, description="magnitude and direction apart (2402.09353)")


class Dpo(Strict):
    """Direct preference optimisation (Rafailov et al., 2305.18290)."""

    beta: PositiveFloat = Field(0.1, description="how closely it stays to the base model")
    loss_type: Literal["sigmoid", "ipo"] = Field(
        "sigmoid", description="DPO's own loss, or IPO's (2310.12036), which cannot overfit so far"
    )
    length_normalised: bool = Field(
        False, description="log-probabilities per token; IPO usually goes with it"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of the labels that are wrong (sigmoid only)"
    )

    @model_validator(mode="after")
    def _smoothing_goes_with_sigmoid(self) -> Dpo:
        if self.label_smoothing and self.loss_type != "sigmoid":
            raise ValueError("`label_smoothing` goes with `loss_type: sigmoid`")
        return self


class Orpo(Strict):
    """Odds-ratio preference optimisation (Hong et al., 2403.07691): no reference model."""

    beta: PositiveFloat = Field(0.1, description="weight of the odds-ratio term")


class Kto(Strict):
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2402.01306): labels, no pairs."""

    beta: PositiveFloat = Field(0.1, description="how closely it stays to the base model")
    desirable_weight: float = Field(1.0, ge=0, description="of rows with good answers")
    undesirable_weight: float = Field(1.0, ge=0, description="of rows with bad answers")


class RewardModel(Strict):
    """A model that scores answers, from pairs (Bradley and Terry)."""

    centre: float = Field(
        0.0, ge=0, description="pulls a pair's scores towards a sum of 0 (2312.09244); 0.01 will do"
    )


class Reward(Strict):
    """What grpo rewards: a metric with its options. A plain name is enough."""

    name: str = Field(
        description="a metric (`exact_match`, …), or `module:function` of your own, called with "
        "the example and the completion; it runs only where you allow it (`--allow-code`)"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the metric")


class Grpo(Strict):
    """Group-relative policy optimisation (Shao et al., 2402.03300)."""

    samples: int = Field(8, ge=2, description="answers to each prompt, compared with each other")
    max_tokens: PositiveInt = Field(256, description="longest sampled answer")
    temperature: PositiveFloat = Field(1.0, description="of the sampling")
    beta: float = Field(0.0, ge=0, description="weight of the divergence from the base model")
    epsilon: float = Field(0.2, gt=0, lt=1, description="clips a token's ratio of probabilities")
    epsilon_high: float | None = Field(
        None, gt=0, description="upper clip, if not the same; DAPO (2503.14476) takes 0.28"
    )
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = Field(
        "dapo",
        description="mean over answers of their tokens' mean (grpo: favours short right and long "
        "wrong answers); over all tokens (dapo); over tokens by the constant `max_tokens` "
        "(dr_grpo, 2503.20783)",
    )
    scale_rewards: bool = Field(
        True, description="divide by the group's spread; Dr. GRPO does not, since it biases"
    )
    skip_cut_answers: bool = Field(
        False, description="learn nothing from answers cut at `max_tokens` (DAPO)"
    )
    updates: PositiveInt = Field(1, description="optimiser updates from each sampled batch")


class Distill(Strict):
    """Answers of a teacher in place of the wanted ones, with its log-probabilities if recorded."""

    answers: str | None = Field(
        None,
        description="file with the teacher's answers: rows with `id` and `answer` (text, a "
        "message, or a choice of a chat completion), and `logprobs` as in such a choice",
    )
    column: str = Field("teacher", description="or the column of the rows that holds `answer`")
    divergence_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the divergence from the teacher's likeliest tokens in the loss, "
        "where they are recorded; the cross-entropy of its text has the rest (1503.02531)",
    )
    on_mismatch: Literal["refuse", "text"] = Field(
        "refuse",
        description="where the teacher cuts an answer into other tokens than the model: refuse "
        "to train, or learn from the text alone and say so",
    )


class Hosted(Strict):
    """What the hosted routes (openai, azure) take beside epochs and batch size."""

    learning_rate_multiplier: PositiveFloat | None = Field(
        None, description="of the provider's own learning rate, which is not told; auto by default"
    )
    reasoning_effort: Literal["low", "medium", "high"] | None = Field(
        None, description="grpo: of models that reason before they answer"
    )
    compute_multiplier: float | None = Field(
        None, ge=0.00001, le=10, description="grpo: factor on what is spent on sampled answers"
    )
    eval_interval: PositiveInt | None = Field(
        None, description="grpo: steps between two looks at the dev rows"
    )
    eval_samples: PositiveInt | None = Field(None, description="grpo: answers of such a look")
    suffix: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$",
        description="part of the tuned model's name, at most 40 letters and digits",
    )
    base_model: str | None = Field(
        None, description="azure: the base model's name, where `model` names a deployment of it"
    )
    training_type: Literal["Standard", "GlobalStandard", "Developer"] = Field(
        "Standard",
        description="azure: train in the resource's region, wherever there is room (cheaper), or "
        "on machines that may be taken away (cheapest)",
    )
    deploy: bool = Field(
        False,
        description="azure: deploy the tuned model, so that it can be asked; bills by the hour "
        "until the deployment is deleted",
    )
    deployment_type: Literal["Standard", "GlobalStandard", "DataZoneStandard", "DeveloperTier"] = (
        Field("Standard", description="azure: how it is hosted; DeveloperTier lasts 24 hours")
    )
    capacity: PositiveInt = Field(1, description="azure: rate limit, in units of the deployment")


def _reward(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


_HOSTED_WORDS = {"supervised": "sft", "reinforcement": "grpo"}
"""What OpenAI's and Azure's APIs call methods that have another name here."""


def _method(value: Any) -> Any:
    return _HOSTED_WORDS.get(value, value) if isinstance(value, str) else value


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class FineTune(Strict):
    """How to fine-tune."""

    route: str = Field("local", description="where: local, or another installed route")
    method: Annotated[str, BeforeValidator(_method)] = Field(
        "sft",
        description="how it learns: sft, distill (from a teacher's answers), pretrain (from plain "
        "text), dpo, orpo, kto, reward (from preferences), grpo (from rewards); the hosted words "
        "supervised and reinforcement mean sft and grpo",
    )
    adapter: Literal["lora", "qlora", "full"] = Field(
        "lora",
        description="train a small adapter, one over a base in 4 bits (bitsandbytes; fast on an "
        "NVIDIA GPU only), or all weights",
    )
    lora: Lora = Field(default_factory=Lora)
    epochs: PositiveFloat | None = Field(None, description="passes over the rows; 3 by default")
    learning_rate: PositiveFloat | list[PositiveFloat] | None = Field(
        None, description="one value, or several to choose from on dev; swept by default"
    )
    batch_size: PositiveInt | None = Field(
        None, description="rows per optimiser step; prompts, for grpo"
    )
    max_length: PositiveInt | None = Field(None, description="longest row in tokens")
    seeds: list[int] | None = Field(None, description="training seeds; set by effort by default")
    trained_rows: Literal["answers", "all_assistant", "all"] = Field(
        "answers",
        description="which tokens sft and distill learn: the last answer, all answers, everything",
    )
    thoughts: Literal["keep", "drop"] = Field(
        "keep",
        description="whether thoughts before the rows' answers (`<think>…</think>`, "
        "`reasoning_content`) are trained as the chat template writes them, or left out; metrics "
        "look at what follows them either way",
    )
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    recompute: bool | None = Field(
        None,
        description="keep no activations within layers and compute them again: less memory, a "
        "third more time; by default only where rows would not fit",
    )
    loss_spike: PositiveFloat | None = Field(
        20.0,
        description="stop where a step's loss lies this many robust standard deviations above "
        "that of the steps before it; null: never",
    )
    dpo: Dpo = Field(default_factory=Dpo)
    orpo: Orpo = Field(default_factory=Orpo)
    kto: Kto = Field(default_factory=Kto)
    reward_model: RewardModel = Field(default_factory=RewardModel)
    grpo: Grpo = Field(default_factory=Grpo)
    reward: Annotated[Reward, BeforeValidator(_reward)] | None = Field(
        None, description="what grpo rewards, from 0 to 1"
    )
    grader: dict[str, Any] | None = Field(
        None, description="what grpo rewards, as a grader of OpenAI's fine-tuning API"
    )
    distill: Distill = Field(default_factory=Distill)
    report_to: Annotated[list[str], BeforeValidator(_one_or_many)] = Field(
        default_factory=list,
        description="experiment trackers that follow a run on this machine: tensorboard, mlflow, "
        "wandb, trackio; their own environment variables say where",
    )
    hosted: Hosted = Field(default_factory=Hosted)

    @model_validator(mode="after")
    def _one_reward(self) -> FineTune:
        if self.reward is not None and self.grader is not None:
            raise ValueError("give either `reward` or `grader`, not both")
        return self

    @property
    def learns_unwanted(self) -> bool:
        """Rows whose answer is labelled as not wanted are learnt from, as what not to answer."""
        return self.method == "kto"
