"""Names of things that users see: ``file-…``, ``ftjob-…``, ``upload_…``."""

from __future__ import annotations

import secrets
import string

LETTERS = string.ascii_letters + string.digits


def new_id(prefix: str, length: int = 24) -> str:
    """``prefix``, a dash unless it is empty or ends with ``_`` or ``-``, and letters and digits.

    24 of them hold 142 bits: an id cannot be guessed, nor met twice.
    """
    dash = "" if not prefix or prefix.endswith(("_", "-")) else "-"
    return prefix + dash + "".join(secrets.choice(LETTERS) for _ in range(length))
