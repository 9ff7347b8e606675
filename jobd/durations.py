"""Durations as people write them: ``10``, ``0.5``, ``250ms``, ``10s``, ``5m``, ``1h30m``, ``2d``.

Imports nothing of ours. `float` is not asked before the text has matched, because it takes ``nan``, ``inf``,
``1_000``, full-width digits and blanks around them.
"""

import math
import re

_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_SECONDS = re.compile(_NUMBER)
_PARTS = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in _UNITS_S))

HOW_TO_WRITE = "write it like 10, 0.5, 250ms, 10s, 5m, 1h30m or 2d"


def parse(text: str) -> float:
    """The duration in seconds.

    Raises `ValueError`, with a sentence that says what would be right, for anything else, ``nan`` and signs included.
    """
    if len(text) > 64:
        raise ValueError(f"is {len(text)} characters long; {HOW_TO_WRITE}")
    if _SECONDS.fullmatch(text):
        return float(text)
    parts = _PARTS.fullmatch(text)
    if not text or parts is None:
        raise ValueError(f"is not a duration; {HOW_TO_WRITE}")
    return sum(float(n) * seconds for n, seconds in zip(parts.groups(), _UNITS_S.values(), strict=True) if n)


def show(seconds: float) -> str:
    """The duration as `parse` reads it, in the largest units that show it exactly: ``90`` is ``1m30s``.

    What is no whole number of milliseconds is shown in seconds, to the nanosecond.
    """
    left = round(seconds * 1000)
    if not math.isclose(left, seconds * 1000):
        return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
    shown = ""
    for unit, size in _UNITS_S.items():
        count, left = divmod(left, round(size * 1000))
        shown += f"{count}{unit}" if count else ""
    return shown or "0s"
