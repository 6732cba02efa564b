"""How a worker itself does: whether its loop and its sender are late, whether descriptors leak, and
whether the clock of its machine was changed.

Each reading is O(1), so it can be made once a second whatever the number of streams.
"""

import os
import time
from collections.abc import Callable
from typing import Final

from fastsse.hub.streams import Streams
from fastsse.log import get_logger

__all__ = ["Vitals"]

log = get_logger("server")

_US_A_S: Final = 1_000_000
# A clock that is slewed moves by less between two readings.
_JUMP_S: Final = 2.0
# The kernel says how many entries this folder has (Linux 6.2 and later); 0 before.
_DESCRIPTORS: Final = "/proc/self/fd"


class Vitals:
    """Readings of one worker. Loop thread only.

    Arguments:
        streams: asks the sender.
        used: descriptors of streams and connections now.
        period_s: how often `tick` is called.
        now_s: a monotonic clock.
        wall_s: the machine's clock, unix seconds.
    """

    def __init__(
        self,
        streams: Streams,
        used: Callable[[], int],
        period_s: float,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._streams = streams
        self._used = used
        self._period_s = period_s
        self._now_s = now_s
        self._wall_s = wall_s
        # How far the clock is from the monotonic one, which is never set.
        self._offset_s = wall_s() - now_s()
        self._clock_jumps = 0
        self._ticked_s: float | None = None
        self._asked_s: float | None = None
        self._base: int | None = None
        self._loop_lag_s = 0.0
        self._sender_lag_s = 0.0

    def tick(self) -> None:
        """Reads the loop's lag and the clock, and asks the sender for an answer."""
        now_s = self._now_s()
        self._look_at_clock(now_s)
        if self._ticked_s is not None:
            self._loop_lag_s = max(0.0, now_s - self._ticked_s - self._period_s)
        self._ticked_s = now_s
        if self._base is None:
            self._base = open_descriptors() - self._used()
        if self._asked_s is None and self._streams.inspect((), self._answered):
            self._asked_s = now_s

    def _look_at_clock(self, now_s: float) -> None:
        moved_s = self._wall_s() - now_s - self._offset_s
        self._offset_s += moved_s
        if abs(moved_s) > _JUMP_S:
            self._clock_jumps += 1
            log.warning("The clock of the machine was changed.", by_s=round(moved_s, 1))

    def counters(self) -> dict[str, int]:
        """The readings under the names of the metrics."""
        now_s = self._now_s()
        waits_s = 0.0 if self._asked_s is None else now_s - self._asked_s
        opened = open_descriptors()
        found = {
            "loop_lag_us": round(self._loop_lag_s * _US_A_S),
            "sender_lag_us": round(max(self._sender_lag_s, waits_s) * _US_A_S),
            "clock_jumps": self._clock_jumps,
        }
        if opened:
            unaccounted = opened - self._used() - (self._base or 0)
            found |= {"descriptors": opened, "descriptors_unaccounted": max(0, unaccounted)}
        return found

    def _answered(self, *_: object) -> None:
        assert self._asked_s is not None
        self._sender_lag_s = self._now_s() - self._asked_s
        self._asked_s = None


def open_descriptors() -> int:
    """Open descriptors of this process; 0 where the kernel does not say."""
    return os.stat(_DESCRIPTORS).st_size
