"""Wakes a thread that waits."""

import contextlib
import threading
from typing import Final

__all__ = ["Wake"]


class Wake:
    """As an Event that `wait` clears, for one thread that waits. A lock is a call of C, where an
    Event is several of Python, with the interpreter's lock given away in between."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Ends the present wait, or the next one; any thread. O(1)."""
        if self._lock.locked():
            with contextlib.suppress(RuntimeError):  # Another thread has just done it.
                self._lock.release()

    def clear(self) -> None:
        """Forgets that it was set; by the thread that waits."""
        self._lock.acquire(blocking=False)

    def wait(self, timeout_s: float) -> bool:
        """Waits at most so long; returns whether it was woken."""
        return self._lock.acquire(timeout=max(0.0, timeout_s))
