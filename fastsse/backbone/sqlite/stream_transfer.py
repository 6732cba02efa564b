"""Durable streams as lines of an export, and back: their rows, what is known of producers, and
where content may be missing. Their content is in the lines of events (`transfer.py`).

A line of a stream follows the events, so that an import that is interrupted has no stream without
its content. An import never adds content to a stream that the file has already: its readers have
offsets.
"""

import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.late_rows import is_content, read_through
from fastsse.backbone.sqlite.losses import ANYTHING, note_loss
from fastsse.backbone.sqlite.places import fits, place_of, position_of
from fastsse.backbone.sqlite.stream_file import load_streams
from fastsse.backbone.stream_rows import RowChange, replayed
from fastsse.entries import Entry
from fastsse.events import check_topic
from fastsse.positions import format_position, parse_position
from fastsse.streamstate import StreamConfig, StreamRow

__all__ = ["ExportedStreams", "ImportedStreams"]

#: Of the lines of streams; another one is refused.
VERSION: Final = 1
_OF_STREAM: Final = {
    "stream",
    "version",
    "generation",
    "tail",
    "closed",
    "seq",
    "forks",
    "hidden",
    "touched",
    "bytes",
    "config",
}
_OF_PRODUCER: Final = {"producer", "version", "epoch", "sequence", "position", "until"}
_OF_LOSS: Final = {"streams_lost", "version", "after"}
_NAMES: Final = frozenset({"stream", "producer", "streams_lost"})
_INTEGER_MAX: Final = (1 << 63) - 1
_STEP_ROWS: Final = 1_000
_UPSERT_PRODUCER: Final = (
    "INSERT INTO producer (key, epoch, sequence, place, until) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence,"
    " place = excluded.place, until = excluded.until"
    " WHERE (excluded.epoch, excluded.sequence) > (epoch, sequence)"
)


class ExportedStreams:
    """What is known of the streams of a file, in the snapshot of a connection. O(streams).

    Attributes:
        dropped: by topic, up to which place entries are of streams that were deleted, and have
            still to be removed.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection
        self._tables: Final = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema")
        }
        self.dropped: Final[dict[str, int]] = dict(self._all("dropped", "topic, place"))
        changes = load_streams(connection) if "stream" in self._tables else []
        self._rows: Final = {topic: row for topic, row in changes if row is not None}
        through = read_through(connection) if "meta" in self._tables else None
        self._rows_through: Final = _INTEGER_MAX if through is None else through

    def note(self, place: int, entry: Entry) -> None:
        """Adds an event to the rows that do not have it yet, because they are written late."""
        if place <= self._rows_through or not is_content(entry):
            return
        for topic in entry.topics:
            row = self._rows.get(topic)
            if row is not None and entry.position > max(row.tail, row.generation):
                self._rows[topic] = replayed(row, topic, entry)

    def lines(self) -> Iterator[dict[str, object]]:
        """The lines behind those of all events."""
        for topic, row in self._rows.items():
            yield _stream_fields(topic, row)
        for key, epoch, sequence, place, until in self._all(
            "producer", "key, epoch, sequence, place, until"
        ):
            yield {
                "producer": b64encode(key).decode(),
                "version": VERSION,
                "epoch": epoch,
                "sequence": sequence,
                "position": _text(position_of(place)),
                "until": until,
            }
        for through, after in self._all("loss", "through, after"):
            yield {
                "streams_lost": _text(position_of(through)),
                "version": VERSION,
                "after": None if after < 0 else _text(position_of(after)),
            }

    def _all(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        if table not in self._tables:
            return []
        return self._connection.execute(f"SELECT {columns} FROM {table}").fetchall()


def _stream_fields(topic: str, row: StreamRow) -> dict[str, object]:
    return {
        "stream": topic,
        "version": VERSION,
        "generation": _text(row.generation),
        "tail": _text(row.tail),
        "closed": _text(row.closed) if row.closed else None,
        "seq": None if row.seq is None else row.seq.decode("latin-1"),
        "forks": row.forks,
        "hidden": row.is_hidden,
        "touched": row.touched_ms,
        "bytes": row.size_bytes,
        "config": orjson.Fragment(row.config.encode()),
    }


class ImportedStreams:
    """Puts lines of streams into a file that no server uses.

    Arguments:
        file: into which they are put.

    Attributes:
        added: streams that were not in the file.
    """

    def __init__(self, file: HistoryFile) -> None:
        self.added = 0
        self._file: Final = file
        self._rows: dict[str, StreamRow] = {}
        self._producers: list[tuple[object, ...]] = []

    @staticmethod
    def is_of_streams(fields: dict[str, Any]) -> bool:
        """Whether a line is one of these."""
        return not _NAMES.isdisjoint(fields)

    def take(self, fields: dict[str, Any]) -> None:
        """Takes a line; `store` puts it into the file. Raises ValueError, KeyError or TypeError for
        one that is damaged, or contradicts the file."""
        if fields["version"] != VERSION:
            raise ValueError(f"a line of durable streams of version {fields['version']!r}")
        if "stream" in fields:
            _check_names(fields, _OF_STREAM)
            self._take_stream(fields)
        elif "producer" in fields:
            _check_names(fields, _OF_PRODUCER)
            self._take_producer(fields)
        else:
            _check_names(fields, _OF_LOSS)
            self._take_loss(fields)
        if len(self._rows) + len(self._producers) >= _STEP_ROWS:
            self.store()

    def changed_by(self, entry: Entry, topics: Sequence[str]) -> str | None:
        """A stream of the file that a new event of these topics would change; None: none."""
        for topic in topics:
            row = self._file.streams.get(topic)
            if row is not None and entry.position > row.generation:
                return topic
        return None

    def store(self) -> None:
        """Puts the lines since the last call into the file."""
        rows, producers = self._rows, self._producers
        if not rows and not producers:
            return
        file = self._file
        last = max((one for row in rows.values() for one in _positions(row)), default=0)
        with file.transaction(synced=False) as connection:
            file.streams.begin(connection)
            file.streams.add(RowChange(topic, row) for topic, row in rows.items())
            file.streams.store()
            connection.executemany(_UPSERT_PRODUCER, producers)
            file.update(leased_through=max(file.state.leased_through, place_of(last)))
        self.added += len(rows)
        self._rows, self._producers = {}, []

    def _take_stream(self, fields: dict[str, Any]) -> None:
        topic, row = check_topic(fields["stream"]), _row(fields)
        if topic in self._rows:
            raise ValueError(f"the durable stream {topic} stands twice")
        present = self._file.streams.get(topic)
        if present is not None:
            if present.generation != row.generation:
                raise ValueError(f"the file has another durable stream {topic}")
            return
        if self._is_gone(topic, place_of(row.generation)):
            return
        if self._newest(topic) > place_of(max(row.tail, row.generation)):
            raise ValueError(f"the file has events of {topic} behind the end of the durable stream")
        self._rows[topic] = row

    def _is_gone(self, topic: str, generation: int) -> bool:
        """Whether the file knows that the stream was deleted."""
        file = self._file
        file.topics.load(file.connection, (topic,))
        known = file.topics.get(topic)
        if known and file.state.forgotten_through < generation <= known.evicted_through:
            return True
        found = file.connection.execute(
            "SELECT 1 FROM dropped WHERE topic = ? AND place > ?", (topic, generation)
        ).fetchone()
        return found is not None

    def _newest(self, topic: str) -> int:
        """The place of a topic's newest event, which is no control entry; 0 for none."""
        known = self._file.topics.get(topic)
        found = (
            known
            and self._file.connection.execute(
                "SELECT max(place) FROM topic_event WHERE topic = ? AND shared IS NOT 2",
                (known.number,),
            ).fetchone()
        )
        return (found and found[0]) or 0

    def _take_producer(self, fields: dict[str, Any]) -> None:
        key, position = b64decode(fields["producer"], validate=True), _position(fields["position"])
        epoch, sequence, until = (_integer(fields, name) for name in ("epoch", "sequence", "until"))
        self._producers.append((key, epoch, sequence, place_of(position), until))

    def _take_loss(self, fields: dict[str, Any]) -> None:
        through, after = place_of(_position(fields["streams_lost"])), fields["after"]
        with self._file.transaction(synced=False) as connection:
            begin = ANYTHING if after is None else place_of(_position(after))
            note_loss(connection, begin, through)


def _check_names(fields: dict[str, Any], known: set[str]) -> None:
    unknown = fields.keys() - known
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")


def _positions(row: StreamRow) -> tuple[int, int, int]:
    return row.generation, row.tail, row.closed


def _row(fields: dict[str, Any]) -> StreamRow:
    seq, is_hidden, closed = fields["seq"], fields["hidden"], fields["closed"]
    if not isinstance(is_hidden, bool):
        raise ValueError("hidden must be true or false")
    row = StreamRow(
        generation=_position(fields["generation"]),
        config=_config(fields["config"]),
        tail=_position(fields["tail"]),
        closed=0 if closed is None else _position(closed),
        seq=None if seq is None else seq.encode("latin-1"),
        forks=_integer(fields, "forks"),
        is_hidden=is_hidden,
        touched_ms=_integer(fields, "touched"),
        size_bytes=_integer(fields, "bytes"),
    )
    if not all(one == 0 or fits(one) for one in _positions(row)):
        raise ValueError("a position of the durable stream can't be stored")
    return row


def _config(members: object) -> StreamConfig:
    config = StreamConfig.decode(orjson.dumps(members))
    is_right = (
        isinstance(config.content_type, str)
        and isinstance(config.private, bool)
        and all(one is None or type(one) is int for one in (config.ttl_s, config.expires_ms))
    )
    if not is_right or config.encode() != orjson.dumps(members):
        raise ValueError("not the configuration of a durable stream")
    for topic in [config.source, *(segment.topic for segment in config.segments)]:
        if topic is not None:
            check_topic(topic)
    return config


def _integer(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    if type(value) is not int or not 0 <= value <= _INTEGER_MAX:
        raise ValueError(f"{name} must be an integer from 0")
    return value


def _position(text: object) -> int:
    position = parse_position(text) if isinstance(text, str) else None
    if position is None:
        raise ValueError(f"{text!r} is no position")
    return position


def _text(position: int) -> str:
    return format_position(position).decode()
