"""A tracker that writes each step's figures to a file in the job's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class AcmeLog:
    def __init__(self, run: Any) -> None:
        self._file = (run.folder / "acme.jsonl").open("a")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **figures}) + "\n")

    def finish(self, *, succeeded: bool) -> None:
        self._file.write(json.dumps({"succeeded": succeeded}) + "\n")
        self._file.close()
