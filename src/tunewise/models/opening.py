"""From a model's name to an engine that answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from tunewise.errors import ModelError
from tunewise.models.answer_cache import CachedEngine
from tunewise.models.engine import Engine
from tunewise.models.names import ModelRef, parse_model
from tunewise.study.keys import resolve_key
from tunewise.study.schema import Server

if TYPE_CHECKING:
    from tunewise.models.loading import DType, LoadedModel
    from tunewise.models.openai_engine import Spend

KeyResolver = Callable[[str, str], str]
"""``resolver(reference, base_url)``: the key that ``${NAME}`` stands for."""

OPENAI_URL = "https://api.openai.com/v1"

_in_memory: WeakValueDictionary[tuple[str, str], LoadedModel] = WeakValueDictionary()


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
        dtype, threads: for local models.

    Raises:
        ModelError: no such model, no key, or an adapter for a model that is not on this machine.
        MissingExtraError: a local model without the packages that run it.
    """
    ref = parse_model(spec, servers)
    engine: Engine
    if ref.is_local:
        from tunewise.models.local_engine import LocalEngine

        engine = LocalEngine(shared_model(ref, dtype, cache_dir), adapter=adapter, threads=threads)
    elif adapter is not None:
        raise ModelError(
            "an adapter can only be added to a model on this machine",
            where=spec,
            hint="Use a folder or a hub id as the model.",
        )
    else:
        engine = _served(ref, key_resolver, spend)
    return CachedEngine(engine, cache_dir) if cache_dir is not None else engine


def shared_model(
    ref: ModelRef, dtype: DType = "auto", cache_dir: Path | None = None
) -> LoadedModel:
    """The model in memory if someone still uses it, else loaded (``load_local``)."""
    from tunewise.models.loading import load_local, weights_changed

    key = (str(ref.path or ref.spec), dtype)
    loaded = _in_memory.get(key)
    if loaded is None or weights_changed(loaded):
        digests = cache_dir / "digests.json" if cache_dir is not None else None
        loaded = load_local(ref, dtype=dtype, digest_file=digests)
        _in_memory[key] = loaded
    return loaded


def _served(ref: ModelRef, key_resolver: KeyResolver, spend: Spend | None) -> Engine:
    from tunewise.models.openai_engine import OpenAIEngine

    if ref.server is not None:
        server = ref.server
        key = key_resolver(server.api_key, server.base_url) if server.api_key else None
        return OpenAIEngine(
            server.base_url,
            ref.name,
            key,
            concurrency=server.concurrency,
            timeout=server.timeout_s,
            spend=spend,
            name=ref.spec,
            key_name=server.api_key,
        )
    if ref.kind == "openai":
        key = key_resolver("${OPENAI_API_KEY}", OPENAI_URL)
        return OpenAIEngine(
            OPENAI_URL, ref.name, key, spend=spend, name=ref.spec, key_name="OPENAI_API_KEY"
        )
    endpoint = os.environ.get("AZURE_OPENAI_ENDPOINT", "").rstrip("/")
    if not endpoint:
        raise ModelError(
            "the environment variable AZURE_OPENAI_ENDPOINT is not set",
            where=ref.spec,
            hint="Set it to the resource's address: https://NAME.openai.azure.com",
        )
    version = os.environ.get("AZURE_OPENAI_API_VERSION") or os.environ.get("OPENAI_API_VERSION")
    return OpenAIEngine(
        endpoint if version else f"{endpoint.removesuffix('/openai/v1')}/openai/v1",
        ref.name,
        key_resolver("${AZURE_OPENAI_API_KEY}", endpoint),
        spend=spend,
        azure_api_version=version,
        name=ref.spec,
        key_name="AZURE_OPENAI_API_KEY",
    )
