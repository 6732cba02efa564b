"""The children: one hub, a worker for each slot, and those that are on their way out.

A slot is a worker's place: its listeners. Which process fills it changes over time; each process
has a number of its own that no other ever had under this supervisor.
"""

import signal
from typing import Final

from fastsse.supervisor.process_link import ProcessLink

__all__ = ["Child", "Slot", "how_it_ended"]

# A child that came this far was well; the next may start at once, for any cause of its end.
WELL_AFTER_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.1
# A child that served at all is missed by its clients …
PAUSE_AFTER_SERVICE_S_MAX: Final = 0.4
# … one that can't even start is not.
PAUSE_S_MAX: Final = 30.0


class Child:
    """A process of ours.

    Attributes:
        number: its own, never used again.
        heard_s: when it last said something.
        ready_s: since when it serves; None before.
        leaving: it was asked to end.
        streams: as it said last.
    """

    def __init__(self, name: str, number: int, pid: int, link: ProcessLink, now_s: float) -> None:
        self.name: Final = name
        self.number: Final = number
        self.pid: Final = pid
        self.link: Final = link
        self.heard_s = now_s
        self.ready_s: float | None = None
        self.leaving = False
        self.streams = 0
        self.failure: tuple[int, str] | None = None

    def was_well(self, now_s: float) -> bool:
        """Whether it served long enough not to be blamed for its end."""
        return self.ready_s is not None and now_s - self.ready_s >= WELL_AFTER_S


class Slot:
    """A place to be filled: the hub's, or one worker's.

    Arguments:
        name: what its children are called.
        index: which of the workers' listeners; -1 for the hub.

    Attributes:
        child: the process in it now.
        newcomer: its next process, while it starts during a reload.
        due_s: when the next is to be started; None while there is one.
    """

    def __init__(self, name: str, index: int) -> None:
        self.name: Final = name
        self.index: Final = index
        self.child: Child | None = None
        self.newcomer: Child | None = None
        self.due_s: float | None = None
        self._failures = 0

    def lost(self, child: Child, now_s: float) -> float:
        """The slot's child ended unasked; returns how long to wait before the next, s.

        None at all after one that was well; else twice as long each time, but never long after
        one that served.
        """
        self.child = None
        self._failures = 0 if child.was_well(now_s) else self._failures + 1
        pause_s = 0.0
        if self._failures:
            served = child.ready_s is not None
            longest_s = PAUSE_AFTER_SERVICE_S_MAX if served else PAUSE_S_MAX
            pause_s = min(FIRST_PAUSE_S * 2 ** min(self._failures - 1, 16), longest_s)
        self.due_s = now_s + pause_s
        return pause_s


def how_it_ended(code: int) -> str:
    """`status 1`, or `signal SIGKILL` for -9."""
    if code >= 0:
        return f"status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
