"""Parts of Tunewise that packages bring by entry points: routes, candidates, metrics, trackers.

Our own stand in the same groups, so whatever holds for a part of another package holds for them.
Two packages with a part of the same name, or a package that cannot be imported, are told to those
who ask for that part and to nobody else.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tunewise.errors import TunewiseError

_REINSTALL = (
    "This installation of Tunewise has lost its own parts; reinstall it: "
    "pip install --force-reinstall --no-deps tunewise (from a clone: pip install -e .)."
)


@dataclass(frozen=True, slots=True)
class Part:
    """One entry point.

    Attributes:
        name: as a study file has it.
        target: ``module:attribute``.
        package: the package that brings it, with its version.
        own: it is one of Tunewise's own.
    """

    name: str
    target: str
    package: str
    own: bool


@dataclass(frozen=True, slots=True)
class Group:
    """All parts of one kind.

    Attributes:
        name: of the entry points' group, for instance ``tunewise.routes``.
        what: a part of it is called in messages.
        where: the key of the study that names one.
        error: what is raised.
        needs: attributes that each part has.
    """

    name: str
    what: str
    where: str
    error: type[TunewiseError]
    needs: tuple[str, ...] = ()

    def parts(self) -> list[Part]:
        """What is installed, our own first, each by name; nothing is imported."""
        found = _installed(self.name, tuple(sys.path))
        return sorted(found, key=lambda part: (not part.own, part.name))

    def names(self) -> list[str]:
        """The names of all parts, our own first; nothing is imported."""
        return list(dict.fromkeys(part.name for part in self.parts()))

    def find(self, name: str) -> Part:
        """The part called ``name``; nothing is imported.

        Raises:
            TunewiseError: there is none, or two packages bring one. Its class is ``error``.
        """
        named = [part for part in self.parts() if part.name == name]
        if not named:
            _installed.cache_clear()  # it may have been installed since this process began
            named = [part for part in self.parts() if part.name == name]
        if not named:
            known = self.names()
            near = difflib.get_close_matches(name.lower().replace("-", "_"), known, 3, 0.5)
            guess = f"Did you mean {' or '.join(near)}? " if near else ""
            raise self.error(
                f"there is no {self.what} called {name!r}",
                where=self.where,
                hint=f"{guess}Known: {', '.join(known)}." if known else _REINSTALL,
            )
        if len(named) > 1:
            raise self.error(
                f"two packages bring a {self.what} called {name!r}: {named[0].package} and "
                f"{named[1].package}",
                where=self.where,
                hint="Uninstall one of them.",
            )
        return named[0]

    def load(self, name: str) -> Any:
        """Import what the part's entry point names.

        Raises:
            TunewiseError: as ``find`` does, or it cannot be imported.
        """
        part = self.find(name)
        try:
            return loaded(part)
        except Exception as error:  # another package's code
            raise self.failed(part, error) from error

    def failed(self, part: Part, error: Exception) -> TunewiseError:
        """What to raise where a part's own code fails before it is of any use."""
        return self.error(
            f"the {self.what} {part.name!r} cannot be loaded: {error}",
            where=self.where,
            hint=f"It comes from {part.package} ({part.target}); is that package complete?",
        )

    def checked(self, name: str, made: Any) -> Any:
        """``made``, which the part called ``name`` is or gave, if it has all that is needed.

        Raises:
            TunewiseError: it lacks something of ``needs``.
        """
        lacking = [f"`{attribute}`" for attribute in self.needs if not hasattr(made, attribute)]
        if lacking:
            raise self.error(
                f"the {self.what} {name!r} has no {' and no '.join(lacking)}",
                where=self.where,
                hint=f"It comes from {self.find(name).package}, which is for another version of "
                "Tunewise.",
            )
        return made


def loaded(part: Part) -> Any:
    """What a part's entry point names. Raises whatever its package raises when it is imported."""
    from importlib.metadata import EntryPoint

    return EntryPoint(part.name, part.target, "").load()


@lru_cache(maxsize=32)
def _installed(group: str, path: tuple[str, ...]) -> tuple[Part, ...]:
    """All parts of a group, as seen from ``path``; what an editable install shows twice counts
    once.
    """
    from importlib.metadata import entry_points

    own_parts = _of_source_tree().get(group, ())
    found = {(part.name, part.target): part for part in own_parts}
    for entry in entry_points(group=group):
        own = entry.dist is not None and entry.dist.name == "tunewise"
        if own and own_parts:  # what pip has written may be older than the tree
            continue
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        part = Part(entry.name, entry.value, package, own)
        found.setdefault((part.name, part.target), part)
    return tuple(found.values())


@cache
def _of_source_tree() -> dict[str, tuple[Part, ...]]:
    """Our own parts by group, as the source tree that runs declares them; empty elsewhere.

    What pip has written for an editable install is as old as that install: parts that the tree has
    got since would be missing.
    """
    import tomllib

    try:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
        project = tomllib.loads(text)["project"]
        if project["name"] != "tunewise":
            return {}
        package = f"tunewise {project['version']}"
        return {
            group: tuple(Part(name, target, package, own=True) for name, target in named.items())
            for group, named in project["entry-points"].items()
        }
    except (OSError, ValueError, KeyError, AttributeError):
        return {}
