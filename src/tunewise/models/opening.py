"""From a model's name to an engine that answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from tunewise.errors import ModelError
from tunewise.models.answer_cache import CachedEngine
from tunewise.models.engine import Engine
from tunewise.models.names import ModelRef, parse_model
from tunewise.models.raw_form import Form
from tunewise.models.services import SERVICES, KeyResolver, Place
from tunewise.models.trained_as import trained_as
from tunewise.study.keys import resolve_key
from tunewise.study.schema import Server

if TYPE_CHECKING:
    from tunewise.models.loading import DType, LoadedModel
    from tunewise.models.openai_engine import Spend

_in_memory: WeakValueDictionary[tuple[str, str, str | None], LoadedModel] = WeakValueDictionary()


def open_engine(
    spec: str,
    *,
    servers: Mapping[str, Server] | None = None,
    adapter: Path | None = None,
    cache_dir: Path | None = None,
    key_resolver: KeyResolver = resolve_key,
    spend: Spend | None = None,
    dtype: DType = "auto",
    threads: int | None = None,
    date: str | None = None,
    form: Form | None = None,
) -> Engine:
    """Open the model that ``spec`` names.

    A local model that is still in use is not loaded again, so the base and its adapters share one
    copy of the weights.

    Args:
        spec: see ``parse_model``.
        servers: the study's ``servers``.
        adapter: an adapter's folder, for local models.
        cache_dir: keep answers here; None keeps none.
        key_resolver: gives the key for ``${NAME}`` and a base URL.
        spend: told of each answer of a server; may raise ``BudgetError``.
        dtype, threads, date: for local models (``LocalEngine``).
        form: of the text by which it is asked (``raw_form.py``). Tuned weights on this machine keep
            the one that they were trained in; None is that, else ``chat``.

    Raises:
        ModelError: no such model, no key, or an adapter for a model that is not on this machine.
        MissingExtraError: a local model without the packages that run it.
    """
    ref = parse_model(spec, servers)
    engine: Engine
    if ref.is_local:
        from tunewise.models.local_engine import LocalEngine

        own = trained_as(adapter).form if adapter is not None else None
        loaded = shared_model(ref, dtype, cache_dir, own or form)
        engine = LocalEngine(loaded, adapter=adapter, threads=threads, date=date)
    elif adapter is not None:
        raise ModelError(
            "an adapter can only be added to a model on this machine",
            where=spec,
            hint="Use a folder or a hub id as the model.",
        )
    else:
        engine = _served(ref, key_resolver, spend, form or "chat")
    if cache_dir is None:
        return engine
    return CachedEngine(engine, cache_dir, by_content=ref.is_local)


def shared_model(
    ref: ModelRef,
    dtype: DType = "auto",
    cache_dir: Path | None = None,
    form: Form | None = None,
) -> LoadedModel:
    """The model in memory if someone still uses it, else loaded (``load_local``)."""
    from tunewise.models.loading import load_local, weights_changed

    key = (str(ref.path or ref.spec), dtype, form)
    loaded = _in_memory.get(key)
    if loaded is None or weights_changed(loaded):
        digests = cache_dir / "digests.json" if cache_dir is not None else None
        loaded = load_local(ref, dtype=dtype, digest_file=digests, form=form)
        _in_memory[key] = loaded
    return loaded


def address_of(ref: ModelRef) -> str:
    """Where a served model is asked: the base URL of its server, or of the service (``SERVICES``).

    Raises:
        ModelError: the environment does not say where the service is.
    """
    if ref.server is not None:
        return ref.server.base_url
    with _naming(ref):
        return SERVICES[ref.prefix].address()


def place_of(ref: ModelRef, key_resolver: KeyResolver = resolve_key) -> Place:
    """Where a served model is asked, and by which key.

    Raises:
        ModelError: the environment does not say where the service is.
        StudyError: the key is not set, or does not belong to that host.
    """
    if ref.server is None:
        with _naming(ref):
            return SERVICES[ref.prefix].place(key_resolver)
    server, address = ref.server, ref.server.base_url
    return Place(
        address,
        key_resolver(server.api_key, address) if server.api_key else None,
        key_name=server.api_key,
        concurrency=server.concurrency,
        timeout=server.timeout_s,
    )


@contextmanager
def _naming(ref: ModelRef) -> Iterator[None]:
    """Errors of a service name the model that was asked for."""
    try:
        yield
    except ModelError as error:
        error.where = ref.spec
        raise


def _served(ref: ModelRef, key_resolver: KeyResolver, spend: Spend | None, form: Form) -> Engine:
    from tunewise.models.openai_engine import OpenAIEngine

    place = place_of(ref, key_resolver)
    return OpenAIEngine(
        place.base_url,
        ref.name,
        place.api_key,
        concurrency=place.concurrency,
        timeout=place.timeout,
        spend=spend,
        azure_api_version=place.azure_version,
        entra=place.entra,
        name=ref.spec,
        key_name=place.key_name,
        form=form,
    )
