"""What each stage of a study depends on: its key is the hash of that and of nothing else.

What can change an answer or a choice asks, trains or opens the test again. Prose, prices, traffic,
targets and report settings are read by the verdict alone, which is computed anew each time. So are
names: of files, of candidates, of servers that nobody asks. Rows count by what they hold, as they
were read, so that a hub data set that changes under its name is another one.

The order of the test rows says nothing. That of the others does: it is the order in which a
fine-tune meets them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tunewise import __version__
from tunewise.data.chat import Example, canonical_hash
from tunewise.errors import ModelError, StudyError
from tunewise.pipeline.prepare import Prepared, file_digests, row_keys
from tunewise.scoring.registry import SCORERS
from tunewise.study.parts import KINDS
from tunewise.study.schema import CandidateSpec, Study
from tunewise.study.trusted_code import named_code
from tunewise.training.job import learning_options

READING = 2
"""Raised when equal answers are read in another way than before: 2 takes thoughts out of them."""

_ELSEWHERE = {"name", "model", "prompt", "answers"}
"""Keys of a candidate that say nothing of its answers by themselves, or are looked into."""

_NO_ANSWER = {"usd_per_1k_requests", "usd_per_month", "usd_once"}
"""Keys of a candidate that say what it costs."""


class StageInputs:
    """The inputs of a study's stages, as JSON values.

    Args:
        study: as resolved; its paths are absolute.
        directory: the study's folder; where it lies plays no part, so a project may be moved.
        specs: the candidates of the study, defaults filled in.
        revision: identifies the weights of a local model, or the address of a hosted one.
        rows: the study's rows as read and split.
        hosted: whether the study's fine-tunes run at a service.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        specs: Callable[[], Sequence[CandidateSpec]],
        revision: Callable[[str], str],
        rows: Callable[[], Prepared],
        hosted: Callable[[], bool],
    ) -> None:
        self._study = study
        self._directory = directory
        self._specs = specs
        self._revision = revision
        self._rows = rows
        self._hosted = hosted
        self._digests: dict[str, str] = {}
        self._parts: dict[str, list[str]] = {}

    def experiment(self) -> str:
        """Identifies the study's folder: all that the file says of answers and choices.

        Models stand by name, so that a verdict can be computed again where they are not at hand.
        """
        return canonical_hash(
            [
                *self._folds(),
                [self._part("train"), self._part("dev"), sorted(self._part("test"))],
                [[spec.name, self._told(spec)] for spec in self._specs()],
                self._study.primary,
            ]
        )

    def look(self) -> str:
        """Identifies one look at the test: its rows as the ledger knows them, and who answers."""
        test = self._rows().split.test
        read = zip(row_keys(test, self._study.name), test, strict=True)
        answers = {spec.name: self._answers(spec) for spec in self._specs()}
        return canonical_hash(
            [
                *self._folds(),
                sorted(canonical_hash([key, *_beside(row)]) for key, row in read),
                sorted(map(canonical_hash, answers.values())),
                [answers.get(name) for name in self._study.primary or ()],
            ]
        )

    def _folds(self) -> list[Any]:
        """How the rows are cut into folds, where they are tested fold by fold."""
        folds = self._rows().split.how.get("folds")
        return [] if folds is None else [folds]

    def sources(self) -> dict[str, Any]:
        """Identifies the rows without reading them as such: the content of their files."""
        study = self._study
        data = study.data.model_dump(mode="json", exclude={"documents", "form"})
        files = {k: [*self._files([v]).values()] for k, v in data.items()}
        return {
            "data": {k: files[k] or self._moved(v) for k, v in data.items()},
            "dev_fraction": study.dev_fraction,
            "seed": study.seed,
        }

    def data(self) -> dict[str, Any]:
        """Of the data stage: the rows, how they are split, and the files that findings name."""
        study = self._study
        data = study.data.model_dump(mode="json", exclude={"documents", "form"})
        return {
            "data": {k: self._moved(v) for k, v in data.items()},
            "files": self._files(data.values()),
            "rows": {part: self._part(part) for part in ("train", "dev", "test", "unwanted")},
            "learns_unwanted": study.fine_tune.learns_unwanted,
            "recorded": study.only_recorded,
        }

    def candidate(self, spec: CandidateSpec) -> dict[str, Any]:
        """Of a candidate's stages: all that can change its answers, and what is chosen on dev."""
        # Of recorded answers it is told which test rows have none.
        gaps = sorted(self._part("test")) if spec.traits.recorded else None
        return {
            "tunewise": __version__,
            "read": READING,
            "answers": self._answers(spec),
            "gaps": gaps,
        }

    def askable(self, spec: CandidateSpec) -> dict[str, Any]:
        """Of the look whether the base model can be asked all rows, by the study's instructions."""
        return {
            **self.candidate(spec),
            "base": self._weights(self._study.model),
            "prompt": self._study.prompt,
            "rows": sorted(self._part("test")),
        }

    def training(self, spec: CandidateSpec, **more: Any) -> dict[str, Any]:
        """Of a stage that trains and scores: the candidate's inputs, and what is this run's own."""
        return {**self.candidate(spec), "run": more}

    def learning(self, spec: CandidateSpec) -> dict[str, Any]:
        """Of a stage that trains alone: no metric, no limit of answers plays a part."""
        told = self._asking(spec) | self._tuning(spec)
        return {
            "tunewise": __version__,
            "candidate": told,
            "rows": self._learnt(spec),
            "model": self._weights(self._model(spec)),
        }

    def forecast(self, spec: CandidateSpec, *, charged: bool) -> dict[str, Any]:
        """Of a forecast; what is charged for also depends on the price file."""
        prices = self._study.costs.prices
        return {**self.learning(spec), "prices": self._files([prices]) if charged else None}

    def test(self) -> dict[str, Any]:
        """Of the test: the look, the rows by their ids, and every candidate's inputs."""
        return {
            "look": self.look(),
            "rows": sorted(self._part("test")),
            "all": [[spec.name, self.candidate(spec)] for spec in self._specs()],
        }

    def forgetting(self, spec: CandidateSpec) -> dict[str, Any]:
        """Of the measurement of forgetting: the tuned candidate, and the suites."""
        wanted = self._study.forgetting
        suites = [wanted.suite, wanted.must_pass]
        return {
            "tuned": self.candidate(spec),
            "suites": [self._moved(suite) for suite in suites],
            "files": self._files(suites),
        }

    # --- what one candidate's answers depend on ----------------------------------------------

    def _answers(self, spec: CandidateSpec) -> dict[str, Any]:
        """All of it, models by their weights."""
        told = self._told(spec)
        names = {"model": self._model(spec), "limits": told.get("limits"), "dense": spec.dense}
        return {
            **told,
            **{name: self._weights(model) for name, model in names.items()},
            "judges": [self._weights(name) for name in _named(self._study.metric.options)],
            "rows": self._learnt(spec),
        }

    def _told(self, spec: CandidateSpec) -> dict[str, Any]:
        """What the study file says of it, models by name."""
        study = self._study
        metric = study.metric.model_dump(mode="json")
        options = metric["options"].values()
        scorer = SCORERS.find(study.metric.name)
        told: dict[str, Any] = {
            **self._asking(spec),
            "metric": self._moved(metric),
            "metric_package": None if scorer.own else scorer.package,
            "metric_files": self._files(v for v in options if _is_path(v)),
            "servers": self._servers([self._model(spec), *_named(metric["options"])]),
            "model": self._moved(self._model(spec)),
        }
        if spec.traits.recorded:
            answers = spec.answers or []
            files = [answers] if isinstance(answers, str) else answers
            return told | {"recorded": [*self._files(files).values()]}
        told |= {"seed": study.seed}
        if spec.traits.needs_model or not _is_ours(spec):
            output = study.output.model_dump(mode="json")
            schema = output.pop("json_schema")
            if not (spec.traits.trained and _is_ours(spec)):  # which is asked as it was trained
                told["phrasings"] = study.phrasings
            told |= {
                "output": output,
                "schema": [*self._files([self._in_folder(schema)]).values()] or schema,
                "effort": study.effort,
                # The longest answer is counted with the study's model, whoever answers.
                "limits": self._moved(study.model) if output["max_tokens"] is None else None,
            }
        return told | (self._tuning(spec) if spec.traits.trained else {})

    def _asking(self, spec: CandidateSpec) -> dict[str, Any]:
        """How it is asked: its own settings, instructions, documents."""
        own = spec.model_dump(mode="json", exclude=_ELSEWHERE | _NO_ANSWER)
        told: dict[str, Any] = {k: self._moved(v) for k, v in own.items()}
        traits, ours = spec.traits, _is_ours(spec)
        if not ours:  # which may read whatever it is given
            told["package"] = KINDS.find(spec.kind).package
        if traits.needs_model or not ours:
            prompt = self._study.prompt if spec.prompt is None else spec.prompt
            prompts = [prompt] if isinstance(prompt, str) else prompt or []
            # A tuned model is asked as it was trained: by the first.
            told["form"] = self._study.data.form
            told["prompts"] = prompts[:1] if traits.trained and ours else prompts
            if not prompts and not traits.trained and self._study.phrasings:
                told["use_case"] = self._study.use_case  # it takes the place of instructions
        if traits.retrieves or not ours:
            told["documents"] = [*self._files([self._study.data.documents]).values()]
        return told

    def _tuning(self, spec: CandidateSpec) -> dict[str, Any]:
        """How it is trained and how often; what is chosen on the way."""
        study, fine_tune = self._study, self._study.fine_tune
        hosted = self._hosted()
        told: dict[str, Any] = {
            "options": {k: self._moved(v) for k, v in learning_options(fine_tune).items()},
            **fine_tune.model_dump(
                mode="json", include={"route", "epochs", "learning_rate", "seeds", "loss_spike"}
            ),
            "teacher": [*self._files([fine_tune.distill.answers]).values()],
            "seed": study.seed,
            "effort": study.effort,
        }
        if hosted:
            told["hosted"] = fine_tune.hosted.model_dump(mode="json")
            told["service"] = self._servers([self._model(spec)])
        with contextlib.suppress(StudyError):  # a run says that it is not there
            if code := named_code(fine_tune):
                told["code"] = code.sha256
        if fine_tune.method == "pretrain":
            told["texts"] = [*self._files([study.data.documents]).values()]
        return told

    def _learnt(self, spec: CandidateSpec) -> list[str]:
        """The rows that it learns from or that it is chosen on, as digests."""
        if spec.traits.recorded:
            return [canonical_hash(sorted(self._part("dev")))]
        parts = ["train", "dev"]
        if spec.traits.trained and self._study.fine_tune.learns_unwanted:
            parts.append("unwanted")
        return [canonical_hash(self._part(part)) for part in parts]

    def _model(self, spec: CandidateSpec) -> str | None:
        return spec.model or self._study.model if spec.traits.needs_model else None

    def _weights(self, model: str | None) -> str | None:
        """What identifies a model; its name where it is not at hand."""
        if model is None:
            return None
        try:
            return self._revision(model)
        except ModelError:
            return self._moved_text(model)

    def _servers(self, models: Iterable[str | None]) -> dict[str, str]:
        """Where those models lie that a server of the study answers for."""
        prefixes = {model.partition(":")[0] for model in models if model is not None}
        servers = self._study.servers
        return {name: servers[name].base_url for name in sorted(prefixes.intersection(servers))}

    # --- rows and files ----------------------------------------------------------------------

    def _part(self, part: str) -> list[str]:
        """A digest of each row of a part, in order; where rows lie plays no role."""
        if part not in self._parts:
            rows = self._rows()
            found: Sequence[Example] = (
                rows.unwanted if part == "unwanted" else getattr(rows.split, part)
            )
            self._parts[part] = [_row(row) for row in found]
        return self._parts[part]

    def _in_folder(self, value: object) -> str | None:
        return str(self._directory / value) if isinstance(value, str) else None

    def _files(self, named: Iterable[object]) -> dict[str, str]:
        """The content of files and folders that exist, by their names in the study's folder."""
        paths = [p for n in named if isinstance(n, str) and n and (p := Path(n)).exists()]
        wanted = [path for path in paths if str(path) not in self._digests]
        for path in wanted:
            digests = file_digests([path])
            inside = {k.removeprefix(str(path)): v for k, v in digests.items()}
            self._digests[str(path)] = canonical_hash(inside)
        return {self._moved_text(str(path)): self._digests[str(path)] for path in paths}

    def _moved(self, value: Any) -> Any:
        """Paths without the study's folder; anything else as it is."""
        if isinstance(value, str):
            return self._moved_text(value)
        if isinstance(value, dict):
            return {k: self._moved(v) for k, v in value.items()}
        return [self._moved(v) for v in value] if isinstance(value, list) else value

    def _moved_text(self, text: str) -> str:
        return text.replace(f"{self._directory}/", "")


def _row(row: Example) -> str:
    own = [row.id, [dict(m) for m in row.messages], row.rejected, row.desirable]
    return canonical_hash([*own, row.group, row.time, row.documents, *_beside(row)])


def _beside(row: Example) -> list[Any]:
    """What stands beside a row's messages and may change its answer or its score."""
    return [[dict(t) for t in row.tools], json.loads(json.dumps(dict(row.metadata), default=str))]


def _is_ours(spec: CandidateSpec) -> bool:
    return KINDS.find(spec.kind).own


def _named(options: Any) -> Iterator[str]:
    """Models that a metric's options name, a grader's among them."""
    if isinstance(options, list):
        for value in options:
            yield from _named(value)
    if isinstance(options, dict):
        for key, value in options.items():
            if key == "model" and isinstance(value, str):
                yield value
            else:
                yield from _named(value)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and Path(value).is_absolute()
