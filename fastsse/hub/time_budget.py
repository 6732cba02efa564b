"""A share of the loop's time, for work whose amount clients decide.

All waiting work together gets no more than this share, a few milliseconds a turn. So neither the
number of requests nor their size delays other clients.
"""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["TimeBudget"]

# What may be used at once, and what is added for each second that passes.
BURST_S: Final = 0.003
SHARE: Final = 0.25


class TimeBudget:
    """Time that may be used: `BURST_S` at most, filled with `SHARE` of the time that passes. Loop
    thread only.

    Arguments:
        passed_s: seconds, by any clock that goes on.
        used_s: seconds that this thread has run: what others take of the processor is not ours.
    """

    __slots__ = ("_at_s", "_left_s", "_passed_s", "_used_s")

    def __init__(
        self,
        passed_s: Callable[[], float] = time.monotonic,
        used_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._passed_s = passed_s
        self._used_s = used_s
        self._at_s = passed_s()
        self._left_s = BURST_S

    def run(self, step: Callable[[], bool]) -> None:
        """Calls `step` until it says that nothing is left to do, or the time is used up. The last
        one may take longer; that is paid back before the next."""
        now_s = self._passed_s()
        self._left_s = min(BURST_S, self._left_s + SHARE * (now_s - self._at_s))
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
