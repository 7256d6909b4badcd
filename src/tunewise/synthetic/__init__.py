"""Generated data: invented words, three demonstration studies and a suite to measure forgetting."""

from __future__ import annotations
