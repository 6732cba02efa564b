"""Producers in the file: their rows change in the transaction that stores their events."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from fastsse.backbone.producers import NewRow, ProducerRow, producer_cost
from fastsse.backbone.sqlite.places import place_of, position_of

__all__ = ["ProducerRows"]

# Rows that one step forgets.
FORGOTTEN_A_STEP: Final = 10_000
# The index of times changes this often within a window, not with each append.
TIMES_A_WINDOW: Final = 256


class ProducerRows:
    """The producers, as `Producers`. Used by the thread that writes, within its transactions.

    Arguments:
        now_ms: unix milliseconds.

    Attributes:
        window_ms: how long each is known after its newest append.
        total_bytes: the bound on all.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.window_ms = 0
        self.total_bytes = 0
        self._now_ms: Final = now_ms
        self._connection: sqlite3.Connection | None = None
        self._bytes = 0
        self._new: dict[bytes, ProducerRow] = {}
        self._new_bytes = 0

    def begin(self, connection: sqlite3.Connection) -> None:
        """A transaction has begun, perhaps on another connection than the last one."""
        self._new, self._new_bytes = {}, 0
        if connection is not self._connection:
            self._connection = connection
            rows = connection.execute("SELECT key FROM producer")
            self._bytes = sum(producer_cost(key) for (key,) in rows)

    def find(self, key: bytes) -> ProducerRow | None:
        """As `Producers`. O(log n)."""
        if key in self._new:
            return self._new[key]
        assert self._connection is not None
        row = self._connection.execute(
            "SELECT epoch, sequence, place FROM producer WHERE key = ? AND until > ?",
            (key, self._now_ms()),
        ).fetchone()
        return None if row is None else ProducerRow(row[0], row[1], position_of(row[2]))

    def has_room(self, size_bytes: int) -> bool:
        """As `Producers`."""
        wanted = self._bytes + self._new_bytes + size_bytes
        return wanted <= self.total_bytes or (self.forget_old() > 0 and self.has_room(size_bytes))

    def add(self, rows: Sequence[NewRow]) -> None:
        """Notes the newest appends, in the transaction under way."""
        for key, row in rows:
            if key not in self._new and self.find(key) is None:
                self._new_bytes += producer_cost(key)
            self._new[key] = row

    def store(self) -> None:
        """Writes what was added."""
        if not self._new:
            return
        assert self._connection is not None
        self._write(self._connection, list(self._new.items()))
        # Of a transaction that fails they are counted too: until the file is opened again the
        # bound is reached earlier.
        self._bytes += self._new_bytes
        self._new, self._new_bytes = {}, 0

    def put_back(
        self, connection: sqlite3.Connection, rows: Sequence[tuple[bytes, ProducerRow | None]]
    ) -> None:
        """Sets rows to what they were before appends that are removed, the newest append first, in
        the transaction under way."""
        for key, row in rows:
            if row is None:
                connection.execute("DELETE FROM producer WHERE key = ?", (key,))
            else:
                self._write(connection, [(key, row)])
        self._connection = None  # All are counted again by `begin`.

    def forget_old(self) -> int:
        """Forgets some of those that are too old, in a transaction; returns how many."""
        if self._connection is None:
            return 0
        rows = self._connection.execute(
            "SELECT key FROM producer WHERE until <= ? ORDER BY until LIMIT ?",
            (self._now_ms(), FORGOTTEN_A_STEP),
        ).fetchall()
        self._connection.executemany("DELETE FROM producer WHERE key = ?", rows)
        self._bytes -= sum(producer_cost(key) for (key,) in rows)
        return len(rows)

    def _write(self, connection: sqlite3.Connection, rows: Sequence[NewRow]) -> None:
        step_ms = max(1, self.window_ms // TIMES_A_WINDOW)
        until = (self._now_ms() + self.window_ms) // step_ms * step_ms + step_ms
        connection.executemany(
            "INSERT OR REPLACE INTO producer VALUES (?, ?, ?, ?, ?)",
            [(key, row.epoch, row.sequence, place_of(row.position), until) for key, row in rows],
        )
