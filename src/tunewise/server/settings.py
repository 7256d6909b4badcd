"""How a server is set up: a YAML file, the command line over it, defaults below both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tunewise.errors import UsageError
from tunewise.models.loading import DType
from tunewise.study.complaints import dotted
from tunewise.study.requirements import complaint
from tunewise.study.yaml_source import parse_yaml, read_text
from tunewise.workspace import default_root

MB = 1024**2
GB = 1024**3

Bytes = Annotated[int, Field(ge=1, le=1024 * GB)]
Days = Annotated[int, Field(ge=1, le=36500)]


class ServedModel(BaseModel):
    """What stands behind a name that requests may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """tunewise/tiny, a folder, a hub id."""
    dtype: DType = "auto"
    """In which its weights are held (``models/loading.py``); logits are float32 in any case."""


class ServerSettings(BaseModel):
    """Everything that can be set. Sizes are bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(default_factory=lambda: default_root() / "server")
    """Where the database, files, jobs and tuned models lie; private (0700)."""
    host: str = "127.0.0.1"
    port: int = Field(default=8900, ge=0, le=65535)
    """0 takes a free one."""
    database: str | None = None
    """SQLAlchemy's URL; by default SQLite in ``home``."""
    auth: bool = True
    """Whether keys are asked for; without them the server listens on this machine only."""
    cors_origins: tuple[str, ...] = ()
    """Web pages that may call the server from a browser, for instance https://app.example."""
    organization: str = "tunewise"
    """The ``organization_id`` of jobs, and ``owned_by`` of models."""

    models: dict[str, ServedModel] = Field(
        default_factory=lambda: {"tunewise/tiny": ServedModel(model="tunewise/tiny")}
    )
    """Names that requests may use, and what stands behind them: tunewise/tiny, a folder, a hub
    id. ``gpt-4o-mini-2024-07-18: Qwen/Qwen3-0.6B`` lets tutorials run unchanged. With a numeric
    type: ``{model: Qwen/Qwen3-0.6B, dtype: float32}``."""

    max_file_bytes: Bytes = 512 * MB
    max_upload_bytes: Bytes = 8 * GB
    max_part_bytes: Bytes = 64 * MB
    max_body_bytes: Bytes = 32 * MB
    """Of a request that is no file."""
    request_seconds: float = Field(default=600, gt=0)
    """Until an answer begins; a stream may last longer."""
    body_seconds: float = Field(default=60, gt=0)
    """That a client may take for a request's head, and leave between two pieces of its body."""
    max_requests_at_once: int = Field(default=256, ge=1)
    """Of one project; streams count until their end."""
    upload_seconds: int = Field(default=3600, ge=1)
    """That an upload may take, from its creation to its completion."""
    import_hosts: tuple[str, ...] = ()
    """Hosts that ``/openai/files/import`` may fetch from although they are not on the public
    internet: ``files.acme.lan`` for its scheme's own port, or ``files.acme.lan:8080``."""
    import_seconds: float = Field(default=300, gt=0)
    """That such a fetch may take."""
    workers: int = Field(default=1, ge=0, le=64)
    """Fine-tuning jobs that train at once, each in a process of its own. With 0 jobs are checked
    and then wait."""
    worker_threads: int | None = Field(default=None, ge=1, le=1024)
    """Processor threads of each; None takes what the machine has."""
    max_running_jobs: int = Field(default=64, ge=1)
    """Of them, those of one project."""
    max_queued_jobs: int = Field(default=20, ge=1)
    """Fine-tuning jobs of one project that may wait."""
    max_batches: int = Field(default=20, ge=1)
    """Of one project that are not over."""
    max_batch_requests: int = Field(default=50_000, ge=1)
    """In one file, as at OpenAI."""
    batch_requests_at_once: int = Field(default=4, ge=1, le=256)
    """Requests of all batches together that are answered at once; chats have the other places."""
    result_files: Literal["csv", "base64"] = "csv"
    """How a job's result file is sent to clients that do not say it in ``Accept`` (``text/csv``,
    ``application/base64``): programs written for OpenAI read the one or the other."""
    request_log: str | None = None
    """A file for one line of JSON a request (method, path, status, seconds, key's name; no body, no
    query); ``-`` is stdout. It is rotated at 16 MB, four older ones are kept."""
    chat_retention_days: Days = 30
    """That stored chats are kept."""

    @field_validator("models", mode="before")
    @classmethod
    def _plain_names(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: {"model": v} if isinstance(v, str) else v for k, v in value.items()}

    @field_validator("models")
    @classmethod
    def _one_type_each(cls, value: dict[str, ServedModel]) -> dict[str, ServedModel]:
        # One base lies in memory once, for all its names and for what was tuned from it.
        first: dict[str, str] = {}
        for name, served in value.items():
            other = first.setdefault(served.model, name)
            if value[other].dtype != served.dtype:
                raise ValueError(
                    f"{other} and {name} are one model, {served.model}, in two numeric types "
                    f"({value[other].dtype} and {served.dtype}): give both the same `dtype`"
                )
        return value

    @property
    def bases(self) -> dict[str, str]:
        """Names that requests may use, and the local models behind them."""
        return {name: served.model for name, served in self.models.items()}

    @property
    def dtypes(self) -> dict[str, DType]:
        """Of the local models that have a numeric type of their own."""
        return {m.model: m.dtype for m in self.models.values() if m.dtype != "auto"}

    @property
    def database_url(self) -> str:
        """The URL that is opened."""
        return self.database or f"sqlite:///{self.home / 'tunewise.db'}"


def load_settings(
    path: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> ServerSettings:
    """Settings from a YAML file, with ``overrides`` (those that are not None) over it.

    Relative paths in the file (``home``, ``request_log``) are relative to the file.

    Raises:
        StudyError: the file is missing or is not YAML.
        UsageError: a key is unknown or a value cannot be; with its line.
    """
    values: dict[str, Any] = {}
    lines: Mapping[Any, int] = {}
    if path is not None:
        parsed = parse_yaml(read_text(path, "settings file"), str(path))
        if not isinstance(parsed.value, dict | None):
            raise UsageError("settings are a mapping (lines of `key: value`)", where=str(path))
        values, lines = parsed.value or {}, parsed.lines
        folder = path.absolute().parent
        if isinstance(values.get("home"), str):
            values["home"] = folder / Path(values["home"]).expanduser()
        if isinstance(values.get("request_log"), str) and values["request_log"] != "-":
            values["request_log"] = str(folder / Path(values["request_log"]).expanduser())
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        settings = ServerSettings.model_validate({**values, **given})
    except ValidationError as error:
        shown = {} if error.errors()[0]["loc"][0] in given else lines
        raise first_complaint(error, str(path), shown, ServerSettings.model_fields) from None
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def first_complaint(
    error: ValidationError, name: str, lines: Mapping[Any, int], known: Iterable[str]
) -> UsageError:
    """The first thing that is wrong in a YAML file of ours, with its line.

    Args:
        name: of the file.
        lines: of its keys; without the key's, only the key is told.
        known: keys that may stand at its top.
    """
    first = error.errors(include_url=False)[0]
    key = tuple(first["loc"])
    line = lines.get(key) or lines.get(key[:1])
    where = f"{name}:{line}: {dotted(key)}" if line else dotted(key)
    if first["type"] == "extra_forbidden":
        hint = f"Possible here: {', '.join(known)}." if len(key) == 1 else None
        return UsageError("unknown key", where=where, hint=hint)
    return UsageError(complaint(first), where=where)
