"""Deadlines with one timer for all connections: grouped by what they wait for, oldest first.

A deadline is absolute: it counts from the start of the wait, and a byte that arrives does not
extend it. Every connection is in exactly one `Deadline`. All connections in it have the same limit,
so the oldest is first, and the timer looks only at those that are due.
"""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from fastsse.config import HttpOptions

if TYPE_CHECKING:
    from fastsse.http.connection import Connection

__all__ = ["LINGER_S", "Deadline", "Deadlines"]

# How long a refused client may continue to send before it has read the answer.
LINGER_S: Final = 2.0
# A deadline is enforced at most this late, or a quarter of the limit if that is less.
SWEEP_S: Final = 0.5


class Deadline:
    """Connections that wait for the same thing, each since `since[connection]` (loop time, s)."""

    __slots__ = ("limit_s", "since")

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.since: dict[Connection, float] = {}

    def due(self, now_s: float) -> "list[Connection]":
        """The connections whose deadline has passed. O(number of them)."""
        latest_s = now_s - self.limit_s
        over = []
        for connection, since_s in self.since.items():
            if since_s > latest_s:
                break
            over.append(connection)
        return over


class Deadlines:
    """All connections that are not streams, and the one timer that ends overdue ones."""

    def __init__(self, options: HttpOptions, loop: asyncio.AbstractEventLoop) -> None:
        self.time = loop.time
        #: The time of the last sweep, where an exact time is not needed.
        self.lately_s = loop.time()
        self.head = Deadline(options.head_timeout)
        self.body = Deadline(options.body_timeout)
        self.idle = Deadline(options.idle_timeout)
        #: A route is handling the request, or the client does not read its answers.
        self.answer = Deadline(options.idle_timeout)
        #: The next piece of a streamed body.
        self.piece = Deadline(options.idle_timeout)
        self.linger = Deadline(LINGER_S)
        self._all = (self.head, self.body, self.idle, self.answer, self.piece, self.linger)
        self._loop = loop
        self.apply(options)
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None

    def apply(self, options: HttpOptions) -> None:
        """Applies new limits, also to connections that are waiting."""
        self.head.limit_s = options.head_timeout
        self.body.limit_s = options.body_timeout
        self.idle.limit_s = self.answer.limit_s = self.piece.limit_s = options.idle_timeout
        self._interval_s = min(SWEEP_S, *(wait.limit_s / 4 for wait in self._all))

    def __len__(self) -> int:
        return sum(len(wait.since) for wait in self._all)

    def __iter__(self) -> "Iterator[Connection]":
        return iter([connection for wait in self._all for connection in wait.since])

    def start(self) -> None:
        """Starts the timer. Loop thread, like the whole module."""
        self._timer = self._loop.call_later(self._interval_s, self._sweep)

    def stop(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self, connection: "Connection", wait: Deadline) -> None:
        """Removes a connection that is closed or has become a stream."""
        wait.since.pop(connection, None)
        if self._empty is not None and not self:
            self._empty.set()

    async def emptied(self) -> None:
        """Returns when there is no connection."""
        self._empty = asyncio.Event()
        while self:
            self._empty.clear()
            await self._empty.wait()

    def eviction_candidate(self, newcomer: "Connection") -> "Connection | None":
        """The connection to evict: the one that is idle longest, else the one whose head takes
        longest. Never `newcomer`, which needs the room, and none whose publish is in the batch of
        this turn."""
        for wait in (self.linger, self.idle, self.head):
            for connection in wait.since:
                if connection is not newcomer and not connection.is_answering:
                    return connection
        return None

    def _sweep(self) -> None:
        self.lately_s = now_s = self.time()
        for wait in self._all:
            for connection in wait.due(now_s):
                connection.on_overdue(wait)
        self._timer = self._loop.call_later(self._interval_s, self._sweep)
