"""Keeps the libraries' own progress bars and remarks off the user's screen."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of transformers and the hub's client inside."""
    from huggingface_hub.utils import logging as hub_log
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as log

    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    hub_verbosity, hub_bars = hub_log.get_verbosity(), not are_progress_bars_disabled()
    log.set_verbosity_error()  # type: ignore[no-untyped-call]
    log.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_log.set_verbosity_error()  # type: ignore[no-untyped-call]
    if hub_bars:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(verbosity)
        hub_log.set_verbosity(hub_verbosity)
        if bars:
            log.enable_progress_bar()  # type: ignore[no-untyped-call]
        if hub_bars:
            enable_progress_bars()
