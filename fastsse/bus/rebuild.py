"""A hub that starts again without a store takes the log from a worker.

All workers have the same log, each up to its own head: so the one that is furthest has all that
any of them has. It is asked for what it keeps; the others are sent what they lack. What it has
had from the dead hub and no other has is thereby known to all.
"""

import asyncio
import struct
from typing import Final

from fastsse.bus.exchange import Exchange
from fastsse.bus.frames import Fields, FrameError, Kind
from fastsse.bus.handover import read_entries, read_evicted
from fastsse.bus.kept import KeptMemory
from fastsse.bus.origins import Origin, Origins, unpack_origins
from fastsse.bus.peer import Peer
from fastsse.entries import Entry
from fastsse.hub.history import Evictions
from fastsse.log import get_logger

__all__ = ["Rebuild"]

log = get_logger("bus")
# A worker that died with the hub is waited for no longer.
WAIT_S: Final = 1.0
DUMP_S: Final = 30.0
_ROWS_MAX: Final = 1 << 20


class Rebuild:
    """Waits for workers, takes the log from the furthest, welcomes all.

    Arguments:
        exchange: not open yet.
        kept: its backbone.
        workers: how many are expected.
    """

    def __init__(self, exchange: Exchange, kept: KeptMemory, workers: int) -> None:
        self._exchange = exchange
        self._kept = kept
        self._workers = workers
        self._waiting: list[Peer] = []
        self._changed = asyncio.Event()
        exchange.on_waiting = self._came

    async def run(self) -> None:
        """Returns when the exchange is open."""
        try:
            async with asyncio.timeout(WAIT_S):
                while len(self._waiting) < self._workers:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.warning("Not all workers came back.", workers=len(self._waiting))
        while (furthest := self._furthest()) is not None:
            dump = _Dump(furthest)
            if await dump.arrived():
                dump.fill(self._kept, self._exchange)
                break
            self._waiting = [peer for peer in self._waiting if peer is not furthest]
        self._exchange.open()
        for peer in self._waiting:
            if peer.link.is_open:
                peer.welcome()

    def _came(self, peer: Peer) -> None:
        self._waiting = [one for one in self._waiting if one.key != peer.key]
        self._waiting.append(peer)
        self._changed.set()

    def _furthest(self) -> Peer | None:
        """The worker that has the longest log; None when nobody has any."""
        there = [peer for peer in self._waiting if peer.head and peer.link.is_open]
        return max(there, key=lambda peer: peer.head, default=None)


class _Dump:
    """What one worker keeps, as it arrives. Nothing is changed before all of it has."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._entries: list[Entry] = []
        self._evictions: list[Evictions] = []
        self._rows: list[Origin] = []
        self._start = 0
        self._end = asyncio.Event()
        self._is_whole = False
        peer.on_lost = self._end.set
        peer.ask_dump(0, self._on_frame)

    async def arrived(self) -> bool:
        """Whether everything came; False when the worker was lost on the way."""
        try:
            async with asyncio.timeout(DUMP_S):
                await self._end.wait()
        except TimeoutError:
            self._peer.abort()
        return self._is_whole

    def fill(self, kept: KeptMemory, exchange: Exchange) -> None:
        """Makes this the hub's own."""
        kept.begin_again(self._start)
        kept.keep(self._entries)
        kept.go_on(self._peer.head, self._evictions)
        exchange.origins = Origins()
        for row in self._rows:
            exchange.origins.note(row)
        log.info("The log was taken from a worker.", entries=len(self._entries))

    def _on_frame(self, kind: int, body: bytes) -> None:
        if self._is_whole:
            raise FrameError("a dump that does not end")
        if kind == Kind.KEPT:
            entries = read_entries(body)
            last = self._entries[-1].position if self._entries else 0
            for entry in entries:
                if not last < entry.position <= self._peer.head:
                    raise FrameError("a dump out of order")
                last = entry.position
            self._entries += entries
        elif kind == Kind.EVICTED:
            self._evictions.append(read_evicted(body))
        else:
            self._finish(body)

    def _finish(self, body: bytes) -> None:
        fields = Fields(body)
        self._start, head, count = fields.position(), fields.position(), fields.u32()
        if head != self._peer.head or self._start > head or count > _ROWS_MAX:
            raise FrameError("a dump of another log")
        self._rows, end = unpack_origins(body, count, struct.calcsize("<16s16sI"))
        if end != len(body):
            raise FrameError("a frame ends too late")
        self._is_whole = True
        self._end.set()
