"""A share of the loop's time for work whose amount clients decide.

All such work together gets at most this share, a few milliseconds a turn. So neither the number nor
the size of requests delays other clients.
"""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["TimeBudget"]

# Seconds that may be used at once, and seconds that each passing second adds.
BURST_S: Final = 0.003
SHARE: Final = 0.25


class TimeBudget:
    """The available time: at most `burst_s` seconds, refilled with `share` of the passing time.
    Loop thread only.

    Arguments:
        passed_s: a clock in seconds that only goes forward.
        used_s: CPU seconds of this thread, so that time used by other processes does not count.
        share: between 0 and 1.
        burst_s: 0 for one step a run; None for `BURST_S`.
    """

    __slots__ = ("_at_s", "_burst_s", "_left_s", "_passed_s", "_share", "_used_s")

    def __init__(
        self,
        passed_s: Callable[[], float] = time.monotonic,
        used_s: Callable[[], float] = time.thread_time,
        *,
        share: float = SHARE,
        burst_s: float | None = None,
    ) -> None:
        self._passed_s = passed_s
        self._used_s = used_s
        self._at_s = passed_s()
        self._share = share
        self._burst_s = BURST_S if burst_s is None else burst_s
        self._left_s = self._burst_s

    @property
    def wait_s(self) -> float:
        """Seconds until `run` calls a step again; 0 or less: it does now."""
        return -self._left_s / self._share - (self._passed_s() - self._at_s)

    def run(self, step: Callable[[], bool]) -> None:
        """Calls `step` until it returns False or the time is used up. The last step may take
        longer; later calls have less time then."""
        now_s = self._passed_s()
        self._left_s = min(self._burst_s, self._left_s + self._share * (now_s - self._at_s))
        self._at_s = now_s
        begin_s = self._used_s()
        end_s = begin_s + self._left_s
        at_s = begin_s
        while at_s <= end_s:
            more = step()
            at_s = self._used_s()
            if not more:
                break
        self._left_s -= at_s - begin_s
