"""Stores batches: one transaction for all that wait."""

import sqlite3
from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

from fastsse._core import Frame
from fastsse.backbone.judge import is_plain, new_keys
from fastsse.backbone.sqlite.erasing import BLANKED, blank, events_through
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.late_rows import is_content, write_rows
from fastsse.backbone.sqlite.places import EVENT_COST_BYTES, place_of, position_of
from fastsse.backbone.sqlite.statements import NewEvents, insert
from fastsse.backbone.sqlite.topic_rows import TopicRow
from fastsse.backbone.sqlite.upgrade import LOST_RECORD
from fastsse.backbone.sqlite.values import integer
from fastsse.backbone.sqlite.write_batch import Key, StoreBatch
from fastsse.directives import read_control
from fastsse.entries import Entries, Entry, pack_entry
from fastsse.errors import FastsseError
from fastsse.streamstate import StreamRow, read_stream_control

__all__ = [
    "mark_repeats",
    "store_batches",
    "store_entries",
    "store_kept",
    "store_keys",
    "store_lost",
    "take_out",
    "take_scheduled",
]


# What `shared` says of a control entry, and of a deleted event.
_CONTROL: Final = 2


def mark_repeats(connection: sqlite3.Connection, batches: Sequence[StoreBatch]) -> None:
    """Finds the batches whose key was stored before or appears twice in these batches."""
    seen: dict[Key, StoreBatch] = {}
    for batch in batches:
        if batch.key is None:
            continue
        first = seen.setdefault(batch.key, batch)
        if first is not batch:
            batch.repeats = first.repeats or first.positions
            continue
        row = connection.execute(
            f"SELECT place, {integer('events')} FROM publish WHERE worker = ? AND n = ?", batch.key
        ).fetchone()
        if row is not None:
            start = position_of(row[0])
            # A key belongs to one batch, so this batch's number of events replaces a damaged one.
            count = len(batch.entries) if row[1] is None else row[1]
            batch.repeats = range(start, start + count)


def store_batches(file: HistoryFile, batches: Sequence[StoreBatch]) -> list[TopicRow]:
    """Puts what is new of batches into the file, within its transaction; returns the topics that
    have more now. O(entries log n)."""
    appends = [batch.entries for batch in batches if batch.appended is not None]
    if appends:
        _store_appends(file, appends)
    entries = [entry for batch in batches if batch.appended is None for entry in batch.stored]
    return store_entries(file, entries) if entries else []


def _store_appends(file: HistoryFile, batches: Sequence[Entries]) -> None:
    """Puts batches into the file of which each entry is content of one durable stream. Their rows
    are written later."""
    events = NewEvents([], [])
    size_bytes = sum([file.late.add_appends(entries, events) for entries in batches])
    _store_events(file, events, size_bytes, batches[-1].last)


def store_entries(file: HistoryFile, entries: Sequence[Entry]) -> list[TopicRow]:
    """Puts entries into the file, within its transaction; returns the topics that have more now.
    Those of durable streams have their rows written later.

    Their places must be free. O(entries log n).
    """
    return store_kept(file, [(entry, entry.topics) for entry in entries], file.streams.topics)


def _store_events(file: HistoryFile, events: NewEvents, size_bytes: int, last: Frame) -> None:
    """Puts events into the file of which `last` is the newest."""
    count = len(events.plain) // 2 + len(events.named) // 3
    insert(file.connection, "event (place, record)", 2, events.plain)
    insert(file.connection, "event (place, own_id, record)", 3, events.named)
    file.update(events=file.state.events + count, bytes=file.state.bytes + size_bytes)
    is_newest = place_of(last.position) > file.late.last_place
    file.late.note(place_of(last.position), count, size_bytes)
    if last.lead_ms > 0 and is_newest:
        _store_time(file, last)


def store_kept(
    file: HistoryFile,
    kept_by: Sequence[tuple[Entry, Sequence[str]]],
    late_topics: Container[str] = (),
) -> list[TopicRow]:
    """As `store_entries`, each under at least one of its topics: those that keep it."""
    late = [_is_late(entry, topics, late_topics) for entry, topics in kept_by]
    touched = file.rows_of(
        {
            name
            for (_, topics), is_late in zip(kept_by, late, strict=True)
            if not is_late
            for name in topics
        }
    )
    events = NewEvents([], [])
    kept: list[Any] = []
    controls: list[tuple[Entry, Sequence[str]]] = []
    total_bytes = 0
    for (entry, topics), is_late in zip(kept_by, late, strict=True):
        record = pack_entry(entry)
        place, size_bytes = place_of(entry.position), len(record) + EVENT_COST_BYTES
        total_bytes += size_bytes
        events.add(place, entry.own_id, record)
        if is_late:
            file.late.add(topics[0], place, size_bytes)
            continue
        shared = int(len(topics) > 1)
        if entry.extras is not None and entry.extras.control is not None:
            shared = _CONTROL
            controls.append((entry, topics))
        elif not entry.frame.events:
            shared = BLANKED
        for name in topics:
            row = touched[name]
            row.events += 1
            row.bytes += size_bytes
            kept += (row.number, place, size_bytes, shared)
    if kept_by:
        _store_events(file, events, total_bytes, kept_by[-1][0].frame)
    insert(file.connection, "topic_event (topic, place, bytes, shared)", 4, kept)
    for entry, topics in controls:  # What they delete may be among these entries.
        _obey(file, entry, topics, touched)
    return list(touched.values())


def _is_late(entry: Entry, topics: Sequence[str], late_topics: Container[str]) -> bool:
    return len(entry.topics) == 1 and topics[0] in late_topics and is_content(entry)


def _obey(
    file: HistoryFile, entry: Entry, topics: Sequence[str], rows: Mapping[str, TopicRow]
) -> None:
    """Does what a control entry says."""
    assert entry.extras is not None
    write_rows(file, topics)
    text = entry.extras.control or b""
    of_stream = read_stream_control(text)
    if of_stream is not None:
        if of_stream.op == "drop":
            _drop(file, entry.position, topics[0], rows)
        return
    control = read_control(text)
    if control is None:
        return
    if control.kind == "end":
        file.has_ended = True
        for name in topics:
            rows[name].ended = place_of(entry.position)
    elif control.kind == "delete":
        blank(file, [place_of(control.through)])
    else:
        for name in topics:
            through = place_of(control.through or entry.position)
            blank(file, events_through(file, rows[name].number, through))


def _drop(file: HistoryFile, position: int, topic: str, rows: Mapping[str, TopicRow]) -> None:
    """Has the retention remove what there is of a stream."""
    rows[topic].ended = 0
    file.streams.drop(file.connection, topic, place_of(position))


def _store_time(file: HistoryFile, last: Frame) -> None:
    """Marks where positions are ahead of the clock. A mark of a transaction that fails is missing
    in the file, which then answers with an earlier place."""
    times = file.times
    before = len(times)
    times.note(last.time_ms, last.position)
    if len(times) < before - 1:  # There were too many, or the clock was set back.
        file.connection.execute("DELETE FROM time_mark")
        marks = [(time, place_of(position)) for time, position in times]
        file.connection.executemany("INSERT INTO time_mark VALUES (?, ?)", marks)
        return
    begins = times.begin_of(last.time_ms)
    file.connection.execute("DELETE FROM time_mark WHERE time >= ?", (begins,))
    row = last.time_ms, place_of(last.position)
    file.connection.execute("INSERT INTO time_mark VALUES (?, ?)", row)


def store_lost(file: HistoryFile, lost: Sequence[tuple[int, Sequence[str]]]) -> None:
    """Puts LOST_RECORD at places under at least one topic each, within a transaction."""
    rows = file.rows_of({name for _, topics in lost for name in topics})
    for place, topics in lost:
        file.connection.execute("INSERT INTO event VALUES (?, NULL, ?)", (place, LOST_RECORD))
        for name in topics:
            row = rows[name]
            row.events += 1
            row.bytes += EVENT_COST_BYTES
            file.connection.execute(
                "INSERT INTO topic_event VALUES (?, ?, ?, ?)",
                (row.number, place, EVENT_COST_BYTES, len(topics) > 1),
            )
    size_bytes = len(lost) * EVENT_COST_BYTES
    file.update(events=file.state.events + len(lost), bytes=file.state.bytes + size_bytes)


def store_keys(file: HistoryFile, batches: Sequence[StoreBatch]) -> None:
    """Remembers by which keys these batches are known again."""
    values: list[Any] = []
    for batch in batches:
        if batch.key is not None and batch.known is None and batch.refusal is None:
            values += (place_of(batch.entries[0].position), *batch.key, len(batch.entries))
    if values:
        insert(file.connection, "publish (place, worker, n, events)", 4, values)


def take_scheduled(connection: sqlite3.Connection, batches: Sequence[StoreBatch]) -> None:
    """Removes the delayed events that these batches publish, in their transaction."""
    for batch in batches:
        if batch.refusal is not None or batch.appended is not None or is_plain(batch.events):
            continue
        keys = [event.directives.takes for event in batch.events if event.directives is not None]
        batch.taken = [_removed(connection, key.decode()) for key in keys if key is not None]


def _removed(connection: sqlite3.Connection, key: str) -> tuple[str, bytes]:
    found = connection.execute("SELECT value FROM desk WHERE key = ?", (key,)).fetchone()
    connection.execute("DELETE FROM desk WHERE key = ?", (key,))
    return key, b"" if found is None else found[0]


def take_out(file: HistoryFile, batches: Sequence[StoreBatch]) -> None:
    """Removes batches that are in the file though their publishers got no acknowledgement; within a
    transaction. Batches that are not in it are skipped."""
    first = [(place_of(batch.stored[0].position), batch) for batch in batches if batch.stored]
    there = file.stored_places(place for place, _ in first)
    for place, batch in reversed(first):
        if place in there:
            _take_out(file, batch.stored)
            _take_out_keys(file, batch)
            file.producers.put_back(file.connection, batch.rows_before)
            file.streams.put_back(file.connection, batch.streams_before)
            _put_back_ends(file, batch.streams_before)
            file.connection.executemany("INSERT OR REPLACE INTO desk VALUES (?, ?)", batch.taken)


def _take_out(file: HistoryFile, entries: Sequence[Entry]) -> None:
    connection = file.connection
    rows = file.rows_of({name for entry in entries for name in entry.topics})
    total_bytes = 0
    for entry in entries:
        place, size_bytes = place_of(entry.position), len(pack_entry(entry)) + EVENT_COST_BYTES
        total_bytes += size_bytes
        for name in entry.topics:
            row = rows[name]
            row.events -= 1
            row.bytes -= size_bytes
            if row.ended == place:
                row.ended = 0
            connection.execute(
                "DELETE FROM topic_event WHERE topic = ? AND place = ?", (row.number, place)
            )
        connection.execute("DELETE FROM event WHERE place = ?", (place,))
        file.streams.take_out_drop(connection, place)
    first = place_of(entries[0].position)
    connection.execute("DELETE FROM publish WHERE place = ?", (first,))
    file.update(events=file.state.events - len(entries), bytes=file.state.bytes - total_bytes)


def _put_back_ends(file: HistoryFile, before: Sequence[tuple[str, StreamRow | None]]) -> None:
    """The topics of streams are closed again where removed entries had dropped the streams."""
    closed = {topic: row.closed for topic, row in before if row is not None and row.closed}
    for topic, row in file.rows_of(set(closed)).items():
        row.ended = place_of(closed[topic])


def _take_out_keys(file: HistoryFile, batch: StoreBatch) -> None:
    """The key of a removed event must not acknowledge it."""
    if not is_plain(batch.events):
        positions = batch.outcome
        assert not isinstance(positions, FastsseError)
        file.keys.take_out(file.connection, new_keys(batch.events, positions, batch.known))
