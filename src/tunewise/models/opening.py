"""From a model's name to an engine that answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    date: str | None = None,
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

    Raises:
        ModelError: no such model, no key, or an adapter for a model that is not on this machine.
        MissingExtraError: a local model without the packages that run it.
    """
    ref = parse_model(spec, servers)
    engine: Engine
    if ref.is_local:
        from tunewise.models.local_engine import LocalEngine

        loaded = shared_model(ref, dtype, cache_dir)
        engine = LocalEngine(loaded, adapter=adapter, threads=threads, date=date)
    elif adapter is not None:
        raise ModelError(
            "an adapter can only be added to a model on this machine",
            where=spec,
            hint="Use a folder or a hub id as the model.",
        )
    else:
        engine = _served(ref, key_resolver, spend)
    if cache_dir is None:
        return engine
    return CachedEngine(engine, cache_dir, by_content=ref.is_local)


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


@dataclass(frozen=True, slots=True)
class Place:
    """A server and what it takes to speak to it.

    Attributes:
        base_url: of the OpenAI-shaped API; with ``azure_version``, the resource's endpoint.
        api_key: sent to ``base_url`` and nowhere else; never shown.
        key_name: the variable that holds it.
        azure_version: of Azure's classic URLs.
        entra: the key is a token of Microsoft Entra.
        concurrency: requests under way at once.
        timeout: seconds for one attempt.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    key_name: str | None = None
    azure_version: str | None = None
    entra: bool = False
    concurrency: int = 8
    timeout: float = 120.0


def address_of(ref: ModelRef) -> str:
    """Where a served model is asked: the server's base URL, or Azure's resource.

    ``openai:`` is OpenAI, or what the environment's OPENAI_BASE_URL says; ``azure:`` is the
    resource at AZURE_OPENAI_ENDPOINT.

    Raises:
        ModelError: AZURE_OPENAI_ENDPOINT is not set.
    """
    if ref.server is not None:
        return ref.server.base_url
    if ref.kind == "openai":
        return os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/") or OPENAI_URL
    endpoint = os.environ.get("AZURE_OPENAI_ENDPOINT", "").strip().rstrip("/")
    if not endpoint:
        raise ModelError(
            "the environment variable AZURE_OPENAI_ENDPOINT is not set",
            where=ref.spec,
            hint="Set it to the resource's address: https://NAME.openai.azure.com",
        )
    return endpoint.removesuffix("/openai/v1")


def place_of(ref: ModelRef, key_resolver: KeyResolver = resolve_key) -> Place:
    """Where a served model is asked, and by which key.

    Keys are OPENAI_API_KEY and AZURE_OPENAI_API_KEY; where the latter is not set, a token of
    Microsoft Entra in AZURE_OPENAI_AD_TOKEN.

    Raises:
        ModelError: AZURE_OPENAI_ENDPOINT is not set.
        StudyError: the key is not set, or does not belong to that host.
    """
    address = address_of(ref)
    if ref.server is not None:
        server = ref.server
        return Place(
            address,
            key_resolver(server.api_key, address) if server.api_key else None,
            key_name=server.api_key,
            concurrency=server.concurrency,
            timeout=server.timeout_s,
        )
    if ref.kind == "openai":
        key = key_resolver("${OPENAI_API_KEY}", address)
        return Place(address, key, key_name="OPENAI_API_KEY")
    version = os.environ.get("AZURE_OPENAI_API_VERSION") or os.environ.get("OPENAI_API_VERSION")
    token = os.environ.get("AZURE_OPENAI_AD_TOKEN")
    entra = bool(token) and not os.environ.get("AZURE_OPENAI_API_KEY")
    name = "AZURE_OPENAI_AD_TOKEN" if entra else "AZURE_OPENAI_API_KEY"
    return Place(
        address if version else f"{address}/openai/v1",
        key_resolver(f"${{{name}}}", address),
        key_name=name,
        azure_version=version,
        entra=entra,
    )


def _served(ref: ModelRef, key_resolver: KeyResolver, spend: Spend | None) -> Engine:
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
    )
