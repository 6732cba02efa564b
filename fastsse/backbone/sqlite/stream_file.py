"""Rows of durable streams in the file: they change in the transaction that stores the entries."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from fastsse.backbone.sqlite.statements import insert
from fastsse.backbone.stream_rows import RowChange, StreamLimits
from fastsse.streamstate import StreamRow

__all__ = ["StreamFile", "load_streams"]


def load_streams(connection: sqlite3.Connection) -> list[RowChange]:
    """All rows of the file. O(streams)."""
    rows = connection.execute("SELECT topic, row FROM stream").fetchall()
    return [RowChange(topic, StreamRow.decode(row)) for topic, row in rows]


class StreamFile:
    """The rows, as `StreamRows`. Used by the thread that writes, within its transactions.

    Arguments:
        now_ms: unix milliseconds.

    Attributes:
        total_bytes: the bound on all.
        bytes: what they take, as far as transactions succeeded.
        topics: all streams, each with its row if that was read or written since the start.
        late: streams whose rows are newer than those in the file.
        has_dropped: entries of dropped streams may still have to be removed.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.total_bytes = 0
        self.bytes = 0
        self.topics: Final[dict[str, StreamRow | None]] = {}
        self.late: Final[dict[str, object]] = {}
        self.has_dropped = True
        self._now_ms: Final = now_ms
        self._connection: sqlite3.Connection | None = None
        # What the transaction changes; whether by more than content is not known of these topics.
        self._new: dict[str, StreamRow | None] = {}
        self._changed: set[str] = set()
        self._new_bytes = 0
        self._began_ms = 0
        # The drops of transactions that were not committed for certain, by place: the topic, and
        # up to where an earlier stream of it is still to be removed.
        self._drops: dict[int, tuple[str, int | None]] = {}

    def begin(self, connection: sqlite3.Connection) -> None:
        """A transaction has begun, perhaps on another connection than the last one."""
        self._drop_new()
        self._began_ms = self._now_ms()
        if connection is not self._connection:
            self._connection = connection
            self.topics.clear()
            self.late.clear()
            self.bytes = 0
            for topic, row in load_streams(connection):
                assert row is not None
                self.topics[topic] = None
                self.bytes += row.size_bytes

    def get(self, topic: str) -> StreamRow | None:
        """As `StreamRows`. O(1), but O(log n) the first time."""
        if topic in self._new:
            return self._new[topic]
        row = self.topics.get(topic)
        if row is None and topic in self.topics:
            row = self.topics[topic] = self._read(topic)
        return row

    def _read(self, topic: str) -> StreamRow | None:
        assert self._connection is not None
        found = self._connection.execute(
            "SELECT row FROM stream WHERE topic = ?", (topic,)
        ).fetchone()
        return None if found is None else StreamRow.decode(found[0])

    @property
    def limits(self) -> StreamLimits:
        """The bound, and what is taken now; the time is that of the transaction."""
        return StreamLimits(self.total_bytes, self.bytes + self._new_bytes, self._began_ms)

    def add(self, changed: Iterable[RowChange]) -> None:
        """Takes new rows, in the transaction under way."""
        for topic, row in changed:
            before = self.get(topic)
            self._new_bytes -= 0 if before is None else before.size_bytes
            self._new_bytes += 0 if row is None else row.size_bytes
            self._new[topic] = row
            self._changed.add(topic)

    def add_appends(self, rows: Mapping[str, StreamRow], size_bytes: int) -> None:
        """As `add`, rows that differ by their content alone, to which so much was added."""
        self._new.update(rows)
        self._new_bytes += size_bytes

    def store(self) -> None:
        """Writes what was added; rows that differ by their content alone later. Of a transaction
        that fails it counts too: `forget` has all loaded again."""
        new = self._new
        written = {topic: new.pop(topic) for topic in self._changed if self._is_due(topic)}
        self.topics.update(new)
        self.late.update(new)
        self._write(written)
        self.bytes += self._new_bytes
        self._drop_new()

    def _is_due(self, topic: str) -> bool:
        """Whether the new row differs by more than content."""
        row, before = self._new[topic], self.topics.get(topic)
        return row is None or before is None or row.fixed != before.fixed

    def write_late(self, topics: Iterable[str]) -> None:
        """Writes the rows of those of these streams where they are newer than in the file, within a
        transaction."""
        self._write({topic: self.topics[topic] for topic in topics if topic in self.late})

    def touch(self, connection: sqlite3.Connection, topic: str, generation: int) -> None:
        """Notes that a stream was read now, in the transaction under way."""
        if connection is not self._connection:
            self.begin(connection)
        row = self.get(topic)
        if row is not None and row.generation == generation:
            self._write({topic: row._replace(touched_ms=self._now_ms())})

    def put_back(
        self, connection: sqlite3.Connection, rows: Sequence[tuple[str, StreamRow | None]]
    ) -> None:
        """Sets rows to what they were before entries that are removed, in the transaction under
        way."""
        if connection is not self._connection:
            self.begin(connection)
        self.add(RowChange(*one) for one in rows)
        self._write(self._new)
        self.bytes += self._new_bytes
        self._drop_new()

    def drop(self, connection: sqlite3.Connection, topic: str, place: int) -> None:
        """Has the retention remove the entries of a stream up to a place, in the transaction under
        way."""
        found = connection.execute("SELECT place FROM dropped WHERE topic = ?", (topic,)).fetchone()
        self._drops[place] = topic, None if found is None else found[0]
        connection.execute("INSERT OR REPLACE INTO dropped VALUES (?, ?)", (topic, place))
        self.has_dropped = True

    def take_out_drop(self, connection: sqlite3.Connection, place: int) -> None:
        """Takes back the drop at a place, if there is one, in the transaction under way."""
        topic, before = self._drops.get(place, ("", None))
        if before is not None:
            connection.execute("UPDATE dropped SET place = ? WHERE topic = ?", (before, topic))
        elif topic:
            connection.execute("DELETE FROM dropped WHERE topic = ?", (topic,))

    def committed(self) -> None:
        """The transaction is committed."""
        self._drops.clear()

    def forget(self) -> None:
        """A transaction failed: what is known may differ from the file."""
        self._connection = None
        self.late.clear()
        self._drop_new()

    def _drop_new(self) -> None:
        self._new, self._new_bytes = {}, 0
        self._changed.clear()

    def _write(self, rows: Mapping[str, StreamRow | None]) -> None:
        """Writes rows in few statements."""
        assert self._connection is not None
        values: list[Any] = []
        for topic, row in rows.items():
            self.late.pop(topic, None)
            if row is None:
                self._connection.execute("DELETE FROM stream WHERE topic = ?", (topic,))
                self.topics.pop(topic, None)
            else:
                values += (topic, bytearray(row.encode()))
                self.topics[topic] = row
        insert(self._connection, _UPSERT, 2, values)


_UPSERT: Final = "stream (topic, row) ON CONFLICT (topic) DO UPDATE SET row = excluded.row"
