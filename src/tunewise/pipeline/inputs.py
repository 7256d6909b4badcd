"""What each stage of a study depends on: its key is the hash of that and of nothing else.

What can change an answer or a choice asks, trains or opens the test again. Prose, prices, traffic,
targets and report settings are read by the verdict alone, which is computed anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tunewise import __version__
from tunewise.data.chat import canonical_hash
from tunewise.pipeline.prepare import file_digests
from tunewise.scoring.registry import SCORERS
from tunewise.study.parts import KINDS
from tunewise.study.schema import CandidateSpec, Study

_NO_ANSWER = {"usd_per_1k_requests", "usd_per_month", "usd_once"}
"""Keys of a candidate that say what it costs."""

_NO_TRAINING = {"report_to"}
"""Keys of ``fine_tune`` that only say who is told of a run."""


class StageInputs:
    """The inputs of a study's stages, as JSON values.

    Args:
        study: as resolved; its paths are absolute.
        directory: the study's folder; where it lies plays no part, so a project may be moved.
        specs: the candidates of the study, defaults filled in.
        revision: identifies the weights of a local model, or the address of a hosted one.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        specs: Callable[[], Sequence[CandidateSpec]],
        revision: Callable[[str], str],
    ) -> None:
        self._study = study
        self._directory = directory
        self._specs = specs
        self._revision = revision
        self._digests: dict[str, str] = {}

    def experiment(self) -> str:
        """Identifies the study's folder: all that the file says of answers and choices.

        Candidates stand as the file has them, and models by name, so that a verdict can be
        computed again where neither the default candidates nor the models are at hand.
        """
        study = self._study
        return canonical_hash(
            [
                self.data(),
                [self._candidate(spec) for spec in study.candidates or []],
                self._asked(),
                self._moved(study.model),
                study.effort,
            ]
        )

    def look(self) -> str:
        """Identifies one look at the test: the experiment, and the weights that answer."""
        return canonical_hash([self.experiment(), sorted(map(self._revision, self._models()))])

    def data(self) -> dict[str, Any]:
        """Of the data stage: the rows, and how they are split."""
        study = self._study
        recorded = [self._candidate(s) for s in study.candidates or [] if s.traits.recorded]
        data = study.data.model_dump(mode="json", exclude={"documents", "form"})
        return {
            "data": {k: self._moved(v) for k, v in data.items()},
            "files": self._files(data.values()),
            "dev_fraction": study.dev_fraction,
            "seed": study.seed,
            "recorded": recorded if study.only_recorded else [],
        }

    def candidate(self, spec: CandidateSpec) -> dict[str, Any]:
        """Of a candidate's stages: all that can change its answers, and what is chosen on dev."""
        model = spec.model or self._study.model
        asks = model is not None and spec.traits.needs_model
        return {
            "tunewise": __version__,
            "data": self.data(),
            "candidate": self._candidate(spec),
            **self._packages(spec),
            "model": self._revision(model) if asks and model is not None else None,
            "asked": self._asked(),
            "effort": self._study.effort,
        }

    def training(self, spec: CandidateSpec, **more: Any) -> dict[str, Any]:
        """Of a stage that trains: the candidate's inputs, and what is this run's own."""
        return {**self.candidate(spec), "run": more}

    def forecast(self, spec: CandidateSpec, *, charged: bool) -> dict[str, Any]:
        """Of a forecast; what is charged for also depends on the price file."""
        prices = self._study.costs.prices
        return self.training(spec, prices=self._files([prices]) if charged else None)

    def test(self) -> dict[str, Any]:
        """Of the test: every candidate's inputs."""
        return {"look": self.look(), "all": [self.candidate(spec) for spec in self._specs()]}

    def forgetting(self, spec: CandidateSpec) -> dict[str, Any]:
        """Of the measurement of forgetting: the tuned candidate, and the suites."""
        wanted = self._study.forgetting
        suites = [wanted.suite, wanted.must_pass]
        return {
            "tuned": self.candidate(spec),
            "suites": [self._moved(suite) for suite in suites],
            "files": self._files(suites),
        }

    def _asked(self) -> dict[str, Any]:
        """What all candidates share in asking, scoring and training."""
        study = self._study
        output = study.output.model_dump(mode="json")
        return {
            "prompt": study.prompt,
            "metric": study.metric.model_dump(mode="json"),
            "output": {k: self._moved(v) for k, v in output.items()},
            "schema": self._files([self._in_folder(study.output.json_schema)]),
            "documents": self._files([study.data.documents]),
            "fine_tune": study.fine_tune.model_dump(mode="json", exclude=_NO_TRAINING),
            "servers": {name: server.base_url for name, server in study.servers.items()},
            "primary": study.primary,
            "seed": study.seed,
            # Only where it is set, so that older studies keep their keys.
            **({} if study.data.form is None else {"form": study.data.form}),
        }

    def _models(self) -> set[str]:
        models = {spec.model or self._study.model for spec in self._specs()}
        return {m for m in models if m is not None} if not self._study.only_recorded else set()

    def _candidate(self, spec: CandidateSpec) -> dict[str, Any]:
        told = spec.model_dump(mode="json", exclude=_NO_ANSWER)
        if not told["options"]:
            del told["options"]
        answers = spec.answers or []
        files = [answers] if isinstance(answers, str) else answers
        return {**{k: self._moved(v) for k, v in told.items()}, "files": self._files(files)}

    def _packages(self, spec: CandidateSpec) -> dict[str, Any]:
        """The packages that the candidate and the metric come from, where they are not ours."""
        parts = [KINDS.find(spec.kind), SCORERS.find(self._study.metric.name)]
        others = [part.package for part in parts if not part.own]
        return {"packages": others} if others else {}

    def _in_folder(self, value: object) -> str | None:
        return str(self._directory / value) if isinstance(value, str) else None

    def _files(self, named: Iterable[object]) -> dict[str, str]:
        """The content of files and folders that exist, by their names in the study's folder."""
        paths = [p for n in named if isinstance(n, str) and n and (p := Path(n)).exists()]
        wanted = [path for path in paths if str(path) not in self._digests]
        for path in wanted:
            self._digests[str(path)] = canonical_hash(
                {self._moved(k): v for k, v in file_digests([path]).items()}
            )
        return {self._moved(str(path)): self._digests[str(path)] for path in paths}

    def _moved(self, value: Any) -> Any:
        """A path without the study's folder; anything else as it is."""
        here = f"{self._directory}/"
        if isinstance(value, str):
            return value.replace(here, "")
        return [self._moved(v) for v in value] if isinstance(value, list) else value
