"""A model made ready to serve: loaded, opened for adapters, and matched with what computes it."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tunewise import digests
from tunewise.errors import ModelError
from tunewise.models.loading import DType, LoadedModel, load_local
from tunewise.models.names import parse_model
from tunewise.models.output_head import sharpen
from tunewise.models.raw_form import raw_template
from tunewise.models.trained_as import TRAINED_AS, TrainedAs, trained_as
from tunewise.server.inference.adapters import FILES, open_layers, put_modules, read_adapter
from tunewise.server.inference.backend import Backend, Part
from tunewise.server.inference.forward import DirectForward, Forward, OwnForward
from tunewise.server.inference.lora import AdapterLinear, AdapterTable, Update
from tunewise.server.inference.memory import Budget
from tunewise.server.inference.plain import PlainBackend
from tunewise.server.inference.ragged import RaggedBackend
from tunewise.server.inference.schemas import TriedSchemas
from tunewise.server.inference.sequence import RequestState, Sampling, Sequence
from tunewise.server.inference.text import TokenTexts
from tunewise.training.fast_path import why_not

log = logging.getLogger(__name__)

Fingerprint = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of change of files: another one means other weights."""


@dataclass(slots=True, eq=False)
class Adapter:
    """An adapter in memory; its number is never used again, so kept prompts cannot mix it up.

    Attributes:
        trained: how it wants to be asked.
    """

    number: int
    folder: str
    fingerprint: Fingerprint
    bytes: int
    trained: TrainedAs = field(default_factory=TrainedAs)
    used: int = 0
    users: int = 0


@dataclass(slots=True, eq=False)
class Serving:
    """A base model in memory.

    Attributes:
        base: as in ``ModelRef.base``.
        own: folder of the adapter that brings whole modules, which stand in this copy of the base;
            None where any adapter may be put on it. ``replaced`` are those modules' parameters.
        users: requests that need it; it stays while there are any.
        used: when it was used last, for choosing what goes first.
    """

    base: str
    loaded: LoadedModel
    backend: Backend
    table: AdapterTable
    layers: dict[str, AdapterLinear]
    schemas: TriedSchemas
    texts: TokenTexts
    vocabulary: int
    longest_token: int
    fingerprint: Fingerprint
    bytes: int
    adapters: dict[str, Adapter] = field(default_factory=dict)
    users: int = 0
    used: int = 0

    own: str | None = None
    replaced: frozenset[str] = frozenset()
    _raw: Any = None

    @property
    def key(self) -> str:
        """What it is known by among those in memory."""
        return serving_key(self.base, self.own)

    @property
    def end_ids(self) -> frozenset[int]:
        return frozenset(self.loaded.end_ids)

    @property
    def raw_tokenizer(self) -> Any:
        """The tokenizer with the template of bare text, for adapters that were trained so."""
        if self._raw is None:
            made = copy.deepcopy(self.loaded.tokenizer)
            made.chat_template = raw_template(made)
            self._raw = made
        return self._raw


def serving_key(base: str, own: str | None) -> str:
    """See ``Serving.key``; ``own`` as there."""
    return base if own is None else f"{base}\n{own}"


def load_serving(
    base: str,
    budget: Budget,
    own: str | None = None,
    sha256: str | None = None,
    dtype: DType = "auto",
) -> Serving:
    """Load a base model. Runs beside the serving of others.

    Args:
        own: folder of an adapter that brings whole modules: they take the base's places.
        sha256: of that folder, where it is known.
        dtype: of its weights.

    Raises:
        DamagedError: the adapter's files have changed.
        ModelError: it cannot be loaded (``load_local``), or is no model of this machine, or the
            adapter's modules do not fit (``put_modules``).
    """
    ref = parse_model(base)
    if not ref.is_local:
        raise ModelError(
            "a server's model cannot be served from here",
            where=base,
            hint="Give a folder, a hub id, or tunewise/tiny.",
        )
    if own is not None:
        _hold(Path(own), sha256)
    loaded = load_local(ref, dtype=dtype)
    replaced = frozenset() if own is None else put_modules(Path(own), loaded.model)
    sharpen(loaded.model)
    head: Any = loaded.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    vocabulary = int(head.weight.shape[0])
    reason = why_not(loaded.model)
    layers, table = open_layers(loaded.model)
    backend: Backend | None = None
    if reason is None:
        forward, reason = _fitting(loaded, table)
        if forward is not None:
            backend = RaggedBackend(loaded, forward, table, budget)
    if backend is None:
        log.info("%s is computed row by row: %s", base, reason)
        backend = PlainBackend(loaded, table)
    return Serving(
        base=base,
        loaded=loaded,
        backend=backend,
        table=table,
        layers=layers,
        schemas=TriedSchemas(loaded.tokenizer, vocabulary, loaded.end_ids),
        texts=TokenTexts(loaded.tokenizer),
        vocabulary=vocabulary,
        longest_token=max(map(len, loaded.tokenizer.get_vocab())),
        fingerprint=serving_files(loaded.folder, own),
        own=own,
        replaced=replaced,
        bytes=sum(t.numel() * t.element_size() for t in loaded.model.parameters()),
    )


def load_adapter(
    serving: Serving, folder: str, sha256: str | None = None
) -> tuple[dict[str, Update], Fingerprint, TrainedAs]:
    """Read an adapter for a model in memory. Runs beside the serving of others.

    Args:
        sha256: of the folder, where it is known.

    Raises:
        DamagedError: its files have changed.
        ModelError: see ``read_adapter`` and ``trained_as``.
    """
    place = Path(folder)
    _hold(place, sha256)
    with torch.inference_mode():
        return (
            read_adapter(place, serving.layers, serving.replaced),
            adapter_files(place),
            trained_as(place),
        )


def _hold(folder: Path, sha256: str | None) -> None:
    if sha256 is not None:
        hint = "Whoever runs the server can look with: tunewise server fsck"
        digests.hold(folder, sha256, "the tuned weights' folder", hint)


def adapter_files(folder: Path) -> Fingerprint:
    """What an adapter's files look like from outside."""
    return fingerprint(folder, *FILES, TRAINED_AS)


def serving_files(folder: Path, own: str | None) -> Fingerprint:
    """What the files of a model, and of the adapter that is part of it, look like from outside."""
    model = fingerprint(folder, "*.safetensors", "config.json", TRAINED_AS)
    return model if own is None else model + adapter_files(Path(own))


def fingerprint(folder: Path, *patterns: str) -> Fingerprint:
    """What the files in ``folder`` look like from outside; empty where there are none."""
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return tuple((p.name, (s := p.stat()).st_size, s.st_mtime_ns) for p in found)


@torch.inference_mode()
def _fitting(loaded: LoadedModel, table: AdapterTable) -> tuple[Forward | None, str | None]:
    """The fastest flat pass that gives this model's own logits, or why there is none."""
    model: Any = loaded.model
    stock = model.config._attn_implementation
    size = int(model.config.get_text_config(decoder=True).vocab_size)
    rows = [
        _probe_row([(7 * i * i + 3 * i + start) % size for i in range(length)])
        for start, length in ((1, 24), (5, 17))
    ]
    alone = [torch.tensor([row.tokens], device=loaded.device) for row in rows]
    wanted = torch.cat([model(input_ids=ids).logits[:, -1] for ids in alone]).float()
    kinds: list[Callable[[], Forward]] = [
        lambda: DirectForward(model, table),
        lambda: OwnForward(model),
    ]
    for kind in kinds:
        try:
            forward = kind()
            found = _probe(RaggedBackend(loaded, forward, table, Budget(1 << 40)), rows)
        except Exception as error:  # another attention's arguments fail in ways of their own
            reason = f"{type(error).__name__}: {error}"
        else:
            exact = loaded.dtype == torch.float32
            tolerance = (1e-3 if exact else 0.2) * float(wanted.std())
            difference = float((wanted - found).abs().max())
            if difference <= tolerance:
                return forward, None
            reason = f"its logits differ by {difference:.2g}, allowed are {tolerance:.2g}"
        log.debug("%s: %s", loaded.name, reason)
    model.set_attn_implementation(stock)
    return None, reason


def _probe(backend: RaggedBackend, rows: list[Sequence]) -> torch.Tensor:
    """The logits after each row's last token: read in by two parts, then decoded together."""
    for row in rows:
        backend.begin(row, reuse=False)
    backend.step([Part(row, 7, "last") for row in rows])
    backend.step([Part(row, row.end, "last") for row in rows])
    for row in rows:
        backend.admit(row)
    return backend.step([]).logits


def _probe_row(tokens: list[int]) -> Sequence:
    sampling = Sampling(0.0, 1.0, 0.0, 0.0, {}, None)
    request = RequestState("", None, 0, "", tokens, 1, sampling, None)  # type: ignore[arg-type]
    text: Any = None
    return Sequence(request, 0, text, random.Random(0), tokens, end=len(tokens) - 1)
