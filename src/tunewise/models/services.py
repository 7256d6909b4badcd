"""Services that a model's name can point to without a study naming their server, one class each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tunewise.errors import ModelError

KeyResolver = Callable[[str, str], str]
"""``resolver(reference, base_url)``: the key that ``${NAME}`` stands for."""

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Place:
    """A server and what it takes to speak to it.

    Attributes:
        base_url: of the OpenAI-shaped API; with ``azure_version``, the resource's endpoint.
        api_key: sent to ``base_url`` and nowhere else; never shown.
        key_name: the variable that holds it.
        azure_version: of Azure's classic URLs (``/openai/…?api-version=``); None elsewhere, and at
            Azure's ``/openai/v1``, which has none.
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


class Service(Protocol):
    """A service, as the environment has it.

    Attributes:
        form: how a study names a model there.
    """

    form: str

    def address(self) -> str:
        """Where it is.

        Raises:
            ModelError: the environment does not say.
        """
        ...

    def place(self, key_resolver: KeyResolver) -> Place:
        """Where it is asked, and by which key.

        Raises:
            ModelError: the environment does not say where.
            StudyError: the key is not set, or does not belong to that host.
        """
        ...


class OpenAIService:
    """OpenAI, or what OPENAI_BASE_URL says; the key is OPENAI_API_KEY."""

    form = "openai:MODEL"

    def address(self) -> str:
        return os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/") or OPENAI_URL

    def place(self, key_resolver: KeyResolver) -> Place:
        address = self.address()
        key = key_resolver("${OPENAI_API_KEY}", address)
        return Place(address, key, key_name="OPENAI_API_KEY")


_UNVERSIONED = ("v1", "preview", "latest")
"""What Azure's documents write for a version of ``/openai/v1``."""


class AzureService:
    """The resource at AZURE_OPENAI_ENDPOINT: by ``/openai/v1``, which needs no version.

    Where AZURE_OPENAI_API_VERSION (or OPENAI_API_VERSION) is a dated version, by the classic URLs,
    as the ``AzureOpenAI`` client does.

    The key is AZURE_OPENAI_API_KEY or, where that is not set, a token of Microsoft Entra in
    AZURE_OPENAI_AD_TOKEN.
    """

    form = "azure:DEPLOYMENT"

    def address(self) -> str:
        endpoint = os.environ.get("AZURE_OPENAI_ENDPOINT", "").strip().rstrip("/")
        if not endpoint:
            raise ModelError(
                "the environment variable AZURE_OPENAI_ENDPOINT is not set",
                hint="Set it to the resource's address: https://NAME.openai.azure.com",
            )
        return endpoint.removesuffix("/openai/v1").removesuffix("/openai")

    def place(self, key_resolver: KeyResolver) -> Place:
        address = self.address()
        environ = os.environ
        version = environ.get("AZURE_OPENAI_API_VERSION") or environ.get("OPENAI_API_VERSION")
        if version in _UNVERSIONED:
            version = None
        token = environ.get("AZURE_OPENAI_AD_TOKEN")
        entra = bool(token) and not environ.get("AZURE_OPENAI_API_KEY")
        name = "AZURE_OPENAI_AD_TOKEN" if entra else "AZURE_OPENAI_API_KEY"
        return Place(
            address if version else f"{address}/openai/v1",
            key_resolver(f"${{{name}}}", address),
            key_name=name,
            azure_version=version,
            entra=entra,
        )


SERVICES: Mapping[str, Service] = {"openai": OpenAIService(), "azure": AzureService()}
"""Each by what stands before the colon in a model's name."""
