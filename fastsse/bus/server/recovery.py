"""A hub that starts again without a store takes the log from its workers.

Each worker has the log up to its own head, and a history from where it began. So the hub

1. asks the worker with the highest head for the end of the log that any other misses, and for its
   batches. With these it can serve, and all workers get the same log again.
2. asks one that has all for what is kept, which comes in slices next to what is new. If that one
   dies another is asked, from the beginning; until all is there workers that start wait for it.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import Final

from fastsse.bus.batch_ids import BatchId, BatchIds, unpack_batch_ids
from fastsse.bus.frames import COUNT, POSITION_BYTES, Fields, FrameError, FrameKind
from fastsse.bus.history_transfer import HistoryReceiver, read_entries
from fastsse.bus.server.broker import Broker
from fastsse.bus.server.memory import HubMemory
from fastsse.bus.server.session import Session
from fastsse.entries import Entry
from fastsse.log import get_logger

__all__ = ["Recovery"]

log = get_logger("bus")
# How long to wait for workers; one may have died with the hub.
WAIT_S: Final = 1.0
# How long to wait for an answer of a worker before it is disconnected.
SILENT_S: Final = 10.0
_ROWS_MAX: Final = 1 << 20


class Recovery:
    """Waits for workers, and continues their log. Loop thread only.

    Arguments:
        broker: not open yet.
        kept: its backbone.
        workers: how many are expected; None: not known, so that all of the time is waited.
    """

    def __init__(self, broker: Broker, kept: HubMemory, workers: int | None) -> None:
        self._broker = broker
        self._kept = kept
        self._workers = workers
        self._waiting: list[Session] = []
        self._changed = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None
        broker.on_waiting = self._came
        broker.on_live = lambda session: self._changed.set()

    async def run(self) -> None:
        """Returns when the broker is open. The history may still be incomplete."""
        try:
            async with asyncio.timeout(WAIT_S):
                while self._workers is None or len(self._waiting) < self._workers:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            if self._workers is not None:
                log.warning("Not all workers reconnected.", workers=len(self._waiting))
        end = await self._end_of_log()
        if end is None:
            self._broker.open()
        else:
            self._go_on(end)
        for session in self._waiting:
            if session.link.is_open:
                session.welcome()
        if end is not None:
            self._filling = asyncio.get_running_loop().create_task(self._fill())

    async def close(self) -> None:
        """Ends what is under way."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        self._broker.on_waiting = self._broker.on_live = _ignore_peer

    def _came(self, session: Session) -> None:
        self._waiting = [one for one in self._waiting if one.key != session.key]
        self._waiting.append(session)
        self._changed.set()

    # -- the end of the log ---------------------------------------------------------------------

    async def _end_of_log(self) -> "_LogEnd | None":
        """The entries that some workers have and others miss; None if no worker has any."""
        while there := self._there():
            end = _LogEnd(min(session.head for session in there))
            lost = None
            # Workers may connect only now and have more than the others.
            while lost is None and (session := end.next_of(self._there())) is not None:
                if not await _LastTransfer(session, end).arrived():
                    lost = session
            if lost is None:
                return end
            self._waiting = [session for session in self._waiting if session is not lost]
        return None

    def _there(self) -> list[Session]:
        return [session for session in self._waiting if session.head and session.link.is_open]

    def _go_on(self, end: "_LogEnd") -> None:
        there = self._there()
        self._kept.go_on(min((session.begins for session in there), default=end.head), end.head)
        self._broker.batch_ids = BatchIds()
        for row in end.rows:
            self._broker.batch_ids.note(row)
        self._broker.go_on(end.after, end.entries)
        for session in there:
            if end.missing_through > session.head:
                session.broken(end.missing_through)
        log.info("The hub continues with the history of its workers.", workers=len(there))

    # -- what is kept ---------------------------------------------------------------------------

    async def _fill(self) -> None:
        tried: set[Session] = set()
        while (session := await self._fullest(tried)) is not None:
            tried.add(session)
            if await _FillTransfer(session, self._kept).arrived():
                log.info("The history was taken from a worker.", events=self._kept.history.events)
                break
        self._kept.be_whole()

    async def _fullest(self, tried: set[Session]) -> Session | None:
        """The worker with the most history from before the new log. None if no worker has any, and
        none that could have is about to reconnect."""
        through = self._kept.history.expected_through
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    self._changed.clear()
                    sessions = self._broker.sessions.values()
                    able = [one for one in sessions if one.is_live and one.begins < through]
                    if left := [one for one in able if one not in tried]:
                        return min(left, key=lambda session: session.begins)
                    await self._changed.wait()
        except TimeoutError:
            return None


class _LogEnd:
    """The end of the log, from all workers together.

    Attributes:
        after: the place that all have reached.
        head: the place up to which it was received.
        entries: those in between.
        rows: the newest batches.
        missing_through: entries up to here may be missing, because they were evicted.
    """

    def __init__(self, after: int) -> None:
        self.after = self.head = after
        self.entries: list[Entry] = []
        self.rows: list[BatchId] = []
        self.missing_through = 0
        self._is_begun = False

    def next_of(self, sessions: list[Session]) -> Session | None:
        """A worker that has more; None if there is none. The first worker is always asked."""
        more = [session for session in sessions if session.head > self.head or not self._is_begun]
        able = [session for session in more if session.begins <= self.head]
        if able:
            return max(able, key=lambda session: session.head)
        return min(more, key=lambda session: session.begins, default=None)

    def add(
        self, head: int, evicted_through: int, entries: list[Entry], rows: list[BatchId]
    ) -> None:
        """The entries of one worker after `head`."""
        if evicted_through > self.head:
            self.missing_through = evicted_through
        self.rows += [row for row in rows if row.last > self.head or not self._is_begun]
        self.entries += entries
        self.head = head
        self._is_begun = True


class _Transfer(ABC):
    """The frames that one worker sends, until the end mark, the end of the link, or a timeout."""

    def __init__(self, session: Session, kind: FrameKind, place: int) -> None:
        self._session = session
        self._over = asyncio.Event()
        self._is_whole = False
        self._has_received = True
        session.on_lost = self._over.set
        session.ask(kind, place, self._on_part)

    async def arrived(self) -> bool:
        """Whether everything arrived; False if the worker was lost meanwhile."""
        while not self._over.is_set() and self._has_received:
            self._has_received = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENT_S):
                    await self._over.wait()
        if not self._over.is_set():
            self._session.drop()
        return self._is_whole

    def _on_part(self, kind: int, body: bytes) -> bool:
        self._has_received = True
        if self._take(kind, body):
            self._is_whole = True
            self._over.set()
        return self._is_whole

    @abstractmethod
    def _take(self, kind: int, body: bytes) -> bool:
        """Takes a frame. True: it was the last."""


class _LastTransfer(_Transfer):
    """The end of one worker's log."""

    def __init__(self, session: Session, end: _LogEnd) -> None:
        self._end = end
        self._entries: list[Entry] = []
        super().__init__(session, FrameKind.LAST, end.head)

    def _take(self, kind: int, body: bytes) -> bool:
        if kind == FrameKind.KEPT:
            self._add(read_entries(body))
            return False
        if kind != FrameKind.ENDED:
            raise FrameError("the end of a log is something else")
        fields = Fields(body)
        head, evicted_through, count = fields.position(), fields.position(), fields.u32()
        if head != self._session.head or count > _ROWS_MAX:
            raise FrameError("the end of another log")
        rows, stop = unpack_batch_ids(body, count, 2 * POSITION_BYTES + COUNT.size)
        if stop != len(body):
            raise FrameError("a frame ends too late")
        self._end.add(head, evicted_through, self._entries, rows)
        return True

    def _add(self, entries: list[Entry]) -> None:
        last = self._entries[-1].position if self._entries else self._end.head
        for entry in entries:
            if not last < entry.position <= self._session.head:
                raise FrameError("the end of a log, out of order")
            last = entry.position
        self._entries += entries


class _FillTransfer(_Transfer):
    """What one worker keeps."""

    def __init__(self, session: Session, kept: HubMemory) -> None:
        self._kept = kept
        self._receiver = HistoryReceiver(kept.history)
        super().__init__(session, FrameKind.DUMP, kept.history.expected_through)

    async def arrived(self) -> bool:
        """As any part. What a lost worker sent is dropped."""
        if await super().arrived():
            return True
        self._receiver.give_up()
        return False

    def _take(self, kind: int, body: bytes) -> bool:
        if kind == FrameKind.ENDED:
            raise FrameError("what is kept is something else")
        if kind == FrameKind.DUMPED:
            self._kept.settle()
        return self._receiver.take(kind, body)


def _ignore_peer(session: Session) -> None:
    """Stops waiting for it."""
