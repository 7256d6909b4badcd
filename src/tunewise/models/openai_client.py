"""OpenAI's own client, opened so that a key stays with its host; and what its errors say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewise.study.keys import redact

if TYPE_CHECKING:
    from openai import OpenAI


def reason_of(error: Exception, key: str | None = None) -> str:
    """What the client's error says, with its HTTP status and without secrets; one line."""
    cause = error.__cause__
    text = str(getattr(error, "message", None) or error).strip() or type(error).__name__
    if cause is not None and str(cause):
        text = f"{text} {cause}"
    status = getattr(error, "status_code", None)
    text = redact(" ".join(text.split()))
    text = text.replace(key, "[key]") if key else text
    text = text[:300]
    return text if status is None or str(status) in text else f"{status}: {text}"


def open_client(
    base_url: str,
    model: str | None,
    api_key: str | None,
    timeout: float,
    azure_version: str | None,
    *,
    entra: bool = False,
    keep_alive: bool = True,
) -> OpenAI:
    """The official client, without retries and without following redirects.

    Args:
        model: the deployment that Azure's classic URLs name; None where none is asked.
        azure_version: speak Azure's classic URLs.
        entra: ``api_key`` is a token of Microsoft Entra.
        keep_alive: keep connections for the next request; then the client must be closed.
    """
    import httpx2
    import openai

    common: dict[str, Any] = {
        "api_key": api_key or "none",  # the client insists on one; keyless servers ignore it
        "timeout": timeout,
        "max_retries": 0,
        # A redirect could carry the key to another host.
        "http_client": openai.DefaultHttpxClient(
            follow_redirects=False,
            timeout=timeout,
            limits=httpx2.Limits(
                max_connections=1000, max_keepalive_connections=100 if keep_alive else 0
            ),
        ),
    }
    client: OpenAI
    if azure_version is not None:
        if entra:
            common["azure_ad_token"] = common.pop("api_key")
        client = openai.AzureOpenAI(
            azure_endpoint=base_url, azure_deployment=model, api_version=azure_version, **common
        )
    else:
        client = openai.OpenAI(base_url=base_url, **common)
    if not base_url.startswith("https://api.openai.com/"):
        client.organization = client.project = None  # from the environment; not for other hosts
    return client
