"""The children:

one hub, a worker for each slot, and children that are ending. A slot is the place of a worker: its
listeners. Its process can be replaced over time. Each process has a number that no other process of
this supervisor ever had.
"""

import signal
from typing import Final

from fastsse.supervisor.process_link import ProcessLink

__all__ = ["Child", "Slot", "how_it_ended"]

# A child that served this long was healthy. Its successor starts at once, whatever ended it.
WELL_AFTER_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.1
# The longest pause after a child that served. It is short, because its clients are waiting.
PAUSE_AFTER_SERVICE_S_MAX: Final = 0.4
# The longest pause after a child that could not start.
PAUSE_S_MAX: Final = 30.0


class Child:
    """A process of ours.

    Attributes:
        number: unique, never used again.
        last_message_s: when its last message came.
        ready_s: since when it serves; None before.
        leaving: it was asked to end.
        streams: from its last message.
    """

    def __init__(self, name: str, number: int, pid: int, link: ProcessLink, now_s: float) -> None:
        self.name: Final = name
        self.number: Final = number
        self.pid: Final = pid
        self.link: Final = link
        self.last_message_s = now_s
        self.ready_s: float | None = None
        self.leaving = False
        self.streams = 0
        self.failure: tuple[int, str] | None = None

    def was_well(self, now_s: float) -> bool:
        """Whether it served long enough that its successor may start at once."""
        return self.ready_s is not None and now_s - self.ready_s >= WELL_AFTER_S


class Slot:
    """A place for a process: the hub's, or one worker's.

    Arguments:
        name: the name of its children.
        index: the index of its listeners; -1 for the hub.

    Attributes:
        child: the process in it now.
        newcomer: its next process, while it starts during a reload.
        due_s: when to start the next child; None while there is one.
    """

    def __init__(self, name: str, index: int) -> None:
        self.name: Final = name
        self.index: Final = index
        self.child: Child | None = None
        self.newcomer: Child | None = None
        self.due_s: float | None = None
        self._failures = 0

    def lost(self, child: Child, now_s: float) -> float:
        """Records an unexpected end of the slot's child, and returns the pause before the next, s.

        The pause is 0 after a healthy child. Otherwise it doubles each time, up to a lower bound
        after a child that served.
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
