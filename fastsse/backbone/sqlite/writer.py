"""The writer thread: stores all waiting batches in one transaction, evicts between transactions,
and recovers when the disk does.

It reports to the loop thread in order: stored batches, refused batches, and trouble that begins and
ends. Over 400 lines: normal work and recovery are states of one thread.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from fastsse.backbone.sqlite.checkpoint import Checkpointer, checkpoint
from fastsse.backbone.sqlite.commits import SYNC_EVERY_S
from fastsse.backbone.sqlite.errors import HistoryError, WriteTrouble, trouble_of
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.inserts import (
    mark_repeats,
    store_batches,
    store_keys,
    take_out,
    take_scheduled,
)
from fastsse.backbone.sqlite.judging import judge_batches
from fastsse.backbone.sqlite.late_rows import write_rows, write_step
from fastsse.backbone.sqlite.places import place_of
from fastsse.backbone.sqlite.position_lease import boot_id, lease_for
from fastsse.backbone.sqlite.reopening import reopen
from fastsse.backbone.sqlite.retention import SqliteRetention
from fastsse.backbone.sqlite.stream_file import load_streams
from fastsse.backbone.sqlite.wake import Wake
from fastsse.backbone.sqlite.write_batch import StoreBatch
from fastsse.backbone.stream_rows import RowChange
from fastsse.log import get_logger

__all__ = [
    "Barrier",
    "Lost",
    "Put",
    "PutBarrier",
    "Rows",
    "Stored",
    "Touch",
    "Writer",
    "WriterLinks",
]

log = get_logger("history")

# Most events of one transaction. More wait for the next one.
GROUP_EVENTS: Final = 1_024
# How often the file is checked while idle, and how often it is retried in trouble.
IDLE_S: Final = 1.0
AGAIN_S: Final = 0.5
# The longest wait for more batches, as a share of the time that the last commit took.
GATHER_SHARE: Final = 0.3
# How often a step of eviction runs while publishers wait.
TIDY_EVERY_S: Final = 0.01
# Rows that are written late are written after such a pause, too.
ROWS_IDLE_S: Final = 0.5
# Rounds over all topics take one part of the time in so many.
ROUND_PARTS: Final = 24


class Put(NamedTuple):
    """A control service's value to keep; None takes it out."""

    key: str
    value: bytes | None


class Barrier(NamedTuple):
    """Called on the loop thread after everything that was queued before is stored or refused."""

    passed: Callable[[], None]


class PutBarrier(NamedTuple):
    """Called on the loop thread with whether all values that were put before are in the file."""

    passed: Callable[[bool], None]


class Rows(NamedTuple):
    """Has the rows of matching topics written. Called on the loop thread with whether readers find
    everything that was stored before."""

    selectors: tuple[str, ...]
    passed: Callable[[bool], None]


class Touch(NamedTuple):
    """A durable stream was read now."""

    topic: str
    generation: int


class Lost(NamedTuple):
    """Makes the file record that events up to this place may be missing."""

    through: int


class Stored(NamedTuple):
    """Batches in order, how far positions are leased, and the present trouble; with trouble, the
    batches are refused. `streams`: the file has lost events that were in it, and has these rows of
    streams now."""

    batches: Sequence[StoreBatch]
    leased_through: int
    trouble: WriteTrouble | None
    streams: Sequence[RowChange] | None = None


Work = StoreBatch | Put | Barrier | PutBarrier | Rows | Lost | Touch


@dataclass(frozen=True, slots=True)
class WriterLinks:
    """What connects the writer with other threads.

    Arguments:
        call: hands a call over to the loop thread.
        on_stored: called there with the results of batches, in order.
        readers_closed: makes a context in which readers have no connection.
        wake: wakes the writer; the checkpointer has it, too.
        monotonic_s: a clock that only goes forward.
    """

    call: Callable[[Callable[[], None]], None]
    on_stored: Callable[[Stored], None]
    readers_closed: Callable[[], AbstractContextManager[None]]
    wake: Wake
    monotonic_s: Callable[[], float]


class Writer:
    """Stores what it is given.

    Arguments:
        file: the file, open.
        retention: evicts events.
        checkpointer: moves the log.
        ack: `received`, `written` or `synced`.
        links: to the loop thread, the readers and the checkpointer.
    """

    def __init__(
        self,
        file: HistoryFile,
        retention: SqliteRetention,
        checkpointer: Checkpointer,
        ack: str,
        links: WriterLinks,
    ) -> None:
        self._file: Final = file
        self._retention: Final = retention
        self._checkpointer: Final = checkpointer
        self._ack: Final = ack
        self._call: Final = links.call
        self._on_stored: Final = links.on_stored
        self._readers_closed: Final = links.readers_closed
        self._wake: Final = links.wake
        self._monotonic_s: Final = links.monotonic_s
        self._queue: Final[deque[Work]] = deque()
        self._thread: Final = threading.Thread(
            target=self._run, name="fastsse-history-writer", daemon=True
        )
        self._stop_at: int | None = None
        self._trouble: WriteTrouble | None = None
        self._must_reopen = False
        # Failed batches that may still be in the file, and acknowledged batches that must still be
        # stored.
        self._doubtful: list[StoreBatch] = []
        self._owed: list[StoreBatch] = []
        self._puts: dict[str, bytes | None] = {}
        self._touches: dict[str, int] = {}
        # The newest event that was acknowledged as stored.
        self._stored_through = file.last_place
        self._is_lost = False
        self._lost_through = 0
        self._tidied_s = self._record_synced_s = 0.0
        # A round over all topics goes on then.
        self._round_from_s = 0.0
        self._commit_s = 0.0
        # When a batch was stored last.
        self._stored_s = 0.0
        # Events that it was given, that it took, that the next commit is likely to have, and that
        # the last one had.
        self._put_events = self._taken_events = self._expected = self._before = 0
        self.commits = 0
        self.failures = 0

    def start(self) -> None:
        """Starts the thread. Once."""
        self._thread.start()

    def put(self, work: Work) -> None:
        """Gives it work; any thread, but batches the loop thread alone. O(1)."""
        if isinstance(work, StoreBatch):
            self._put_events += len(work.entries)
        self._queue.append(work)
        self._wake.set()

    def stop(self, last_position: int) -> None:
        """Stores the waiting batches, then ends; `last_position` is the last in use. Does not wait
        for that."""
        self._stop_at = last_position
        self._wake.set()

    def join(self) -> None:
        """Waits for the end."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            stopping = self._stop_at is not None
            if self._queue and not stopping:
                self._gather()
            work = self._take()
            if self._trouble is None:
                self._store(work)
            else:
                self._refuse(work)
            if stopping and not self._queue:
                break
            if not self._queue:
                self._wake.wait(self._tidy())
        self._end()

    def _gather(self) -> None:
        """Waits a moment for the publishers that were just answered. If a commit began with the
        first of them, all others would wait for two commits."""
        if self._put_events - self._taken_events >= self._expected:
            return
        now_s = self._monotonic_s()
        deadline_s = now_s + self._commit_s * GATHER_SHARE
        while now_s < deadline_s and self._put_events - self._taken_events < self._expected:
            self._wake.wait(deadline_s - now_s)
            now_s = self._monotonic_s()

    def _take(self) -> list[Work]:
        """The waiting batches, up to the bound of one transaction."""
        queue, work, events = self._queue, [], 0
        while queue and events < GROUP_EVENTS:
            work.append(queue.popleft())
            if isinstance(work[-1], StoreBatch):
                events += len(work[-1].entries)
        self._taken_events += events
        return work

    def _store(self, work: list[Work]) -> None:
        batches = self._owed + [item for item in work if isinstance(item, StoreBatch)]
        read = [one for item in work if isinstance(item, Rows) for one in item.selectors]
        self._keep_for_later(work)
        try:
            if batches or self._puts or self._touches or read:
                self._commit(batches, read)
        except Exception as error:
            self._fail(error, batches)
        else:
            self._tidy_a_little()
        self._pass_barriers(work)

    def _keep_for_later(self, work: list[Work]) -> None:
        """Changes that the next successful transaction also stores."""
        for item in work:
            if isinstance(item, Put):
                self._puts[item.key] = item.value
            elif isinstance(item, Touch):
                self._touches[item.topic] = item.generation
            elif isinstance(item, Lost):
                self._lost_through = max(self._lost_through, item.through)

    def _commit(self, batches: list[StoreBatch], read: Sequence[str] = ()) -> None:
        """Stores batches and reports them, all in one transaction, and what is needed to `read` the
        topics of selectors."""
        file = self._file
        began_s = self._monotonic_s()
        if not file.is_in_place():
            raise HistoryError(file.path, "is gone from its place")
        lease = None
        if batches:
            last = batches[-1].entries.last
            leased = file.state.leased_through
            lease = lease_for(last.position, leased, last.time_ms, self._commit_s)
        with file.transaction(synced=lease is not None or self._ack == "synced") as connection:
            mark_repeats(connection, batches)
            new = [batch for batch in batches if batch.repeats is None]
            judge_batches(file, new)
            rows = store_batches(file, new)
            store_keys(file, new)
            self._store_puts(connection)
            take_scheduled(connection, new)
            for topic, generation in self._touches.items():
                file.streams.touch(connection, topic, generation)
            if read:
                write_rows(file, file.late.named(read))
            if lease is not None:
                file.update(leased_through=lease, ack=self._ack, boot=boot_id())
        self._stored_s = self._monotonic_s()
        self._commit_s = self._stored_s - began_s
        # Publishers that wait for each answer form two groups if the last group was small.
        events = sum([len(batch.entries) for batch in batches])
        self._expected = max(events, self._before)
        self._before = events
        self._puts.clear()
        self._touches.clear()
        self._owed = []
        self._stored_through = max(self._stored_through, file.late.last_place)
        self.commits += 1
        self._retention.note(rows)
        text_bytes = sum([batch.entries.frame_bytes for batch in new])
        self._checkpointer.wrote(4096 * (4 + len(rows)) + text_bytes * 2)
        if batches:
            self._report(Stored(batches, file.state.leased_through, None))

    def _store_puts(self, connection: sqlite3.Connection) -> None:
        for key, value in self._puts.items():
            if value is None:
                connection.execute("DELETE FROM desk WHERE key = ?", (key,))
            else:
                connection.execute("INSERT OR REPLACE INTO desk VALUES (?, ?)", (key, value))

    def _report(self, stored: Stored) -> None:
        self._call(lambda: self._on_stored(stored))

    def _pass_barriers(self, work: list[Work]) -> None:
        for item in work:
            if isinstance(item, Barrier):
                self._call(item.passed)
            elif isinstance(item, PutBarrier):
                self._call(partial(item.passed, not self._puts))
            elif isinstance(item, Rows):
                self._call(partial(item.passed, self._trouble is None))

    def _fail(self, error: Exception, batches: list[StoreBatch]) -> None:
        """Something failed: nothing is stored until the file works again."""
        # Any error: if the thread ended, publishers would never get an answer.
        trouble = trouble_of(error)
        self.failures += 1
        if self._trouble is None or self._trouble.words != trouble.words:
            unknown = error if trouble.is_unknown else None
            log.error(
                "History can't be written.",
                path=self._file.path,
                why=trouble.words,
                exc_info=unknown,
            )
        self._trouble = trouble
        self._must_reopen = self._must_reopen or trouble.must_reopen
        self._doubtful += batches
        self._owe(batches)
        self._report(Stored(batches, self._file.state.leased_through, trouble))

    def _refuse(self, work: list[Work]) -> None:
        batches = [item for item in work if isinstance(item, StoreBatch)]
        self._keep_for_later(work)
        if batches:
            self._owe(batches)
            self._report(Stored(batches, self._file.state.leased_through, self._trouble))
        self._pass_barriers(work)

    def _owe(self, batches: list[StoreBatch]) -> None:
        """Batches that were acknowledged before they were stored wait in memory."""
        owed = {id(batch) for batch in self._owed}
        self._owed += [
            batch for batch in batches if batch.is_acknowledged and id(batch) not in owed
        ]

    def _tidy(self) -> float:
        """Works while no batch waits; returns how long to wait for one."""
        if self._trouble is not None:
            self._recover()
            return IDLE_S if self._trouble is None else AGAIN_S
        try:
            if self._checkpointer.finished():
                checkpoint(self._file.connection)
            self._sync_record()
            return 0.0 if self._write_rows() else self._evict()
        except Exception as error:
            self._fail(error, [])
            return AGAIN_S

    def _write_rows(self) -> bool:
        """Writes some of the rows that are due, or any after a pause. Returns whether it did."""
        late = self._file.late
        is_idle = self._monotonic_s() - self._stored_s >= ROWS_IDLE_S
        if not late.are_due and not (is_idle and (late or self._file.streams.late)):
            return False
        with self._file.transaction(synced=False):
            count = write_step(self._file)
        self._checkpointer.wrote(4096 * 3 * count)
        return True

    def _evict(self) -> float:
        """Runs a step of eviction unless it is too early; returns how long to wait for the next. A
        round over all topics takes a part of the time, however many topics there are."""
        began_s, is_behind = self._monotonic_s(), self._retention.is_behind
        if began_s < self._round_from_s and not is_behind:
            return min(IDLE_S, self._round_from_s - began_s)
        more = self._retention.step()
        self._tidied_s = self._monotonic_s()
        if self._retention.is_behind or not more:
            return 0.0 if more else IDLE_S
        if not is_behind:
            self._round_from_s = self._tidied_s + (self._tidied_s - began_s) * ROUND_PARTS
        return min(IDLE_S, max(0.0, self._round_from_s - self._tidied_s))

    def _tidy_a_little(self) -> None:
        """Runs a step now and then while batches keep coming. An error here is no failure of
        earlier batches: they are stored and acknowledged."""
        now_s = self._monotonic_s()
        if now_s - self._tidied_s < TIDY_EVERY_S and not self._lost_through:
            return
        self._tidied_s = now_s
        try:
            self._own_up()
            self._sync_record()
            if self._checkpointer.finished():
                checkpoint(self._file.connection)
            elif self._file.late.are_due:
                self._write_rows()
            elif self._retention.is_behind:
                self._retention.step()
        except Exception as error:
            self._fail(error, [])

    def _sync_record(self) -> None:
        """Syncs the record of commits now and then. Only `synced` promises that commits survive a
        loss of power."""
        now_s = self._monotonic_s()
        record = self._file.commits
        if self._ack != "synced" or record.is_synced:
            return
        if now_s - self._record_synced_s >= SYNC_EVERY_S:
            self._record_synced_s = now_s
            record.sync()

    def _recover(self) -> None:
        """Checks whether the trouble is over; then stores the acknowledged batches."""
        try:
            if self._must_reopen:
                self._checkpointer.drop()
                is_whole = reopen(self._file, self._readers_closed())
                self._must_reopen = False
                self._is_lost = self._is_lost or not is_whole
            self._settle()
            if self._is_lost:
                log.error("History is missing events that were stored.", path=self._file.path)
                self._file.own_up(self._stored_through, self._file.last_place)
            self._own_up()
            self._try_out()
            streams = load_streams(self._file.connection) if self._is_lost else None
        except Exception as error:
            self._fail(error, list(self._owed))
            return
        self._trouble = None
        log.info("History can be written again.", path=self._file.path)
        self._report(Stored([], self._file.state.leased_through, None, streams))
        self._is_lost = False

    def _settle(self) -> None:
        """Removes refused batches that may be in the file, and keeps acknowledged ones."""
        if not self._doubtful:
            return
        doubtful = [batch for batch in self._doubtful if batch.repeats is None]
        acknowledged = [batch for batch in doubtful if batch.is_acknowledged]
        stored = self._file.stored_places(place_of(b.entries[0].position) for b in acknowledged)
        kept = {id(b) for b in acknowledged if place_of(b.entries[0].position) in stored}
        self._owed = [batch for batch in self._owed if id(batch) not in kept]
        with self._file.transaction(synced=True):
            take_out(self._file, [batch for batch in doubtful if not batch.is_acknowledged])
        self._doubtful = []

    def _own_up(self) -> None:
        """Records in the file up to where events may be missing, because the file is an older copy,
        another file, or damaged."""
        if self._lost_through:
            self._file.own_up(self._lost_through)
            self._lost_through = 0

    def _try_out(self) -> None:
        """Stores the acknowledged batches. Without any it makes a change and reverts it, synced
        both times."""
        if not self._file.is_in_place():
            raise HistoryError(self._file.path, "is gone from its place")
        with self._file.transaction(synced=True) as connection:
            connection.execute("INSERT OR REPLACE INTO desk VALUES ('', zeroblob(65536))")
        with self._file.transaction(synced=True) as connection:
            connection.execute("DELETE FROM desk WHERE key = ''")
        self._file.commits.sync()
        if self._owed or self._puts:
            self._commit(list(self._owed))

    def _end(self) -> None:
        """Marks the file as closed cleanly, and closes it."""
        owed = sum(len(batch.entries) for batch in self._owed)
        if owed:
            log.error("Events that were acknowledged could not be stored.", events=owed)
        elif self._trouble is None:
            self._end_lease()
        self._checkpointer.drop()

    def _end_lease(self) -> None:
        assert self._stop_at is not None
        try:
            self._file.end(place_of(self._stop_at))
        except Exception as error:
            log.warning("History was not closed cleanly.", why=trouble_of(error).words)
