"""The writer thread: stores all batches that wait in one transaction, tidies between two of them,
and recovers when the disk does.

What it knows it hands over to the loop thread in order: batches that are stored, batches that are
refused, trouble that begins and ends.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple

from fastsse.backbone.sqlite.checkpoint import Checkpointer, checkpoint
from fastsse.backbone.sqlite.commits import SYNC_EVERY_S
from fastsse.backbone.sqlite.errors import HistoryError, WriteTrouble, trouble_of
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.inserts import mark_repeats, store_entries, store_keys, take_out
from fastsse.backbone.sqlite.places import place_of
from fastsse.backbone.sqlite.position_lease import boot_id, lease_for
from fastsse.backbone.sqlite.reopening import reopen
from fastsse.backbone.sqlite.retention import SqliteRetention
from fastsse.backbone.sqlite.write_batch import StoreBatch
from fastsse.log import get_logger

__all__ = ["Barrier", "Lost", "Put", "Stored", "Writer", "WriterLinks"]

log = get_logger("history")

# One transaction's worth; more than that waits for the next.
GROUP_EVENTS: Final = 1_024
# How often the file is looked at when nothing else happens, and tried again in trouble.
IDLE_S: Final = 1.0
AGAIN_S: Final = 0.5
# Of the time that the last commit took, the most that is spent on waiting for more to commit.
GATHER_SHARE: Final = 0.3
GATHER_STEP_S: Final = 0.000_2
# While publishers wait, tidying gets a step this often.
TIDY_EVERY_S: Final = 0.01


class Put(NamedTuple):
    """A control service's value to keep; None takes it out."""

    key: str
    value: bytes | None


class Barrier(NamedTuple):
    """Called on the loop thread once everything put before it is stored or refused."""

    passed: Callable[[], None]


class Lost(NamedTuple):
    """Up to this place events may be missing, which the file is to say."""

    through: int


class Stored(NamedTuple):
    """Batches in their order, how far positions are leased, and the trouble there is: with it,
    they are refused. With `is_lost` the file has lost something that was in it before."""

    batches: Sequence[StoreBatch]
    leased_through: int
    trouble: WriteTrouble | None
    is_lost: bool = False


Work = StoreBatch | Put | Barrier | Lost


@dataclass(frozen=True, slots=True)
class WriterLinks:
    """What connects the writer with other threads.

    Arguments:
        call: hands a call over to the loop thread.
        on_stored: called there with the results of batches, in order.
        readers_closed: makes a context in which readers have no connection.
        wake: the checkpointer's event; it also wakes the writer.
        monotonic_s: a clock that only goes forward.
    """

    call: Callable[[Callable[[], None]], None]
    on_stored: Callable[[Stored], None]
    readers_closed: Callable[[], AbstractContextManager[None]]
    wake: threading.Event
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
        # Failed and perhaps in the file all the same; acknowledged and still to be stored.
        self._doubtful: list[StoreBatch] = []
        self._owed: list[StoreBatch] = []
        self._puts: dict[str, bytes | None] = {}
        # The newest event that was acknowledged as stored.
        self._stored_through = file.last_place
        self._is_lost = False
        self._lost_through = 0
        self._tidied_s = self._record_synced_s = 0.0
        self._commit_s = 0.0
        self._expected = self._before = 0
        self.commits = 0
        self.failures = 0

    def start(self) -> None:
        """Starts the thread. Once."""
        self._thread.start()

    def put(self, work: Work) -> None:
        """Gives it work; any thread. O(1)."""
        self._queue.append(work)
        self._wake.set()

    def stop(self, last_position: int) -> None:
        """Stores what waits, then ends; `last_position` is the last in use. Does not wait."""
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
        """Gives those who were just answered a moment to come again: a commit that begins with the
        first of them makes all others wait for two."""
        deadline_s = self._monotonic_s() + self._commit_s * GATHER_SHARE
        while len(self._queue) < self._expected and self._monotonic_s() < deadline_s:
            time.sleep(GATHER_STEP_S)

    def _take(self) -> list[Work]:
        """What waits, up to one transaction's worth."""
        queue, work, events = self._queue, [], 0
        while queue and events < GROUP_EVENTS:
            work.append(queue.popleft())
            if isinstance(work[-1], StoreBatch):
                events += len(work[-1].entries)
        return work

    def _store(self, work: list[Work]) -> None:
        batches = self._owed + [item for item in work if isinstance(item, StoreBatch)]
        self._keep_for_later(work)
        try:
            if batches or self._puts:
                self._commit(batches)
        except Exception as error:
            self._fail(error, batches)
        else:
            self._tidy_a_little()
        self._pass_barriers(work)

    def _keep_for_later(self, work: list[Work]) -> None:
        """What the next transaction that succeeds takes along."""
        for item in work:
            if isinstance(item, Put):
                self._puts[item.key] = item.value
            elif isinstance(item, Lost):
                self._lost_through = max(self._lost_through, item.through)

    def _commit(self, batches: list[StoreBatch]) -> None:
        """Stores batches and reports them. What one transaction did not take is in none."""
        file = self._file
        began_s = self._monotonic_s()
        if not file.is_in_place():
            raise HistoryError(file.path, "is gone from its place")
        lease = None
        if batches:
            last = batches[-1].entries[-1].position
            time_ms = batches[-1].entries[-1].frame.time_ms
            lease = lease_for(last, file.state.leased_through, time_ms, self._commit_s)
        with file.transaction(synced=lease is not None or self._ack == "synced") as connection:
            mark_repeats(connection, batches)
            new = [batch for batch in batches if batch.repeats is None]
            entries = [entry for batch in new for entry in batch.entries]
            rows = store_entries(file, entries) if entries else []
            store_keys(file, new)
            self._store_puts(connection)
            if lease is not None:
                file.update(leased_through=lease, ack=self._ack, boot=boot_id())
        self._commit_s = self._monotonic_s() - began_s
        # Publishers who wait for each answer come in two crowds when the last crowd was small.
        self._expected = max(len(batches), self._before)
        self._before = len(batches)
        self._puts.clear()
        self._owed = []
        if entries:
            self._stored_through = place_of(entries[-1].position)
        self.commits += 1
        self._retention.note(rows)
        self._checkpointer.wrote(4096 * (4 + len(rows)) + sum(e.frame.size for e in entries) * 2)
        if batches:
            self._tell(Stored(batches, file.state.leased_through, None))

    def _store_puts(self, connection: sqlite3.Connection) -> None:
        for key, value in self._puts.items():
            if value is None:
                connection.execute("DELETE FROM desk WHERE key = ?", (key,))
            else:
                connection.execute("INSERT OR REPLACE INTO desk VALUES (?, ?)", (key, value))

    def _tell(self, stored: Stored) -> None:
        self._call(lambda: self._on_stored(stored))

    def _pass_barriers(self, work: list[Work]) -> None:
        for item in work:
            if isinstance(item, Barrier):
                self._call(item.passed)

    def _fail(self, error: Exception, batches: list[StoreBatch]) -> None:
        """Something went wrong: nothing is stored until it is right again."""
        # Whatever it was, a thread that ended would leave publishers without any answer.
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
        self._tell(Stored(batches, self._file.state.leased_through, trouble))

    def _refuse(self, work: list[Work]) -> None:
        batches = [item for item in work if isinstance(item, StoreBatch)]
        self._keep_for_later(work)
        if batches:
            self._owe(batches)
            self._tell(Stored(batches, self._file.state.leased_through, self._trouble))
        self._pass_barriers(work)

    def _owe(self, batches: list[StoreBatch]) -> None:
        """What was acknowledged before it was stored waits in memory."""
        owed = {id(batch) for batch in self._owed}
        self._owed += [batch for batch in batches if batch.is_told and id(batch) not in owed]

    def _tidy(self) -> float:
        """What is to be done when no batch waits; returns for how long it may wait for one."""
        if self._trouble is not None:
            self._recover()
            return IDLE_S if self._trouble is None else AGAIN_S
        try:
            if self._checkpointer.finished():
                checkpoint(self._file.connection)
            self._sync_record()
            more = self._retention.step()
        except Exception as error:
            self._fail(error, [])
            return AGAIN_S
        self._tidied_s = self._monotonic_s()
        return 0.0 if more else IDLE_S

    def _tidy_a_little(self) -> None:
        """A step now and then while batches keep coming. What goes wrong here is no failure of the
        batches before: they are stored, and were acknowledged."""
        now_s = self._monotonic_s()
        if now_s - self._tidied_s < TIDY_EVERY_S and not self._lost_through:
            return
        self._tidied_s = now_s
        try:
            self._own_up()
            self._sync_record()
            if self._checkpointer.finished():
                checkpoint(self._file.connection)
            elif self._retention.is_behind:
                self._retention.step()
        except Exception as error:
            self._fail(error, [])

    def _sync_record(self) -> None:
        """Has the record reach the disk now and then. Only `synced` promises that what was
        committed survives a loss of power."""
        now_s = self._monotonic_s()
        record = self._file.commits
        if self._ack != "synced" or record.is_synced:
            return
        if now_s - self._record_synced_s >= SYNC_EVERY_S:
            self._record_synced_s = now_s
            record.sync()

    def _recover(self) -> None:
        """Tries whether the cause is gone; stores what is owed when it is."""
        try:
            if self._must_reopen:
                self._checkpointer.drop()
                is_whole = reopen(self._file, self._readers_closed())
                self._must_reopen = False
                self._is_lost = self._is_lost or not is_whole
            self._settle()
            if self._is_lost:
                log.error("History is missing events that were stored.", path=self._file.path)
                self._lost_through = max(self._lost_through, self._stored_through)
            self._own_up()
            self._try_out()
        except Exception as error:
            self._fail(error, list(self._owed))
            return
        self._trouble = None
        log.info("History can be written again.", path=self._file.path)
        self._tell(Stored([], self._file.state.leased_through, None, self._is_lost))
        self._is_lost = False

    def _settle(self) -> None:
        """Makes true what was said of batches that may be in the file although they failed."""
        if not self._doubtful:
            return
        doubtful = [batch for batch in self._doubtful if batch.repeats is None]
        told = [batch for batch in doubtful if batch.is_told]
        stored = self._file.stored_places(place_of(b.entries[0].position) for b in told)
        kept = {id(b) for b in told if place_of(b.entries[0].position) in stored}
        self._owed = [batch for batch in self._owed if id(batch) not in kept]
        with self._file.transaction(synced=True):
            take_out(self._file, [batch for batch in doubtful if not batch.is_told])
        self._doubtful = []

    def _own_up(self) -> None:
        """Has the file say up to where events may be missing: what is in place is not what was
        there, an older copy of it, or it is damaged."""
        if self._lost_through:
            self._file.own_up(self._lost_through)
            self._lost_through = 0

    def _try_out(self) -> None:
        """Stores what is owed, or else changes something and takes it back, synced both times."""
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
        """Says that the end is clean, and closes."""
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
