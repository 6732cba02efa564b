"""What control services keep over restarts: all of it in memory, written to the file later."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from fastsse.backbone.sqlite.writer import Put, PutBarrier
from fastsse.log import get_logger

__all__ = ["SqliteControlStore"]

log = get_logger("history")


class SqliteControlStore:
    """The `ControlStore` of a history file. Loop thread only; see fastsse.control.service.

    Arguments:
        connection: the values are read from it at once.
        write: takes changes.
    """

    def __init__(
        self, connection: sqlite3.Connection, write: Callable[[Put | PutBarrier], None]
    ) -> None:
        rows = connection.execute("SELECT key, value FROM desk WHERE key <> ''").fetchall()
        self._values: Final[dict[str, bytes]] = {
            key: value for key, value in rows if type(key) is str and type(value) is bytes
        }
        if len(self._values) < len(rows):
            log.error("Stored values are damaged.", count=len(rows) - len(self._values))
        self._write: Final = write

    def get(self, key: str) -> bytes | None:
        """The value, or None. O(1)."""
        return self._values.get(key)

    def put(self, key: str, value: bytes | None) -> None:
        """Sets a key, or removes it with None. O(1). The next transaction writes it."""
        if not key:
            raise ValueError("a key must not be empty")
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        self._write(Put(key, value))

    def when_stored(self, done: Callable[[bool], None]) -> None:
        """Calls `done` after the next transaction."""
        self._write(PutBarrier(done))

    def take(self, key: str, done: Callable[[bool | None], None]) -> None:
        """Removes a key. O(1). The next transaction writes it."""
        was_there = key in self._values
        self.put(key, None)
        done(was_there)

    def items(self, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        """The pairs whose keys begin so, in the order of keys. O(keys log keys)."""
        return sorted(pair for pair in self._values.items() if pair[0].startswith(prefix))

    def listen(self, prefix: str, changed: Callable[[str, bytes], None]) -> None:
        """A file has one node."""

    @property
    def one_time_store(self) -> None:
        """None: control services have their own."""
        return None

    @property
    def messaging(self) -> None:
        """None: a file has one node."""
        return None

    @property
    def roster(self) -> None:
        """None: control services have their own."""
        return None

    @property
    def owned(self) -> None:
        """None: a file has one node."""
        return None
