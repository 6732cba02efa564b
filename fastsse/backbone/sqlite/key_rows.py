"""Publishers' keys in the file: known over restarts, stored with the events that they brought."""

import sqlite3
from collections.abc import Sequence
from struct import Struct
from typing import Final

from fastsse.backbone.keys import KnownKey, key_cost
from fastsse.backbone.sqlite.bounded_rows import BoundedRows
from fastsse.backbone.sqlite.places import place_of, position_of

__all__ = ["KeyRows"]

_PLACE: Final = Struct("<q")


class KeyRows(BoundedRows[KnownKey]):
    """The keys, as `Keys`. Used by the thread that writes, within its transactions."""

    _ALL = "SELECT key, length(places) FROM used_key"
    _OLD = "SELECT key, length(places) FROM used_key WHERE until <= ? ORDER BY until LIMIT ?"
    _DELETE = "DELETE FROM used_key WHERE key = ?"

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

    def add(self, keys: Sequence[tuple[bytes, KnownKey]]) -> None:
        """Remembers keys, in the transaction under way."""
        for key, known in keys:
            self._new[key] = known
            self._new_bytes += key_cost(key, len(known.positions))

    def take_out(
        self, connection: sqlite3.Connection, keys: Sequence[tuple[bytes, KnownKey]]
    ) -> None:
        """Forgets keys whose events are removed, in the transaction under way."""
        for key, known in keys:
            removed = connection.execute(self._DELETE, (key,)).rowcount
            # On another connection all are counted again by `begin`.
            if removed and connection is self._connection:
                self._bytes -= key_cost(key, len(known.positions))

    def _cost(self, key: bytes, size_bytes: int = 0) -> int:
        return key_cost(key, size_bytes // _PLACE.size)

    def _write(self, connection: sqlite3.Connection, rows: dict[bytes, KnownKey]) -> None:
        until = self._now_ms() + self.window_ms
        connection.executemany(
            "INSERT OR REPLACE INTO used_key VALUES (?, ?, ?, ?)",
            [
                (key, until, known.digest, b"".join(map(_packed, known.positions)))
                for key, known in rows.items()
            ],
        )


def _packed(position: int) -> bytes:
    return _PLACE.pack(place_of(position))
