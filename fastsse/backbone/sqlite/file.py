"""The file as its writer has it: one connection, transactions, what holds for the whole.

`transaction` is the only way to change the file. When one fails, everything that was believed in
memory of what it changed is dropped. One thread at a time.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from fastsse.backbone.sqlite.errors import HistoryError, trouble_of
from fastsse.backbone.sqlite.lease import may_have_lost
from fastsse.backbone.sqlite.lock import FileLock, Identity
from fastsse.backbone.sqlite.places import place_of, position_of
from fastsse.backbone.sqlite.schema import Connect, State, check_path, open_writing, read_state
from fastsse.backbone.sqlite.topicrows import TopicRows
from fastsse.positions import position_at

__all__ = ["HistoryFile"]


class HistoryFile:
    """A history file that is open for writing, and locked for this process.

    Arguments:
        path: made when it is not there.
        now_ms: gives unix milliseconds; where a new file begins.
        connect: opens connections; tests hand in one whose disk fails.

    Attributes:
        connection: the only one that changes the file.
        state: as it is stored, or will be by the transaction under way.
        topics: rows of topics that were used of late.
        head: the last position that may be in use.
        last_place: of the newest event when it was opened, or opened again.
        lost_through: the place up to which events may be missing since an end that was not clean.

    Raises HistoryError.
    """

    def __init__(
        self, path: str, now_ms: Callable[[], int], connect: Connect = sqlite3.connect
    ) -> None:
        self.path: Final = path
        self._connect: Final = connect
        check_path(path)
        self._lock: FileLock | None = FileLock(path)
        try:
            self._open(place_of(position_at(now_ms())), must_exist=False)
        except BaseException:
            self._release()
            raise
        self.head: Final = position_of(max(self.state.leased_through, self.last_place))
        self.lost_through: Final = place_of(self.head) if may_have_lost(self.state) else 0

    def _open(self, start: int, must_exist: bool) -> None:
        self.connection = open_writing(self.path, start, self._connect, must_exist)
        self._is_full_sync = False
        self.topics: TopicRows = TopicRows()
        try:
            self.state: State = read_state(self.connection)
            (last,) = self.connection.execute("SELECT max(place) FROM event").fetchone()
            self.last_place = last or 0
            if not self.is_in_place():
                raise HistoryError(self.path, "was replaced while it was opened")
        except sqlite3.Error as error:
            self.connection.close()
            raise HistoryError(self.path, f"can't be used: {trouble_of(error).words}") from error
        except BaseException:
            self.connection.close()
            raise

    @contextlib.contextmanager
    def transaction(self, synced: bool) -> Iterator[sqlite3.Connection]:
        """All that is done within is stored, or nothing; with `synced` it has then also reached
        the disk, and all before it too."""
        connection = self.connection
        if synced is not self._is_full_sync:
            connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._is_full_sync = synced
        before = self.state
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            self.topics.store(connection)
            if self.state != before:
                _store_state(connection, self.state)
            connection.execute("COMMIT")
        except BaseException:
            self.state = before
            self.topics.clear()
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise

    def update(self, **changed: Any) -> None:
        """Changes what holds for the whole, within a transaction."""
        self.state = self.state._replace(**changed)

    def is_in_place(self) -> bool:
        """Whether the file that is open is still the one that the path names."""
        try:
            return self._lock is not None and self._stat() == self._lock.identity
        except HistoryError:
            return False

    def stored_places(self, places: Iterable[int]) -> set[int]:
        """Those of them at which an event is stored. O(places log n)."""
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
        """Has everything in the file itself, and on the disk. Raises sqlite3.Error."""
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close_connection(self) -> None:
        """Closes without a word about errors: what was not committed is not in the file."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()

    def reopen(self) -> None:
        """Opens what the path names now, and reads again what holds for it. No connection to the
        file is open meanwhile.

        Raises HistoryError: the file is gone, or it is another one that another server holds.
        """
        if self._lock is None or self._stat() != self._lock.identity:
            self._release()
            self._lock = FileLock(self.path, must_exist=True)
        self._open(0, must_exist=True)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def close(self) -> None:
        """Gives up the connection and the lock. Idempotent."""
        self.close_connection()
        self._release()

    def _stat(self) -> Identity:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise HistoryError(self.path, "is gone from its place") from error
        return found.st_dev, found.st_ino


def _store_state(connection: sqlite3.Connection, state: State) -> None:
    settings = ", ".join(f"{name} = ?" for name in State._fields)
    connection.execute(f"UPDATE state SET {settings}", state)
