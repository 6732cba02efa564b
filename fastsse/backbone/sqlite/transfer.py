"""A history file as lines of JSON, and back: `fastsse history export` and `import`.

The first line is about the file, then one for each topic, then one for each event in its order
(`event_lines.py`), then what is known of durable streams (`stream_transfer.py`). All positions are
text. What is read is validated as if a publisher had sent it. An import never moves positions back:
the next position is higher than all that the file ever used and all that were imported.

An event has all topics that it was published to, because rights depend on them. A topic that
evicted the event does not get it back.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from fastsse.backbone.sqlite.erasing import is_blank
from fastsse.backbone.sqlite.errors import HistoryError
from fastsse.backbone.sqlite.event_lines import event_fields, read_event
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.inserts import store_kept, store_lost
from fastsse.backbone.sqlite.places import place_of, position_of
from fastsse.backbone.sqlite.schema import State, open_reading, read_state, unpacker
from fastsse.backbone.sqlite.stream_transfer import ExportedStreams, ImportedStreams
from fastsse.backbone.sqlite.upgrade import LOST_RECORD
from fastsse.entries import Entry, pack_entry, unpack_entries
from fastsse.errors import InvalidEvent
from fastsse.events import check_topic
from fastsse.positions import (
    format_position,
    parse_position,
    position_at,
)

__all__ = ["BadExportLine", "Imported", "export_lines", "import_lines"]

FORMAT: Final = 1
_NO_PLACE: Final = "0-0"
# Events of one transaction of an import.
STEP_EVENTS: Final = 2_000


class BadExportLine(HistoryError):
    """A line that can't be imported; those before its step are in the file."""

    def __init__(self, path: str, number: int, why: str) -> None:
        super().__init__(path, f"can't take line {number}: {why}")


class Imported(NamedTuple):
    """The result of an import: events that were added, events that were there already, events that
    all of their topics have evicted, and durable streams that were added."""

    added: int
    known: int
    evicted: int
    streams: int


def export_lines(path: str, *, has_streams: bool = True) -> Iterator[bytes]:
    """The whole file as lines without line ends, in one snapshot. A server may use the file
    meanwhile. `has_streams`: with what makes topics durable streams, and with producers.

    Raises HistoryError. O(events), one at a time, and O(streams) in memory.
    """
    connection = open_reading(path)
    try:
        connection.execute("BEGIN")
        yield orjson.dumps(_head_of(read_state(connection)))
        streams = ExportedStreams(connection)
        topics = "SELECT name, evicted_through FROM topic ORDER BY number"
        for name, evicted_through in connection.execute(topics):
            through = max(evicted_through, streams.dropped.get(name, 0))
            yield orjson.dumps({"topic": name, "evicted_through": _text(through)})
        unpack = unpacker(connection)
        for place, record in connection.execute("SELECT place, record FROM event ORDER BY place"):
            if record == LOST_RECORD:
                yield orjson.dumps(_lost_fields(connection, place))
                continue
            (entry,) = unpack(record)
            if any(place > streams.dropped.get(name, -1) for name in entry.topics):
                streams.note(place, entry)
                yield orjson.dumps(event_fields(entry))
        if has_streams:
            yield from map(orjson.dumps, streams.lines())
    except (sqlite3.Error, UnicodeError, ValueError, TypeError) as error:
        why = f"can't be read: {error} (`fastsse history repair` keeps what is whole)"
        raise HistoryError(path, why) from error
    finally:
        connection.close()


def import_lines(
    file: HistoryFile,
    lines: Iterable[bytes],
    *,
    is_complete: bool = False,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Imported:
    """Adds what the lines say to a file that no server uses, step by step; whatever is in it
    already, with the same position, stays.

    An export has no trace of what was published after it. So streams that resume from before the
    import receive a gap event, and durable streams may have lost content behind the export, unless
    the caller knows that the export `is_complete`.

    Raises BadExportLine for a line that is none, or whose position has another event. O(events log
    n).
    """
    importing = _Import(file)
    if is_complete:
        return importing.run(lines)
    # Before the first line too, because an import can be interrupted.
    _mark_lost(file, now_ms())
    imported = importing.run(lines)
    _mark_lost(file, now_ms(), importing.last_place if imported.streams else None)
    return imported


def _mark_lost(file: HistoryFile, now_ms: int, streams_after: int | None = None) -> None:
    """Notes that events may be missing; of durable streams those after a place, None: none."""
    through = max(file.state.leased_through, place_of(position_at(now_ms)))
    file.own_up(through, streams_after)


class _Import:
    def __init__(self, file: HistoryFile) -> None:
        self._file: Final = file
        # An empty file takes the evictions from the lines. Another file keeps its own, so its gaps
        # stay gaps.
        self._is_new = file.state.events == 0 and file.state.next_topic == 1
        self._has_head = False
        # What was evicted of the exported topics; of a topic without a line, the last.
        self._evicted: dict[str, int] = {}
        self._forgotten = 0
        self._entries: list[Entry] = []
        self._streams: Final = ImportedStreams(file)
        self._added = self._known = self._gone = 0
        self._number = 0
        #: Of the newest event of the lines.
        self.last_place = 0

    def run(self, lines: Iterable[bytes]) -> Imported:
        for line in lines:
            self._number += 1
            if not line.strip():
                continue
            try:
                self._take(orjson.loads(line))
            except (InvalidEvent, ValueError, KeyError, TypeError) as error:
                raise BadExportLine(self._file.path, self._number, _why(error)) from None
            if len(self._entries) >= STEP_EVENTS:
                self._store()
        self._store()
        self._streams.store()
        self._file.flush()
        return Imported(self._added, self._known, self._gone, self._streams.added)

    def _take(self, fields: dict[str, Any]) -> None:
        if "fastsse_history" in fields:
            self._take_head(fields)
        elif "lost" in fields and fields["lost"] is True:
            self._take_lost(fields)
        elif ImportedStreams.is_of_streams(fields):
            self._store()
            self._streams.take(fields)
        elif "position" in fields:
            self._entries.append(read_event(fields))
        else:
            self._take_topic(fields)

    def _take_head(self, fields: dict[str, Any]) -> None:
        if fields["fastsse_history"] != FORMAT:
            raise ValueError("of another version")
        state = self._file.state
        leased_through = max(state.leased_through, _place(fields["leased_through"]))
        # Older exports do not say it.
        lost_through = max(state.lost_through, _place(fields.get("lost_through", _NO_PLACE)))
        self._forgotten = _place(fields["forgotten_through"])
        with self._file.transaction(synced=False):
            self._file.update(leased_through=leased_through, lost_through=lost_through)
            if self._is_new:
                self._has_head = True
                self._file.update(
                    evicted_through=_place(fields["evicted_through"]),
                    forgotten_through=self._forgotten,
                )

    def _take_topic(self, fields: dict[str, Any]) -> None:
        name, place = check_topic(fields["topic"]), _place(fields["evicted_through"])
        self._evicted[name] = place
        with self._file.transaction(synced=False):
            row = self._file.rows_of({name})[name]
            row.evicted_through = place if self._is_new else max(row.evicted_through, place)

    def _take_lost(self, fields: dict[str, Any]) -> None:
        """An event that the exported file had lost stays a gap under its topics."""
        self._store()
        place, topics = _place(fields["position"]), [check_topic(name) for name in fields["topics"]]
        if not topics or self._file.stored_places([place]):
            return
        with self._file.transaction(synced=False):
            store_lost(self._file, [(place, topics)])
            self._file.update(leased_through=max(self._file.state.leased_through, place))

    def _store(self) -> None:
        entries, self._entries = self._entries, []
        if not entries:
            return
        new = self._new(entries)
        last = max(place_of(entry.position) for entry in entries)
        self.last_place = max(self.last_place, last)
        with self._file.transaction(synced=False):
            if self._is_new and not self._has_head:
                # Nothing is known of what came before the first of them.
                before = place_of(entries[0].position) - 1
                self._file.update(evicted_through=before, forgotten_through=before)
            self._has_head = True
            kept = [(entry, self._keeping(entry)) for entry in new]
            stored = [(entry, topics) for entry, topics in kept if topics]
            for entry, topics in stored:
                self._check_content(entry, topics)
            store_kept(self._file, stored)
            self._file.update(leased_through=max(self._file.state.leased_through, last))
        self._added += len(stored)
        self._known += len(entries) - len(new)
        self._gone += len(new) - len(stored)

    def _keeping(self, entry: Entry) -> list[str]:
        """The topics of an event that have not evicted it: neither in the exported file, nor in
        this one."""
        place, rows = place_of(entry.position), self._file.rows_of(set(entry.topics))
        # This file does not know what it never had.
        unknown = self._file.state.forgotten_through
        return [
            name
            for name in entry.topics
            if place > self._evicted.get(name, self._forgotten)
            and not unknown < place <= rows[name].evicted_through
        ]

    def _check_content(self, entry: Entry, topics: list[str]) -> None:
        topic = self._streams.changed_by(entry, topics)
        if topic is not None:
            text = format_position(entry.position).decode()
            raise BadExportLine(
                self._file.path,
                self._number,
                f"position {text} (or one of the lines before it) would change the durable stream"
                f" {topic}, which the file has already",
            )

    def _new(self, entries: list[Entry]) -> list[Entry]:
        """Those that are not in the file; raises when another event has such a position."""
        by_place = {place_of(entry.position): entry for entry in entries}
        if len(by_place) < len(entries):
            raise BadExportLine(self._file.path, self._number, "a position stands twice")
        for place in self._file.stored_places(by_place):
            entry = by_place.pop(place)
            record = self._file.record(place) or b""
            if record != pack_entry(entry) and not is_blank(record) and not _same(record, entry):
                text = format_position(entry.position).decode()
                why = f"position {text} is another event's (or one of the lines before it)"
                raise BadExportLine(self._file.path, self._number, why)
        return [by_place[place] for place in sorted(by_place)]


def _head_of(state: State) -> dict[str, object]:
    return {
        "fastsse_history": FORMAT,
        "leased_through": _text(state.leased_through),
        "evicted_through": _text(state.evicted_through),
        "forgotten_through": _text(state.forgotten_through),
        "lost_through": _text(state.lost_through),
    }


def _lost_fields(connection: sqlite3.Connection, place: int) -> dict[str, object]:
    """An event that is lost: where it was, and under which topics."""
    rows = connection.execute(
        "SELECT name FROM topic JOIN topic_event ON topic = number AND place = ?", (place,)
    )
    return {"position": _text(place), "topics": [name for (name,) in rows], "lost": True}


def _same(record: bytes, entry: Entry) -> bool:
    """Whether a record has the event of a line: it may have more than an export does, such as the
    key of its publisher."""
    try:
        (stored,) = unpack_entries(record)
    except (ValueError, TypeError):
        return False
    return orjson.dumps(event_fields(stored)) == orjson.dumps(event_fields(entry))


def _text(place: int) -> str:
    return format_position(position_of(place)).decode()


def _place(text: object) -> int:
    position = parse_position(text) if isinstance(text, str) else None
    if position is None:
        raise ValueError(f"{text!r} is no position")
    return place_of(position)


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, orjson.JSONDecodeError):
        return "it is not JSON"
    if isinstance(error, InvalidEvent | ValueError):
        return str(error)
    return "it is not an object of ours"
