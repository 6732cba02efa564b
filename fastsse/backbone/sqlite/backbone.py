"""The sqlite backbone, the side of the hub: order from the clock, history in a file.

The loop thread gives positions and encodes; it never waits for the file. The writer thread stores
all waiting batches in one transaction and reports them in order. Then they are delivered, and then
acknowledged. With `received` a batch is delivered and acknowledged at once, and stored later.

Over 400 lines: it implements one interface, and most of its methods pass work to other files.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal

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
from fastsse.backbone.judge import is_plain
from fastsse.backbone.lead import LeadLog
from fastsse.backbone.sqlite.checkpoint import Checkpointer
from fastsse.backbone.sqlite.control_store import SqliteControlStore
from fastsse.backbone.sqlite.errors import HistoryError, trouble_of
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.places import BATCH_EVENTS_MAX, PlaceClock, place_of
from fastsse.backbone.sqlite.queries import HistoryQueries
from fastsse.backbone.sqlite.reader import READ_AGAIN_S, SqliteReader
from fastsse.backbone.sqlite.retention import SqliteRetention
from fastsse.backbone.sqlite.schema import Connect
from fastsse.backbone.sqlite.stream_file import load_streams
from fastsse.backbone.sqlite.verifying import FileVerifier
from fastsse.backbone.sqlite.wake import Wake
from fastsse.backbone.sqlite.write_batch import Key, StoreBatch
from fastsse.backbone.sqlite.writer import (
    Barrier,
    Lost,
    Rows,
    Stored,
    Touch,
    Writer,
    WriterLinks,
)
from fastsse.backbone.stream_table import StreamTable
from fastsse.config import HistoryOptions
from fastsse.entries import encode_entries, joined_entries, sizes
from fastsse.errors import FastsseError, InvalidEvent, Unavailable
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.positions import Positions, TimeMarks, parse_id
from fastsse.subscriptions import Cursor

__all__ = ["Ack", "SqliteBackbone"]

log = get_logger("history")
Ack = Literal["received", "written", "synced"]

RETRY_AFTER_S: Final = 1
# A start that takes longer logs what took the time.
SLOW_S: Final = 5.0
# SQLite's bound on one value, minus the part of a record that is not data.
EVENT_BYTES_MAX: Final = 900_000_000
# With `received`: topics that are known to be open, where others have ended.
OPEN_TOPICS_MAX: Final = 10_000
# With `received`: acknowledged bytes that are not stored yet. Above it publishers wait for the
# disk.
AHEAD_BYTES_MAX: Final = 64 * 1024 * 1024
# Bytes that are not acknowledged yet, because the disk is slow. Above it publishers are refused.
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024


class SqliteBackbone:
    """Order and history in one file; see the package.

    Arguments:
        path: the file, made when it is not there.
        history: what is kept, by topic rule.
        ack: what an acknowledgement means.
        total_bytes: the bound on all that is stored; 0: none.
        now_ms: gives unix milliseconds; may jump.
        connect: opens connections to the file; tests pass one with a failing disk.

    Attributes:
        start: the last position that may have been in use when it was opened.
        trouble: why appends are refused now, or None.
        control_store: what control services keep over restarts.
        streams: the rows of durable streams, as far as their entries were delivered.

    Make it inside the loop that uses it. Raises HistoryError; then nothing stays open.
    """

    judges_each = True
    append_now = None

    def __init__(
        self,
        path: str,
        history: HistoryOptions,
        ack: Ack = "written",
        total_bytes: int = 0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        connect: Connect = sqlite3.connect,
    ) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._ack: Final = ack
        began_s = time.monotonic()
        self._file: Final = HistoryFile(path, now_ms, connect, ack)
        opened_s = time.monotonic()
        self._verifier: Final = FileVerifier(path, connect, lambda: self._call(self._on_verified))
        self._loss = self._verified()
        _log_opening(path, opened_s - began_s, time.monotonic() - opened_s, self._loss)
        self.start: Final = self._file.head
        self._head = self.start
        self.trouble: str | None = None
        self._clock: Final = PlaceClock(now_ms, last=self.start)
        self._times: Final = TimeMarks(self._file.times)
        self._lead: Final = LeadLog()
        self._deliver: Deliver | None = None
        self._broken: Broken = lambda why, place: None
        self._reads: Final[dict[tuple[object, ...], list[Stretched]]] = {}
        # Under `received`: a lease that still holds, batches that are behind, what is ahead.
        self._leased_through = 0
        self._waiting = self._waiting_bytes = 0
        self._ahead_bytes = 0
        self._known: Final[dict[bytes, int]] = {}
        self._open_topics: Final[set[str]] = set()
        self._repeats = self._losses = 0
        wake = Wake()
        self._reader: Final = SqliteReader(
            path, self._file.evictions, self._file.damage, self._call, connect
        )
        self._retention: Final = SqliteRetention(self._file, history.limits, total_bytes, now_ms)
        _bound_tables(self._file, history)
        self.streams: Final = StreamTable(history.streams_total, now_ms)
        self.streams.apply(load_streams(self._file.connection))
        self._checkpointer: Final = Checkpointer(path, connect, wake)
        self._writer: Final = Writer(
            self._file,
            self._retention,
            self._checkpointer,
            ack,
            WriterLinks(self._call, self._on_stored, self._reader.closed, wake, time.monotonic),
        )
        try:
            self.control_store: Final = SqliteControlStore(self._file.connection, self._writer.put)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._verifier.stop()
            self._file.close()
            raise HistoryError(path, f"can't be used: {trouble_of(error).words}") from error
        self._writer.start()
        self._reader.start()

    @property
    def head(self) -> int:
        """The last position that was delivered."""
        return self._head

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        """As Backbone; `after` must be `start`. If the file may be missing events, `broken` is
        called at once."""
        self._deliver, self._broken = deliver, broken
        if self._loss is not None:
            self._lose(self.start)
        elif self._file.state.lost_through >= place_of(self.start):
            # An earlier loss (or an import) that nothing was stored after.
            self._broken("lost", self.start)

    def append(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        """As Backbone. O(bytes) here.

        A batch whose key was stored before is acknowledged with the positions of the first time. It
        is neither stored nor delivered again.
        """
        error = self._objection(events)
        if error is not None:
            done(error)
            return
        first = self._clock.take(len(events))
        positions = Positions(first, len(events))
        entries = encode_entries(positions, events, self._clock.time_ms)
        lead_ms = entries.last.lead_ms
        self._lead.note(lead_ms)
        if lead_ms > 0:
            self._times.note(self._clock.time_ms, entries.last.position)
        batch = StoreBatch(events, entries, done, key)
        if self._may_acknowledge(batch):
            batch.is_acknowledged = True
            self._ahead_bytes += entries.frame_bytes
            self._finish(batch)
        else:
            self._waiting += 1
            self._waiting_bytes += batch.cost_bytes
        self._writer.put(batch)

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """As Backbone. Identical requests at the same time are answered from one read."""
        through = self._head

        def question(reading: HistoryQueries) -> Stretch:
            return reading.stretch(selectors, after, through, limit_bytes)

        self._read((selectors, after, through, limit_bytes), selectors, question, done)

    def read_stream(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As Backbone."""
        through = self._head

        def question(reading: HistoryQueries) -> Stretch:
            return reading.content_entries(topic, after, through, limit_bytes)

        self._read(("entries", topic, after, through, limit_bytes), (topic,), question, done)

    def read_content(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As Backbone; the thread that reads makes the content without the interpreter's lock."""
        through = self._head

        def question(reading: HistoryQueries) -> Stretch:
            return reading.content(topic, after, through, limit_bytes)

        self._read((topic, after, through, limit_bytes), (topic,), question, done)

    def _read(
        self,
        key: tuple[object, ...],
        selectors: tuple[str, ...],
        question: Callable[[HistoryQueries], Stretch],
        done: Stretched,
    ) -> None:
        if self._deliver is None:
            done(Unavailable("backbone", READ_AGAIN_S))
            return
        waiting = self._reads.get(key)
        if waiting is not None:
            waiting.append(done)
            return
        self._reads[key] = [done]
        self._ask(selectors, question, partial(self._on_read, key))

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """As Backbone."""
        if self._deliver is None:
            done(Unavailable("backbone", READ_AGAIN_S))
        elif cursor.kind == "head":
            done(self._head)
        elif cursor.kind == "since":
            done(min(self._times.place_at(int(cursor.value)), self._head))
        elif cursor.kind == "after" and (position := parse_id(cursor.text)) is not None:
            done(position if position <= self._head else None)
        else:
            head = self._head

            def question(reading: HistoryQueries) -> int | None:
                return reading.place(selectors, cursor, head)

            self._ask(selectors, question, done)  # type: ignore[arg-type]

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, done: Stretched
    ) -> None:
        """As Backbone."""
        if self._deliver is None:
            done(Unavailable("backbone", READ_AGAIN_S))
            return
        head = self._head

        def question(reading: HistoryQueries) -> Stretch:
            return reading.newest(selectors, head, count, limit_bytes)

        self._ask(selectors, question, done, by_topic=True)  # type: ignore[arg-type]

    @property
    def has_ended(self) -> bool:
        """As Backbone."""
        return self._file.has_ended

    def ended_topics(self, topics: tuple[str, ...], done: Ended) -> None:
        """As Backbone."""
        if self._deliver is None:
            done(Unavailable("backbone", READ_AGAIN_S))
            return

        def question(reading: HistoryQueries) -> dict[str, int]:
            return reading.ended_topics(topics)

        self._once_stored(partial(self._reader.ask, question, done))  # type: ignore[arg-type]

    def find_streams(self, topics: tuple[str, ...], done: FoundStreams) -> None:
        """As Backbone."""
        done(self.streams.find(topics))

    def touch_stream(self, topic: str, generation: int) -> None:
        """As Backbone."""
        if self.streams.touch(topic, generation) is not None:
            self._writer.put(Touch(topic, generation))

    def expired_streams(self) -> Sequence[Sequence[Event]]:
        """As Backbone."""
        return self.streams.expired()

    def apply_rules(self, history: HistoryOptions) -> None:
        """As Backbone. The next round of the writer thread, within a second, evicts by them."""
        self._retention.apply_rules(history.limits)

    def counters(self) -> dict[str, int]:
        """Counters about the file."""
        state = self._file.state
        return {
            "stored_events": state.events,
            "stored_bytes": state.bytes,
            "store_commits": self._writer.commits,
            "store_failures": self._writer.failures,
            "store_evicted": self._retention.let_go,
            "store_losses": self._losses,
            "store_checking": int(self._verifier.is_under_way),
            "store_unchecked": len(self._verifier.unchecked),
            "store_malformed": int(self._verifier.problem is not None),
            "store_damaged": self._file.damage.count,
            "store_repeats": self._repeats,
            "streams_bytes": self.streams.bytes,
            "streams_kept": len(self.streams.rows),
        }

    async def close(self) -> None:
        """Stores, delivers and acknowledges pending batches, and closes the file.

        The loop goes on meanwhile. Idempotent.
        """
        if self.trouble == "closed":
            return
        self.trouble = "closed"
        await self._loop.run_in_executor(None, self._verifier.stop)
        self._writer.stop(self._clock.last)
        await self._loop.run_in_executor(None, self._writer.join)
        self._reader.stop()
        await self._loop.run_in_executor(None, self._reader.join)
        # Results that the threads passed before they ended arrive in this turn.
        await asyncio.sleep(0)
        await self._loop.run_in_executor(None, self._file.close)
        self._deliver = None

    def _objection(self, events: Sequence[Event]) -> FastsseError | None:
        is_full = self._waiting_bytes > WAITING_BYTES_MAX
        if self._deliver is None or self.trouble is not None or is_full:
            return Unavailable("backbone", RETRY_AFTER_S)
        if len(events) > BATCH_EVENTS_MAX:
            return InvalidEvent("events", f"a batch has at most {BATCH_EVENTS_MAX} events")
        if sizes(events)[0] > EVENT_BYTES_MAX:
            return InvalidEvent("data", f"must be at most {EVENT_BYTES_MAX} bytes to be stored")
        return None

    def _may_acknowledge(self, batch: StoreBatch) -> bool:
        """Whether a batch may be acknowledged before it is stored: its positions are leased, no
        earlier batch waits, and it is not a repeat."""
        if (
            self._ack != "received"
            or self._waiting
            or not self._is_open(batch.events)
            or self._ahead_bytes > AHEAD_BYTES_MAX
        ):
            return False
        if batch.key is not None and batch.key[1] <= self._known.get(batch.key[0], batch.key[1]):
            return False
        return place_of(batch.entries.last.position) <= self._leased_through

    def _is_open(self, events: Sequence[Event]) -> bool:
        """Whether events may be published for certain, without a look into the file. Once topics
        end, the first event of each waits for the file."""
        if not is_plain(events) or self.streams.has_any(events):
            return False
        if not self._file.has_ended:
            return True
        return all(topic in self._open_topics for event in events for topic in event.topics)

    def _note_open(self, batch: StoreBatch) -> None:
        if self._ack != "received" or not self._file.has_ended:
            return
        if len(self._open_topics) > OPEN_TOPICS_MAX:
            self._open_topics.clear()
        for entry in batch.stored:
            if entry.extras is None or entry.extras.control is None:
                self._open_topics.update(entry.topics)
            else:
                self._open_topics.difference_update(entry.topics)

    def _finish(self, batch: StoreBatch) -> None:
        """Delivers one batch and acknowledges it."""
        assert self._deliver is not None
        self._head = batch.entries.last.position
        self._note_key(batch)
        self._deliver(batch.entries)
        batch.done(batch.positions)

    def _note_key(self, batch: StoreBatch) -> None:
        if batch.key is not None and self._ack == "received":
            worker, n = batch.key
            self._known[worker] = max(n, self._known.get(worker, n))

    def _on_stored(self, stored: Stored) -> None:
        """Takes the results of batches: delivers all new ones, then acknowledges each in order."""
        self._leased_through = stored.leased_through
        if stored.trouble is not None or self.trouble != "closed":
            self._set_trouble(None if stored.trouble is None else stored.trouble.words)
        if stored.streams is not None:
            self.streams.replace(stored.streams)
            self._lose(self._head)
        waited = []
        for batch in stored.batches:
            if batch.is_acknowledged:
                self._ahead_bytes -= batch.entries.frame_bytes if stored.trouble is None else 0
            else:
                self._waiting -= 1
                self._waiting_bytes -= batch.cost_bytes
                waited.append(batch)
        if stored.trouble is not None:
            for batch in waited:
                batch.done(Unavailable("backbone", RETRY_AFTER_S))
            return
        for batch in waited:
            if batch.appended is not None:
                self.streams.note(batch.appended, batch.appended_bytes)
            else:
                self.streams.apply(batch.stream_changes)
        new = joined_entries([batch.stored for batch in waited])
        if new:
            assert self._deliver is not None
            self._head = new[-1].position
            self._deliver(new)
        for batch in waited:
            self._note_key(batch)
            self._note_open(batch)
            if batch.repeats is not None:
                self._repeats += 1
            batch.done(batch.outcome)

    def _verified(self) -> str | None:
        """Why events may be missing, as far as is known before the file is served."""
        file, verifier = self._file, self._verifier
        if not verifier.start() or verifier.problem is None:
            return file.loss
        try:
            file.own_up(place_of(file.head))
        except (sqlite3.Error, OSError) as error:
            file.close()
            raise HistoryError(file.path, f"is damaged: {verifier.problem}") from error
        return f"the file is damaged: {verifier.problem}"

    def _on_verified(self) -> None:
        """The check of the file has ended while it was served. Damage is reported to all
        readers."""
        problem = self._verifier.problem
        if problem is None or self._deliver is None or self._loss is not None:
            return
        self._loss = f"the file is damaged: {problem}"
        log.error("History may be missing events.", path=self._file.path, why=self._loss)
        self._writer.put(Lost(place_of(self._head)))
        self._lose(self._head)

    def _lose(self, place: int) -> None:
        self._losses += 1
        self._broken("lost", place)

    def _set_trouble(self, words: str | None) -> None:
        if self.trouble != "closed":
            self.trouble = words

    def _on_read(self, key: tuple[object, ...], found: object) -> None:
        for done in self._reads.pop(key):
            done(found)  # type: ignore[arg-type]

    def _ask(
        self,
        selectors: tuple[str, ...],
        question: Callable[[HistoryQueries], object],
        answer: Callable[[object], None],
        *,
        by_topic: bool = False,
    ) -> None:
        """Reads from the file after the rows of the topics are written."""
        if not self._file.late.concerns(selectors, by_topic=by_topic):
            self._once_stored(partial(self._reader.ask, question, answer))
            return

        def passed(are_written: bool) -> None:
            if are_written:
                self._reader.ask(question, answer)
            else:
                answer(Unavailable("backbone", READ_AGAIN_S))

        self._writer.put(Rows(selectors, passed))

    def _once_stored(self, ask: Callable[[], None]) -> None:
        """Reads from the file after all delivered events are in it, or can't be."""
        if self._ahead_bytes and self.trouble is None:
            self._writer.put(Barrier(ask))
        else:
            ask()

    def _call(self, call: Callable[[], None]) -> None:
        """From the threads to the loop."""
        with contextlib.suppress(RuntimeError):  # The loop is closed, so nothing can be notified.
            self._loop.call_soon_threadsafe(call)


def _log_opening(path: str, opening_s: float, checking_s: float, loss: str | None) -> None:
    if opening_s + checking_s > SLOW_S:
        log.warning(
            "History was slow to open: look at the disk, and at the size of PATH-wal.",
            path=path,
            opening_s=round(opening_s, 1),
            checking_s=round(checking_s, 1),
        )
    if loss is not None:
        log.error("History may be missing events.", path=path, why=loss)


def _bound_tables(file: HistoryFile, history: HistoryOptions) -> None:
    """Gives the tables of keys, producers and streams their bounds."""
    file.keys.window_ms = round(history.key_window * 1000)
    file.keys.total_bytes = history.keys_total
    file.producers.window_ms = round(history.producer_window * 1000)
    file.producers.total_bytes = history.producers_total
    file.streams.total_bytes = history.streams_total
