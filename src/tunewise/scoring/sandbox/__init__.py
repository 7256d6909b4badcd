"""Somebody else's Python function, run where it can harm nobody; Linux only.

The function runs without network, without the host's files (only the Python runtime and its
installed packages, read-only), with an empty environment, a scratch folder in memory, and limits
on memory, processor time, threads, file size and wall time. It can start no program and no second
process. The walls are namespaces, made by bubblewrap where that is installed, else by
``spawn.py``, and a filter that lets the system calls of ``system_calls.py`` through and no others;
``worker.py`` runs inside. Where a wall cannot be had nothing is run: :func:`require_sandbox` says
why.

One process serves many calls, for training asks thousands of times. It is started again after a
call that took too long or ended it. What the source keeps in its own variables lasts from call to
call, as in any module, until then.
"""

from __future__ import annotations

from tunewise.scoring.sandbox.calls import MAX_SOURCE_BYTES, Outcome, Sandbox, SandboxError
from tunewise.scoring.sandbox.probe import require_sandbox, sandbox_kind
from tunewise.scoring.sandbox.walls import Limits

__all__ = [
    "MAX_SOURCE_BYTES",
    "Limits",
    "Outcome",
    "Sandbox",
    "SandboxError",
    "require_sandbox",
    "sandbox_kind",
]
