"""Numbers in sentences: one of them reads as one."""

from __future__ import annotations


def plural(n: int, one: str, many: str | None = None) -> str:
    """``1 row``, ``1,204 rows``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def verb(n: int, has: str, have: str) -> str:
    """``has`` for one, ``have`` for any other number."""
    return has if n == 1 else have


def some_of(n: int, total: int, one: str, has: str = "", have: str = "") -> str:
    """``3 of 4 rows have``, ``1 of 4 rows has``; where that is all, ``all 4 rows have``."""
    said = verb(n, has, have)
    if total == 1:
        text = f"the only {one}" if n else f"no {one}"
    else:
        share = f"all {total:,}" if n == total else f"{n:,} of {total:,}"
        text = f"{share} {one}s"
    return f"{text} {said}".rstrip()
