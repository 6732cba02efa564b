"""Events that wait until a server has them: in memory, or in a file that survives the process.

Each event has a key, so one that is sent again is not published again (within the server's
`key_window`).
"""

import os
import sqlite3
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from fastsse.client.errors import ClientError

__all__ = ["Outbox", "OutboxFull", "Row"]

# The most workers of one machine that each have an outbox.
PROCESSES_MAX: Final = 256
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  line BLOB NOT NULL
)
"""


class OutboxFull(ClientError):
    """The outbox has no room for another event; nothing was stored."""


class OutboxLocked(ClientError):
    """Another process uses the file of the outbox."""


class Row(NamedTuple):
    """One event: its number, in order, and its line of NDJSON."""

    number: int
    line: bytes


class Outbox:
    """Events that are not acknowledged yet, oldest first. Any thread; one process at a time.

    Arguments:
        path: a file (SQLite); None keeps the events in memory.
        max_events: the most events, 1 or more; 100,000 by default.
        max_bytes: the most bytes of their lines; 64 MiB by default.

    Raises ClientError when the file can't be opened, and OutboxLocked when another process uses
    it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        max_events: int = 100_000,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.is_durable: Final = path is not None
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        name = ":memory:" if path is None else os.fspath(path)
        try:
            self._file = sqlite3.connect(
                name, timeout=0, check_same_thread=False, isolation_level=None
            )
            if path is not None:
                # Held until `close`: two processes would send each event twice.
                self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._file.execute("PRAGMA journal_mode = WAL")
                self._file.execute("PRAGMA synchronous = FULL")
            self._file.execute(_SCHEMA)
            counted = self._file.execute(
                "SELECT count(*), coalesce(sum(length(line)), 0) FROM outbox"
            )
            self._events, self._bytes = counted.fetchone()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise OutboxLocked(f"The outbox {name} is used by another process.") from None
            raise ClientError(f"The outbox {name} can't be used: {error}.") from None

    @classmethod
    def of_process(cls, path: str | os.PathLike[str], **bounds: int) -> Self:
        """The first of `path`, `path.1`, `path.2`, … that no other process uses: for several
        workers with one setting. The next worker that starts sends the events of an ended one.
        `bounds` are `max_events` and `max_bytes`. Raises ClientError; also when all 256 are used.
        """
        for number in range(PROCESSES_MAX):
            name = f"{os.fspath(path)}.{number}" if number else os.fspath(path)
            try:
                return cls(name, **bounds)
            except OutboxLocked:
                continue
        raise ClientError(f"The outboxes at {os.fspath(path)} are all in use.")

    def __len__(self) -> int:
        return int(self._events)

    def add(self, line: bytes) -> int:
        """Stores an event and returns its number; when it returns, a file has it. Raises
        OutboxFull."""
        with self._lock:
            if self._events >= self._max_events or self._bytes + len(line) > self._max_bytes:
                raise OutboxFull(f"The outbox is full: {self._events} events wait.")
            done = self._file.execute("INSERT INTO outbox (line) VALUES (?)", (line,))
            self._events += 1
            self._bytes += len(line)
            return done.lastrowid or 0

    def oldest(self, count: int, limit_bytes: int) -> list[Row]:
        """The oldest events: at least one if there is any, at most `count`, and within
        `limit_bytes` if there are several."""
        rows: list[Row] = []
        size_bytes = 0
        with self._lock:
            found = self._file.execute(
                "SELECT number, line FROM outbox ORDER BY number LIMIT ?", (count,)
            )
            for number, line in found:
                size_bytes += len(line) + 1
                if rows and size_bytes > limit_bytes:
                    break
                rows.append(Row(number, line))
        return rows

    def remove(self, rows: Sequence[Row]) -> None:
        """Forgets events."""
        with self._lock:
            self._file.execute("BEGIN")
            for row in rows:
                self._file.execute("DELETE FROM outbox WHERE number = ?", (row.number,))
                self._events -= 1
                self._bytes -= len(row.line)
            self._file.execute("COMMIT")

    def close(self) -> None:
        """Closes the file; its events stay in it. Idempotent."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
