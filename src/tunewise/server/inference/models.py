"""Which models and adapters are in memory: they come when they are asked for, and go by use.

Everything here runs on the engine's own thread but the loading itself, which takes seconds and so
has a thread of its own, while other models go on answering.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

from tunewise.errors import TunewiseError
from tunewise.models.footprint import bytes_in_memory
from tunewise.models.names import parse_model
from tunewise.models.trained_as import TrainedAs
from tunewise.server.inference.adapters import replaces_modules
from tunewise.server.inference.limits import EngineLimits
from tunewise.server.inference.lora import Update
from tunewise.server.inference.memory import Budget
from tunewise.server.inference.protocol import Failed, LoadedInfo, ModelRef
from tunewise.server.inference.serving import (
    Adapter,
    Fingerprint,
    Serving,
    adapter_files,
    load_adapter,
    load_serving,
    serving_files,
    serving_key,
)

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Key = tuple[str, str | None]


@dataclass(slots=True, eq=False)
class Held:
    """A model that is in memory and stays there until it is released."""

    serving: Serving
    adapter: Adapter | None

    @property
    def number(self) -> int:
        """The adapter's, 0 for none."""
        return self.adapter.number if self.adapter is not None else 0

    @property
    def trained(self) -> TrainedAs:
        """How the weights want to be asked; a date of None is today's."""
        loaded = self.serving.loaded
        own = self.adapter.trained if self.adapter is not None else TrainedAs()
        return TrainedAs(own.date or loaded.date, own.form or loaded.form)


@dataclass(slots=True, eq=False)
class Wish:
    """Somebody waits for a model: ``ready`` or ``failed`` is called, later or at once."""

    model: ModelRef
    ready: Callable[[Held], None]
    failed: Callable[[Failed], None]


class Models:
    """All models in memory.

    Args:
        limits: how many and how much.
        budget: for keys and values.
        post: ``post(f)`` has ``f`` called on the engine's thread.
    """

    def __init__(
        self,
        limits: EngineLimits,
        budget: Budget,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._limits, self._budget, self._post = limits, budget, post
        self._loader = ThreadPoolExecutor(1, "loader")
        self._in_memory: dict[str, Serving] = {}
        self._modules: dict[str, tuple[Fingerprint, bool]] = {}
        self._loading: dict[_Key, list[Wish]] = {}
        self._parked: list[Wish] = []
        self._clock = count(1)
        self._numbers = count(1)
        self.on_evict: Callable[[Serving], None] = lambda serving: None

    @property
    def all(self) -> list[Serving]:
        return list(self._in_memory.values())

    def want(self, wish: Wish) -> None:
        """See that a model is in memory."""
        try:
            self._want(wish)
        except (TunewiseError, OSError) as error:
            wish.failed(_unloadable(wish.model, error))

    def release(self, held: Held) -> None:
        """Say that a model is not needed any longer."""
        held.serving.users -= 1
        if held.adapter is not None:
            held.adapter.users -= 1
        parked, self._parked = self._parked, []
        for wish in parked:
            self.want(wish)

    def info(self) -> list[LoadedInfo]:
        """What is in memory."""
        return [
            LoadedInfo(
                base=s.base,
                adapters=tuple(s.adapters),
                bytes=s.bytes + sum(a.bytes for a in s.adapters.values()),
                context_length=s.loaded.context_length,
                running=s.users,
                dtype=str(s.loaded.dtype).removeprefix("torch."),
            )
            for s in self._in_memory.values()
        ]

    def _want(self, wish: Wish) -> None:
        folder = wish.model.adapter
        own = folder if folder is not None and self._brings_modules(folder) else None
        key = serving_key(wish.model.base, own)
        serving = self._in_memory.get(key)
        if serving is not None and serving.fingerprint != _files_of(serving):
            if serving.users:
                self._parked.append(wish)
                return
            self._evict(serving)
            serving = None
        if serving is None:
            self._load_base(wish, key, own)
            return
        serving.used = next(self._clock)
        adapter = None
        if folder is not None:
            adapter = serving.adapters.get(folder)
            if adapter is None or adapter.fingerprint != adapter_files(Path(folder)):
                self._load(
                    (key, folder),
                    wish,
                    lambda: load_adapter(serving, folder, wish.model.sha256),
                    lambda got: self._add_adapter(serving, folder, got),
                )
                return
            adapter.used = serving.used
            adapter.users += 1
        serving.users += 1
        wish.ready(Held(serving, adapter))

    def _brings_modules(self, folder: str) -> bool:
        """``replaces_modules``, remembered as long as the files stay as they are."""
        files = adapter_files(Path(folder))
        known = self._modules.get(folder)
        if known is None or known[0] != files:
            known = self._modules[folder] = (files, replaces_modules(Path(folder)))
        return known[1]

    def _load_base(self, wish: Wish, key: str, own: str | None) -> None:
        base = wish.model.base
        if (key, None) not in self._loading:
            size = bytes_in_memory(parse_model(base), self._limits.dtypes.get(base, "auto"))
            limit = self._limits.bytes
            if limit is not None and size > limit:
                raise TunewiseError(
                    f"its weights take {size >> 20} MiB, and all models together may take "
                    f"{limit >> 20} MiB",
                    hint="Raise the memory limit in the server's settings.",
                )
            if not self._make_place(size):
                self._parked.append(wish)
                return
        self._load(
            (key, None),
            wish,
            lambda: load_serving(
                base, self._budget, own, wish.model.sha256, self._limits.dtypes.get(base, "auto")
            ),
            self._add_base,
        )

    def _load(
        self, key: _Key, wish: Wish, load: Callable[[], _T], take: Callable[[_T], None]
    ) -> None:
        waiting = self._loading.get(key)
        if waiting is not None:
            waiting.append(wish)
            return
        self._loading[key] = [wish]

        def work() -> None:
            try:
                got = load()
            except BaseException as error:
                failure = error  # the name of an `except` ends with its block
                self._post(lambda: self._not_loaded(key, failure))
            else:
                self._post(lambda: self._now_loaded(key, lambda: take(got)))

        self._loader.submit(work)

    def _now_loaded(self, key: _Key, take: Callable[[], None]) -> None:
        wishes = self._loading.pop(key)
        take()
        for wish in wishes:
            self.want(wish)

    def _not_loaded(self, key: _Key, error: BaseException) -> None:
        if not isinstance(error, (TunewiseError, OSError)):
            log.error("loading %s failed", key, exc_info=error)
        for wish in self._loading.pop(key):
            wish.failed(_unloadable(wish.model, error))

    def _add_base(self, serving: Serving) -> None:
        serving.used = next(self._clock)
        self._in_memory[serving.key] = serving
        gc.collect()
        gc.freeze()  # what lies in a model is never garbage; looking at it again costs time

    def _add_adapter(
        self, serving: Serving, folder: str, got: tuple[dict[str, Update], Fingerprint, TrainedAs]
    ) -> None:
        updates, files, trained = got
        if self._in_memory.get(serving.key) is not serving:
            return
        old = serving.adapters.pop(folder, None)
        if old is not None and not old.users:
            serving.table.remove(old.number)
        idle = sorted((a for a in serving.adapters.values() if not a.users), key=lambda a: a.used)
        for adapter in idle[: max(0, len(serving.adapters) + 1 - self._limits.adapters)]:
            del serving.adapters[adapter.folder]
            serving.table.remove(adapter.number)
        number = next(self._numbers)
        serving.table.add(number, updates)
        size = sum(t.numel() * 4 for u in updates.values() for t in (u.a, u.b))
        serving.adapters[folder] = Adapter(number, folder, files, size, trained, next(self._clock))

    def _make_place(self, size: int) -> bool:
        """Let idle models go until one more fits; False when those in use take too much."""
        loading = sum(folder is None for _, folder in self._loading)
        while True:
            total = sum(s.bytes for s in self._in_memory.values()) + size
            few = len(self._in_memory) + loading < self._limits.models
            if few and (self._limits.bytes is None or total <= self._limits.bytes):
                return True
            busy_loading = {key for key, _ in self._loading}
            idle = [
                s for s in self._in_memory.values() if not s.users and s.key not in busy_loading
            ]
            if not idle:
                return False
            self._evict(min(idle, key=lambda s: s.used))

    def _evict(self, serving: Serving) -> None:
        log.info("%s leaves memory", serving.base)
        serving.backend.forget()
        del self._in_memory[serving.key]
        self.on_evict(serving)
        gc.unfreeze()


def _files_of(serving: Serving) -> Fingerprint:
    return serving_files(serving.loaded.folder, serving.own)


def _unloadable(model: ModelRef, error: BaseException) -> Failed:
    # Without `where`: a path on the server's disk is nobody's business.
    why = error.message if isinstance(error, TunewiseError) else type(error).__name__
    return Failed(f"The model {model.name} cannot be loaded: {why}", "model_not_loadable")
