"""The worker's end of the bus, as the backbone of its hub.

Published events are sent to the hub process and come back in the log, with those of other workers.
Reads and searches are requests to the hub process. While the hub process is away, streams stay
open; publishers and readers wait for TIMEOUT_S, then they are refused.

Over 400 lines: it implements one interface on one connection, whose frames it handles.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Final

from fastsse._batch import has_control
from fastsse.backbone import (
    Broken,
    Deliver,
    Done,
    Ended,
    FoundStreams,
    Placed,
    Stretch,
    Stretched,
)
from fastsse.backbone.judge import JudgedPositions
from fastsse.bus.batch_ids import BatchId, BatchIds, pack_batch_ids, unpack_batch_ids
from fastsse.bus.client.backfill import Backfill
from fastsse.bus.client.connection import HubConnection
from fastsse.bus.client.outbox import TIMEOUT_S, Outbox
from fastsse.bus.client.requests import PendingRequests
from fastsse.bus.frames import (
    COUNT,
    OF_STREAM,
    POSITION_BYTES,
    SEEK_AFTER,
    SEEK_LAST,
    SEEK_SINCE,
    Fields,
    FrameError,
    FrameKind,
    frame,
    pack_position,
    read_evicted,
    text,
    texts,
)
from fastsse.bus.handshake import Welcome
from fastsse.bus.history_transfer import evictions_of, read_entries, send_history
from fastsse.bus.refusals import unpack_conflict
from fastsse.bus.transport import FrameTransport
from fastsse.config import HistoryOptions
from fastsse.entries import Entry
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.hub.history import History
from fastsse.positions import parse_id
from fastsse.refusal_reasons import read_reason
from fastsse.streamstate import StreamRow
from fastsse.subscriptions import Cursor

__all__ = ["BusBackbone"]

AWAY: Final = "the hub process is away"
LOST: Final = "lost"
_ROW_BYTES_MAX: Final = 1024 * 1024
_position_of = attrgetter("position")


class BusBackbone:
    """A `Backbone` whose events are ordered and kept by the hub process. Loop thread only; made
    by `connect`.

    Attributes:
        start: the place before which nothing is kept in memory.
        ended: a future: why the hub rejected this worker. The worker must end then.
        has_ended: as Backbone: what the hub process said, and what came down the log since.
    """

    judges_each = False
    append_now = None

    def __init__(self, connection: HubConnection, key: bytes, timeout_s: float = TIMEOUT_S) -> None:
        self.start = 0
        self.ended: Final = connection.ended
        self.has_ended = self._is_stored = True
        self._connection = connection
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(connection.send_now, connection.send_pages, timeout_s)
        self._requests = PendingRequests(connection.send, timeout_s)
        self._timeout_s = timeout_s
        self._head = 0
        self._deliver: Deliver | None = None
        self._broken: Broken | None = None
        self._history: History | None = None
        self._batch_ids = BatchIds()
        # Of own batches that were taken and whose entries have not arrived yet.
        self._announced: list[BatchId] = []
        self._answers: list[tuple[int, JudgedPositions]] = []
        # Frames that arrive before `tail` was called.
        self._early: list[Entry] = []
        self._early_loss = 0
        self._is_caught_up = asyncio.Event()
        self._backfill = Backfill(connection)
        self._hub_trouble: str | None = None
        self._away_s: float | None = self._loop.time()
        self._is_closed = False
        connection.reach = lambda: (self._head, self._backfill.begins)
        connection.on_up.append(self._on_up)
        connection.on_down.append(self._on_down)
        connection.handlers.update(
            {
                FrameKind.LOG: self._on_log,
                FrameKind.TAKEN: self._on_taken,
                FrameKind.HELD: self._on_held,
                FrameKind.REFUSED: self._on_refused,
                FrameKind.DENIED: self._on_denied,
                FrameKind.ANSWERED: self._on_answered,
                FrameKind.CAUGHT_UP: self._on_caught_up,
                FrameKind.LOST: self._on_lost,
                FrameKind.TROUBLE: self._on_trouble,
                FrameKind.STRETCH: self._requests.on_answer,
                FrameKind.PLACE: self._requests.on_answer,
                FrameKind.ENDED_TOPICS: self._requests.on_answer,
                FrameKind.FOUND_STREAMS: self._requests.on_answer,
                FrameKind.FAILED: self._requests.on_failure,
                FrameKind.LAST: self._on_last,
                FrameKind.DUMP: self._on_dump,
                FrameKind.KEPT: partial(self._backfill.take, FrameKind.KEPT),
                FrameKind.EVICTED: partial(self._backfill.take, FrameKind.EVICTED),
                FrameKind.DUMPED: partial(self._backfill.take, FrameKind.DUMPED),
            }
        )

    # -- what the hub of this worker wants --------------------------------------------------------

    @property
    def head(self) -> int:
        """The last position that arrived in the log."""
        return self._head

    @property
    def trouble(self) -> str | None:
        """Why publishes are refused: the reason of the hub process, or that it has been away for
        longer than publishers wait."""
        if self._is_closed:
            return "closed"
        if self._away_s is None:
            return self._hub_trouble
        is_long = self._loop.time() - self._away_s > self._timeout_s
        return AWAY if is_long else None

    async def caught_up(self) -> None:
        """Returns when the log is live here. Older history may follow later."""
        await self._is_caught_up.wait()

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        """Delivers what arrived since `connect`, and from now on each entry in the loop turn in
        which it arrives."""
        self._deliver, self._broken = deliver, broken
        early, self._early = self._early, []
        first = bisect_right(early, after, key=_position_of)
        if first < len(early):
            deliver(early[first:])
        if self._early_loss:
            broken(LOST, max(self._early_loss, self._head))
        self._acknowledge()

    @property
    def is_whole(self) -> bool:
        """Whether the history from before this worker began is complete here."""
        return not self._backfill.is_awaited

    def share(self, history: History) -> None:
        """Takes the worker's own history, which `tail` fills. Older history from the hub is added
        to it when it arrives. A hub that has lost its history receives it from here."""
        self._history = history
        welcome = self._connection.welcome
        history.keeps_streams = welcome is not None and welcome.wants_memory
        history.has_store = welcome is not None and not welcome.wants_memory
        self._backfill.share(history)

    def append(self, events: Sequence[Event], done: Done) -> None:
        """Sends a batch to the hub process. It is done when its entries arrived and were delivered.
        Without a hub it waits for 2 s and is then refused."""
        if self._is_closed or self.ended.done():
            done(Unavailable("backbone", retry_after_s=1))
        else:
            self._outbox.add(events, done)

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Asks the hub process. The answer is in order with the log, so its entries were delivered
        here."""
        self._read(selectors, after, min(limit_bytes, OF_STREAM - 1), done)

    def _read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        def answered(answer: Fields | FastsseError) -> None:
            done(answer if isinstance(answer, FastsseError) else _stretch(answer))

        size = COUNT.pack(limit_bytes)
        body = pack_position(after) + size + texts(selectors)
        ask = partial(self._requests.ask, FrameKind.READ, body, answered, may_repeat=True)
        self._backfill.wait(ask, done)

    def read_stream(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `read`."""
        self._read((topic,), after, OF_STREAM | min(limit_bytes, OF_STREAM - 1), done)

    def read_content(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `read_stream`."""
        self.read_stream(topic, after, limit_bytes, done)

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """Asks the hub process, in order with the log. A place above the head is answered when it
        is reached here, or if it is unknown there."""

        def answered(answer: Fields | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                done(answer)
                return
            found, place = answer.u8(), answer.position()
            answer.end()
            done(place if found else None)

        if cursor.kind == "after":
            place = parse_id(cursor.text)
            if place is not None and place <= self._head:
                done(place)
                return
            body = bytes((SEEK_AFTER,)) + text(cursor.text.decode("utf-8", "replace"))
        else:
            place = None
            kind = SEEK_SINCE if cursor.kind == "since" else SEEK_LAST
            body = bytes((kind,)) + text(str(cursor.value))
        body += texts(selectors)
        ask = partial(self._requests.ask, FrameKind.SEEK, body, answered, may_repeat=True)
        if place is None:
            self._backfill.wait(ask, done)
        else:
            ask()

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Asks the hub process, in order with the log."""

        def answered(answer: Fields | FastsseError) -> None:
            done(answer if isinstance(answer, FastsseError) else _stretch(answer))

        sizes = COUNT.pack(count) + COUNT.pack(min(limit_bytes, 0xFFFFFFFF))
        body = sizes + texts(selectors)
        ask = partial(self._requests.ask, FrameKind.NEWEST, body, answered, may_repeat=True)
        self._backfill.wait(ask, done)

    def ended_topics(self, topics: tuple[str, ...], done: Ended) -> None:
        """Asks the hub process, in order with the log."""

        def answered(answer: Fields | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                done(answer)
                return
            self.has_ended = bool(answer.u8())
            found: dict[str, int] = {}
            while answer.is_more:
                topic = answer.text()
                found[topic] = answer.position()
            done(found)

        self._requests.ask(FrameKind.ENDS, texts(topics), answered, may_repeat=True)

    def find_streams(self, topics: tuple[str, ...], done: FoundStreams) -> None:
        """Asks the hub process, in order with the log."""

        def answered(answer: Fields | FastsseError) -> None:
            if isinstance(answer, FastsseError):
                done(answer)
                return
            found: dict[str, StreamRow] = {}
            while answer.is_more:
                topic, row = answer.text(), answer.blob(_ROW_BYTES_MAX)
                try:
                    found[topic] = StreamRow.decode(row)
                except ValueError as error:
                    raise FrameError(str(error)) from None
            done(found)

        self._requests.ask(FrameKind.STREAMS, texts(topics), answered, may_repeat=True)

    def touch_stream(self, topic: str, generation: int) -> None:
        """Tells the hub process, if it is there. The next read tells it again."""
        if self._away_s is None:
            body = text(topic) + pack_position(generation)
            self._connection.send(frame(FrameKind.TOUCHED, body))

    def expired_streams(self) -> Sequence[Sequence[Event]]:
        """None: the hub process deletes them."""
        return ()

    def apply_rules(self, history: HistoryOptions) -> None:
        """Nothing: the supervisor has the hub process apply them."""

    def counters(self) -> dict[str, int]:
        """The counters of this end of the bus."""
        welcome = self._connection.welcome
        counted = {
            "bus_pending_bytes": self._outbox.bytes,
            "bus_events_refused": self._outbox.refused,
            "bus_events_late": self._outbox.late,
            "bus_hub_lost": self._connection.lost_count,
        }
        if welcome is not None and welcome.wants_memory:
            counted["bus_workers_filling"] = int(self._backfill.is_awaited)
        return counted

    async def close(self) -> None:
        """Refuses batches without an answer. They may still be published."""
        self._is_closed = True
        self._outbox.close()
        self._requests.close()
        self._backfill.close()
        await self._connection.close()
        self._deliver = self._broken = self._history = None

    # -- what comes down --------------------------------------------------------------------------

    def _on_up(self, welcome: Welcome) -> None:
        if not self._head:
            self.start, self._head = welcome.memory_start, welcome.start
            if welcome.wants_memory:
                self._backfill.begin(welcome.start)
        self._away_s = None
        self._hub_trouble = welcome.trouble or None
        self._outbox.on_up(welcome.up_limit_bytes)
        self._requests.on_up()
        # What is kept in memory comes by itself.
        self.has_ended = self._is_stored = not welcome.wants_memory

    def _on_down(self) -> None:
        self._away_s = self._loop.time()
        self._announced.clear()
        self._answers.clear()
        if not self._is_caught_up.is_set():
            # Running transfers start again.
            self._early.clear()
            self._head = 0
        self._backfill.on_down()
        self._outbox.on_down()
        self._requests.on_down()

    def _on_log(self, body: bytes) -> None:
        """The next entries, and the batches that end with them."""
        if len(body) < COUNT.size:
            raise FrameError("a frame ends too early")
        (count,) = COUNT.unpack_from(body)
        rows, at = unpack_batch_ids(body, count, COUNT.size)
        entries = read_entries(body, at)
        # Entries that a catch-up repeated are delivered once.
        if entries and entries[0].position <= self._head:
            entries = entries[bisect_right(entries, self._head, key=_position_of) :]
        if entries:
            self._check(entries)
            self._head = entries[-1].position
            self.has_ended |= self._is_stored and has_control(entries)
            if self._deliver is None:
                self._early += entries
            else:
                self._deliver(entries)
        if self._connection.welcome is not None and self._connection.welcome.wants_memory:
            for row in rows:
                self._batch_ids.note(row)
        self._announced += [row for row in rows if row.key == self._key]
        self._acknowledge()

    def _check(self, entries: list[Entry]) -> None:
        last = self._head
        for entry in entries:
            if entry.position <= last:
                raise FrameError("a log that goes back")
            last = entry.position

    def _acknowledge(self) -> None:
        """Answers publishers whose batches were delivered here."""
        announced = self._announced
        if self._deliver is None:
            return
        if self._answers:
            self._answer()
        if not announced:
            return
        ready = [row for row in announced if row.last <= self._head]
        self._announced = [row for row in announced if row.last > self._head]
        for row in ready:
            self._outbox.on_taken(row)

    def _answer(self) -> None:
        ready = [one for one in self._answers if max(one[1]) <= self._head]
        self._answers = [one for one in self._answers if max(one[1]) > self._head]
        for n, placed in ready:
            self._outbox.answer(n, placed)

    def _on_answered(self, body: bytes) -> None:
        """A batch of which some was known, with the positions of all."""
        fields = Fields(body)
        n, placed = fields.u64(), JudgedPositions()
        placed.duplicates, placed.sequence = fields.u32(), fields.u64() - 1
        rest = fields.rest()
        if not rest or len(rest) % POSITION_BYTES:
            raise FrameError("positions that can't be")
        for at in range(0, len(rest), POSITION_BYTES):
            placed.append(int.from_bytes(rest[at : at + POSITION_BYTES], "little"))
        self._answers.append((n, placed))
        self._acknowledge()

    def _on_denied(self, body: bytes) -> None:
        fields = Fields(body)
        n = fields.u64()
        self._outbox.deny(n, unpack_conflict(fields.rest()))

    def _on_taken(self, body: bytes) -> None:
        """Batches that were sent again and are already in the log."""
        if len(body) < COUNT.size:
            raise FrameError("a frame ends too early")
        (count,) = COUNT.unpack_from(body)
        rows, end = unpack_batch_ids(body, count, COUNT.size)
        if end != len(body):
            raise FrameError("a frame ends too late")
        self._announced += rows
        self._acknowledge()

    def _on_held(self, body: bytes) -> None:
        fields = Fields(body)
        self._outbox.on_held(fields.u64())
        fields.end()

    def _on_refused(self, body: bytes) -> None:
        fields = Fields(body)
        n, retry_after_s, reason = fields.u64(), fields.u32(), fields.text()
        fields.end()
        self._outbox.refuse(n, Unavailable(read_reason(reason), retry_after_s))

    def _on_caught_up(self, body: bytes) -> None:
        """The log is live."""
        Fields(body).end()
        self._is_caught_up.set()
        self._backfill.live()

    def _on_lost(self, body: bytes) -> None:
        """Entries up to a place may be missing. Later entries follow this frame."""
        fields = Fields(body)
        place = fields.position()
        fields.end()
        if self._broken is None:
            self._early_loss = max(self._early_loss, place)
        else:
            self._broken(LOST, max(place, self._head))

    def _on_trouble(self, body: bytes) -> None:
        fields = Fields(body)
        self._hub_trouble = fields.text() or None
        fields.end()

    def _on_last(self, body: bytes) -> None:
        """The hub has lost its memory and requests the end of this worker's log."""
        history, link, after = self._asked_for(body)

        def end() -> Iterator[bytes]:
            places = pack_position(self._head) + pack_position(history.evicted_through(None))
            count = COUNT.pack(len(self._batch_ids))
            yield frame(FrameKind.ENDED, places, count, pack_batch_ids(self._batch_ids))

        send_history(history, link, after, self._head, end)

    def _on_dump(self, body: bytes) -> None:
        """The same hub requests the history before that."""
        history, link, through = self._asked_for(body)
        send_history(history, link, 0, through, lambda: evictions_of(history))

    def _asked_for(self, body: bytes) -> tuple[History, FrameTransport, int]:
        fields = Fields(body)
        place = fields.position()
        fields.end()
        link, history = self._connection.link, self._history
        if history is None or link is None:
            raise FrameError("there is no history to hand over")
        return history, link, place


def _stretch(fields: Fields) -> Stretch:
    through, damaged_through = fields.position(), fields.position()
    is_last, evicted = bool(fields.u8()), read_evicted(fields)
    return Stretch(read_entries(fields.rest()), through, is_last, evicted, damaged_through)
