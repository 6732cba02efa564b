"""Publishers' keys in the file: known over restarts, stored with the events that they brought."""

import sqlite3
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from fastsse.backbone.keys import KnownKey, key_cost
from fastsse.backbone.sqlite.places import place_of, position_of

__all__ = ["KeyRows"]

_PLACE: Final = Struct("<q")
# Keys that one step forgets.
FORGOTTEN_A_STEP: Final = 10_000


class KeyRows:
    """The keys, as `Keys`. Used by the thread that writes, within its transactions.

    Arguments:
        now_ms: unix milliseconds.

    Attributes:
        window_ms: how long each is known.
        total_bytes: the bound on all.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.window_ms = 0
        self.total_bytes = 0
        self._now_ms: Final = now_ms
        self._connection: sqlite3.Connection | None = None
        self._bytes = 0
        self._new: dict[bytes, KnownKey] = {}
        self._new_bytes = 0

    def begin(self, connection: sqlite3.Connection) -> None:
        """A transaction has begun, perhaps on another connection than the last one."""
        self._new, self._new_bytes = {}, 0
        if connection is not self._connection:
            self._connection = connection
            rows = connection.execute("SELECT key, length(places) FROM used_key")
            self._bytes = sum(key_cost(key, size // _PLACE.size) for key, size in rows)

    def find(self, key: bytes) -> KnownKey | None:
        """As `Keys`. O(log n)."""
        if key in self._new:
            return self._new[key]
        assert self._connection is not None
        row = self._connection.execute(
            "SELECT digest, places FROM used_key WHERE key = ? AND until > ?",
            (key, self._now_ms()),
        ).fetchone()
        if row is None:
            return None
        places = [place for (place,) in _PLACE.iter_unpack(row[1])]
        return KnownKey(row[0], list(map(position_of, places)))

    def has_room(self, size_bytes: int) -> bool:
        """As `Keys`."""
        wanted = self._bytes + self._new_bytes + size_bytes
        return wanted <= self.total_bytes or (self.forget_old() > 0 and self.has_room(size_bytes))

    def add(self, keys: Sequence[tuple[bytes, KnownKey]]) -> None:
        """Remembers keys, in the transaction under way."""
        for key, known in keys:
            self._new[key] = known
            self._new_bytes += key_cost(key, len(known.positions))

    def store(self) -> None:
        """Writes those that were added."""
        if not self._new:
            return
        assert self._connection is not None
        until = self._now_ms() + self.window_ms
        self._connection.executemany(
            "INSERT OR REPLACE INTO used_key VALUES (?, ?, ?, ?)",
            [
                (key, until, known.digest, b"".join(map(_packed, known.positions)))
                for key, known in self._new.items()
            ],
        )
        # Of a transaction that fails they are counted too: until the file is opened again the
        # bound is reached earlier.
        self._bytes += self._new_bytes
        self._new, self._new_bytes = {}, 0

    def take_out(
        self, connection: sqlite3.Connection, keys: Sequence[tuple[bytes, KnownKey]]
    ) -> None:
        """Forgets keys whose events are removed, in the transaction under way."""
        for key, known in keys:
            removed = connection.execute("DELETE FROM used_key WHERE key = ?", (key,)).rowcount
            # On another connection all are counted again by `begin`.
            if removed and connection is self._connection:
                self._bytes -= key_cost(key, len(known.positions))

    def forget_old(self) -> int:
        """Forgets some of those that are too old, in a transaction; returns how many."""
        if self._connection is None:
            return 0
        rows = self._connection.execute(
            "SELECT key, length(places) FROM used_key WHERE until <= ? ORDER BY until LIMIT ?",
            (self._now_ms(), FORGOTTEN_A_STEP),
        ).fetchall()
        self._connection.executemany(
            "DELETE FROM used_key WHERE key = ?", [row[:1] for row in rows]
        )
        self._bytes -= sum(key_cost(key, size // _PLACE.size) for key, size in rows)
        return len(rows)


def _packed(position: int) -> bytes:
    return _PLACE.pack(place_of(position))
