"""API keys from the environment, each sent only to the hosts that it belongs to.

A study may come from a stranger and name any ``base_url`` beside any ``${NAME}``. So a key goes out
only to a host that is known to own it, to this machine, or where the user said so in
``TUNEWISE_KEY_HOSTS`` (``NAME=host,NAME=host``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.parse import urlsplit

from tunewise.errors import ModelError

KeyResolver = Callable[[str, str], str | None]
"""``resolver(reference, base_url)``: the key that ``${NAME}`` stands for, or None without one."""

CONSENT = "TUNEWISE_KEY_HOSTS"

_OWNERS = {
    "OPENAI_API_KEY": (".openai.com",),
    "AZURE_OPENAI_API_KEY": (".openai.azure.com", ".cognitiveservices.azure.com", ".azure.com"),
    "HF_TOKEN": (".huggingface.co",),
    "OPENROUTER_API_KEY": (".openrouter.ai",),
    "GROQ_API_KEY": (".groq.com",),
    "TOGETHER_API_KEY": (".together.xyz", ".together.ai"),
    "MISTRAL_API_KEY": (".mistral.ai",),
    "DEEPSEEK_API_KEY": (".deepseek.com",),
    "FIREWORKS_API_KEY": (".fireworks.ai",),
}
_HERE = ("localhost", "127.0.0.1", "::1")


def environment_key(reference: str, base_url: str) -> str | None:
    """The key that ``${NAME}`` (or ``NAME``) stands for, if it may go to ``base_url``'s host.

    Raises:
        ModelError: the variable is not set, or the host is not known to own the key. The key
            itself is in no message.
    """
    name = reference.removeprefix("${").removesuffix("}")
    key = os.environ.get(name, "").strip()
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    if not key:
        raise ModelError(
            f"the environment variable {name} is not set",
            where=base_url,
            hint=f"Set it to the key for {host}: export {name}=…",
        )
    allowed = [*_OWNERS.get(name, ()), *_consented(name)]
    if host in _HERE or any(host == h.lstrip(".") or host.endswith(h) for h in allowed):
        if parts.scheme != "https" and host not in _HERE and host not in _consented(name):
            raise ModelError(
                f"{name} would travel unencrypted", where=base_url, hint="Use an https:// address."
            )
        return key
    raise ModelError(
        f"{name} is not sent to {host or 'a host without a name'}, which is not known to own it",
        where=base_url,
        hint=f"If you trust this address, allow it: export {CONSENT}={name}={host}",
    )


def _consented(name: str) -> list[str]:
    pairs = (pair.partition("=") for pair in os.environ.get(CONSENT, "").split(","))
    return [host.strip().lower() for n, _, host in pairs if n.strip() == name and host.strip()]


def redact(text: str, *secrets: str | None) -> str:
    """``text`` with every secret replaced, for messages that quote a server."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[key]")
    return text
