"""What the hosted routes share: check, forecast, and one job however often it is submitted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from tunewise.data.chat import canonical_hash
from tunewise.data.findings import Finding
from tunewise.errors import ModelError, StudyError, TrainingError, WorkspaceError
from tunewise.models.names import ModelRef, parse_model
from tunewise.models.opening import place_of
from tunewise.models.retry import Patience
from tunewise.routes.base import Capabilities, Forecast
from tunewise.routes.hosted_calls import (
    Connection,
    Dialect,
    UnknownOutcome,
    connect,
    explained,
    made_once,
)
from tunewise.routes.hosted_files import find_file, remove_files, upload_file
from tunewise.routes.hosted_handle import HostedHandle
from tunewise.routes.hosted_request import DEAD, MARK, JobRequest, jobs_like, write_request
from tunewise.routes.hosted_rows import (
    MAX_FILE_BYTES,
    RowLimits,
    check_rows,
    epochs_of,
    file_tokens,
    token_counter,
)
from tunewise.study.prices import Prices
from tunewise.study.schema import Server
from tunewise.training.job import TrainingJob
from tunewise.workspace import read_json, write_json_atomic

STATE = "hosted.json"
"""In a job's folder: its key, its id at the service, ids of its files by SHA-256."""


class HostedRoute:
    """Fine-tuning at a service that speaks OpenAI's API.

    Attributes:
        service: what stands before the colon in the names of its models (``SERVICES``).
        dialect: how it speaks.

    Args:
        servers: the study's ``servers``.
        prices: of training and of asking; None where no price is known.
        patience: how long failed requests are repeated.
        poll_seconds: how often jobs are asked after; by default 5, on this machine 0.5.
    """

    name = ""
    service = ""
    dialect = Dialect()
    capabilities = Capabilities()

    def __init__(
        self,
        servers: Mapping[str, Server] | None = None,
        prices: Prices | None = None,
        *,
        patience: Patience | None = None,
        poll_seconds: float | None = None,
    ) -> None:
        self.servers = dict(servers or {})
        self.prices = prices
        self.patience = patience or Patience(attempts=6, total_s=180.0, first_s=2.0)
        self.poll_seconds = poll_seconds
        self._connections: dict[str, Connection] = {}

    # --- what a service adds ----------------------------------------------------------------

    def limits(self, job: TrainingJob) -> RowLimits:
        """What the service takes of this job's model."""
        raise NotImplementedError

    def notes(self, job: TrainingJob) -> Iterator[Finding]:
        """What else to know before anything is sent."""
        raise NotImplementedError

    def base_model(self, job: TrainingJob) -> str:
        """The base model's name at the service."""
        return self._ref(job.model).name

    def dressed(self, job: TrainingJob, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request's body as this service wants it."""
        return dict(body)

    def handle(
        self, connection: Connection, job_id: str, job: TrainingJob | None = None
    ) -> HostedHandle:
        """A handle on a job."""
        return HostedHandle(
            connection,
            job_id,
            folder=None if job is None else job.output,
            rows=0 if job is None else len(job.examples),
            poll_seconds=self.poll_seconds,
        )

    def missing(self) -> str | None:
        """The key or address that the environment does not have; servers of a study have theirs."""
        try:
            place_of(parse_model(f"{self.service}:MODEL"))
        except (ModelError, StudyError) as error:
            return f"{error.message}. {error.hint or ''}".strip()
        return None

    # --- the route ---------------------------------------------------------------------------

    def check(self, job: TrainingJob) -> list[Finding]:
        """What the service would refuse, from the rows and options alone; nothing is sent."""
        try:
            ref = self._ref(job.model)
        except (ModelError, TrainingError) as error:
            return [Finding("model", "error", 1, (), str(error.message), error.hint or "")]
        count, _ = token_counter(ref.name)
        return [*check_rows(job, self.limits(job), count), *self.notes(job)]

    def forecast(self, job: TrainingJob) -> Forecast:
        """Tokens and money; the services promise no times."""
        count, how = token_counter(self.base_model(job))
        epochs, once = epochs_of(job), file_tokens(job, count)
        tokens = once * epochs
        usd = None
        if self.prices is not None:
            usd = self.prices.training_usd(self.name, job.model, None, tokens)
        price = "price unknown"
        if usd is not None and self.prices is not None:
            price = f"price of {self.prices.date} from {self.prices.source}"
        if job.fine_tune.method == "grpo":
            how += ", without the answers that are sampled"
        batch = job.fine_tune.batch_size
        return Forecast(
            seconds=None,
            peak_memory_bytes=None,
            usd=usd,
            tokens=tokens,
            steps=None if batch is None else -(-len(job.examples) // batch) * epochs,
            basis=f"{once:,} tokens × {epochs} epochs, {how}; {price}",
        )

    def submit(self, job: TrainingJob) -> HostedHandle:
        """Start the job, or find it: at most one job alive bears this job's mark.

        Raises:
            TrainingError: ``check`` finds an error, or the service refuses; files that were
                uploaded for it are then removed.
        """
        import openai

        for finding in self.check(job):
            if finding.severity == "error":
                where = ", ".join(finding.rows[:5]) or f"fine_tune.route: {self.name}"
                raise TrainingError(finding.message, where=where, hint=finding.fix)
        connection = self.connection(self._ref(job.model))
        request = write_request(job, self.base_model(job))
        for file in request.files:
            if (size := file.path.stat().st_size) > MAX_FILE_BYTES:
                raise TrainingError(
                    f"the file has {size / 1024**2:,.0f} MB; services take 512 MB",
                    where=str(file.path),
                    hint="Use fewer or shorter rows.",
                )
        state = self._state(job, request)
        try:
            job_id = self._known_job(connection, state) or self._found_or_made(
                connection, job, request, state
            )
        except openai.APIError as error:
            raise explained(error, connection.place.base_url) from None
        shutil.rmtree(job.output / "upload", ignore_errors=True)
        return self.handle(connection, job_id, job)

    def attach(self, id: str) -> HostedHandle:
        """A job by ``openai:ftjob-…`` (or a server's name before the colon), from any machine.

        Raises:
            TrainingError: there is no such job, or the service cannot be asked.
        """
        prefix, colon, job_id = id.partition(":")
        if not colon:
            prefix, job_id = self.service, id
        handle = self.handle(
            self.connection(parse_model(f"{prefix}:{job_id}", self.servers)), job_id
        )
        handle.status()
        return handle

    def connection(self, ref: ModelRef) -> Connection:
        """The service that a model's name points to; opened once.

        Raises:
            StudyError: no key, or it does not belong there.
        """
        if ref.prefix not in self._connections:
            self._connections[ref.prefix] = connect(ref.prefix, place_of(ref), self.dialect)
        return self._connections[ref.prefix]

    # --- one job -----------------------------------------------------------------------------

    def _ref(self, model: str) -> ModelRef:
        ref = parse_model(model, self.servers)
        if ref.is_local or (ref.server is None and ref.prefix != self.service):
            raise TrainingError(
                f"{model} cannot be fine-tuned by the route {self.name!r}",
                where="fine_tune.route",
                hint="It takes "
                f"{self.service}:MODEL, or NAME:MODEL with NAME from the study's `servers`.",
            )
        return ref

    def _state(self, job: TrainingJob, request: JobRequest) -> dict[str, Any]:
        """What the job's folder remembers, unless it is of another job."""
        try:
            state = read_json(job.output / STATE)
        except (OSError, WorkspaceError):
            state = {}
        if state.get("key") != request.key:
            state = {"key": request.key, "id": None, "files": state.get("files", {})}
        state["folder"] = job.output
        return dict(state)

    def _remember(self, state: dict[str, Any]) -> None:
        value = {k: v for k, v in state.items() if k != "folder"}
        write_json_atomic(state["folder"] / STATE, value)

    def _known_job(self, connection: Connection, state: Mapping[str, Any]) -> str | None:
        """The job that the folder remembers, if the service has it alive."""
        import openai

        prefix, _, job_id = (state["id"] or "").partition(":")
        if not job_id or prefix != connection.prefix:
            return None
        try:
            job = connection.reading.fine_tuning.jobs.retrieve(job_id)
        except openai.NotFoundError:
            return None
        return None if job.status in DEAD else job_id

    def _found_or_made(
        self,
        connection: Connection,
        job: TrainingJob,
        request: JobRequest,
        state: dict[str, Any],
    ) -> str:
        import openai

        ids = {}
        for file in request.files:
            found = find_file(connection, file, state["files"].get(file.sha256))
            if found is not None:
                ids[file.sha256] = found
        alive, dead = jobs_like(connection, request, ids)
        if alive:
            job_id = str(alive[0].id)
        else:
            uploaded: list[str] = []
            try:
                for file in request.files:
                    if file.sha256 not in ids:
                        ids[file.sha256] = upload_file(connection, file, self.patience)
                        uploaded.append(ids[file.sha256])
                        state["files"] = {**state["files"], **ids}
                        self._remember(state)
                job_id = self._create(connection, job, request, ids, dead)
            except UnknownOutcome:
                raise  # a job that was made after all would lose its files
            except (openai.APIStatusError, TrainingError):
                self._withdraw(connection, uploaded, state)
                raise
        state["id"] = f"{connection.prefix}:{job_id}"
        state["files"] = {**state["files"], **ids}
        self._remember(state)
        return job_id

    def _withdraw(self, connection: Connection, uploaded: list[str], state: dict[str, Any]) -> None:
        """Remove the files of a job that cannot be made; ids of those that stay are kept."""
        import openai

        try:
            left = remove_files(connection, uploaded)
        except openai.OpenAIError:
            left = uploaded
        gone = set(uploaded) - set(left)
        state["files"] = {k: v for k, v in state["files"].items() if v not in gone}
        self._remember(state)

    def _create(
        self,
        connection: Connection,
        job: TrainingJob,
        request: JobRequest,
        ids: Mapping[str, str],
        dead: int,
    ) -> str:
        """Make the job, once. A service that answered too late may have made it all the same."""
        body = {**request.complete(ids), "metadata": {MARK: request.mark}}
        # Of services that know this header, ours does; a job that failed may be made anew.
        headers = {"Idempotency-Key": canonical_hash([body, dead])}

        sent = self.dressed(job, body)
        model, training_file = sent.pop("model"), sent.pop("training_file")

        def make() -> str:
            made = connection.client.fine_tuning.jobs.create(
                model=model, training_file=training_file, extra_body=sent, extra_headers=headers
            )
            return made.id

        def find() -> str | None:
            alive, _ = jobs_like(connection, request, ids)
            return str(alive[0].id) if alive else None

        job_id, unanswered = made_once(make, find, self.patience, connection.place.base_url)
        if not unanswered:
            return job_id
        first, *doubles = [str(j.id) for j in jobs_like(connection, request, ids)[0]] or [job_id]
        for double in doubles:
            connection.client.fine_tuning.jobs.cancel(double)
        return first
