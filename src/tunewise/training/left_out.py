"""Rows that no training learns from: why, in words, and how many are too many."""

from __future__ import annotations

LEFT_OUT = {
    "too_long": "longer than the limit",
    "equal_answers": "both answers are the same",
    "no_teacher_answer": "the teacher has no answer",
}
"""Codes of rows that are left out and counted, with the reason in words.

Any other row with a finding is still learnt.
"""

MOST_TOO_LONG = 0.1
"""Where more of the rows are too long, what is learnt is no longer the data that were given."""
