"""The text of a configuration: from a file, or from an address that is encrypted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewise.errors import StudyError
from tunewise.study.keys import parse_base_url
from tunewise.study.yaml_source import LARGEST_BYTES, KeyPath, Repeated, parse_yaml, read_text

_REDIRECTS = 5
_SECONDS = 30.0


@dataclass(frozen=True)
class Source:
    """A configuration as plain values.

    Attributes:
        name: of the file or its address, for messages.
        value: a mapping.
        lines: the line of each key.
        folder: what its relative paths may be relative to; None for an address.
        repeated: keys that stand twice; the last counts, as in the tools that wrote them.
    """

    name: str
    value: dict[str, Any]
    lines: dict[KeyPath, int]
    folder: Path | None
    repeated: Repeated = field(default_factory=list)


def read_source(place: str, kind: str = "configuration") -> Source:
    """Read a YAML or JSON file, or one behind an ``https://`` address.

    Raises:
        StudyError: it cannot be had, is too large, no YAML, or no mapping.
    """
    if "://" in place:
        text, folder = _fetched(place), None
    else:
        path = Path(place).expanduser()
        text, folder = read_text(path, kind), path.absolute().parent
    repeated: Repeated = []
    parsed = parse_yaml(text, place, repeated)
    if not isinstance(parsed.value, dict):
        found = "empty" if parsed.value is None else "not a mapping (lines of `key: value`)"
        raise StudyError(f"the {kind} is {found}", where=place)
    return Source(place, parsed.value, dict(parsed.lines), folder, repeated)


def _fetched(url: str) -> str:
    import httpx2

    try:
        with httpx2.Client(timeout=_SECONDS, follow_redirects=False) as client:
            here = httpx2.URL(url)
            for _ in range(_REDIRECTS):
                _check(str(here))
                with client.stream("GET", here) as answer:
                    if answer.has_redirect_location:
                        here = here.join(answer.headers["location"])
                        continue
                    if answer.status_code != 200:
                        raise StudyError(
                            f"the server answers {answer.status_code}, not with a file", where=url
                        )
                    return _decoded(answer, url)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise StudyError(f"it cannot be fetched: {error}", where=url) from None
    raise StudyError(f"it leads on more than {_REDIRECTS} times", where=url)


def _check(url: str) -> None:
    """Refuse an address whose answer others on the way could change."""
    address = parse_base_url(url.partition("?")[0].partition("#")[0])
    if address.scheme != "https" and not address.is_loopback:
        raise StudyError(
            "a configuration is fetched over https:// only",
            where=url,
            hint="Plain http is for this machine only; else download the file first.",
        )


def _decoded(answer: Any, url: str) -> str:
    content = b""
    for part in answer.iter_bytes():
        content += part
        if len(content) > LARGEST_BYTES:
            raise StudyError("a configuration may have 1 MiB at most", where=url)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise StudyError("not UTF-8 text", where=f"{url}:{line}") from None
