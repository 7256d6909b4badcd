"""Tunewise: should I fine-tune a language model for this, and if so, where and how?

    import tunewise as tw

    tw.audit("rows.jsonl")                          # what is wrong with the rows
    result = tw.run({"name": "mine", "model": …})   # baselines, fine-tune, test once, verdict
    tuned = tw.train(rows, model="tunewise/tiny")   # only fine-tune
    tw.generate(tuned, "…")                         # ask it

Everything loads when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "TunewiseError",
    "__version__",
    "audit",
    "compare",
    "forecast",
    "generate",
    "init",
    "load_study",
    "load_verdict",
    "run",
    "train",
]

if TYPE_CHECKING:
    from tunewise.errors import TunewiseError
    from tunewise.python.api import (
        audit,
        compare,
        forecast,
        generate,
        init,
        load_study,
        load_verdict,
        run,
        train,
    )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tunewise' has no attribute {name!r}")
    if name == "TunewiseError":
        from tunewise import errors

        return errors.TunewiseError
    from tunewise.python import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
