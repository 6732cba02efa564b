"""The file, the side of its writer: one connection, transactions, and the state of the whole file.

Only `transaction` changes the file. If one fails, everything in memory about the changed rows is
dropped. One thread at a time.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from uuid import uuid4

from fastsse.backbone.sqlite.commits import (
    CommitRecord,
    Left,
    Promise,
    log_is_empty,
    missing,
)
from fastsse.backbone.sqlite.damage import Damage
from fastsse.backbone.sqlite.errors import HistoryError, trouble_of
from fastsse.backbone.sqlite.evictions import StoredEvictions
from fastsse.backbone.sqlite.key_rows import KeyRows
from fastsse.backbone.sqlite.late_rows import (
    LateRows,
    make_rows,
    read_through,
    store_through,
    write_all_rows,
)
from fastsse.backbone.sqlite.lock import FileLock, Identity
from fastsse.backbone.sqlite.losses import ANYTHING, note_loss
from fastsse.backbone.sqlite.places import place_of, position_of
from fastsse.backbone.sqlite.position_lease import (
    LEASE_MS,
    boot_id,
    has_rebooted,
    may_have_lost,
    opened,
)
from fastsse.backbone.sqlite.producer_rows import ProducerRows
from fastsse.backbone.sqlite.schema import (
    VERSION,
    VERSION_LATE,
    Connect,
    State,
    check_path,
    open_writing,
    read_state,
    versions,
)
from fastsse.backbone.sqlite.stream_file import StreamFile
from fastsse.backbone.sqlite.topic_rows import TopicRow, TopicRows
from fastsse.backbone.sqlite.verifying import cut_short
from fastsse.positions import TimeMarks, position_at

__all__ = ["HistoryFile"]


class HistoryFile:
    """A history file that is open for writing, and locked for this process.

    Arguments:
        path: made when it is not there.
        now_ms: gives unix milliseconds; where a new file begins.
        connect: opens connections; tests hand in one whose disk fails.
        ack: what an acknowledgement will mean.

    Attributes:
        connection: the only one that changes the file.
        state: as stored, or as the current transaction will store it.
        topics: rows of recently used topics.
        times: the times of positions that were ahead of the clock.
        commits: the record of them, outside of the file.
        damage: the damage found.
        head: the last position that may be in use.
        last_place: of the newest event when it was last opened.
        loss: why events from before it was opened may be missing; None: none are.
        evictions: those since it was opened.
        has_ended: some topic may have ended.
        keys, producers: what is known against repeats; the server that opened it sets the bounds.
        streams: the rows of durable streams, likewise.
        late: the rows that are still to be written.
        rows_through: all events up to this place have their rows, in the present transaction.

    Raises HistoryError.
    """

    def __init__(
        self,
        path: str,
        now_ms: Callable[[], int],
        connect: Connect = sqlite3.connect,
        ack: str = "written",
    ) -> None:
        self.path: Final = path
        self.damage: Final = Damage(path)
        self.evictions: Final = StoredEvictions()
        self.keys: Final = KeyRows(now_ms)
        self.producers: Final = ProducerRows(now_ms)
        self.streams: Final = StreamFile(now_ms)
        self.late = LateRows()
        self._opened_as: Final = opened(ack)
        self._connect: Final = connect
        check_path(path)
        self._lock: FileLock | None = FileLock(path)
        try:
            self._commits: CommitRecord | None = CommitRecord(path)
        except BaseException:
            self._release()
            raise
        try:
            self.loss = self._begin(place_of(position_at(now_ms())))
        except BaseException:
            self.close()
            raise
        self.head: Final = position_of(self.state.leased_through)

    def _begin(self, now: int) -> str | None:
        """Opens the file, checks the state in which it was left, and marks it as in use in the file
        itself, outside its log. Returns why events may be missing."""
        record, is_empty = self.commits, log_is_empty(self.path)
        cut = cut_short(self.path) if is_empty else None
        # Positions never go back, also in a file that replaces another.
        newest = max(record.found, key=lambda one: one.commits, default=None)
        self._open(max(now, newest.leased_through if newest is not None else 0), must_exist=False)
        state, promise = self.state, record.of(self.state.identity)
        leased_through = max(state.leased_through, self.last_place)
        if newest is not None and (promise is None or newest.commits > state.commits):
            leased_through = max(leased_through, newest.leased_through)
        left = Left(state.commits, bool(state.ack), is_empty, has_rebooted(state))
        # A file of version 1 has no identity, and never had a record.
        loss = cut or (missing(left, promise) if state.identity else None)
        # What is gone is the end of the log. A file that is cut may have lost anything.
        lost_after = self.last_place if cut is None else ANYTHING
        if loss is None and may_have_lost(state):
            loss = "the last events may not have reached the disk"
            is_lease_whole = not left.has_rebooted
        else:
            is_lease_whole = loss is None
        if not is_lease_whole:
            # The record of leased positions may be missing, too.
            leased_through = max(leased_through, now) + place_of(position_at(LEASE_MS))
        try:
            with self.transaction(synced=True):
                if loss:
                    self.lose(leased_through, lost_after)
                self.update(
                    leased_through=leased_through,
                    ack=self._opened_as,
                    boot=boot_id(),
                    identity=state.identity or uuid4().hex,
                    commits=1 + max(state.commits, promise.commits if promise is not None else 0),
                )
            record.fill(self._promise)
            record.sync()
            record.sync_name()
            self.flush()
        except (sqlite3.Error, OSError) as error:
            raise HistoryError(self.path, f"can't be used: {trouble_of(error).words}") from error
        return loss

    def _open(self, start: int, must_exist: bool) -> None:
        self.connection = open_writing(self.path, start, self._connect, must_exist)
        self._is_full_sync = False
        self.times: TimeMarks = TimeMarks()
        self.topics: TopicRows = TopicRows(self.damage)
        try:
            self.state: State = read_state(self.connection)
            self._version = versions(self.connection)[1]
            (last,) = self.connection.execute("SELECT max(place) FROM event").fetchone()
            self.last_place = last or 0
            # What the file says; None: nothing yet.
            self._rows_through = read_through(self.connection)
            self._forget_late()
            found = self.connection.execute("SELECT 1 FROM topic WHERE ended <> 0 LIMIT 1")
            self.has_ended: bool = found.fetchone() is not None
            marks = self.connection.execute("SELECT time, place FROM time_mark ORDER BY time")
            self.times = TimeMarks((time, position_of(place)) for time, place in marks.fetchall())
            self.streams.forget()
            self.streams.begin(self.connection)
            if not self.is_in_place():
                raise HistoryError(self.path, "was replaced while it was opened")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.connection.close()
            raise HistoryError(self.path, f"can't be used: {trouble_of(error).words}") from error
        except (TypeError, ValueError) as error:
            # NULL in place of a number, or a row of a stream that is none; only in a damaged file.
            self.connection.close()
            raise HistoryError(self.path, "can't be used: the file is damaged") from error
        except BaseException:
            self.connection.close()
            raise

    @property
    def commits(self) -> CommitRecord:
        """The record of commits, outside of the file."""
        assert self._commits is not None
        return self._commits

    @contextlib.contextmanager
    def transaction(self, synced: bool) -> Iterator[sqlite3.Connection]:
        """A transaction: everything within is stored, or nothing. With `synced` it has also reached
        the disk at the end, and everything before it. The commit is noted in the record, which is
        synced when positions were leased."""
        connection = self.connection
        if synced is not self._is_full_sync:
            connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._is_full_sync = synced
        before, changes = self.state, connection.total_changes
        try:
            connection.execute("BEGIN IMMEDIATE")
            if not self.late.are_known:
                make_rows(self)
            yield connection
            self.topics.store(connection)
            are_missing = self.late.are_missing or bool(self.streams.late)
            version = VERSION_LATE if are_missing else VERSION
            if version != self._version:
                connection.execute(f"PRAGMA user_version = {version}")
            if self.rows_through != self._rows_through:
                store_through(connection, self.rows_through)
            is_changed = self.state != before or connection.total_changes != changes
            if is_changed:
                self.update(commits=self.state.commits + 1)
                _store_state(connection, self.state)
            connection.execute("COMMIT")
            self._version = version
            self._rows_through = self.rows_through
            self.late.committed()
            self.streams.committed()
            if is_changed:
                self._note()
            if synced and self.state.leased_through != before.leased_through:
                self.commits.sync()
        except BaseException:
            self.state = before
            self.topics.clear()
            self.streams.forget()
            self._forget_late()
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise

    def update(self, **changed: Any) -> None:
        """Changes the state of the whole file, within a transaction."""
        self.state = self.state._replace(**changed)

    def lose(self, through: int, after: int = ANYTHING) -> None:
        """Records that events up to a place may be missing, within a transaction; of durable
        streams only those after another place."""
        self.update(lost_through=max(self.state.lost_through, through))
        note_loss(self.connection, after, through)

    def rows_of(self, names: set[str]) -> dict[str, TopicRow]:
        """The rows of topics, made where there are none, to be changed in this transaction."""
        number = self.state.next_topic
        for name in self.topics.load(self.connection, names):
            # Nothing is known of it from before it was forgotten.
            self.topics.add(TopicRow(number, name, 0, 0, self.state.forgotten_through))
            number += 1
        if number != self.state.next_topic:
            self.update(next_topic=number)
        rows = {name: self.topics[name] for name in names}
        for row in rows.values():
            self.topics.touch(row)
        return rows

    def forget_rows(self, through: int) -> None:
        """Rows of streams were written from elsewhere, with content up to a place: the next
        transaction makes what is missing."""
        self.streams.forget()
        self._rows_through = through
        self._forget_late()

    def _forget_late(self) -> None:
        """The rows that are to be written are not known; the next transaction makes them."""
        known_through = self._rows_through
        self.rows_through = self.last_place if known_through is None else known_through
        self.late = LateRows(self.rows_through, self.late.topics)

    def _note(self) -> None:
        state = self.state
        self._promise = Promise(state.identity, state.commits, state.leased_through)
        self.commits.note(self._promise)

    def is_in_place(self) -> bool:
        """Whether the path still names the open file."""
        try:
            return self._lock is not None and self._stat() == self._lock.identity
        except HistoryError:
            return False

    def stored_places(self, places: Iterable[int]) -> set[int]:
        """Those of the places at which an event is stored. O(places log n)."""
        wanted = f"[{','.join(map(str, places))}]"
        rows = self.connection.execute(
            "SELECT place FROM event WHERE place IN (SELECT value FROM json_each(?))", (wanted,)
        )
        return {place for (place,) in rows.fetchall()}

    def record(self, place: int) -> bytes | None:
        """What is stored at a place."""
        row = self.connection.execute("SELECT record FROM event WHERE place = ?", (place,))
        found = row.fetchone()
        return None if found is None else found[0]

    def flush(self) -> None:
        """Moves the whole log into the file and syncs it. Raises sqlite3.Error."""
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close_connection(self) -> None:
        """Closes and ignores errors: uncommitted changes are not in the file."""
        connection: sqlite3.Connection | None = getattr(self, "connection", None)
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def reopen(self) -> bool:
        """Opens the file that the path names now, and reads its state again. Returns whether it has
        everything that was committed. Call it while no connection to the file is open.

        Raises HistoryError: the file is gone, or it is another one that another server holds.
        """
        if self._lock is None or self._stat() != self._lock.identity:
            self._release()
            self._lock = FileLock(self.path, must_exist=True)
        self._open(0, must_exist=True)
        is_same = self.state.identity == self._promise.identity
        return is_same and self.state.commits >= self._promise.commits

    def own_up(self, through: int, streams_after: int | None = ANYTHING) -> None:
        """Records in the file that events up to a place may be missing; of durable streams only
        those after another place, or none."""
        with self.transaction(synced=True):
            if streams_after is not None:
                self.lose(through, streams_after)
            state = self.state
            self.update(
                lost_through=max(state.lost_through, through),
                leased_through=max(state.leased_through, through),
                ack=state.ack or self._opened_as,
                boot=boot_id(),
                commits=max(state.commits, self._promise.commits),
            )

    def end(self, last: int) -> None:
        """Records in the file that it was closed, and that `last` is the last place in use. Raises
        sqlite3.Error or OSError."""
        with self.transaction(synced=True):
            write_all_rows(self)
            self.update(leased_through=last, ack="", boot="")
        self.commits.sync()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def close(self) -> None:
        """Gives up the connection, the record and the lock. Idempotent."""
        self.close_connection()
        if self._commits is not None:
            self._commits.close()
            self._commits = None
        self._release()

    def _stat(self) -> Identity:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise HistoryError(self.path, "is gone from its place") from error
        return found.st_dev, found.st_ino


_UPDATE_STATE: Final = f"UPDATE state SET {', '.join(f'{name} = ?' for name in State._fields)}"


def _store_state(connection: sqlite3.Connection, state: State) -> None:
    connection.execute(_UPDATE_STATE, state)
