"""Rows in the file that are known for a time, with a bound on their bytes."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, Generic, TypeVar

__all__ = ["BoundedRows"]

# Rows that one step forgets.
FORGOTTEN_A_STEP: Final = 10_000

Value = TypeVar("Value")


class BoundedRows(ABC, Generic[Value]):
    """Rows by their key. Used by the thread that writes, within its transactions.

    Arguments:
        now_ms: unix milliseconds.

    Attributes:
        window_ms: how long each is known.
        total_bytes: the bound on all.
    """

    #: All rows, as arguments of `_cost`; those before a time, at most so many; deletes a key.
    _ALL: ClassVar[str]
    _OLD: ClassVar[str]
    _DELETE: ClassVar[str]

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.window_ms = 0
        self.total_bytes = 0
        self._now_ms: Final = now_ms
        self._connection: sqlite3.Connection | None = None
        self._bytes = 0
        self._new: dict[bytes, Value] = {}
        self._new_bytes = 0

    def begin(self, connection: sqlite3.Connection) -> None:
        """A transaction has begun, perhaps on another connection than the last one."""
        self._new, self._new_bytes = {}, 0
        if connection is not self._connection:
            self._connection = connection
            self._bytes = sum(self._cost(*row) for row in connection.execute(self._ALL))

    def has_room(self, size_bytes: int) -> bool:
        """As `Keys` and `Producers`."""
        wanted = self._bytes + self._new_bytes + size_bytes
        return wanted <= self.total_bytes or (self.forget_old() > 0 and self.has_room(size_bytes))

    def store(self) -> None:
        """Writes new rows."""
        if not self._new:
            return
        assert self._connection is not None
        self._write(self._connection, self._new)
        # They count after a transaction that failed too. Then the bound is reached earlier, until
        # the file is opened again.
        self._bytes += self._new_bytes
        self._new, self._new_bytes = {}, 0

    def forget_old(self) -> int:
        """Deletes some rows that are too old, in a transaction; returns how many."""
        if self._connection is None:
            return 0
        rows = self._connection.execute(self._OLD, (self._now_ms(), FORGOTTEN_A_STEP)).fetchall()
        self._connection.executemany(self._DELETE, [row[:1] for row in rows])
        self._bytes -= sum(self._cost(*row) for row in rows)
        return len(rows)

    @abstractmethod
    def _cost(self, key: bytes, size_bytes: int = 0) -> int:
        """The bytes that a row counts."""

    @abstractmethod
    def _write(self, connection: sqlite3.Connection, rows: dict[bytes, Value]) -> None:
        """Inserts or replaces rows."""
