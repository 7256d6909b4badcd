"""Fine-tuning at Azure OpenAI: files, job, then a deployment, since only those are asked."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tunewise.data.findings import Finding
from tunewise.errors import ModelError, StudyError, TrainingError
from tunewise.models.names import ModelRef
from tunewise.models.opening import address_of
from tunewise.routes.azure_deployments import Account, Deployments
from tunewise.routes.base import Forecast
from tunewise.routes.hosted import HostedRoute
from tunewise.routes.hosted_calls import Connection, Dialect, explained
from tunewise.routes.hosted_files import PURPOSE
from tunewise.routes.hosted_handle import HostedHandle
from tunewise.routes.hosted_rows import RowLimits
from tunewise.training.job import TrainingJob

TRAINING_UNTIL = datetime.date(2027, 4, 1)
"""Until about then existing customers train OpenAI's models, as Microsoft said in 2026."""

_BILLED_TOKENS = 2_000_000_000
_ROW_TOKENS = {"gpt-4o": 64_536, "gpt-4.1": 64_536}
_READY_SECONDS = 1200.0
_NOT_READY = ("DeploymentNotReady", "DeploymentNotFound")
_HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True)
class Consent:
    """That a tuned model may be deployed, and how (``fine_tune.hosted``)."""

    sku: str
    capacity: int


class AzureHandle(HostedHandle):
    """A job at Azure. Its model is deployed when ``consent`` is given, or by ``deploy``."""

    consent: Consent | None = None
    endpoint: str = ""

    @property
    def deployment(self) -> str:
        """What this job's deployment is called: the same for the same job."""
        return f"tunewise-{self.job_id.removeprefix('ftjob-')[:24].lower()}"

    def remote(self) -> str | None:
        """``azure:DEPLOYMENT``, deployed now if that is consented to; else None."""
        if self.consent is None:
            return None
        return self.deploy(self.consent.sku, self.consent.capacity)

    def deploy(self, sku: str = "Standard", capacity: int = 1) -> str:
        """Deploy the tuned model and wait until it answers; as a study names it.

        It bills by the hour from now on, used or not. Azure deletes deployments that were idle
        for 15 days; the model stays.

        Raises:
            TrainingError: there is no tuned model yet, or Azure refuses.
            StudyError: the account or the token is not in the environment.
        """
        model = self.fine_tuned_model
        if model is None:
            raise TrainingError("there is no tuned model to deploy yet", where=self.id)
        self._deployments.create(self.deployment, model, sku=sku, capacity=capacity)
        self._wait_until_ready()
        return f"{self.connection.prefix}:{self.deployment}"

    def undeploy(self) -> None:
        """Delete the deployment, which ends its bill; the tuned model stays.

        Raises:
            TrainingError: Azure refuses.
        """
        self._deployments.delete(self.deployment)

    @cached_property
    def _deployments(self) -> Deployments:
        account = Account.from_environment(self.endpoint)
        return Deployments(account, poll_seconds=self.poll_seconds)

    def _wait_until_ready(self) -> None:
        """Azure calls a deployment done minutes before it answers."""
        import openai

        end = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self.connection.client.chat.completions.create(
                    model=self.deployment,
                    messages=[{"role": "user", "content": "Hello"}],
                    max_completion_tokens=1,
                )
                return
            except openai.APIStatusError as error:
                if error.code not in _NOT_READY and error.status_code < 500:
                    return  # it answers, if only to say that this question was too short or early
                reason = error
            except openai.APIConnectionError as error:
                raise explained(error, self.id) from None
            if time.monotonic() > end:
                raise explained(reason, f"{self.connection.prefix}:{self.deployment}")
            time.sleep(max(self.poll_seconds, 0.05) * 2)


class AzureRoute(HostedRoute):
    """Azure's fine-tuning API at AZURE_OPENAI_ENDPOINT: ``/openai/v1``, or the classic URLs where
    AZURE_OPENAI_API_VERSION is set."""

    name = service = "azure"
    dialect = Dialect(uploads_are_ready=False, filters_jobs=False)

    def base_model(self, job: TrainingJob) -> str:
        """``hosted.base_model``, or the model's name."""
        return job.fine_tune.hosted.base_model or super().base_model(job)

    def limits(self, job: TrainingJob) -> RowLimits:
        """As Microsoft documented them before 2026."""
        model = self.base_model(job)
        known = (n for start, n in _ROW_TOKENS.items() if model.startswith(start))
        return RowLimits(row_tokens=next(known, None), billed_tokens=_BILLED_TOKENS)

    def notes(self, job: TrainingJob) -> Iterator[Finding]:
        """The kind of training, the deployment with its bill, and how long Azure trains."""
        hosted = job.fine_tune.hosted
        if job.fine_tune.method == "grpo" and not job.dev:
            text = "Azure wants a validation file for reinforcement, and there are no dev rows"
            yield Finding("no_validation", "error", 1, (), text, "Give `data.dev`.")
        if hosted.deploy:
            try:
                Account.from_environment(address_of(self._ref(job.model)))
            except (StudyError, ModelError) as error:
                yield Finding("no_account", "error", 1, (), error.message, error.hint or "")
        else:
            yield Finding(
                "not_deployed",
                "warning",
                1,
                (),
                "on Azure a tuned model must be deployed before it can be asked",
                "Set `fine_tune.hosted.deploy: true`. It bills by the hour, used or not, until the "
                "deployment is deleted; Azure itself deletes it after 15 idle days.",
            )
        where = {
            "Standard": "in the resource's region; the data do not leave it",
            "GlobalStandard": "in any region, for 10 to 30 % less; the data may leave theirs",
            "Developer": "in any region on machines that may be taken away, for half of that",
        }[hosted.training_type]
        yield Finding(
            "training_type",
            "info",
            1,
            (),
            f"trainingType is {hosted.training_type}: {where}",
            "Change `fine_tune.hosted.training_type`; not each model has each type in each region.",
        )
        if datetime.datetime.now(datetime.UTC).date() >= TRAINING_UNTIL:
            yield Finding(
                "training_not_available",
                "warning",
                1,
                (),
                f"Microsoft promised training of OpenAI's models until {TRAINING_UNTIL:%B %Y}",
                "If the job is refused, train locally or against your own `tunewise serve`.",
            )

    def forecast(self, job: TrainingJob) -> Forecast:
        """Tokens and money of training; what hosting would cost stands in ``basis``."""
        found = super().forecast(job)
        price = self.prices.tuned(job.model) if self.prices else None
        if price is None or price.usd_per_month is None:
            hosting = "price of hosting unknown"
        else:
            hosting = f"hosting {price.usd_per_month / _HOURS_A_MONTH:.2f} US dollars an hour"
        return replace(found, basis=f"{found.basis}; {hosting}, from deployment to deletion")

    def dressed(self, job: TrainingJob, body: Mapping[str, Any]) -> dict[str, Any]:
        """With ``trainingType``; without it Azure says that the model cannot be tuned at all.

        The classic API has its hyper-parameters at the top, and knows no metadata.
        """
        sent = {**body, "trainingType": job.fine_tune.hosted.training_type}
        if self.connection(self._ref(job.model)).place.azure_version is None:
            return sent
        sent.pop("metadata", None)
        if sent["method"]["type"] == "supervised":
            sent["hyperparameters"] = sent.pop("method")["supervised"]["hyperparameters"]
        return sent

    def handle(
        self, connection: Connection, job_id: str, job: TrainingJob | None = None
    ) -> AzureHandle:
        """A handle that may deploy, if the job's study says so."""
        handle = AzureHandle(
            connection,
            job_id,
            folder=None if job is None else job.output,
            rows=0 if job is None else len(job.examples),
            poll_seconds=self.poll_seconds,
        )
        handle.endpoint = connection.place.base_url
        if job is not None and job.fine_tune.hosted.deploy:
            hosted = job.fine_tune.hosted
            handle.consent = Consent(hosted.deployment_type, hosted.capacity)
        return handle

    def import_file(self, filename: str, content_url: str, ref: ModelRef) -> str:
        """Let Azure fetch a training file itself, for instance from a blob; its id.

        Args:
            content_url: readable without a key; what it is signed with is shown nowhere.
            ref: any model of the resource (``parse_model("azure:MODEL")``).

        Raises:
            TrainingError: refused.
        """
        import openai

        connection = self.connection(ref)
        try:
            made = connection.client.post(
                "/files/import",
                cast_to=openai.types.FileObject,
                body={"purpose": PURPOSE, "filename": filename, "content_url": content_url},
            )
        except openai.APIError as error:
            raise explained(error, connection.place.base_url) from None
        return made.id
