"""What a model's name in a study means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunewise.errors import ModelError
from tunewise.models.services import SERVICES
from tunewise.study.schema import Server

TINY = "tunewise/tiny"

Kind = Literal["folder", "hub", "service", "server"]

_FORMS = (
    f"Write {TINY}, a folder (./my-model), a hub id (owner/name or owner/name@revision), "
    f"{', '.join(service.form for service in SERVICES.values())}, or NAME:MODEL with NAME from the "
    "study's `servers`."
)
_HUB_ID = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(@(?P<rev>[\w./-]{1,100}))?"
)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model's name, understood.

    Attributes:
        spec: as written.
        kind: ``folder`` and ``hub`` are answered on this machine, the others elsewhere: by a
            service that is known by name (``SERVICES``), or a server of the study.
        name: hub id, model or deployment; the folder's name for ``folder``.
        path: the folder, for ``folder``.
        revision: branch, tag or commit, for ``hub``.
        prefix: the service's or server's name, for those.
        server: the study's server, for ``server``.
    """

    spec: str
    kind: Kind
    name: str
    path: Path | None = None
    revision: str | None = None
    prefix: str = ""
    server: Server | None = None

    @property
    def is_local(self) -> bool:
        """Whether its weights are loaded on this machine."""
        return self.kind in ("folder", "hub")


def tiny_folder() -> Path:
    """Where the model that ships with the package lies."""
    return Path(__file__).parent / "tiny"


def parse_model(spec: str, servers: Mapping[str, Server] | None = None) -> ModelRef:
    """Understand a model's name; nothing is loaded, no network is asked.

    Args:
        spec: as written in a study's ``model``.
        servers: the study's ``servers``.

    Raises:
        ModelError: for a name that fits no form, with near names and how to write each form.
    """
    servers = servers or {}
    spec = spec.strip()
    if spec == TINY:
        return _folder(spec, tiny_folder(), name=TINY)
    # A folder that is there is meant, whatever its name looks like.
    path = Path(spec).expanduser() if spec and not spec.startswith("~nobody") else Path()
    if spec and path.is_dir():
        return _folder(spec, path)
    if spec.startswith((".", "/", "~")):
        raise ModelError("no such folder", where=spec, hint=_near_folders(path) + _FORMS)
    prefix, colon, name = spec.partition(":")
    if colon:
        return _served(spec, prefix, name.strip(), servers)
    match = _HUB_ID.fullmatch(spec)
    if match and spec.split("/", 1)[0] != "tunewise":
        return ModelRef(spec, "hub", match["id"], revision=match["rev"])
    known = [TINY, *(f"{server}:MODEL" for server in (*SERVICES, *servers))]
    raise ModelError(
        "not a model's name", where=spec or "(empty)", hint=_near(spec, known) + _FORMS
    )


def _folder(spec: str, path: Path, name: str | None = None) -> ModelRef:
    return ModelRef(spec, "folder", name or path.resolve().name, path=path.resolve())


def _served(spec: str, prefix: str, name: str, servers: Mapping[str, Server]) -> ModelRef:
    if prefix not in servers and prefix not in SERVICES:
        known = [*SERVICES, *servers]
        raise ModelError(
            f"no server is called {prefix!r}",
            where=spec,
            hint=_near(prefix, known, suffix=f":{name}")
            + f"Known: {', '.join(known)}. Add others under `servers:` in the study. {_FORMS}",
        )
    if not name:
        raise ModelError(f"the model's name after `{prefix}:` is missing", where=spec, hint=_FORMS)
    if prefix in servers:
        return ModelRef(spec, "server", name, prefix=prefix, server=servers[prefix])
    return ModelRef(spec, "service", name, prefix=prefix)


def _near(word: str, known: list[str], suffix: str = "") -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(n + suffix for n in near)}? " if near else ""


def _near_folders(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()]
    near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(str(path.parent / n) for n in near)}? " if near else ""
