"""Secrets: found in the environment, bound to the hosts that they belong to, kept out of words.

A study from a stranger may name any ``base_url`` and any environment variable. So a key goes only
to the host that it belongs to: known keys to their provider, any other to the host that the user
named beside it, in an environment variable of the same name with ``_HOST`` at its end.
"""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tunewise.errors import StudyError

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:%/-]*)?",
    re.IGNORECASE,
)
_AZURE_HOSTS = (
    "*.openai.azure.com",
    "*.services.ai.azure.com",
    "*.cognitiveservices.azure.com",
)
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "OPENAI_API_KEY": ("api.openai.com",),
    "AZURE_OPENAI_API_KEY": _AZURE_HOSTS,
    "AZURE_OPENAI_AD_TOKEN": _AZURE_HOSTS,
    "AZURE_MANAGEMENT_TOKEN": ("management.azure.com",),
    "HF_TOKEN": ("huggingface.co", "router.huggingface.co"),
}
# Where the user's own environment, never a study, names the address that a key is for.
_ADDRESSES: Mapping[str, str] = {
    "OPENAI_API_KEY": "OPENAI_BASE_URL",
    "AZURE_OPENAI_API_KEY": "AZURE_OPENAI_ENDPOINT",
    "AZURE_OPENAI_AD_TOKEN": "AZURE_OPENAI_ENDPOINT",
    "AZURE_MANAGEMENT_TOKEN": "AZURE_MANAGEMENT_ENDPOINT",
}
_SECRET_NAME = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
_TOKENS = (
    re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"),
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\bAIza[0-9A-Za-z_-]{30,}"),
    re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
)
"""Keys that can be told by their own form."""
_PATTERNS = (
    *_TOKENS,
    re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"),
    re.compile(r"(?i)(?<=\bbearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(
        r"(?i)(?<=[?&])(?:api[-_]?key|key|token|access_token|sig|secret|password)=[^&\s\"']+"
    ),
    re.compile(r"(?i)\b(?:api[-_]?key|authorization|password|secret)[\"']?\s*[:=]\s*[\"']?"
               r"(?!bearer\b|\$\{)[A-Za-z0-9._~+/=-]{12,}"),
)  # fmt: skip
_SHORTEST = 8
_HIDDEN = "[secret]"
_resolved: set[str] = set()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Address:
    """The part of a base URL that decides who receives a key."""

    scheme: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def parse_base_url(base_url: str) -> Address:
    """Understand a base URL; everything that two programs could read differently is refused.

    Refused are user names (``https://api.openai.com@evil.example``), backslashes, white space,
    letters beyond ASCII, ``?`` and ``#``, numeric hosts in odd notations, and other schemes.

    Raises:
        StudyError: it is not a plain http(s) URL.
    """
    shown = redact(base_url if len(base_url) <= 200 else base_url[:199] + "…")
    where = f"base_url: {shown.encode('unicode_escape').decode() if not _plain(shown) else shown}"
    match = _URL.fullmatch(base_url)
    if match is None:
        raise StudyError(_why_not(base_url), where=where, hint="For instance https://host/v1")
    host, scheme = match["host"].lower(), match["scheme"].lower()
    port = int(match["port"]) if match["port"] else (443 if scheme == "https" else 80)
    if not 0 < port < 65536 or ".." in host:
        raise StudyError("the URL's host or port cannot be", where=where)
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host.strip("[]"))
        except ValueError:
            raise StudyError("the URL's host is no IPv6 address", where=where) from None
    elif re.fullmatch(r"[0-9.]+|(.*\.)?(0x[0-9a-f]*|[0-9]+)", host):
        # 127.1, 0x7f.1 and 2130706433 are addresses to some programs and names to others.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise StudyError("the URL's host is no plain IPv4 address", where=where) from None
    if any(label.startswith("xn--") for label in host.split(".")):
        raise StudyError("hosts with letters beyond ASCII are not accepted", where=where)
    return Address(scheme, host, port)


def resolve_key(reference: str, base_url: str) -> str:
    """The secret that ``${NAME}`` stands for, if it may be sent to ``base_url``.

    Args:
        reference: ``${NAME}`` of an environment variable.
        base_url: where the key would be sent: over https, or to this machine.

    Raises:
        StudyError: not a reference; not set; not https; or the key does not belong to the host,
            with what to set if the study is trusted. The secret is in no message.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise StudyError(
            "a key is written as `${NAME}` of an environment variable, never as itself",
            where="api_key",
            hint="Set the variable in your shell: export NAME=…",
        )
    name = match[1]
    address = parse_base_url(base_url)
    if address.scheme != "https" and not address.is_loopback:
        raise StudyError(
            f"{name} would be sent unencrypted to {address.host}",
            where="base_url",
            hint="Use https://; plain http is for this machine only.",
        )
    _check_host(name, address)
    secret = os.environ.get(name, "").strip()
    if not secret:
        raise StudyError(
            f"the environment variable {name} is not set",
            where="api_key",
            hint=f"Set it in your shell: export {name}=…",
        )
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise StudyError(
            f"the value of {name} is not a key: it holds spaces or odd characters", where="api_key"
        )
    with _lock:
        _resolved.add(secret)
    return secret


def redact(text: str) -> str:
    """``text`` without secrets: those used so far, those in the environment, and what looks so."""
    return _hidden(text, _secrets(), _PATTERNS)


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return _SECRET_NAME.search(name.upper()) is not None


def keep_secret(secret: str) -> None:
    """Let no message show this text: a key that a user has written down somewhere."""
    if secret:
        with _lock:
            _resolved.add(secret)


def without_keys(text: str) -> str:
    """``text`` without the keys that were used so far, letter by letter.

    For what a model answers, which is kept and scored as it is otherwise: what only looks like a
    secret stays.
    """
    return _hidden(text, _used())


def without_tokens(value: Any) -> Any:
    """JSON values without keys: those that were used so far, and what has the form of one.

    For answers that are stored: that they hold a key which somebody has shown to a model is found
    out years later, by whoever reads the store.
    """
    if isinstance(value, str):
        return _hidden(value, _used(), _TOKENS)
    if isinstance(value, Mapping):
        return {name: without_tokens(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_tokens(part) for part in value]
    return value


def _used() -> set[str]:
    with _lock:
        return {secret for secret in _resolved if len(secret) >= _SHORTEST}


def _hidden(text: str, secrets: Iterable[str], patterns: Sequence[re.Pattern[str]] = ()) -> str:
    # The longest first: one secret may begin with another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    for pattern in patterns:
        text = pattern.sub(_HIDDEN, text)
    return text


def _check_host(name: str, address: Address) -> None:
    known = _KNOWN.get(name)
    if known is not None:
        if any(_fits(pattern, address) for pattern in known) and address.port in (443, 80):
            return
        if _named_by_user(name, address):
            return
        raise StudyError(
            f"{name} is not sent to {_shown(address)}: it belongs to {' and '.join(known)}",
            where="base_url",
            hint="If you trust this server, give it a key of its own: write `api_key: ${MY_KEY}` "
            f"and set MY_KEY=… and MY_KEY_HOST={_shown(address)} in your shell.",
        )
    allowed = [entry.strip().lower() for entry in os.environ.get(f"{name}_HOST", "").split(",")]
    if any(entry and "*" not in entry and _fits(entry, address) for entry in allowed):
        return
    reason = "a study may name any server, so a key goes only to the host that you named for it"
    raise StudyError(
        f"{name} is not sent to {_shown(address)}: {reason}",
        where="base_url",
        hint=f"If you trust this server: export {name}_HOST={_shown(address)}",
    )


def _named_by_user(name: str, address: Address) -> bool:
    """Whether the environment gives a known key's provider another address, and it is this one."""
    named = os.environ.get(_ADDRESSES.get(name, ""), "").strip()
    try:
        return bool(named) and parse_base_url(named) == address
    except StudyError:
        return False


def _fits(pattern: str, address: Address) -> bool:
    """Whether an address is the host, ``host:port`` or ``*.domain`` of a pattern."""
    if pattern.startswith("*."):
        return address.host.endswith(pattern[1:]) and len(address.host) > len(pattern) - 1
    if pattern == address.host:
        return True
    return pattern == f"{address.host}:{address.port}"


def _shown(address: Address) -> str:
    default = 443 if address.scheme == "https" else 80
    return address.host if address.port == default else f"{address.host}:{address.port}"


def _secrets() -> Iterator[str]:
    with _lock:
        values = set(_resolved)
    values |= {v.strip() for k, v in os.environ.items() if is_secret_name(k)}
    for value in values:
        if len(value) >= _SHORTEST or value in _resolved:
            yield value
            escaped = quote(value, safe="")
            if escaped != value:
                yield escaped


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _why_not(url: str) -> str:
    if "${" in url:
        return "`${NAME}` is replaced in key fields only, not in URLs"
    if not url.isascii():
        return "hosts with letters beyond ASCII are not accepted"
    if "\\" in url or any(c.isspace() or not c.isprintable() for c in url):
        return "the URL holds a backslash, white space or control characters"
    authority = url.partition("://")[2].partition("/")[0]
    if "@" in authority:
        return "the URL holds a user name (`@`), which can hide the real host"
    if "?" in url or "#" in url:
        return "a base URL has no `?` and no `#`"
    return "this is not a plain http:// or https:// URL"
