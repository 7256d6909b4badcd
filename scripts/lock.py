"""Renew the lock: the exact releases that `make` installs, with the hashes of all their files.

    make lock

Writes ``requirements/local.txt`` (what `make demo` installs), ``requirements/dev.txt`` (what
`make test` installs; the same releases where both name one) and, from them,
``src/tunewise/tested_versions.json``, against which `tunewise doctor` compares. They hold for all
systems and for every Python that the project supports. torch stands apart, in constraints.txt: its
builds for processors and for GPUs differ in files and in what they need.

uv resolves, since pip cannot give the hashes of other systems' files.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "requirements"
TESTED = ROOT / "src" / "tunewise" / "tested_versions.json"
PINNED = ROOT / "constraints.txt"

_HEADER = "# Written by `make lock`; install with --no-deps --require-hashes, then torch.\n"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def uv() -> str:
    """The command uv: the one at hand, or one in a temporary environment."""
    found = shutil.which("uv")
    if found is not None:
        return found
    folder = Path(tempfile.mkdtemp(prefix="lock-"))
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", "uv"], check=True)
    return str(folder / "bin" / "uv")


def compile_lock(command: str, out: Path, extra: list[str], constraints: list[Path]) -> None:
    """Resolve the newest releases inside pyproject.toml's bounds into ``out``."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as override:
        override.write('torch ; sys_platform == "never"\n')
        override.flush()
        subprocess.run(
            [
                *(command, "pip", "compile", "--quiet", "pyproject.toml", *extra),
                *("--group", "make", "--universal", "--python-version", "3.11"),
                *(
                    "--generate-hashes",
                    "--no-header",
                    "--no-annotate",
                    "--no-emit-package",
                    "torch",
                ),
                *("--override", override.name, "--upgrade", "--output-file", str(out)),
                *(part for path in constraints for part in ("--constraint", str(path))),
            ],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    out.write_text(_HEADER + out.read_text("utf-8"), "utf-8")


def tested_versions() -> dict[str, list[str]]:
    """The locked releases by name; several where they differ by system or Python."""
    found: dict[str, list[str]] = {}
    for path in (PINNED, LOCKS / "local.txt", LOCKS / "dev.txt"):
        for name, version in _PIN.findall(path.read_text("utf-8")):
            versions = found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), [])
            if version not in versions:
                versions.append(version)
    return dict(sorted(found.items()))


def main() -> None:
    """Write both locks and the file of tested versions."""
    if sys.argv[1:] != ["--versions-only"]:
        LOCKS.mkdir(exist_ok=True)
        command = uv()
        dev = LOCKS / "dev.txt"
        compile_lock(command, dev, ["--extra", "all", "--extra", "dev"], [])
        compile_lock(command, LOCKS / "local.txt", ["--extra", "local"], [dev])
    TESTED.write_text(json.dumps(tested_versions(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
