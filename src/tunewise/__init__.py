"""Tunewise: should I fine-tune a language model for this, and if so, where and how?"""

from __future__ import annotations

__version__ = "0.1.0"
