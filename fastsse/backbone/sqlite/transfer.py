"""A history file as lines of JSON, and back: `fastsse history export` and `import`.

The first line is about the file, then one for each topic, then one for each event in its order.
All positions are text. What is read is validated as if a publisher had sent it. An import never
moves positions back: the next position is higher than all that the file ever used and all that were
imported.

An event has all topics that it was published to, because rights depend on them. A topic that
evicted the event does not get it back. A durable stream becomes a plain topic.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from fastsse.backbone.sqlite.erasing import is_blank
from fastsse.backbone.sqlite.errors import HistoryError
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.inserts import store_kept, store_lost
from fastsse.backbone.sqlite.places import fits, place_of, position_of
from fastsse.backbone.sqlite.schema import State, open_reading, read_state, unpacker, versions
from fastsse.backbone.sqlite.upgrade import LOST_RECORD
from fastsse.directives import BLANK, Directives, read_control
from fastsse.entries import Entry, encode_entries, pack_entry
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event, check_topic
from fastsse.positions import (
    format_position,
    parse_position,
    position_at,
    position_ms,
    uuid_of_position,
)

__all__ = ["BadExportLine", "Imported", "count_streams", "export_lines", "import_lines"]

FORMAT: Final = 1
_NO_PLACE: Final = "0-0"
# Events of one transaction of an import.
STEP_EVENTS: Final = 2_000


class BadExportLine(HistoryError):
    """A line that can't be imported; those before its step are in the file."""

    def __init__(self, path: str, number: int, why: str) -> None:
        super().__init__(path, f"can't take line {number}: {why}")


class Imported(NamedTuple):
    """The result of an import: events that were added, events that were there already, and events
    that all of their topics have evicted."""

    added: int
    known: int
    evicted: int


def export_lines(path: str) -> Iterator[bytes]:
    """The whole file as lines without line ends, in one snapshot. A server may use the file
    meanwhile.

    Raises HistoryError. O(events), one at a time.
    """
    connection = open_reading(path)
    try:
        connection.execute("BEGIN")
        yield orjson.dumps(_head_of(read_state(connection)))
        topics = "SELECT name, evicted_through FROM topic ORDER BY number"
        for name, evicted_through in connection.execute(topics):
            yield orjson.dumps({"topic": name, "evicted_through": _text(evicted_through)})
        unpack = unpacker(connection)
        for place, record in connection.execute("SELECT place, record FROM event ORDER BY place"):
            if record == LOST_RECORD:
                yield orjson.dumps(_lost_fields(connection, place))
            else:
                yield orjson.dumps(_fields(unpack(record)[0]))
    except (sqlite3.Error, UnicodeError, ValueError, TypeError) as error:
        why = f"can't be read: {error} (`fastsse history repair` keeps what is whole)"
        raise HistoryError(path, why) from error
    finally:
        connection.close()


def count_streams(path: str) -> int:
    """The durable streams of a file. An export has their content as events of topics, but not what
    makes them streams. Raises HistoryError."""
    connection = open_reading(path)
    try:
        if versions(connection)[1] < 2:
            return 0
        (count,) = connection.execute("SELECT count(*) FROM stream").fetchone()
        return int(count)
    except sqlite3.Error as error:
        raise HistoryError(path, f"can't be read: {error}") from error
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
    import receive a gap event, unless the caller knows that the export `is_complete`.

    Raises BadExportLine for a line that is none, or whose position has another event. O(events log
    n).
    """
    importing = _Import(file)
    if is_complete:
        return importing.run(lines)
    # Before the first line too, because an import can be interrupted.
    _mark_lost(file, now_ms())
    imported = importing.run(lines)
    _mark_lost(file, now_ms())
    return imported


def _mark_lost(file: HistoryFile, now_ms: int) -> None:
    # Exports have no durable streams.
    through = max(file.state.leased_through, place_of(position_at(now_ms)))
    file.own_up(through, streams_after=None)


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
        self._added = self._known = self._gone = 0
        self._number = 0

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
        self._file.flush()
        return Imported(self._added, self._known, self._gone)

    def _take(self, fields: dict[str, Any]) -> None:
        if "fastsse_history" in fields:
            self._take_head(fields)
        elif "lost" in fields and fields["lost"] is True:
            self._take_lost(fields)
        elif "position" in fields:
            self._entries.append(_entry(fields))
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
        with self._file.transaction(synced=False):
            if self._is_new and not self._has_head:
                # Nothing is known of what came before the first of them.
                before = place_of(entries[0].position) - 1
                self._file.update(evicted_through=before, forgotten_through=before)
            self._has_head = True
            kept = [(entry, self._keeping(entry)) for entry in new]
            stored = [(entry, topics) for entry, topics in kept if topics]
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

    def _new(self, entries: list[Entry]) -> list[Entry]:
        """Those that are not in the file; raises when another event has such a position."""
        by_place = {place_of(entry.position): entry for entry in entries}
        if len(by_place) < len(entries):
            raise BadExportLine(self._file.path, self._number, "a position stands twice")
        for place in self._file.stored_places(by_place):
            entry = by_place.pop(place)
            record = self._file.record(place) or b""
            if record != pack_entry(entry) and not is_blank(record):
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


def _text(place: int) -> str:
    return format_position(position_of(place)).decode()


def _place(text: object) -> int:
    position = parse_position(text) if isinstance(text, str) else None
    if position is None:
        raise ValueError(f"{text!r} is no position")
    return place_of(position)


def _fields(entry: Entry) -> dict[str, object]:
    """An entry's event, taken out of its frame again (WHATWG HTML 9.2.6)."""
    fields: dict[str, bytes] = {}
    data: list[bytes] = []
    for line in entry.frame.body.split(b"\n")[:-2] if entry.frame.events else ():
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        else:
            fields[name.decode()] = value
    own_id, event, retry = entry.own_id, fields.get("event"), fields.get("retry")
    uuid = own_id is None and fields.get("id") == uuid_of_position(entry.position)
    return {
        "position": format_position(entry.position).decode(),
        "topics": entry.topics,
        "id": None if own_id is None else own_id.decode(),
        "event": None if event is None else event.decode(),
        "retry": None if retry is None else int(retry),
        "private": entry.frame.private,
        "id_style": "uuid" if uuid else "position",
        "data": b"\n".join(data).decode(),
    } | _extra_fields(entry)


def _extra_fields(entry: Entry) -> dict[str, object]:
    """The optional fields; absent when the entry has none."""
    fields: dict[str, object] = {}
    if entry.frame.data_kind:
        fields["data_kind"] = _KINDS[entry.frame.data_kind]
    if entry.extras is not None and entry.extras.meta is not None:
        fields["meta"] = orjson.Fragment(entry.extras.meta)
    if not entry.frame.events:
        control = None if entry.extras is None else entry.extras.control
        fields["control"] = orjson.Fragment(control or BLANK)
    if entry.frame.expires_ms:
        fields["expires"] = entry.frame.expires_ms
    return fields


_KINDS: Final = {DATA_TEXT: "text", DATA_JSON: "json", DATA_BYTES: "bytes"}
_KIND_NUMBERS: Final = {name: kind for kind, name in _KINDS.items()}
_FIELDS: Final = {
    "position",
    "topics",
    "id",
    "event",
    "retry",
    "private",
    "id_style",
    "data",
    "data_kind",
    "meta",
    "control",
    "expires",
}


def _entry(fields: dict[str, Any]) -> Entry:
    unknown = fields.keys() - _FIELDS
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    text = fields["position"]
    position = parse_position(text) if isinstance(text, str) else None
    if position is None or not fits(position):
        raise ValueError(f"{text!r} is no position that can be stored")
    style = fields.get("id_style", "position")
    if style not in ("position", "uuid") or not isinstance(fields.get("private", False), bool):
        raise ValueError("id_style must be position or uuid, private true or false")
    kind = _KIND_NUMBERS.get(fields.get("data_kind", "text"))
    if kind is None:
        raise ValueError("data_kind must be text, json or bytes")
    event = Event(
        fields["topics"],
        fields["data"],
        fields.get("event"),
        fields.get("id"),
        fields.get("retry"),
        private=fields.get("private", False),
        id_style=style,
        meta=fields.get("meta"),
        data_kind=kind,
        directives=_directives(fields, position),
    )
    return encode_entries([position], [event])[0]


def _directives(fields: dict[str, Any], position: int) -> Directives | None:
    """What makes an event a control entry, or has it expire."""
    control, expires = fields.get("control"), fields.get("expires")
    if expires is not None and type(expires) is not int:
        raise ValueError("expires must be milliseconds")
    if expires is not None:
        return Directives(ttl_ms=max(1, expires - position_ms(position)))
    if control is None:
        return None
    text = orjson.dumps(control)
    read_control(text)
    return Directives(control=text)


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, orjson.JSONDecodeError):
        return "it is not JSON"
    if isinstance(error, InvalidEvent | ValueError):
        return str(error)
    return "it is not an object of ours"
