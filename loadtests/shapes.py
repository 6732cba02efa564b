"""The number of readers during a run, as shares of its length and of its peak."""

from __future__ import annotations

import math
from collections.abc import Callable

STRIKE_AT = 0.4
"""The storm's moment."""

_STEPS = 20


def _steady(progress: float) -> float:
    return 1.0


def _ramp(progress: float) -> float:
    """Rises in 20 steps over the first 60 %, then holds."""
    return min(1.0, (math.floor(progress / 0.6 * _STEPS) + 1) / _STEPS)


def _spike(progress: float) -> float:
    """A tenth, but all of them from 40 % to 60 %."""
    return 1.0 if 0.4 <= progress < 0.6 else 0.1


SHAPES: dict[str, Callable[[float], float]] = {
    "steady": _steady,
    "ramp": _ramp,
    "spike": _spike,
    "storm": _steady,
    "soak": _steady,
}
"""`storm` is steady until everyone is cut off at once (STRIKE_AT); `soak` is steady for long, and
watches what the server holds (memory.py)."""


def readers_at(shape: str, progress: float, peak: int) -> int:
    """How many readers a shape wants.

    Args:
        progress: 0 … 1 of the run's length; 0 when it has no end.
        peak: the most readers, at least 1.
    """
    return max(1, round(SHAPES[shape](progress) * peak))
