"""A session: the hub process's end of the link to one worker.

The worker sends a greeting and catches up page by page at its own pace. Then it is live: every
frame of the fan-out is sent to it. A worker that violates the protocol is disconnected and
rejected.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from fastsse.backbone import Stretch
from fastsse.backbone.judge import JudgedPositions
from fastsse.bus.batch_ids import BatchId, pack_batch_ids
from fastsse.bus.client.outbox import BATCH_HEAD
from fastsse.bus.frames import COUNT, VERSION, FrameError, FrameKind, frame, pack_position, text
from fastsse.bus.handshake import Hello, Welcome, is_ours
from fastsse.bus.history_transfer import PAGE_BYTES
from fastsse.bus.refusals import pack_conflict
from fastsse.bus.server.broker import Broker
from fastsse.bus.server.fanout import log_frame
from fastsse.bus.server.memory import HubMemory
from fastsse.bus.server.requests import RequestServer
from fastsse.bus.transport import GONE, FrameTransport
from fastsse.entries import Entry, pack_entry, unpack_events
from fastsse.errors import Conflict, FastsseError, Unavailable
from fastsse.log import get_logger

__all__ = ["Session"]

log = get_logger("bus")
# The time from the connect to the complete greeting.
HELLO_S: Final = 5.0
# Called with the parts of a requested history.
_PARTS: Final = frozenset((FrameKind.KEPT, FrameKind.EVICTED, FrameKind.DUMPED, FrameKind.ENDED))


class Session:
    """One worker's end. Loop thread only.

    Attributes:
        key, worker, head, begins: from its greeting.
        is_live: it gets the frames of the fan-out.
        on_lost: called when the link is lost.
    """

    def __init__(self, broker: Broker) -> None:
        self.key = b""
        self.worker = -1
        self.head = 0
        self.begins = 0
        self.is_live = False
        self._on_kept: Callable[[int, bytes], bool] | None = None
        self.on_lost: Callable[[], None] = _nothing
        self.link: Final = FrameTransport(self._on_frame, self._on_lost, is_ours)
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(HELLO_S, self._cut_off, "it did not greet")
        self._is_taken = False
        self._sent_through = 0
        self._lost_through = 0
        self._is_reading = False
        self._last_n = 0
        self._held_n = 0
        self._received_s = self._loop.time()
        self._answers = RequestServer(self, broker)
        self._handlers: Final[dict[int, Callable[[bytes], None]]] = {
            FrameKind.BATCH: self._on_batch,
            FrameKind.BEAT: _expect_nothing,
            **self._answers.handlers,
        }

    @property
    def sent_through(self) -> int:
        """The last position that was sent to it."""
        return self._broker.fanout.head if self.is_live else self._sent_through

    # -- what the exchange says -----------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Sends a whole frame."""
        self.link.send(data)

    def send_now(self, data: bytes) -> None:
        """Sends a whole frame, and what was sent before it in this turn."""
        self.link.send_now(data)

    def send_if_taken(self, data: bytes) -> None:
        """Sends a whole frame, unless the worker still waits to be welcomed."""
        if self._is_taken:
            self.link.send(data)

    def refuse(self, n: int, error: FastsseError) -> None:
        """A batch was not taken."""
        if isinstance(error, Conflict):
            self.send(frame(FrameKind.DENIED, struct.pack("<Q", n), pack_conflict(error)))
            return
        refused = (
            error if isinstance(error, Unavailable) else Unavailable("backbone", retry_after_s=1)
        )
        numbers = struct.pack("<QI", n, refused.retry_after_s)
        self.send(frame(FrameKind.REFUSED, numbers, text(refused.reason)))

    def taken(self, rows: Sequence[BatchId]) -> None:
        """A batch that was sent again is in the log."""
        self.send(frame(FrameKind.TAKEN, COUNT.pack(len(rows)), pack_batch_ids(rows)))

    def answered(self, n: int, placed: JudgedPositions) -> None:
        """A batch of which some was in the log before."""
        head = struct.pack("<QIQ", n, placed.duplicates, placed.sequence + 1)
        self.send(frame(FrameKind.ANSWERED, head, *map(pack_position, placed)))

    def held(self, n: int) -> None:
        """Batches up to this one were taken, and will be answered."""
        if not self._held_n:
            self._loop.call_soon(self._send_held)
        self._held_n = max(n, self._held_n)

    def broken(self, place: int) -> None:
        """Entries up to a place may be missing. A worker that catches up is notified between
        pages."""
        if self.is_live:
            self._lost_through = place
            self._say_lost()
        else:
            self._misses(place)

    def beat(self, data: bytes, now_s: float, silence_s: float) -> None:
        """Sends a sign of life, and checks that the worker is alive."""
        if self.link.has_received:
            self.link.has_received = False
            self._received_s = now_s
        if now_s - self._received_s > silence_s:
            self._cut_off(f"it was silent for {silence_s:g} s")
        else:
            self.send(data)

    def abort(self) -> None:
        """Ends the link, without a word."""
        self._deadline.cancel()
        self.link.abort()

    def drop(self) -> None:
        """Closes the link of a worker that violates the protocol or has a newer link."""
        self.abort()
        self._broker.leave(self)
        self.on_lost()

    async def close(self, timeout_s: float) -> None:
        """Closes the link when everything was sent, or after some time."""
        self._deadline.cancel()
        await self.link.close(timeout_s)

    def ask(self, kind: FrameKind, place: int, on_kept: Callable[[int, bytes], bool]) -> None:
        """Requests the end of its log, or its history. `on_kept` is called with each frame, and
        returns whether it is the last."""
        self._on_kept = on_kept
        self.link.incoming.limit_bytes = self._broker.limits.down_bytes
        self.send(frame(kind, pack_position(place)))

    def welcome(self) -> None:
        """Accepts the worker: it catches up, and is live after that."""
        broker = self._broker
        backbone, kept, head = broker.backbone, broker.kept, broker.fanout.head
        broker.fanout.flush()
        if not self.head:
            self.head = broker.fanout.head
        if self.head > broker.fanout.head:
            self.bye("it has what this hub never had")
            return
        self._is_taken = True
        self._sent_through = self.head
        self._lost_through = max(self._lost_through, broker.losses.owed(self.key, self.head))
        self.link.on_drained = self._on_drained
        limits = broker.limits
        self.link.incoming.limit_bytes = limits.up_bytes
        welcome = Welcome(
            broker.fanout.head,
            self.head,
            self.head if kept is None else min(self.head, kept.start),
            limits.up_bytes,
            limits.down_bytes,
            kept is not None,
            backbone.trouble or "",
        )
        self.send(welcome.pack())
        if self._lost_through:
            self._say_lost()
        log.debug("A worker connected.", worker=self.worker, behind=head != self.head)
        self._catch_up()

    def bye(self, reason: str) -> None:
        """Rejects the worker."""
        self._deadline.cancel()
        self.send(frame(FrameKind.BYE, text(reason)))
        self.link.end()
        self._broker.leave(self)

    # -- catching up ----------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Sends entries that the worker misses, while the link has room."""
        fanout, kept = self._broker.fanout, self._broker.kept
        while self.link.is_open and not (self.link.is_full or self.is_live or self._is_reading):
            fanout.flush()
            if fanout.covers(self._sent_through):
                self._go_live()
            elif kept is None:
                self._is_reading = True
                done = partial(self._on_own_page, fanout.recent_start)
                self._broker.backbone.read(("*",), self._sent_through, PAGE_BYTES, done)
            elif kept.is_whole:
                self._misses(self._missing_of(kept))
                entries = kept.history.entries(self._sent_through, PAGE_BYTES)
                self._send_page(entries, entries[-1].position if entries else fanout.recent_start)
            else:
                kept.when_whole(self._catch_up)
                return

    def _on_drained(self) -> None:
        self._catch_up()
        self._broker.pager.go_on()

    def _missing_of(self, kept: HubMemory) -> int:
        """Up to where memory may have evicted unsent entries; 0: nothing is missing."""
        evicted_through = kept.history.evicted_through(None)
        return evicted_through if evicted_through > self._sent_through else 0

    def _on_own_page(self, reached: int, stretch: Stretch | FastsseError) -> None:
        """A page of the store from when the fan-out had the entries after `reached`."""
        self._is_reading = False
        if not self.link.is_open:
            return
        if isinstance(stretch, FastsseError):
            # The store can't be read now; this is retried.
            self._loop.call_later(0.25, self._catch_up)
            return
        if stretch.evicted_through > self._sent_through:
            self._misses(stretch.evicted_through)
        through = max(stretch.through, reached) if stretch.is_last else stretch.through
        self._send_page(stretch.entries, max(through, self._sent_through))
        self._catch_up()

    def _misses(self, place: int) -> None:
        """Notifies it of a loss before later entries, now or on its next link."""
        if place > self._lost_through:
            self._lost_through = place
            self._broker.losses.owe(self.key, place)
            if self._is_taken:
                self._say_lost()

    def _say_lost(self) -> None:
        """A worker that has entries after the place was notified, even if this hub dies now."""
        self.send(frame(FrameKind.LOST, pack_position(self._lost_through)))
        self._broker.losses.said(self.key, self._lost_through, self.sent_through)

    def _send_page(self, entries: Sequence[Entry], through: int) -> None:
        if entries:
            self.link.send(log_frame((), list(map(pack_entry, entries))))
            self.link.flush()
        self._sent_through = through

    def _go_live(self) -> None:
        """From the next frame of the fan-out on it gets the same as all."""
        fanout = self._broker.fanout
        for data in fanout.recent(self._sent_through):
            self.send(data)
        self.is_live = True
        fanout.listen(self)
        self.send(frame(FrameKind.CAUGHT_UP))
        self._answers.live()
        self._broker.on_live(self)

    # -- what the worker says -------------------------------------------------------------------

    def _on_frame(self, kind: int, body: bytes) -> None:
        if not self.key:
            self._on_hello(kind, body)
        elif self._on_kept is not None and kind in _PARTS:
            if self._on_kept(kind, body):
                self._on_kept = None
                self.link.incoming.limit_bytes = self._broker.limits.up_bytes
        elif self._is_taken and (handler := self._handlers.get(kind)) is not None:
            handler(body)
        elif kind != FrameKind.BEAT:
            raise FrameError(f"a frame of kind {kind} where none may be")

    def _on_hello(self, kind: int, body: bytes) -> None:
        if kind != FrameKind.HELLO:
            raise FrameError("no greeting")
        hello = Hello.unpack(body)
        if hello.version != VERSION:
            self.bye(f"it speaks version {hello.version} of the bus, this hub {VERSION}")
            return
        self._deadline.cancel()
        self.key, self.worker = hello.key, hello.worker
        self.head, self.begins = hello.head, hello.begins
        reason = self._broker.enter(self)
        if reason is not None:
            self.bye(reason)
        elif self._broker.is_open:
            self.welcome()
        else:
            self._broker.on_waiting(self)

    def _on_batch(self, body: bytes) -> None:
        try:
            n, deadline_ms, count = BATCH_HEAD.unpack_from(body)
            events = unpack_events(memoryview(body)[BATCH_HEAD.size :])
        except (struct.error, ValueError) as error:
            raise FrameError(f"a damaged batch: {error}") from None
        if n <= self._last_n or not events or len(events) != count:
            raise FrameError("a batch that can't be")
        self._last_n = n
        self._broker.publish(self, n, deadline_ms, events)

    def _send_held(self) -> None:
        n, self._held_n = self._held_n, 0
        self.send(frame(FrameKind.HELD, struct.pack("<Q", n)))

    # -- its end --------------------------------------------------------------------------------

    def _cut_off(self, why: str) -> None:
        self.link.abort()
        self._on_lost(why)

    def _on_lost(self, why: str) -> None:
        self._deadline.cancel()
        if self.key:
            if why != GONE:
                self._broker.give_up(self, why)
            self._broker.leave(self)
        elif why != GONE:
            log.warning("A connection to the bus was cut off.", reason=why)
        self.on_lost()


def _expect_nothing(body: bytes) -> None:
    if body:
        raise FrameError("a beat with something in it")


def _nothing() -> None:
    """Its end has no listener."""
