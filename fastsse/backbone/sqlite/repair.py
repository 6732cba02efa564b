"""Repairs a damaged file: `fastsse history repair`.

Valid rows are copied to a new file, which replaces the old one. The old file is kept under another
name. So nothing is written to a damaged file, and a wrong or interrupted repair can be repeated. A
lost event leaves LOST_RECORD under its topics, where readers get a gap event. If not even its
topics are known, all readers from before it get one.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fastsse.backbone.sqlite.errors import HistoryError, trouble_of
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.inserts import store_kept, store_lost
from fastsse.backbone.sqlite.late_rows import read_through
from fastsse.backbone.sqlite.lock import FileLock
from fastsse.backbone.sqlite.places import place_of, position_of
from fastsse.backbone.sqlite.schema import open_reading, read_state, unpacker
from fastsse.entries import Entry
from fastsse.positions import position_ms

__all__ = ["Repaired", "repair"]

# Events of one transaction.
STEP_EVENTS: Final = 2_000
# Tables that are copied too, by their number of columns: streams, and what is known of publishers.
_OF_STREAMS: Final = (
    ("stream", 2),
    ("producer", 5),
    ("used_key", 4),
    ("dropped", 2),
    ("loss", 2),
)
# Rows of one read of a table.
CHUNK_ROWS: Final = 500

_UNREADABLE: Final = (sqlite3.DatabaseError, UnicodeDecodeError)


class Repaired(NamedTuple):
    """The result of a repair: events kept, events known to be lost, whether parts could not be read
    at all, and where the damaged file is now."""

    kept: int
    lost: int
    is_torn: bool
    backup: str


def repair(path: str) -> Repaired:
    """Replaces a file that no server uses by a repaired one.

    Raises HistoryError if it is in use, or if not even its schema can be read; then nothing was
    changed. O(events) in time and in disk space.
    """
    new = f"{path}.repaired"
    _remove(new)
    lock = FileLock(path, must_exist=True)
    try:
        source = open_reading(path)
        try:
            repaired = _Salvage(source, new).run(_unused(f"{path}.damaged"))
        finally:
            source.close()
        _put_in_place(path, new, repaired.backup)
        return repaired
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise HistoryError(path, f"can't be repaired: {trouble_of(error).words}") from error
    finally:
        _remove(new)
        lock.release()


class _Salvage:
    """Reads one file, writes another."""

    def __init__(self, source: sqlite3.Connection, new: str) -> None:
        self._source: Final = source
        self._new: Final = new
        self._unpack: Final = unpacker(source)
        self._last = 0
        self._lost_through = 0
        self._kept = self._lost = 0
        self._is_torn = False

    def run(self, backup: str) -> Repaired:
        self._last = max(self._leased_through(), self._last_place())
        file = HistoryFile(self._new, lambda: position_ms(position_of(self._last)))
        try:
            self._copy_topics(file)
            self._copy_events(file)
            self._copy_rows(file, "desk", 2)
            self._copy_rows(file, "publish", 4)
            for table, width in _OF_STREAMS:
                self._copy_rows(file, table, width)
            file.forget_rows(self._rows_through())
            with file.transaction(synced=True):
                self._settle(file)
            file.end(max(self._last, file.state.leased_through))
            file.flush()
        finally:
            file.close()
        return Repaired(self._kept, self._lost, self._is_torn, backup)

    def _leased_through(self) -> int:
        with contextlib.suppress(*_UNREADABLE, TypeError):
            return int(read_state(self._source).leased_through)
        self._is_torn = True
        return 0

    def _rows_through(self) -> int:
        """Up to where the rows of streams have their content."""
        with contextlib.suppress(*_UNREADABLE):
            through = read_through(self._source)
            return self._last if through is None else through
        return 0

    def _last_place(self) -> int:
        with contextlib.suppress(*_UNREADABLE):
            (last,) = self._source.execute("SELECT max(place) FROM event").fetchone()
            return int(last or 0)
        self._is_torn = True
        return 0

    def _copy_topics(self, file: HistoryFile) -> None:
        """What is known of evictions."""
        known = list(self._rows("SELECT rowid, name, evicted_through FROM topic", "rowid"))
        with file.transaction(synced=False):
            file.update(evicted_through=0, forgotten_through=0)
            for _, name, evicted_through in known:
                if isinstance(name, str) and isinstance(evicted_through, int):
                    file.rows_of({name})[name].evicted_through = evicted_through
                else:
                    self._is_torn = True

    def _copy_events(self, file: HistoryFile) -> None:
        entries: dict[int, Entry] = {}
        lost: list[tuple[int, Sequence[str]]] = []
        for place in self._places():
            entry = self._entry_at(place)
            if entry is None:
                lost.append((place, self._topics_at(place)))
            else:
                entries[place] = entry
            if len(entries) + len(lost) >= STEP_EVENTS:
                self._store(file, entries, lost)
                entries, lost = {}, []
        self._store(file, entries, lost)

    def _places(self) -> Iterator[int]:
        """Of all events, and of those that only topics still name."""
        for (place,) in self._rows("SELECT place FROM event", "place"):
            yield place
        with contextlib.suppress(*_UNREADABLE):
            found = self._source.execute(
                "SELECT DISTINCT topic_event.place FROM topic_event LEFT JOIN event USING (place)"
                " WHERE event.place IS NULL"
            ).fetchall()
            yield from (place for (place,) in found)

    def _entry_at(self, place: int) -> Entry | None:
        with contextlib.suppress(*_UNREADABLE, ValueError, TypeError):
            (record,) = self._source.execute(
                "SELECT record FROM event WHERE place = ?", (place,)
            ).fetchone()
            (entry,) = self._unpack(record)
            if place_of(entry.position) == place:
                return entry
        return None

    def _topics_at(self, place: int) -> Sequence[str]:
        with contextlib.suppress(*_UNREADABLE):
            rows = self._source.execute(
                "SELECT name FROM topic JOIN topic_event ON topic = number AND place = ?", (place,)
            ).fetchall()
            return [name for (name,) in rows if isinstance(name, str)]
        return []

    def _store(
        self,
        file: HistoryFile,
        entries: dict[int, Entry],
        lost: list[tuple[int, Sequence[str]]],
    ) -> None:
        with file.transaction(synced=False):
            store_kept(file, [(entry, self._keeping(file, entry)) for entry in entries.values()])
            store_lost(file, [(place, topics) for place, topics in lost if topics])
        nobodys = [place for place, topics in lost if not topics]
        self._lost_through = max(self._lost_through, *nobodys, 0)
        self._kept += len(entries)
        self._lost += len(lost)

    def _keeping(self, file: HistoryFile, entry: Entry) -> Sequence[str]:
        """The topics that keep an event: those that did not evict it, and those whose tree still
        has it. Where neither says so, all of them, because the event was kept by one."""
        if len(entry.topics) == 1:
            return entry.topics
        place, rows = place_of(entry.position), file.rows_of(set(entry.topics))
        evicting = {name for name in entry.topics if place <= rows[name].evicted_through}
        if evicting:
            evicting.difference_update(self._topics_at(place))
        return [name for name in entry.topics if name not in evicting] or entry.topics

    def _copy_rows(self, file: HistoryFile, table: str, width: int) -> None:
        """Copies another table, as far as it can be read."""
        marks = ", ".join("?" * width)
        with contextlib.suppress(*_UNREADABLE):
            rows = self._source.execute(f"SELECT * FROM {table}").fetchall()
            with file.transaction(synced=False) as connection:
                connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)

    def _settle(self, file: HistoryFile) -> None:
        """Writes the state of the whole file: the old values, and what could not be read."""
        with contextlib.suppress(*_UNREADABLE, TypeError):
            old = read_state(self._source)
            file.update(
                evicted_through=old.evicted_through,
                forgotten_through=old.forgotten_through,
                lost_through=old.lost_through,
            )
        if self._is_torn:
            self._lost_through = max(self._lost_through, self._last)
        if self._lost_through:
            file.lose(self._lost_through)

    def _rows(self, select: str, key: str) -> Iterator[tuple[int, ...]]:
        """All rows that can be read, in order: those before the first damage and those after the
        last. The key is an integer, and the first column."""
        after = -1
        while True:
            rows: list[tuple[int, ...]] = []
            is_torn = False
            try:
                found = self._source.execute(
                    f"{select} WHERE {key} > ? ORDER BY {key} LIMIT ?", (after, CHUNK_ROWS)
                )
                rows.extend(found)
            except _UNREADABLE:
                self._is_torn = is_torn = True
            yield from rows
            after = rows[-1][0] if rows else after
            if is_torn:
                behind = self._behind_damage(select, key, after)
                if behind is None:
                    return
                after = behind - 1
            elif len(rows) < CHUNK_ROWS:
                return

    def _behind_damage(self, select: str, key: str, after: int) -> int | None:
        """The first key after the damage; from there on all rows can be read."""
        first: int | None = None
        with contextlib.suppress(*_UNREADABLE):
            rows = self._source.execute(f"{select} WHERE {key} > ? ORDER BY {key} DESC", (after,))
            for row in rows:
                first = row[0]
        return first


def _put_in_place(path: str, new: str, backup: str) -> None:
    """The old file gets a second name before the new file takes its name, so the name always
    exists. The old log must not be read as the log of the new file."""
    os.link(path, backup)
    if os.path.exists(f"{path}-wal"):
        os.rename(f"{path}-wal", f"{backup}-wal")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}-shm")
    os.rename(new, path)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unused(name: str) -> str:
    """The name, or the same with a number that no file has."""
    number, found = 1, name
    while os.path.exists(found):
        number += 1
        found = f"{name}{number}"
    return found


def _remove(path: str) -> None:
    for ending in ("", "-wal", "-shm", "-lock", "-commits"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ending)
