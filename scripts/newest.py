"""Print what the project needs without upper limits, for `make newest`.

Lower limits and excluded releases stay: they are known to fail. What the next release of a library
breaks is to be found before its users find it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent


def unlimited(text: str) -> str | None:
    """The requirement without its upper limits; None for the project's own extras."""
    requirement = Requirement(text)
    if requirement.name == "tunewise":
        return None
    kept = [s for s in requirement.specifier if s.operator in (">=", ">", "!=")]
    requirement.specifier = SpecifierSet(",".join(str(s) for s in kept))
    return str(requirement)


def main() -> None:
    """Print one requirement a line."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = settings["project"]
    asked = [*project["dependencies"], *settings["dependency-groups"]["make"]]
    for extra in project["optional-dependencies"].values():
        asked += extra
    print("\n".join(sorted({line for line in map(unlimited, asked) if line is not None})))


if __name__ == "__main__":
    main()
