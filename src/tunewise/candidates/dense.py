"""Sentence embeddings by model2vec (static, no torch) or sentence-transformers, loaded late."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.errors import MissingExtraError, ModelError
from tunewise.releases import import_failed

if TYPE_CHECKING:
    import numpy as np

Encoder = Callable[[Sequence[str]], "np.ndarray[Any, np.dtype[np.float32]]"]
"""Texts to unit vectors, one a row."""


def load_encoder(name: str) -> Encoder:
    """Load a sentence-embedding model: a folder or a hub id.

    A model2vec model needs model2vec alone; any other needs sentence-transformers.

    Raises:
        MissingExtraError: when the package that the model needs is not installed.
        ModelError: when there is no such model, or it cannot be loaded.
    """
    static = _is_static(name)
    package = "model2vec" if static else "sentence_transformers"
    if find_spec(package) is None:
        raise MissingExtraError(f"The embedding model {name!r} (by {package})", "dense")
    try:
        encode = _static(name) if static else _transformer(name)
    except ImportError as error:
        raise import_failed(f"The embedding model {name!r}", "dense", error) from error
    except Exception as error:  # the libraries raise whatever their files and hosts raise
        raise ModelError(
            f"the embedding model {name!r} cannot be loaded: {error}",
            hint="Give a folder or hub id of a model2vec or sentence-transformers model.",
        ) from error

    def unit(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        import numpy as np

        vectors = np.asarray(encode(list(texts)), dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        # A text without a known word has no direction: it stays 0 and is like nothing.
        unit_vectors: np.ndarray[Any, np.dtype[np.float32]] = vectors / np.maximum(
            norms, np.float32(1e-12)
        )
        return unit_vectors

    return unit


def _is_static(name: str) -> bool:
    folder = Path(name).expanduser()
    if folder.is_dir():
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(config, dict) and config.get("model_type") == "model2vec"
    short = name.rsplit("/", 1)[-1].lower()
    return "potion" in short or "m2v" in short or find_spec("sentence_transformers") is None


def _refuse_foreign_modules(folder: Path) -> None:
    """The library imports whatever class ``modules.json`` names, also without remote code."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        named = [str(module["type"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError):
        return  # a hub id, or the library says what is wrong
    foreign = [kind for kind in named if not kind.startswith("sentence_transformers.")]
    if foreign:
        raise ValueError(f"modules.json names code of others: {', '.join(foreign)}")


def _static(name: str) -> Callable[[list[str]], Any]:
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(
        str(Path(name).expanduser()) if Path(name).exists() else name
    )
    return lambda texts: model.encode(texts, show_progress_bar=False, use_multiprocessing=False)


def _transformer(name: str) -> Callable[[list[str]], Any]:
    from sentence_transformers import SentenceTransformer

    _refuse_foreign_modules(Path(name).expanduser())
    model = SentenceTransformer(name, trust_remote_code=False)
    return lambda texts: model.encode(texts, show_progress_bar=False)
