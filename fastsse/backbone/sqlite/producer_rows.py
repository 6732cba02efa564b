"""Producers in the file: their rows change in the transaction that stores their events."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from fastsse.backbone.producers import NewRow, ProducerRow, producer_cost
from fastsse.backbone.sqlite.bounded_rows import BoundedRows
from fastsse.backbone.sqlite.places import place_of, position_of

__all__ = ["ProducerRows"]

# The index of times changes this often within a window, not with each append.
TIMES_A_WINDOW: Final = 256


class ProducerRows(BoundedRows[ProducerRow]):
    """The producers, as `Producers`. Each is known for a time after its newest append. Used by the
    thread that writes, within its transactions."""

    _ALL = "SELECT key FROM producer"
    _OLD = "SELECT key FROM producer WHERE until <= ? ORDER BY until LIMIT ?"
    _DELETE = "DELETE FROM producer WHERE key = ?"

    def find(self, key: bytes) -> ProducerRow | None:
        """As `Producers`. O(log n)."""
        if key in self._new:
            return self._new[key]
        assert self._connection is not None
        row = self._connection.execute(
            "SELECT epoch, sequence, place FROM producer WHERE key = ? AND until > ?",
            (bytearray(key), self._now_ms()),  # Not bytes: see `NewEvents`.
        ).fetchone()
        return None if row is None else ProducerRow(row[0], row[1], position_of(row[2]))

    def add(self, rows: Sequence[NewRow]) -> None:
        """Records the newest appends, in the transaction under way."""
        for key, row in rows:
            if key not in self._new and self.find(key) is None:
                self._new_bytes += producer_cost(key)
            self._new[key] = row

    def put_back(
        self, connection: sqlite3.Connection, rows: Sequence[tuple[bytes, ProducerRow | None]]
    ) -> None:
        """Sets rows to what they were before appends that are removed, the newest append first, in
        the transaction under way."""
        for key, row in rows:
            if row is None:
                connection.execute(self._DELETE, (key,))
            else:
                self._write(connection, {key: row})
        self._connection = None  # All are counted again by `begin`.

    def _cost(self, key: bytes, size_bytes: int = 0) -> int:
        return producer_cost(key)

    def _write(self, connection: sqlite3.Connection, rows: dict[bytes, ProducerRow]) -> None:
        step_ms = max(1, self.window_ms // TIMES_A_WINDOW)
        until = (self._now_ms() + self.window_ms) // step_ms * step_ms + step_ms
        connection.executemany(
            "INSERT OR REPLACE INTO producer VALUES (?, ?, ?, ?, ?)",
            [
                (bytearray(key), row.epoch, row.sequence, place_of(row.position), until)
                for key, row in rows.items()
            ],
        )
