"""The study file as a schema: it gives the YAML, its errors, the JSON Schema and the docs."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tunewise.errors import StudyError
from tunewise.study.fine_tune import FineTune as FineTune
from tunewise.study.parts import KINDS, Traits, traits_of
from tunewise.study.strict import Strict as Strict


def _known_kind(value: str) -> str:
    known = KINDS.names()
    if value not in known:
        expected = ", ".join(f"'{kind}'" for kind in known)
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": expected}
        )
    try:
        traits_of(value)
    except StudyError as error:
        raise ValueError(f"{error.message}. {error.hint}") from error
    return value


class _InstalledKinds:
    """Lists the kinds in the JSON Schema when that is asked for, not when this is imported."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"enum": KINDS.names()}


CandidateKind = Annotated[str, AfterValidator(_known_kind), _InstalledKinds()]
Effort = Literal["quick", "standard", "thorough"]


class Columns(Strict):
    """Which column of the file holds what, where the names differ from the usual ones."""

    input: str | None = Field(None, description="column with the question or text")
    output: str | None = Field(None, description="column with the wanted answer")
    messages: str | None = Field(None, description="column with a chat conversation")
    rejected: str | None = Field(None, description="column with the answer that is not wanted")
    references: str | None = Field(
        None, description="column with a list of right answers; the best one counts"
    )
    id: str | None = Field(None, description="column with a unique row id")
    group: str | None = Field(None, description="rows of one group never stand in two splits")
    time: str | None = Field(None, description="column with a time; makes the split temporal")
    documents: str | None = Field(
        None, description="column with the id (or ids) of the document that holds the answer"
    )
    system: str | None = Field(None, description="column with a system prompt")
    text: str | None = Field(
        None, description="column with a text of which nothing is asked, as `pretrain` learns it"
    )


class SplitSpec(Strict):
    """How rows that name no split are divided."""

    folds: int | None = Field(
        None,
        ge=3,
        le=20,
        description="every row is tested once, by a system that learnt from the other folds and "
        "was chosen on a part of them; for few rows, at as many trainings",
    )
    test: float | None = Field(None, gt=0, lt=1, description="share of the rows that are tested")
    dev: float | None = Field(
        None, gt=0, lt=1, description="share of the rows (of a fold's others) to choose on"
    )

    @model_validator(mode="after")
    def _folds_or_a_share(self) -> SplitSpec:
        if self.folds is not None and self.test is not None:
            raise ValueError("give `folds` or `test`, not both: folds test every row")
        if (self.test or 0) + (self.dev or 0) >= 1:
            raise ValueError("`test` and `dev` leave no rows to learn from")
        return self


class Data(Strict):
    """Where the examples are."""

    examples: str | None = Field(
        None, description="file, folder or hub data set with all rows; Tunewise splits it"
    )
    train: str | None = Field(None, description="rows to learn from, where already split")
    dev: str | None = Field(None, description="rows to choose on; cut from train if absent")
    test: str | None = Field(None, description="rows for the one final test")
    documents: str | None = Field(None, description="folder or file that retrieval searches")
    form: Literal["chat", "raw"] | None = Field(
        None,
        description="`raw`: prompts and answers as bare text, without a chat template, as "
        "`/v1/completions` is asked; by default for `prompt`/`completion` rows where the model is "
        "one of completions or has no chat template",
    )
    columns: Columns = Field(default_factory=Columns, description="column names that differ")
    encoding: str | None = Field(None, description="of the text files, if not UTF-8")
    split: Literal["auto"] | SplitSpec | None = Field(
        None,
        description="`{folds: 5}`, or shares such as `{test: 0.3, dev: 0.1}`; `auto` takes five "
        "folds where one test would be too small to show a gain of 10 points. By default a "
        "fifth of the rows is tested, at least 200, at most a third",
    )
    max_rows: PositiveInt | None = Field(
        None,
        description="use this many rows, drawn by hash, beside those that are given as dev and "
        "test; the report says so",
    )
    max_test_rows: PositiveInt | None = Field(
        None, description="test on this many rows, drawn by hash; the report says so"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if self.examples and self.train:
            raise ValueError("give either `examples` or `train`, not both")
        folds = isinstance(self.split, SplitSpec) and self.split.folds is not None
        if folds and (self.test or self.dev or self.max_test_rows):
            raise ValueError(
                "`split.folds` test every row: leave out `test`, `dev`, `max_test_rows`"
            )
        return self


class Metric(Strict):
    """The scorer and its options. A plain name is enough: ``metric: list_f1``."""

    name: str = Field(description="name of a scorer, e.g. exact_match, list_f1, json_fields")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the scorer")


class CandidateSpec(Strict):
    """One way of getting answers. A plain kind is enough: ``- few_shot``."""

    name: str = Field(description="how the report calls it; the kind by default")
    kind: CandidateKind = Field(description="what it does")
    model: str | None = Field(None, description="its own model, if not the study's")
    prompt: str | list[str] | None = Field(
        None, description="its own instructions; of several, the best on dev is taken"
    )
    k: list[PositiveInt] | None = Field(
        None, description="numbers of shots (few_shot) or passages (rag) to choose from on dev"
    )
    selection: list[Literal["fixed", "nearest"]] | None = Field(
        None, description="few_shot: the same shots for all rows, or each row's nearest"
    )
    orders: PositiveInt | None = Field(None, description="few_shot: orders tried on dev (3)")
    passage_words: PositiveInt | None = Field(None, description="rag: words per passage (120)")
    dense: str | None = Field(
        None, description="rag: a sentence-embedding model searched beside BM25"
    )
    answers: str | list[str] | None = Field(None, description="recorded: file(s) with answers")
    fine_tuned: bool | None = Field(None, description="recorded: made by a fine-tuned model")
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of a kind that another package brings"
    )
    usd_per_1k_requests: float | None = Field(
        None, ge=0, description="known price per 1,000 requests, where no price file has it"
    )
    usd_per_month: float | None = Field(None, ge=0, description="hosting, US dollars a month")
    usd_once: float | None = Field(None, ge=0, description="spent once, e.g. training")

    @model_validator(mode="before")
    @classmethod
    def _name_from_kind(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if "name" not in value and "kind" in value:
                return {**value, "name": value["kind"]}
            if "kind" not in value and value.get("name") in KINDS.names():
                return {**value, "kind": value["name"]}
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", value):
            raise ValueError("use letters, digits and _ . + - only, at most 64 of them")
        return value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> CandidateSpec:
        traits = self.traits
        if traits.recorded and self.answers is None:
            raise ValueError("a recorded candidate needs `answers: FILE.jsonl`")
        if not traits.recorded and self.answers is not None:
            raise ValueError("`answers` goes with `kind: recorded`")
        if not traits.recorded and self.fine_tuned is not None:
            raise ValueError("`fine_tuned` goes with `kind: recorded`")
        unknown = sorted(self.options.keys() - set(traits.options))
        if unknown:
            known = ", ".join(f"`{option}`" for option in traits.options)
            raise ValueError(
                f"`{self.kind}` has no option `{unknown[0]}`; "
                + (f"its options: {known}" if known else "it has none under `options`")
            )
        return self

    @cached_property
    def traits(self) -> Traits:
        """What candidates of this kind are."""
        return traits_of(self.kind)

    @property
    def is_constant(self) -> bool:
        """Whether it answers every row alike: the floor that all others must beat."""
        return self.traits.constant

    @property
    def is_fine_tuned(self) -> bool:
        """Whether a fine-tuned model takes part in its answers."""
        return self.traits.trained or bool(self.fine_tuned)


class Target(Strict):
    """What would be enough, and what would be worth having."""

    minimal_gain: float = Field(
        2.0, ge=0, le=100, description="points (0..100) that are worth having (the MID)"
    )
    score: float | None = Field(
        None, ge=0, le=100, description="a score in points that is already enough"
    )


class Forgetting(Strict):
    """What the model must still be able to do afterwards."""

    suite: str | None = Field(
        "general",
        description="`general` (ships with Tunewise), a JSONL file of yours, or null; asked in "
        "random order until it is decided",
    )
    margin: float = Field(3.0, gt=0, le=100, description="points it may lose")
    veto: bool = Field(
        False,
        description="a loss in the suite overrules a gain; otherwise it stands beside the headline",
    )
    must_pass: str | None = Field(
        None, description="JSONL file of rows it may not lose at all; a lost one overrules a gain"
    )


class Traffic(Strict):
    """How much it will be used; turns cost per request into cost per month."""

    requests_per_month: float | None = Field(None, ge=0)
    horizon_months: PositiveFloat = Field(12.0, description="spread one-off costs over this")
    value_per_correct: float | None = Field(
        None, ge=0, description="US dollars that one more correct answer is worth"
    )


class Costs(Strict):
    """Prices and limits, in US dollars. What is unknown is shown as unknown."""

    prices: str | None = Field(None, description="a dated price file (YAML); see docs")
    label: float | None = Field(None, ge=0, description="one more labelled row")
    labels: int | None = Field(None, ge=0, description="rows yet to be labelled and paid")
    hour: float | None = Field(None, ge=0, description="one hour of an engineer")
    hours: float | None = Field(None, ge=0, description="engineer hours that fine-tuning takes")
    retrains_per_year: float = Field(1.0, ge=0, description="base models retire; data drift")
    cache_hit_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of requests whose static prompt tokens (those that every request "
        "repeats at its start) are billed as cached; by default as the provider billed the test",
    )
    max_usd: float | None = Field(None, ge=0, description="nothing is spent beyond this")


class Server(Strict):
    """A server that speaks the OpenAI API; use it as ``model: NAME:MODEL``."""

    base_url: str = Field(description="for instance http://localhost:8000/v1")
    api_key: str | None = Field(
        None, description="`${NAME}` of an environment variable; never the key itself"
    )
    concurrency: PositiveInt = Field(8, description="requests under way at once")
    timeout_s: PositiveFloat = Field(120.0)

    @field_validator("api_key")
    @classmethod
    def _only_a_reference(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", value):
            # The value itself must not be repeated here: it may be a real key.
            raise ValueError("write `${NAME}` of an environment variable, not the key itself")
        return value


class Output(Strict):
    """Limits that all candidates share."""

    max_tokens: PositiveInt | None = Field(
        None,
        description="longest answer in tokens; by default from the training answers' lengths, and "
        "1,024 more for a model whose chat template knows thoughts",
    )
    json_schema: dict[str, Any] | str | None = Field(
        None, description="answers must fit this JSON Schema (inline or a file); enforced"
    )
    stop: list[str] = Field(default_factory=list)
    constrain: bool = Field(
        True,
        description="hold models, the tuned one too, to the form of the training answers where "
        "these are labels, numbers or JSON: a label is then one of the labels, and JSON is valid",
    )


def _metric(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _metrics(value: Any) -> Any:
    return [_metric(v) for v in value] if isinstance(value, list) else [_metric(value)]


def _columns(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _candidates(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [{"name": v, "kind": v} if isinstance(v, str) else v for v in value]


class Study(Strict):
    """One question asked of one task: would fine-tuning be worth it?"""

    name: str = Field(description="letters, digits, dashes; names the folder of the results")
    use_case: str = Field("", description="what it is for, in a sentence; stands in the report")
    model: str | None = Field(
        None,
        description="tunewise/tiny, a hub id, a folder, openai:MODEL, or SERVER:MODEL",
    )
    prompt: str | list[str] | None = Field(
        None, description="instructions that all candidates start from; several may be given"
    )
    data: Data = Field(default_factory=Data)
    metric: Annotated[Metric, BeforeValidator(_metric)] = Field(description="what counts as right")
    also: Annotated[list[Metric], BeforeValidator(_metrics)] = Field(
        default_factory=list,
        description="further metrics, shown beside what decides; what gets worse by one of them "
        "stands beside the headline",
    )
    slices: Annotated[list[str], BeforeValidator(_columns)] = Field(
        default_factory=list,
        description="columns of the rows; the gain is shown for each of their values, and what "
        "gets worse stands beside the headline",
    )
    candidates: Annotated[list[CandidateSpec], BeforeValidator(_candidates)] | None = Field(
        None, description="ways of answering; by default all that fit the data"
    )
    fine_tune: FineTune = Field(default_factory=FineTune)
    target: Target = Field(default_factory=Target)
    effort: Effort = Field("standard", description="sets pilot, sweep and seeds")
    prompt_search: int | None = Field(
        None,
        ge=0,
        le=20,
        description="further phrasings of the instructions, made by program from training rows, "
        "that prompted candidates try on dev; by default 3 (quick), 4 or 5 by effort, half of it "
        "beside shots or passages; 0: none. All settings of a candidate race: losers leave "
        "after a part of dev, and the report says after how many rows",
    )
    forgetting: Forgetting = Field(default_factory=Forgetting)
    traffic: Traffic = Field(default_factory=Traffic)
    costs: Costs = Field(default_factory=Costs)
    output: Output = Field(default_factory=Output)
    servers: dict[str, Server] = Field(default_factory=dict)
    primary: tuple[str, str] | None = Field(
        None,
        description="recorded studies: the pair (with fine-tuning, without) named beforehand",
    )
    dev_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="recorded studies without dev answers: choose champions on this share, by hash",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @field_validator("name")
    @classmethod
    def _folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
            raise ValueError("use letters, digits and _ . - only, at most 64 of them")
        return value

    @field_validator("candidates")
    @classmethod
    def _distinct(cls, value: list[CandidateSpec] | None) -> list[CandidateSpec] | None:
        names = [c.name for c in value or []]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"two candidates are called {twice[0]!r}; give each its own `name`")
        if value is not None and not value:
            raise ValueError("the list is empty; name at least one candidate")
        return value

    @property
    def phrasings(self) -> int:
        """How many further phrasings of the instructions are tried on dev."""
        by_effort = {"quick": 3, "standard": 4, "thorough": 5}
        return by_effort[self.effort] if self.prompt_search is None else self.prompt_search

    @property
    def only_recorded(self) -> bool:
        """All answers were made elsewhere: no model is needed."""
        others = [c for c in self.candidates or [] if not c.is_constant]
        return bool(others) and all(c.traits.recorded for c in others)
