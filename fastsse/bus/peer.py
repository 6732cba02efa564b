"""A peer: one worker, seen from the hub process.

It greets, catches up page by page at its own pace, and is live from then on: every frame of the
relay is sent to it. Whatever breaks the protocol is cut off and given up.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from fastsse.backbone import Stretch
from fastsse.bus.control import MESSAGE_LIMIT_BYTES, SUBJECT_LIMIT_BYTES
from fastsse.bus.exchange import Exchange
from fastsse.bus.frames import VERSION, Fields, FrameError, Kind, frame, pack_position, text
from fastsse.bus.greeting import Hello, Welcome, is_ours
from fastsse.bus.handover import PAGE_BYTES, evicted_frames
from fastsse.bus.link import GONE, Link
from fastsse.bus.origins import Origin, pack_origins
from fastsse.bus.outbox import BATCH_HEAD
from fastsse.bus.questions import QUESTIONS_MAX
from fastsse.bus.relay import log_frame
from fastsse.entries import Entry, pack_entry, unpack_events
from fastsse.errors import FastsseError, Refused
from fastsse.log import get_logger
from fastsse.positions import parse_id
from fastsse.subscriptions import LAST_MAX, Cursor

__all__ = ["Peer"]

log = get_logger("bus")
# From a connect to the whole greeting.
HELLO_S: Final = 5.0
READ_LIMIT_BYTES: Final = 1024 * 1024
SELECTORS_MAX: Final = 10_000
_COUNT: Final = struct.Struct("<I")
_NUMBER: Final = struct.Struct("<Q")


class Peer:
    """One worker's end. Loop thread only.

    Attributes:
        key, worker: as it greeted.
        is_live: it gets what the relay sends.
        on_kept: what is called with frames of a dump, while one was asked for.
        on_lost: called when it is gone.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.key = b""
        self.worker = -1
        self.head = 0
        self.is_live = False
        self.on_kept: Callable[[int, bytes], None] | None = None
        self.on_lost: Callable[[], None] = _nothing
        self.link: Final = Link(self._on_frame, self._on_lost, is_ours)
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(HELLO_S, self._cut_off, "it did not greet")
        self._is_taken = False
        self._sent_through = 0
        self._lost_through = 0
        self._is_fresh = False
        self._is_reading = False
        self._last_n = 0
        self._held_n = 0
        self._questions = 0
        self._later: list[tuple[int, bytes]] = []
        self._heard_s = self._loop.time()
        self._handlers: Final[dict[int, Callable[[bytes], None]]] = {
            Kind.BATCH: self._on_batch,
            Kind.READ: self._on_read,
            Kind.SEEK: self._on_seek,
            Kind.ASK: self._on_ask,
            Kind.TELL: self._on_tell,
            Kind.BEAT: _expect_nothing,
        }

    @property
    def sent_through(self) -> int:
        """The last position that was sent to it."""
        return self._exchange.relay.head if self.is_live else self._sent_through

    # -- what the exchange says -----------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Sends a whole frame."""
        self.link.send(data)

    def send_now(self, data: bytes) -> None:
        """Sends a whole frame, and what was sent before it in this turn."""
        self.link.send_now(data)

    def tell(self, data: bytes) -> None:
        """Sends a whole frame, unless the worker still waits to be welcomed."""
        if self._is_taken:
            self.link.send(data)

    def refuse(self, n: int, error: FastsseError) -> None:
        """A batch was not taken."""
        refused = error if isinstance(error, Refused) else Refused("backbone", retry_after_s=1)
        numbers = struct.pack("<QI", n, refused.retry_after_s)
        self.send(frame(Kind.REFUSED, numbers, text(refused.reason)))

    def taken(self, rows: Sequence[Origin]) -> None:
        """A batch that was sent again is in the log."""
        self.send(frame(Kind.TAKEN, _COUNT.pack(len(rows)), pack_origins(rows)))

    def held(self, n: int) -> None:
        """Batches up to this one were taken up, and will be answered."""
        if not self._held_n:
            self._loop.call_soon(self._tell_held)
        self._held_n = max(n, self._held_n)

    def broken(self, place: int) -> None:
        """What lies up to a place may be missing."""
        if self.is_live:
            self.send(frame(Kind.CAUGHT_UP, pack_position(place)))
        else:
            self._lost_through = max(place, self._lost_through)

    def beat(self, data: bytes, now_s: float, silence_s: float) -> None:
        """Shows it that the hub is there, and looks whether it is."""
        if self.link.heard:
            self.link.heard = False
            self._heard_s = now_s
        if now_s - self._heard_s > silence_s:
            self._cut_off(f"it was silent for {silence_s:g} s")
        else:
            self.send(data)

    def abort(self) -> None:
        """Ends the link, without a word."""
        self._deadline.cancel()
        self.link.abort()

    async def close(self, patience_s: float) -> None:
        """Ends the link when what was sent has left, or some time has passed."""
        self._deadline.cancel()
        await self.link.close(patience_s)

    def ask_dump(self, after: int, on_kept: Callable[[int, bytes], None]) -> None:
        """Asks for what it keeps; `on_kept` is called with each frame of it."""
        self.on_kept = on_kept
        self.link.incoming.limit_bytes = self._exchange.limits.down_bytes
        self.send(frame(Kind.DUMP, pack_position(after)))

    def welcome(self) -> None:
        """Takes the worker: it catches up, and is live after that."""
        exchange = self._exchange
        backbone, kept, head = exchange.backbone, exchange.kept, exchange.relay.head
        exchange.relay.flush()
        self._is_fresh = self.head == 0
        if self._is_fresh:
            self.head = exchange.relay.head if kept is None else kept.start
        if self.head > exchange.relay.head:
            self.bye("it has what this hub never had")
            return
        self.on_kept = None
        self._is_taken = True
        self._sent_through = self.head
        limits = exchange.limits
        self.link.incoming.limit_bytes = limits.up_bytes
        welcome = Welcome(
            exchange.relay.head,
            self.head,
            limits.up_bytes,
            limits.down_bytes,
            kept is not None,
            backbone.trouble or "",
        )
        self.send(welcome.pack())
        log.debug("A worker came.", worker=self.worker, behind=head != self.head)
        self.link.on_drained = self._catch_up
        self._catch_up()

    def bye(self, reason: str) -> None:
        """Does not take it, or not any more."""
        self._deadline.cancel()
        self.send(frame(Kind.BYE, text(reason)))
        self.link.end()
        self._exchange.leave(self)

    # -- catching up ----------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Sends what the worker lacks, while it takes it."""
        relay, kept = self._exchange.relay, self._exchange.kept
        while self.link.is_open and not (self.link.is_full or self.is_live or self._is_reading):
            relay.flush()
            if relay.covers(self._sent_through):
                self._go_live()
            elif kept is None:
                self._is_reading = True
                done = partial(self._on_own_page, relay.recent_start)
                self._exchange.backbone.read(("*",), self._sent_through, PAGE_BYTES, done)
            else:
                if kept.history.evicted_through(None) > self._sent_through and not self._is_fresh:
                    self._lost_through = kept.history.evicted_through(None)
                entries = kept.history.entries(self._sent_through, PAGE_BYTES)
                self._send_page(entries, entries[-1].position if entries else relay.recent_start)

    def _on_own_page(self, reached: int, stretch: Stretch | FastsseError) -> None:
        """What the store had when the relay remembered what lies after `reached`."""
        self._is_reading = False
        if not self.link.is_open:
            return
        if isinstance(stretch, FastsseError):
            # The store can't be read now; it will be.
            self._loop.call_later(0.25, self._catch_up)
            return
        if stretch.evicted_through > self._sent_through:
            self._lost_through = max(self._lost_through, stretch.evicted_through)
        through = max(stretch.through, reached) if stretch.is_last else stretch.through
        self._send_page(stretch.entries, max(through, self._sent_through))
        self._catch_up()

    def _send_page(self, entries: Sequence[Entry], through: int) -> None:
        if entries:
            self.link.send(log_frame((), list(map(pack_entry, entries))))
            self.link.flush()
        self._sent_through = through

    def _go_live(self) -> None:
        """From the next frame of the relay on it gets what all get."""
        relay, kept = self._exchange.relay, self._exchange.kept
        for data in relay.recent(self._sent_through):
            self.send(data)
        if self._is_fresh and kept is not None:
            for data in evicted_frames(kept.history.evictions()):
                self.send(data)
        self.is_live = True
        relay.listen(self)
        self.send(frame(Kind.CAUGHT_UP, pack_position(self._lost_through)))
        for _, data in self._later:
            self.send(data)
        self._later.clear()

    # -- what the worker says -------------------------------------------------------------------

    def _on_frame(self, kind: int, body: bytes) -> None:
        if not self.key:
            self._on_hello(kind, body)
        elif self.on_kept is not None and kind in (Kind.EVICTED, Kind.KEPT, Kind.DUMPED):
            self.on_kept(kind, body)
        elif self._is_taken and (handler := self._handlers.get(kind)) is not None:
            handler(body)
        elif kind != Kind.BEAT:
            raise FrameError(f"a frame of kind {kind} where none may be")

    def _on_hello(self, kind: int, body: bytes) -> None:
        if kind != Kind.HELLO:
            raise FrameError("no greeting")
        hello = Hello.unpack(body)
        if hello.version != VERSION:
            self.bye(f"it speaks version {hello.version} of the bus, this hub {VERSION}")
            return
        self._deadline.cancel()
        self.key, self.worker, self.head = hello.key, hello.worker, hello.head
        reason = self._exchange.enter(self)
        if reason is not None:
            self.bye(reason)
        elif self._exchange.is_open:
            self.welcome()
        else:
            self._exchange.on_waiting(self)

    def _on_batch(self, body: bytes) -> None:
        try:
            n, deadline_ms, count = BATCH_HEAD.unpack_from(body)
            events = unpack_events(memoryview(body)[BATCH_HEAD.size :])
        except (struct.error, ValueError) as error:
            raise FrameError(f"a damaged batch: {error}") from None
        if n <= self._last_n or not events or len(events) != count:
            raise FrameError("a batch that can't be")
        self._last_n = n
        self._exchange.publish(self, n, deadline_ms, events)

    def _tell_held(self) -> None:
        n, self._held_n = self._held_n, 0
        self.send(frame(Kind.HELD, _NUMBER.pack(n)))

    def _on_read(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        after, limit_bytes = fields.position(), fields.u32()
        selectors = fields.texts(SELECTORS_MAX)
        limit_bytes = min(limit_bytes, READ_LIMIT_BYTES)
        done = partial(self._read, number)
        self._exchange.backbone.read(selectors, after, limit_bytes, done)

    def _read(self, number: int, stretch: Stretch | FastsseError) -> None:
        self._questions -= 1
        if isinstance(stretch, FastsseError):
            self._fail(Kind.FAILED, number, stretch)
            return
        self._exchange.relay.flush()
        entries, through, is_last, evicted_through = stretch
        if through > self.sent_through:
            # The rest comes down the log.
            through, is_last = self.sent_through, True
            entries = [entry for entry in entries if entry.position <= through]
        places = pack_position(through) + pack_position(evicted_through)
        head = _NUMBER.pack(number) + places + bytes((is_last,))
        self.send(frame(Kind.STRETCH, head, *map(pack_entry, entries)))

    def _on_seek(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        is_last, value = fields.u8(), fields.text()
        selectors = fields.texts(SELECTORS_MAX)
        done = partial(self._sought, number)
        if is_last:
            if not value.isdecimal() or len(value) > 5 or int(value) > LAST_MAX:
                raise FrameError("a number of events that can't be")
            self._exchange.backbone.seek(selectors, Cursor("last", int(value)), done)
            return
        place = parse_id(value.encode())
        self._exchange.relay.flush()
        if place is not None and place <= self._exchange.relay.head:
            done(place)
        else:
            self._exchange.backbone.seek(selectors, Cursor("after", value), done)

    def _sought(self, number: int, place: int | FastsseError | None) -> None:
        self._questions -= 1
        if isinstance(place, FastsseError):
            self._fail(Kind.FAILED, number, place)
            return
        self._exchange.relay.flush()
        found = bytes((place is not None,)) + pack_position(place or 0)
        answer = frame(Kind.PLACE, _NUMBER.pack(number), found)
        if place is None or place <= self.sent_through:
            self.send(answer)
        else:
            self._later.append((place, answer))

    def _on_ask(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        subject, message = fields.text(SUBJECT_LIMIT_BYTES), fields.rest()
        if len(message) > MESSAGE_LIMIT_BYTES:
            raise FrameError("a question that is too long")

        def answer(outcome: bytes | FastsseError) -> None:
            self._questions -= 1
            if isinstance(outcome, FastsseError):
                self._fail(Kind.UNANSWERED, number, outcome)
            else:
                self.send(frame(Kind.ANSWER, _NUMBER.pack(number), outcome))

        self._exchange.desks.asked(self.worker, subject, message, answer)

    def _on_tell(self, body: bytes) -> None:
        fields = Fields(body)
        subject, message = fields.text(SUBJECT_LIMIT_BYTES), fields.rest()
        if len(message) > MESSAGE_LIMIT_BYTES:
            raise FrameError("a message that is too long")
        self._exchange.desks.told(self.worker, subject, message)

    def _ask(self, fields: Fields) -> int:
        """Counts a question, and gives its number."""
        self._questions += 1
        if self._questions > 2 * QUESTIONS_MAX:
            raise FrameError("too many questions at once")
        return fields.u64()

    def _fail(self, kind: Kind, number: int, error: FastsseError) -> None:
        reason = error.reason if isinstance(error, Refused) else "backbone"
        self.send(frame(kind, _NUMBER.pack(number), text(reason)))

    # -- its end --------------------------------------------------------------------------------

    def _cut_off(self, why: str) -> None:
        self.link.abort()
        self._on_lost(why)

    def _on_lost(self, why: str) -> None:
        self._deadline.cancel()
        if self.key:
            if why != GONE:
                self._exchange.give_up(self, why)
            self._exchange.leave(self)
        elif why != GONE:
            log.warning("A connection to the bus was cut off.", reason=why)
        self.on_lost()


def _expect_nothing(body: bytes) -> None:
    if body:
        raise FrameError("a beat with something in it")


def _nothing() -> None:
    """Nobody waits for its end."""
