"""A model's files: fetched, checked to be safe to read, and identified by their content."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path

from tunewise.errors import ModelError
from tunewise.models.names import ModelRef
from tunewise.models.trained_as import TRAINED_AS
from tunewise.releases import import_failed
from tunewise.workspace import write_json_atomic

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_LEFT_OUT = ("*/*", "consolidated*")  # other formats' copies of the same weights

_digests: dict[tuple[str, int, int], str] = {}


def locate(ref: ModelRef) -> Path:
    """The folder with a local model's files; a hub model is fetched through the ordinary cache.

    Raises:
        ModelError: no such model, no access, no network, or no safetensors weights.
    """
    folder = ref.path if ref.kind == "folder" else _fetched(ref)
    assert folder is not None
    if not (folder / "config.json").is_file():
        hint = "A model's folder holds config.json, *.safetensors and the tokenizer's files."
        if (folder / "adapter_config.json").is_file():
            hint = "This is an adapter: give its base as the model, and this folder as the adapter."
        raise ModelError("no config.json, so this is no model", where=str(folder), hint=hint)
    require_safetensors(folder, "model*.safetensors", "*.safetensors")
    return folder


MODEL_FILES = (
    "*.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "*.jinja",
    TRAINED_AS,
)
"""What ``revision_of`` a model's folder reads."""


def require_safetensors(folder: Path, *patterns: str) -> list[Path]:
    """The weights in ``folder``; a folder with only pickles is refused.

    Raises:
        ModelError: when no file fits the patterns.
    """
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise ModelError(
            f"the weights are only there as {', '.join(pickles[:3])}; reading such a file can run "
            "any program hidden in it, so Tunewise reads safetensors only",
            where=str(folder),
            hint="If you trust the file, convert it: load it with transformers and save it with "
            "save_pretrained, which writes safetensors.",
        )
    raise ModelError(
        "no weights here", where=str(folder), hint=f"Looked for {' and '.join(patterns)}."
    )


def cached(ref: ModelRef) -> Path | None:
    """The folder with a hub model's files, where they were fetched before; no network is asked."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(ref.name, revision=ref.revision, local_files_only=True))
    except (ImportError, OSError, ValueError):
        return None


def _fetched(ref: ModelRef) -> Path:
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError as error:
        raise import_failed(f"The model {ref.spec}", "local", error) from error
    from tunewise.models.quiet import quiet

    folder_hint = "Or give the folder of a copy on this machine: model: ./folder."
    if close := _alike(ref.name, Path(constants.HF_HUB_CACHE)):
        folder_hint += f" In the cache there is {' and '.join(close)}."
    try:
        with quiet():
            return Path(
                snapshot_download(
                    ref.name,
                    revision=ref.revision,
                    allow_patterns=list(_WANTED),
                    ignore_patterns=list(_LEFT_OUT),
                    endpoint=constants.ENDPOINT,
                )
            )
    except errors.GatedRepoError as error:
        raise ModelError(
            "this model must be asked for on the hub first",
            where=ref.spec,
            hint=f"Accept its terms at {constants.ENDPOINT}/{ref.name}, then run `hf auth login`.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"the hub has no revision {ref.revision!r} of it", where=ref.spec, hint=folder_hint
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            "the hub has no such model, or it is private",
            where=ref.spec,
            hint=f"Check the spelling at {constants.ENDPOINT}/{ref.name}; for a private one run "
            f"`hf auth login`. {folder_hint}",
        ) from error
    except (OSError, ValueError, RuntimeError, errors.HfHubHTTPError) as error:
        offline = bool(constants.HF_HUB_OFFLINE)
        why = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} could not be reached"
        do = "Unset HF_HUB_OFFLINE" if offline else "Check the network"
        raise ModelError(
            f"not in the cache ({constants.HF_HUB_CACHE}), and {why} ({type(error).__name__})",
            where=ref.spec,
            hint=f"{do} and run again. {folder_hint}",
        ) from error


def _alike(name: str, cache: Path) -> list[str]:
    """Cached models whose names are nearly this one: what was meant, perhaps."""
    there = [p.name.split("--", 1)[1].replace("--", "/") for p in cache.glob("models--*")]
    return difflib.get_close_matches(name, there, n=2, cutoff=0.8)


def revision_of(folder: Path, patterns: tuple[str, ...], digest_file: Path | None = None) -> str:
    """Identify a model by the content of its files: 16 hex digits of a SHA-256.

    A file's digest is remembered by its path, size and modification time, in this process and in
    ``digest_file`` (JSON) if given, since reading gigabytes takes long.
    """
    known = _read_digests(digest_file)
    total = hashlib.sha256()
    fresh = False
    for path in sorted({p for pattern in patterns for p in folder.glob(pattern)}):
        status = path.stat()
        key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
        digest = _digests.get(key) or known.get("\0".join(map(str, key)))
        if digest is None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            fresh = True
        _digests[key] = digest
        known["\0".join(map(str, key))] = digest
        total.update(f"{path.name}\0{digest}\n".encode())
    if fresh and digest_file is not None:
        write_json_atomic(digest_file, known)
    return total.hexdigest()[:16]


def _read_digests(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # only a memory of what can be computed again
    return value if isinstance(value, dict) else {}
