"""A configuration of another tool, trained, with the files that its users look for afterwards."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tunewise import __version__
from tunewise.dialects.autotrain.config import Config, expanded
from tunewise.dialects.told import SECRETS, Translation
from tunewise.errors import StudyError, TrainingError, UsageError
from tunewise.pipeline.alone import Tuned, train_study
from tunewise.pipeline.reporter import Reporter
from tunewise.study.keys import keep_secret, redact, resolve_key
from tunewise.study.loading import LoadedStudy, study_from
from tunewise.workspace import Workspace, write_text_atomic

_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Upload:
    """Where a project goes on the hub.

    Attributes:
        repository: ``owner/name``.
        token: the hub's key; in no message and no file.
    """

    repository: str
    token: str

    def __repr__(self) -> str:
        return f"Upload({self.repository!r})"


def train_project(
    config: Config,
    translation: Translation,
    workspace: Workspace,
    reporter: Reporter,
    overrides: Sequence[str] = (),
) -> Tuned:
    """Train what the configuration says; leave the result in the folder ``project_name``.

    The folder has the adapter or the model, the tokenizer, ``README.md`` (a model card),
    ``training_params.json`` (AutoTrain's values) and ``study.yaml`` (ours); no secrets.

    Raises:
        TrainingError: there is no trainer or launcher for it; says what is missing.
        UsageError: it is to be uploaded, and there is no token or owner.
        TunewiseError: what stops a training.
    """
    if translation.study is None or translation.missing:
        raise TrainingError(
            "\n".join(translation.missing),
            hint="`--dry-run` shows what was understood of each key.",
        )
    upload = upload_of(config)
    out = Path(str(config.values["project_name"])).expanduser()
    loaded = loaded_study(config, translation, overrides)
    with_dev = config.values["valid_split"] is not None
    tuned = train_study(loaded, workspace, reporter, out, with_dev=with_dev)
    with reporter.task("writing the project"):
        tuned = _finish(config, translation, loaded, tuned, out)
    if upload is not None:
        with reporter.task(f"uploading to {upload.repository}"):
            _upload(out, upload)
    return tuned


def loaded_study(
    config: Config, translation: Translation, overrides: Sequence[str] = ()
) -> LoadedStudy:
    """The study of a configuration, checked as a study file is.

    Raises:
        StudyError: it cannot be meant.
    """
    assert translation.study is not None
    changed = {one.partition("=")[0].strip() for one in overrides}
    flags: dict[str, tuple[str, Any]] = {}
    for row in translation.told:
        ours = row.ours.partition(":")[0]
        value = _at(translation.study, ours)
        if row.line is not None and value is not None and ours not in changed:
            flags[f"{config.places.name}:{row.line}: {row.key}"] = (ours, value)
    return study_from(translation.study, Path.cwd(), config.places.name, overrides, flags)


def _at(study: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where it has none."""
    value: Any = study
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def upload_of(config: Config) -> Upload | None:
    """Where the result goes; None where it stays here.

    Raises:
        UsageError: there is no token or no owner.
        StudyError: the token's variable belongs to another host.
    """
    if not config.values["push_to_hub"]:
        return None
    unset: list[str] = []
    owner = expanded(config.values["username"], unset.append)
    token = _token(config.values["token"])
    if token is None:
        raise UsageError(
            "`push_to_hub` needs a token of the hub, and there is none",
            where=_where(config, "token"),
            hint="export HF_TOKEN=… and write `token: ${HF_TOKEN}`, or take push_to_hub away: "
            "--no-push-to-hub",
        )
    if owner is None:
        why = f"the environment variable {unset[0]} is not set" if unset else "none is given"
        raise UsageError(
            f"`push_to_hub` needs the owner of the repository: {why}",
            where=_where(config, "username"),
            hint="Set `hub.username`, or take push_to_hub away: --no-push-to-hub",
        )
    return Upload(f"{owner}/{Path(str(config.values['project_name'])).name}", token)


def _where(config: Config, key: str) -> str:
    return config.places.where(config.written.get(key, ("hub", key)))


def _token(value: Any) -> str | None:
    """The key itself; a variable that is not set is none."""
    if isinstance(value, str) and not value.startswith("${"):
        keep_secret(value.strip())
        return value.strip() or None
    try:
        return resolve_key(value or "${HF_TOKEN}", _HUB)
    except StudyError as error:
        if "is not set" in error.message:
            return None
        raise


def _finish(
    config: Config, translation: Translation, loaded: LoadedStudy, tuned: Tuned, out: Path
) -> Tuned:
    from tunewise.models.merging import merge, save_tokenizer
    from tunewise.models.names import parse_model

    assert loaded.study.model is not None
    ref = parse_model(loaded.study.model)
    if tuned.adapter is not None:
        if config.values["merge_adapter"]:
            _merged(lambda place: merge(ref, out, place), out)
            tuned = replace(tuned, adapter=None)
        else:
            save_tokenizer(ref, out)
    values = {key: value for key, value in config.values.items() if key not in SECRETS}
    write_text_atomic(out / "training_params.json", redact(json.dumps(values, indent=2)) + "\n")
    study = yaml.safe_dump(_seen_from(out, loaded.raw), sort_keys=False, allow_unicode=True)
    write_text_atomic(out / "study.yaml", redact(study))
    write_text_atomic(out / "README.md", redact(_card(config, translation, loaded, tuned)))
    return tuned


def _merged(write: Any, out: Path) -> None:
    """The folder's content replaced by the whole model, or left as it was."""
    beside = out.with_name(f".{out.name}.merged")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        write(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(out)
    beside.rename(out)


def _seen_from(folder: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The study with its paths as seen from a folder: they may be uploaded, and then say less."""
    seen = copy.deepcopy(dict(raw))
    for part, key in ((seen, "model"), *((seen["data"], key) for key in ("train", "dev"))):
        value = part.get(key)
        if isinstance(value, str) and Path(value).is_absolute():
            part[key] = os.path.relpath(value, folder.absolute())
    return seen


def _card(config: Config, translation: Translation, loaded: LoadedStudy, tuned: Tuned) -> str:
    study, run = loaded.study, tuned.run
    base = str(config.values["model"])
    whole = tuned.adapter is None
    head: dict[str, Any] = {
        "base_model": base,
        "library_name": "transformers" if whole else "peft",
        "pipeline_tag": "text-classification" if run.method == "reward" else "text-generation",
        "tags": ["tunewise", run.method],
    }
    rows = dict(tuned.rows)
    left_out = sum(tuned.left_out.values())
    lines = [
        f"# {config.values['project_name']}",
        "",
        f"{base}, fine-tuned by {translation.task} with Tunewise {__version__}.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {Path(str(config.values['data_path'])).name} |",
        f"| method | {run.method}, {study.fine_tune.adapter} |",
        f"| rows | {rows['train'] - left_out} learnt from, {rows['dev']} for dev |",
        f"| steps | {run.steps} |",
        f"| learning rate | {run.learning_rate:g} |" if run.learning_rate else "",
        f"| dev loss | {run.dev_loss[-1][1]:.4f} |" if run.dev_loss else "",
        "",
        "No test was made, so nothing is said about its quality. "
        "To compare it with prompting, examples and retrieval, give study.yaml rows to test on "
        "(`data.test`), then `tunewise run study.yaml`.",
    ]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    kept = (x for n, x in enumerate(lines) if x or n in (1, 3, len(lines) - 2))
    return f"---\n{front}---\n\n" + "\n".join(kept) + "\n"


def _upload(out: Path, upload: Upload) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token=upload.token)
    try:
        api.create_repo(upload.repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=upload.repository, folder_path=str(out))
    except Exception as error:  # the hub's client raises what it pleases
        first = redact(str(error)).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"the result could not be uploaded: {first}",
            where=upload.repository,
            hint=f"The training is done; the files lie in {out}. "
            f"Try again: hf upload {upload.repository} {out}",
        ) from error


def as_dict(translation: Translation, tuned: Tuned | None, out: Path) -> Mapping[str, Any]:
    """What ``--json`` prints of a run."""
    run = None if tuned is None else tuned.run.model_dump(mode="json")
    return {**translation.as_dict(), "run": run, "folder": None if tuned is None else str(out)}
