"""Deleted events in the file: a record that says nothing takes the place of the event's own.

The place, the own id and the publisher's key stay, so that streams resume from it and a repeated
publish is still known. The old bytes are overwritten (`secure_delete`); the write-ahead log has
them until it is moved into the file.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from fastsse._core import load_frame
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.places import EVENT_COST_BYTES, position_of
from fastsse.directives import NO_NOTICE
from fastsse.entries import Entry, pack_entry, unpack_entries

__all__ = ["BLANKED", "blank", "events_through", "is_blank", "shared_events"]

#: What `shared` says of a deleted event.
BLANKED: Final = 3
_STEP: Final = 500


def events_through(file: HistoryFile, topic: int, through: int) -> list[int]:
    """The places of a topic's events up to a place. O(n)."""
    rows = file.connection.execute(
        "SELECT place FROM topic_event WHERE topic = ? AND place <= ?"
        f" AND coalesce(shared, 0) NOT IN (2, {BLANKED}) ORDER BY place",
        (topic, through),
    )
    return [place for (place,) in rows.fetchall()]


def shared_events(file: HistoryFile, topic: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Position and topics of each event of a topic that has other topics too, and was not deleted.
    O(n log n)."""
    rows = file.connection.execute(
        "SELECT place FROM topic_event WHERE topic = ? AND coalesce(shared, 1) = 1", (topic,)
    )
    for (place,) in rows.fetchall():
        entry = _event(file.record(place) or b"")
        if entry is not None and len(entry.topics) > 1:
            yield position_of(place), entry.topics


def blank(file: HistoryFile, places: Iterable[int]) -> None:
    """Empties the events at these places, within a transaction. Places without an event are
    skipped. O(n log n)."""
    file.connection.execute("PRAGMA secure_delete = ON")
    try:
        left = iter(places)
        while step := list(islice(left, _STEP)):
            _blank(file, step)
    finally:
        file.connection.execute("PRAGMA secure_delete = OFF")


def is_blank(record: bytes) -> bool:
    """Whether a record is that of a deleted event."""
    try:
        (entry,) = unpack_entries(record)
    except (ValueError, TypeError):
        return False
    return not entry.frame.events and (entry.extras is None or entry.extras.control is None)


def _blank(file: HistoryFile, places: Sequence[int]) -> None:
    found = [(place, file.record(place)) for place in places]
    emptied = [
        (place, record, made)
        for place, record in found
        if record is not None and (made := _blank_record(place, record)) is not None
    ]
    names = {name for _, _, (entry, _) in emptied for name in entry.topics}
    file.topics.load(file.connection, names)
    saved_bytes = 0
    for place, record, (entry, packed) in emptied:
        saved = len(record) - len(packed)
        saved_bytes += saved
        file.connection.execute("UPDATE event SET record = ? WHERE place = ?", (packed, place))
        for name in entry.topics:
            row = file.topics.get(name)
            if row is None:
                continue
            changed = file.connection.execute(
                f"UPDATE topic_event SET bytes = ?, shared = {BLANKED}"
                " WHERE topic = ? AND place = ?",
                (len(packed) + EVENT_COST_BYTES, row.number, place),
            )
            if changed.rowcount:
                row.bytes -= saved
                file.topics.touch(row)
    file.update(bytes=file.state.bytes - saved_bytes)


def _blank_record(place: int, record: bytes) -> tuple[Entry, bytes] | None:
    """The event's entry and record without its content; None for what is no event, or damaged:
    readers find that."""
    entry = _event(record)
    if entry is None:
        return None
    extras = entry.extras
    kept = None if extras is None or extras.key is None else extras.blanked()
    position, old = position_of(place), entry.frame
    frame = load_frame(NO_NOTICE, position, old.private, old.time_ms, False)
    emptied = entry._replace(frame=frame, extras=kept)
    return emptied, pack_entry(emptied)


def _event(record: bytes) -> Entry | None:
    """The event of a record; None for what is none, or damaged."""
    try:
        (entry,) = unpack_entries(record)
    except (ValueError, TypeError):
        return None
    return entry if entry.frame.events else None
