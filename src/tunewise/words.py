"""Numbers in sentences: one of them reads as one."""

from __future__ import annotations


def plural(n: int, one: str, many: str | None = None) -> str:
    """``1 row``, ``1,204 rows``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def level(alpha: float) -> str:
    """``95 %``, ``99.5 %``, ``99.95 %``: an interval's level, with as many digits as it needs."""
    beyond = 100 * alpha
    digits = next((d for d in range(6) if abs(round(beyond, d) - beyond) <= beyond / 10), 6)
    return f"{round(100 * (1 - alpha), digits):.{digits}f} %"


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
