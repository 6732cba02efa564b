"""Turns of catch-up reads: while live streams exist, the loop makes one small page a turn.

The requests of readers that catch up arrive as fast as they are answered. Without turns all of
their pages would be made in one turn of the loop, and live events would wait for them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from fastsse.hub.time_budget import TimeBudget

__all__ = ["LIVE_PAGE_BYTES", "PAGE_BYTES", "STORED_PAGE_BYTES", "ReadTurns"]

#: Of one answer; a single append may be larger.
PAGE_BYTES: Final = 1024 * 1024
#: The same while live streams exist. Making and sending it takes about 0.1 ms; half of the size
#: would not be much faster, because the request itself takes as long.
LIVE_PAGE_BYTES: Final = 128 * 1024
#: The same for what comes from the store, whose thread holds the interpreter's lock meanwhile.
STORED_PAGE_BYTES: Final = 64 * 1024
# The loop sends a page behind the turn that made it, which takes about as long again. So this is
# half of what readers get.
_SHARE: Final = 0.125
# uvloop's timers count whole milliseconds; a shorter wait would keep the core busy.
_WAIT_MIN_S: Final = 0.001


class ReadTurns:
    """Reads in the order in which they were asked for. Loop thread only.

    Arguments:
        is_live: whether live streams exist.
        budget: gives them their share.
    """

    def __init__(self, is_live: Callable[[], bool], budget: TimeBudget | None = None) -> None:
        self._is_live: Final = is_live
        self._budget: Final = budget or TimeBudget(share=_SHARE, burst_s=0)
        self._loop: Final = asyncio.get_running_loop()
        self._waiting: Final[deque[Callable[[], None]]] = deque()
        self._next: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_live(self) -> bool:
        """Whether live streams exist."""
        return self._is_live()

    @property
    def page_bytes(self) -> int:
        """The bound on a page that is made now."""
        return LIVE_PAGE_BYTES if self._is_live() else PAGE_BYTES

    @property
    def stored_bytes(self) -> int:
        """The bound on what is read from the store at once."""
        return STORED_PAGE_BYTES if self._is_live() else PAGE_BYTES

    def take(self, step: Callable[[], None]) -> None:
        """Calls `step`, which makes one page: within the call if there are no live streams, else in
        its turn. O(1) besides it."""
        if not self._waiting and not self._is_live():
            step()
            return
        self._waiting.append(step)
        if self._next is None:
            self._next = self._loop.call_soon(self._run)

    def close(self) -> None:
        """Calls all that wait, because the process ends."""
        while self._waiting:
            self._step()

    def _run(self) -> None:
        self._next = None
        try:
            self._budget.run(self._step)
        finally:
            if self._waiting:
                wait_s = self._budget.wait_s
                self._next = (
                    self._loop.call_later(max(wait_s, _WAIT_MIN_S), self._run)
                    if wait_s > 0
                    else self._loop.call_soon(self._run)
                )

    def _step(self) -> bool:
        if self._waiting:
            self._waiting.popleft()()
        return False  # The next one is made in a later turn.
