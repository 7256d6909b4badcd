"""What a study starts from: its rows, candidates, limits, engines and folder, each made once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewise import __version__
from tunewise.candidates.build import training_examples, with_floor
from tunewise.candidates.context import BuildContext
from tunewise.candidates.offers import default_candidates
from tunewise.candidates.prompting import Limits, answer_limit, text_counter
from tunewise.data.chat import Example, canonical_hash
from tunewise.data.documents import read_documents
from tunewise.errors import ModelError, StudyError, TrainingError
from tunewise.models.engine import Engine, room_for_thoughts
from tunewise.models.names import parse_model
from tunewise.models.raw_form import Form
from tunewise.models.template_date import model_asks_for_date, today
from tunewise.models.trained_as import trained_as
from tunewise.models.weights import MODEL_FILES, locate, revision_of
from tunewise.pipeline.breakdown import further_scorers
from tunewise.pipeline.engines import Engines
from tunewise.pipeline.forms import form_of
from tunewise.pipeline.inputs import StageInputs
from tunewise.pipeline.prepare import Prepared, file_digests, read_rows
from tunewise.pipeline.reporter import Reporter
from tunewise.pipeline.store import Store
from tunewise.pipeline.tuning import Tuner
from tunewise.report.document import TrainingRun
from tunewise.routes.base import Capabilities, open_route
from tunewise.scoring.registry import get_scorer
from tunewise.study.loading import LoadedStudy
from tunewise.study.prices import Prices, load_prices, tuned_name
from tunewise.study.schema import CandidateSpec
from tunewise.training.job import TrainingResult
from tunewise.workspace import StudyFolder, Workspace, default_root


class Session:
    """One study with what it needs; what runs, trains or forecasts it works on this."""

    def __init__(
        self,
        loaded: LoadedStudy,
        workspace: Workspace,
        reporter: Reporter,
        *,
        engines: Engines | None = None,
    ) -> None:
        self._loaded = loaded
        self.study = loaded.study
        self.directory = loaded.directory
        self.workspace = workspace
        self.reporter = reporter
        costs = self.study.costs
        self.prices: Prices | None = load_prices(Path(costs.prices)) if costs.prices else None
        self.engines = engines or Engines(
            self.study, self.prices, workspace.root / "answers", lambda: self.date
        )
        metric = self.study.metric
        self.scorer = get_scorer(metric.name, metric.options, engines=self.engines.get)
        self.also = further_scorers(self.study)
        self._tuners: dict[str, Tuner] = {}

    def over(self, prepared: Prepared) -> Session:
        """The same study on other rows; models, connections and the bill are shared."""
        other = Session(self._loaded, self.workspace, self.reporter, engines=self.engines)
        other.prepared = prepared
        return other

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments that name this study to a command; empty where no file holds it."""
        named, root = self._loaded.arguments, self.workspace.root
        elsewhere = bool(named) and root != default_root().absolute()
        return (*named, *(("--workspace", str(root)) if elsewhere else ()))

    def close(self) -> None:
        """Give back models and connections."""
        self.engines.close()

    @cached_property
    def digest(self) -> str:
        """Hash of the study as resolved and of the content of every file that it names.

        It identifies a verdict; stages have keys of their own (``inputs.py``). Where the study's
        folder lies plays no part: a project that is moved stays the same study.
        """
        here = f"{self.directory}/"
        return canonical_hash(
            {
                "tunewise": __version__,
                "study": self.study.model_dump_json().replace(here, ""),
                "files": {k.replace(here, ""): v for k, v in file_digests(self._files()).items()},
            }
        )

    def _files(self) -> list[Path]:
        study = self.study
        named: list[str | None] = [
            study.data.examples,
            study.data.train,
            study.data.dev,
            study.data.test,
            study.data.documents,
            study.costs.prices,
            study.forgetting.must_pass,
            study.forgetting.suite,
        ]
        for spec in study.candidates or []:
            answers = spec.answers or []
            named += [answers] if isinstance(answers, str) else answers
        return [p for n in named if n and (p := Path(n)).exists()]

    @cached_property
    def inputs(self) -> StageInputs:
        """What each stage depends on."""
        return StageInputs(
            self.study,
            self.directory,
            lambda: self.specs,
            self._revision,
            lambda: self.prepared,
            lambda: not self.capabilities.this_machine,
        )

    def form(self, model: str) -> Form:
        """The form of the text by which a model is asked."""
        return self._form(model, lambda: self.train)

    def _form(self, model: str, rows: Callable[[], Sequence[Example]]) -> Form:
        return form_of(self.study.data.form, parse_model(model, self.study.servers), rows)

    def _revision(self, model: str, form: Form | None = None) -> str:
        ref = parse_model(model, self.study.servers)
        if not ref.is_local:
            return model  # where its server lies is an input of its own
        folder, digests = locate(ref), self.workspace.root / "answers" / "digests.json"
        revision = revision_of(folder, MODEL_FILES, digests)
        if (form or self.form(model)) == "raw":
            return f"{revision}+raw"
        if not model_asks_for_date(folder):
            return revision
        return f"{revision}@{trained_as(folder).date or self.date}"

    @cached_property
    def date(self) -> str:
        """ISO 8601, what chat templates that ask for today's date are given in this study.

        It is the day on which the study first ran with these rows.
        """
        return self.workspace.study_date(self.study.name, self._rows) or today()

    def keep_date(self) -> str:
        """Fix the date for all later runs with these rows, where none is kept yet."""
        self.workspace.keep_study_date(self.study.name, self._rows, self.date)
        return self.date

    @cached_property
    def _rows(self) -> str:
        return canonical_hash(self.inputs.sources())

    @cached_property
    def folder(self) -> StudyFolder:
        return self.workspace.study(self.study.name, self.inputs.experiment())

    @cached_property
    def store(self) -> Store:
        return Store(self.folder)

    @cached_property
    def prepared(self) -> Prepared:
        with self.reporter.task("reading rows"):
            found = read_rows(self.study, self.study.candidates or [], self.directory)
        for sentence in found.unreadable:
            self.reporter.warn(sentence)
        return found

    @property
    def train(self) -> tuple[Example, ...]:
        return self.prepared.split.train

    @property
    def dev(self) -> tuple[Example, ...]:
        return self.prepared.split.dev

    @property
    def test(self) -> tuple[Example, ...]:
        return self.prepared.split.test

    @cached_property
    def specs(self) -> tuple[CandidateSpec, ...]:
        """The study's candidates, or all that fit the data; and what they must beat."""
        alone = self.study.only_recorded and not (self.train or self.dev)
        return with_floor(
            self._named,
            self.scorer,
            train=self.train,
            dev=self.dev,
            test=self.test if alone else (),
        )

    @property
    def _named(self) -> tuple[CandidateSpec, ...]:
        if self.study.candidates is not None:
            return tuple(self.study.candidates)
        model = self.study.model
        kinds = default_candidates(
            self.train,
            has_documents=self.study.data.documents is not None,
            has_model=model is not None,
            can_train=model is not None
            and parse_model(model, self.study.servers).is_local == self.capabilities.local_weights,
        )
        if not kinds:
            raise StudyError(
                "no candidate fits: there is no model and the answers are not labels",
                where="model",
                hint="Set `model`, for instance tunewise/tiny or openai:MODEL.",
            )
        return tuple(CandidateSpec(name=kind, kind=kind) for kind in kinds)

    def spec(self, name: str) -> CandidateSpec:
        """The candidate called ``name``."""
        return next(s for s in self.specs if s.name == name)

    @cached_property
    def limits(self) -> Limits:
        """What all candidates' answers keep to."""
        output = self.study.output
        most = output.max_tokens
        if most is None and self.study.model is not None:
            count = text_counter(self.engine(self.study.model).count_tokens)
            most = answer_limit(self.train, count)
        return Limits(
            max_tokens=most or 256, json_schema=self._json_schema(), stop=tuple(output.stop)
        )

    def _limits_of(self, engine: Engine | None) -> Limits:
        """Those of answers by one engine: a model that thinks has room for that."""
        room = room_for_thoughts(engine) if engine is not None else 0
        if not room or self.study.output.max_tokens is not None:
            return self.limits
        return replace(self.limits, max_tokens=self.limits.max_tokens + room)

    def _json_schema(self) -> Mapping[str, Any] | None:
        schema = self.study.output.json_schema
        if not isinstance(schema, str):
            return schema
        path = self.directory / schema
        try:
            loaded: Any = json.loads(path.read_text("utf-8-sig"))
        except (OSError, ValueError) as error:
            raise StudyError(f"cannot be read as JSON: {error}", where=str(path)) from None
        if not isinstance(loaded, dict):
            raise StudyError("a JSON Schema is an object", where=str(path))
        return dict(loaded)

    def context(self, spec: CandidateSpec, tuned: Engine | None = None) -> BuildContext:
        """What a candidate is built from."""
        needs_model = spec.traits.needs_model and tuned is None
        model = spec.model or self.study.model
        prompt = self.study.prompt
        engine = self.engine(model) if needs_model and model else None
        return BuildContext(
            scorer=self.scorer,
            limits=Limits() if self.study.only_recorded else self._limits_of(tuned or engine),
            engine=engine,
            tuned_engine=tuned,
            prompts=(prompt,) if isinstance(prompt, str) else tuple(prompt or ()),
            documents=self._documents,
            seed=self.study.seed,
            effort=self.study.effort,
            folder=self.directory,
            constrain=self.study.output.constrain,
            phrasings=self.study.phrasings,
            use_case=self.study.use_case,
        )

    def engine(self, model: str) -> Engine:
        """The engine of an untuned model, asked in the study's form."""
        return self.engines.get(model, form=self.form(model))

    @cached_property
    def _documents(self) -> Sequence[Any]:
        path = self.study.data.documents
        return tuple(read_documents(path)) if path else ()

    def tuner(self, spec: CandidateSpec) -> Tuner:
        """Fine-tunes ``spec``; its rows are the requests that will later be asked."""
        if spec.name in self._tuners:
            return self._tuners[spec.name]
        self.check_tunable(spec)
        context = self.context(spec)
        train = [*self.train]
        if self.study.fine_tune.learns_unwanted:
            train += self.prepared.unwanted
        shown = training_examples(spec, context=context, train=[*train, *self.dev], dev=self.dev)
        cut = len(train)
        learnt = shown[:cut]
        if self.study.fine_tune.method == "pretrain" and self._documents:
            from tunewise.training.methods.pretrain import as_examples

            learnt = as_examples(self._documents)
        tuner = self.tuner_of(spec, learnt, shown[cut:])
        self._tuners[spec.name] = tuner
        return tuner

    @property
    def training_folder(self) -> Path:
        """Where training jobs of this study lie."""
        return self.workspace.root / "studies" / self.study.name / "training"

    def tuner_of(
        self, spec: CandidateSpec, train: Sequence[Example], dev: Sequence[Example]
    ) -> Tuner:
        """Fine-tunes ``spec`` on rows that are as the tuned model will be asked."""
        model = spec.model or self.study.model
        form = self._form(model, lambda: train) if model is not None else "chat"
        return Tuner(
            self.study,
            spec,
            train,
            dev,
            self.training_folder,
            self.reporter,
            self.prices,
            revision=self._revision(model, form) if model is not None else None,
            date=self.date,
            form=form,
        )

    def check_tunable(self, spec: CandidateSpec) -> None:
        """Refuse a candidate whose model the study's route cannot tune.

        Raises:
            StudyError: naming the candidate.
        """
        model = spec.model or self.study.model
        local = model is not None and parse_model(model, self.study.servers).is_local
        if model is None or local != self.capabilities.local_weights:
            route = self.study.fine_tune.route
            raise StudyError(
                f"{model or 'no model'} cannot be fine-tuned by the route {route!r}",
                where=f"candidates: {spec.name}",
                hint="Name a hosted model such as openai:MODEL, or set `fine_tune.route: local`."
                if not self.capabilities.local_weights
                else "Name a model with weights: a folder, a hub id, or tunewise/tiny; models of "
                "a server are tuned there (`fine_tune.route: openai` or azure).",
            )

    def tune(
        self,
        spec: CandidateSpec,
        learning_rate: float,
        seed: int,
        rows: Sequence[Example] | None = None,
    ) -> tuple[TrainingResult, TrainingRun]:
        """One training run to its end; what it cost is counted.

        Raises:
            TrainingError: it failed.
            BudgetError: the study has now spent more than it may.
        """
        if not self.capabilities.local_weights:
            base = spec.model or self.study.model
            assert base is not None
            self.engines.metered(tuned_name(base))
        tuner = self.tuner(spec)
        result, run = tuner.tune(learning_rate, seed, rows)
        if self.capabilities.charges_money:
            usd = None
            if self.prices is not None:
                usd = self.prices.training_usd(run.route, run.model, run.seconds, run.tokens)
            if usd is None:  # the route's own price, for as many of the rows
                whole = tuner.forecast().usd
                share = 1.0 if rows is None else len(rows) / max(1, len(tuner.train))
                usd = None if whole is None else whole * share
            self.engines.pay(usd or 0.0)
        return result, run

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the route can on which the study's fine-tunes run."""
        route = open_route(
            self.study.fine_tune.route, servers=self.study.servers, prices=self.prices
        )
        return route.capabilities

    def tuned_engine(
        self,
        spec: CandidateSpec,
        adapter: Path | None,
        model: Path | None,
        remote: str | None = None,
    ) -> Engine:
        """The engine with an adapter on the candidate's model, or with a whole tuned model.

        Raises:
            TrainingError: a hosted model that is not deployed.
        """
        if model is not None:
            return self.engines.get(str(model), form=self.form(str(model)))
        base = spec.model or self.study.model
        assert base is not None
        if remote is not None:
            return self.engines.get(remote, billed_as=tuned_name(base), form=self.form(base))
        if not self.capabilities.local_weights:
            raise TrainingError(
                f"{spec.name}: the tuned model cannot be asked until it is deployed",
                where="fine_tune.hosted.deploy",
                hint="Set it to true; it bills by the hour until the deployment is deleted.",
            )
        return self.engines.get(base, adapter, form=self.form(base))


@contextmanager
def open_session(
    loaded: LoadedStudy, workspace: Workspace, reporter: Reporter
) -> Iterator[Session]:
    """A study with its folder locked, until it is done with; errors name their place in the study.

    Raises:
        WorkspaceError: another process works on this study.
    """
    try:
        with workspace.lock(loaded.study.name):
            session = Session(loaded, workspace, reporter)
            try:
                yield session
            finally:
                session.close()
    except StudyError as error:
        raise loaded.located(error) from error
    except TrainingError as error:
        if error.where is not None and error.where.startswith("fine_tune."):
            error.where = loaded.located(StudyError(error.message, where=error.where)).where
        raise
    except ModelError as error:
        if error.where is None or error.where != loaded.study.model:
            raise
        where = f"{loaded.places.where(('model',))}: {error.where}"
        raise ModelError(error.message, where=where, hint=error.hint) from error
