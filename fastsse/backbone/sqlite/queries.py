"""Reads entries and finds places, each in one snapshot of the file.

A read of some topics costs one tree search for each of them, whatever the size of the file, and
then O(read). Only for a template that matches very many topics the events themselves are examined,
a bounded number a call.

Damaged records are never returned. A record is valid if its checksum is right, it contains the
place where it was found, and it has a requested topic. A result ends before an invalid record, or
begins after it and reports it. The same holds where SQLite finds the file malformed.

Over 400 lines: all reads share one snapshot and the same checks for damage.
"""

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import accumulate
from typing import Final, NamedTuple, TypeAlias

import orjson

from fastsse._content import StoredContent
from fastsse.backbone import SNAPSHOT_EVENTS_MAX, Stretch, newest_within
from fastsse.backbone.sqlite.damage import Damage
from fastsse.backbone.sqlite.erasing import BLANKED
from fastsse.backbone.sqlite.errors import is_malformed
from fastsse.backbone.sqlite.evictions import Marks, StoredEvictions
from fastsse.backbone.sqlite.losses import lost_from
from fastsse.backbone.sqlite.places import place_of, position_of
from fastsse.backbone.sqlite.selection import Selection, Selections
from fastsse.backbone.sqlite.values import (
    KEPT_BYTES,
    RECORD,
    RECORD_BYTES,
    TOPIC_ENDED,
    TOPIC_EVICTED,
)
from fastsse.entries import Entry, unpack_entries
from fastsse.events import as_header_value
from fastsse.evicted import Evicted, steps_of
from fastsse.subscriptions import Cursor

__all__ = ["HistoryQueries"]

# Events of one stretch, at most.
STRETCH_EVENTS: Final = 4_096
# More events to read than the mean size suggests, in case events are smaller.
SPARE_EVENTS: Final = 32
# Content of at most so many events is read in rows. Each takes the interpreter's lock.
SINGLE_ROWS_MAX: Final = 32
# How often a snapshot is taken again because something was evicted before its marks were read.
SNAPSHOTS_MAX: Final = 8
# The most topics whose trees are walked in parallel. With more topics, the events are examined
# instead.
WALKED_TOPICS_MAX: Final = 400
LOOKED_AT_EVENTS: Final = 20_000


class _Run(NamedTuple):
    """Places of matching events, the place up to which they are complete, and whether that is the
    end."""

    places: list[int]
    through: int
    is_last: bool


class _Found(NamedTuple):
    """The valid entries of a run: those before a damaged one, or after damaged ones. `stopped_at`
    and `damaged_through` are places, 0 for none. `content`: the entries, read as such."""

    entries: list[Entry]
    stopped_at: int = 0
    damaged_through: int = 0
    content: StoredContent | None = None


_Find: TypeAlias = Callable[[list[int], Selection], _Found]
"""Reads the entries at places."""


class _Asked(NamedTuple):
    """The matching entries after one position and up to another, as `find` reads them.
    `is_content`: for a reader of a durable stream."""

    selectors: tuple[str, ...]
    after: int
    through: int
    limit_bytes: int
    find: _Find
    is_content: bool = False


_ALL: Final = (
    f"SELECT place, {RECORD_BYTES} AS bytes FROM event WHERE place > ?1 AND place <= ?2"
    " ORDER BY place LIMIT ?3"
)


_RECORDS_AT: Final = (
    f"SELECT {RECORD} FROM event WHERE place IN (SELECT value FROM json_each(?)) ORDER BY place"
)
_NEWEST_OF_TOPIC: Final = (
    "SELECT place FROM topic_event WHERE topic = ? AND place <= ?"
    f" AND coalesce(shared, 0) NOT IN (2, {BLANKED})"
    " ORDER BY place DESC LIMIT ?"
)


@lru_cache(maxsize=256)
def _walk(topics: tuple[int, ...]) -> str:
    """Walks the trees of these topics in parallel. An event of several topics is returned once."""
    walk = " UNION ".join(
        f"SELECT place, {KEPT_BYTES} AS bytes FROM topic_event"
        f" WHERE topic = {topic} AND place > ?1 AND place <= ?2"
        for topic in topics
    )
    return f"{walk} ORDER BY place LIMIT ?3"


class _OutOfOrderError(sqlite3.DatabaseError):
    """A tree of the file is not in order. SQLite does not check that when it reads."""


def _in_order(places: list[int], after: int, through: int) -> list[int]:
    """The places up to the first that is out of order. Raises _OutOfOrderError if it is the first
    of all."""
    if after < places[0] and places[-1] <= through and places == sorted(set(places)):
        return places
    last, count = after, 0
    for place in places:
        if not last < place <= through:
            break
        last, count = place, count + 1
    if count == 0:
        raise _OutOfOrderError("places are out of order")
    return places[:count]


class HistoryQueries:
    """Reads on one connection, for one thread.

    Arguments:
        connection: opened for reading.
        evictions: what is evicted meanwhile.
        damage: notes what can't be read.
    """

    def __init__(
        self, connection: sqlite3.Connection, evictions: StoredEvictions, damage: Damage
    ) -> None:
        self._connection: Final = connection
        self._evictions: Final = evictions
        self._damage: Final = damage
        self._selections: Final = Selections()

    def stretch(
        self, selectors: tuple[str, ...], after: int, through: int, limit_bytes: int
    ) -> Stretch:
        """The matching entries after one position and up to another. As `Backbone.read`."""
        return self._found(_Asked(selectors, after, through, limit_bytes, self._entries))

    def content(self, topic: str, after: int, through: int, limit_bytes: int) -> Stretch:
        """As `stretch`, of a topic. As `Backbone.read_content`."""
        find = partial(self._content, topic)
        return self._found(_Asked((topic,), after, through, limit_bytes, find, is_content=True))

    def content_entries(self, topic: str, after: int, through: int, limit_bytes: int) -> Stretch:
        """As `content`, in entries."""
        find = self._entries
        return self._found(_Asked((topic,), after, through, limit_bytes, find, is_content=True))

    def _found(self, asked: _Asked) -> Stretch:
        try:
            return self._stretch(asked)
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
            return self._past_damage(asked.selectors, asked.after, asked.through, str(error))

    def _stretch(self, asked: _Asked) -> Stretch:
        selectors, after, through, limit_bytes, find, is_content = asked
        first, last = place_of(after), place_of(through)
        with self._marked_snapshot(selectors) as (selection, marks):
            evicted = self._evicted(selection, marks, after, is_content=is_content)
            count = min(STRETCH_EVENTS, limit_bytes // selection.mean_bytes + SPARE_EVENTS)
            if selection.topics is None:
                run = self._run(_ALL, (first, last, count), limit_bytes)
            elif not selection.topics:
                run = _Run([], last, True)
            elif len(selection.topics) <= WALKED_TOPICS_MAX:
                run = self._run(_walk(tuple(selection.topics)), (first, last, count), limit_bytes)
            else:
                run = self._run_looked_at(selection, first, last, limit_bytes)
            found = find(run.places, selection)
        damaged_through = position_of(found.damaged_through)
        if found.stopped_at:
            before = position_of(found.stopped_at) - 1
            return Stretch(found.entries, before, False, evicted, damaged_through)
        # If nothing was left out, the result reaches exactly to the requested position.
        reached = through if run.is_last else position_of(run.through)
        return Stretch(found.entries, reached, run.is_last, evicted, damaged_through, found.content)

    @contextmanager
    def _marked_snapshot(self, selectors: tuple[str, ...]) -> Iterator[tuple[Selection, Marks]]:
        """A snapshot, the topics that the selectors match in it, and its eviction marks. If
        evictions continue all the time, the marks may belong to a later snapshot; then an eviction
        is reported too early."""
        for left in reversed(range(SNAPSHOTS_MAX)):
            settled = self._evictions.settled
            with self._snapshot():
                selection = self._selections.find(self._connection, selectors)
                marks = self._evictions.of(selection.topics)
                if marks.settled == settled or not left:
                    yield selection, marks
                    return

    def _evicted(
        self, selection: Selection, marks: Marks, after: int, *, is_content: bool
    ) -> Evicted:
        clock, evictions = marks.settled, marks.steps
        if marks.probe is not None and self._sees(*marks.probe):
            clock, evictions = marks.clock, evictions + marks.under_way
        lost_through = selection.lost_through
        if is_content and lost_through > place_of(after):
            lost_through = lost_from(self._connection, place_of(after))
        missing_through = max(selection.evicted_through, lost_through)
        evictions = [*evictions, (self._evictions.began, missing_through)]
        positions = [(at, position_of(place)) for at, place in evictions]
        steps = steps_of([step for step in positions if step[1] > after])
        return Evicted(clock, steps, position_of(selection.begins))

    def _sees(self, topic: int, evicted_through: int) -> bool:
        found = self._connection.execute(
            f"SELECT {TOPIC_EVICTED} FROM topic WHERE number = ?", (topic,)
        ).fetchone()
        return found is not None and found[0] >= evicted_through

    def _past_damage(
        self, selectors: tuple[str, ...], after: int, through: int, why: str
    ) -> Stretch:
        """Rows that SQLite can't read count as lost. Continues at the first place from which it can
        read again, or at the end. O(log n) reads."""
        first, last = place_of(after), place_of(through)
        self._damage.found(first, why)
        low, high = first, last
        if low < high and self._is_readable(selectors, high - 1, last):
            while high - low > 1:
                middle = (low + high) // 2
                if self._is_readable(selectors, middle, last):
                    high = middle
                else:
                    low = middle
        lost_through = min(position_of(high), through)
        # This page does not report evictions; the next one does.
        return Stretch([], lost_through, lost_through == through, Evicted(), lost_through)

    def _is_readable(self, selectors: tuple[str, ...], after: int, through: int) -> bool:
        """Whether at least the next page after a place can be read."""
        try:
            places = position_of(after), position_of(through)
            self._stretch(_Asked(selectors, *places, 1, self._entries))
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
            return False
        return True

    def newest(
        self, selectors: tuple[str, ...], through: int, count: int, limit_bytes: int
    ) -> Stretch:
        """The newest entries of each matching topic up to a position. As `Backbone.newest`.

        A damaged one is noted and left out: the readers of its stretch get the gap."""
        with self._snapshot():
            selection = self._selections.find(self._connection, selectors)
            places = self._newest_of_each(selection, count, place_of(through))
            kept = places[-SNAPSHOT_EVENTS_MAX:]
            entries = self._undamaged(kept, selection)
        found = newest_within(entries, limit_bytes, through)
        return found._replace(is_last=found.is_last and len(kept) == len(places))

    def _newest_of_each(self, selection: Selection, count: int, through: int) -> list[int]:
        topics = selection.topics
        if topics is None:
            rows = self._connection.execute("SELECT number FROM topic WHERE events > 0")
            topics = [number for (number,) in rows]
        newest: set[int] = set()
        for topic in topics:
            newest.update(self._newest_of_topic(topic, through, count))
        return sorted(newest)

    def _newest_of_topic(self, topic: int, through: int, count: int) -> list[int]:
        rows = self._connection.execute(_NEWEST_OF_TOPIC, (topic, through, count)).fetchall()
        return [place for (place,) in rows]

    def _undamaged(self, places: list[int], selection: Selection) -> list[Entry]:
        entries: list[Entry] = []
        while places:
            found = self._entries(places, selection)
            entries += found.entries
            places = places[bisect_right(places, found.stopped_at) :] if found.stopped_at else []
        return entries

    def ended_topics(self, topics: Sequence[str]) -> dict[str, int]:
        """Those of the topics that have ended, each with its position. O(topics)."""
        rows = self._connection.execute(
            f"SELECT name, {TOPIC_ENDED} AS ended FROM topic"
            " WHERE name IN (SELECT value FROM json_each(?)) AND ended > 0",
            (json.dumps(topics),),
        )
        return {name: position_of(place) for name, place in rows}

    def place(self, selectors: tuple[str, ...], cursor: Cursor, head: int) -> int | None:
        """The position from which a cursor continues. As `Backbone.seek`; O(log n + N) for
        `last`."""
        with self._snapshot():
            if cursor.kind == "after":
                return self._of_own_id(cursor.text)
            selection = self._selections.find(self._connection, selectors)
            if cursor.kind == "last":
                return self._before_newest(selection, int(cursor.value), head)
            if cursor.kind == "earliest":
                return self._before_earliest(selection, head)
        return None

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _run(self, sql: str, bounds: tuple[int, int, int], limit_bytes: int) -> _Run:
        """The places of a query, as many as the limit allows, at least one."""
        after, through, count = bounds
        places_text, sizes_text = self._connection.execute(
            f"SELECT json_group_array(place), json_group_array(bytes) FROM ({sql})", bounds
        ).fetchone()
        places: list[int] = orjson.loads(places_text)
        if not places:
            return _Run([], through, True)
        sound = _in_order(places, after, through)
        if len(sound) < len(places):
            return _Run(sound, sound[-1], False)
        fitting = max(1, bisect_right(list(accumulate(orjson.loads(sizes_text))), limit_bytes))
        if fitting < len(places) or len(places) == count:
            return _Run(places[:fitting], places[:fitting][-1], False)
        return _Run(places, through, True)

    def _run_looked_at(
        self, selection: Selection, after: int, through: int, limit_bytes: int
    ) -> _Run:
        """Examines events in order. Stops without a match after LOOKED_AT_EVENTS of them."""
        places: list[int] = []
        room_bytes = limit_bytes
        rows = self._connection.execute(
            f"SELECT place, {RECORD} FROM event WHERE place > ? AND place <= ? ORDER BY place",
            (after, through),
        )
        last = after
        for looked_at, (place, record) in enumerate(rows, 1):
            if not last < place <= through:
                if last == after:
                    raise _OutOfOrderError("places are out of order")
                return _Run(places, last, False)
            last = place
            entry = None if record is None else _whole(record, place)
            # A damaged record may match too, so it is reported at its place.
            if entry is None or _meant_topic(entry, selection) is not None:
                room_bytes -= len(record or b"")
                if room_bytes < 0 and places:
                    return _Run(places, places[-1], False)
                places.append(place)
            if looked_at == LOOKED_AT_EVENTS:
                return _Run(places, place, False)
        return _Run(places, through, True)

    def _entries(self, places: list[int], selection: Selection) -> _Found:
        if not places:
            return _Found([])
        try:
            entries = unpack_entries(self._records(places, selection))
        except ValueError:
            return self._whole_ones(places, selection)
        are_there = [place_of(entry.position) for entry in entries] == places
        if are_there and self._are_meant(entries, selection):
            return _Found(entries)
        return self._whole_ones(places, selection)

    def _content(self, topic: str, places: list[int], selection: Selection) -> _Found:
        """As `_entries`, of one topic, without the interpreter's lock where all is whole."""
        records: list[bytes] = []
        if 0 < len(places) <= SINGLE_ROWS_MAX:
            # Joining large records would copy them twice.
            rows = self._connection.execute(_RECORDS_AT, (json.dumps(places),)).fetchall()
            records = [record or b"" for (record,) in rows]
        elif places:
            records = [self._records(places, selection)]
        try:
            content = StoredContent(records, topic, places)
        except ValueError:
            return self._whole_ones(places, selection)
        return _Found([], content=content)

    def _records(self, places: list[int], selection: Selection) -> bytes:
        """The records at places, one behind the other."""
        wanted: tuple[str, tuple[str | int, ...]]
        if selection.topics is None:
            wanted = "BETWEEN ? AND ?", (places[0], places[-1])
        else:
            wanted = "IN (SELECT value FROM json_each(?))", (json.dumps(places),)
        # In one call, so that the interpreter's lock is taken once and not for each event. SQLite
        # leaves the bytes of a text as they are; what an entry says is checked.
        (records,) = self._connection.execute(
            "SELECT CAST(group_concat(CAST(record AS TEXT), '') AS BLOB) FROM"
            f" (SELECT record FROM event WHERE place {wanted[0]} ORDER BY place)",
            wanted[1],
        ).fetchone()
        return records or b""

    def _whole_ones(self, places: list[int], selection: Selection) -> _Found:
        """Reads one by one: a damaged record ends the run, or is skipped at its beginning."""
        entries: list[Entry] = []
        damaged_through = 0
        for place in places:
            found = self._connection.execute(
                f"SELECT {RECORD} FROM event WHERE place = ?", (place,)
            )
            (record,) = found.fetchone() or (None,)
            entry = None if record is None else _whole(record, place)
            if entry is not None and self._are_meant([entry], selection):
                entries.append(entry)
                continue
            why = "the record is missing" if record is None else _why(entry)
            self._damage.found(place, why, record)
            if entries:
                return _Found(entries, place, damaged_through)
            damaged_through = place
        return _Found(entries, 0, damaged_through)

    def _are_meant(self, entries: list[Entry], selection: Selection) -> bool:
        """Whether each entry has a requested topic. The checksum of a record does not cover the
        tree of topics."""
        if selection.topics is None:
            return True
        meant = {selector.text for selector in selection.selectors}
        for entry in entries:
            if meant.isdisjoint(entry.topics):
                matching = _meant_topic(entry, selection)
                if matching is None:
                    return False
                meant.add(matching)
        return True

    def _of_own_id(self, own_id: bytes) -> int | None:
        came_back = as_header_value(own_id)
        rows = self._connection.execute(
            "SELECT place, record FROM event WHERE own_id = ? ORDER BY place", (came_back,)
        )
        for place, record in rows:
            entry = _whole(record, place)
            if entry is not None and as_header_value(entry.own_id or b"") == came_back:
                return position_of(place)
            self._damage.found(place, _why(entry))
        return None

    def _before_newest(self, selection: Selection, count: int, head: int) -> int | None:
        if count == 0:
            return head
        places = self._newest(selection, count, place_of(head))
        return position_of(min(places)) - 1 if len(places) == count else None

    def _newest(self, selection: Selection, count: int, through: int) -> list[int]:
        if selection.topics is None:
            # The kind of a record is its 25th byte: 1 for a control entry.
            sql = (
                "SELECT place FROM event WHERE place <= ? AND substr(record, 25, 1) IS NOT x'01'"
                " ORDER BY place DESC LIMIT ?"
            )
            rows = self._connection.execute(sql, (through, count)).fetchall()
            return [place for (place,) in rows]
        newest: set[int] = set()
        for topic in selection.topics:
            newest.update(self._newest_of_topic(topic, through, count))
            if len(newest) > count + STRETCH_EVENTS:
                newest = set(sorted(newest)[-count:])
        return sorted(newest)[-count:]

    def _before_earliest(self, selection: Selection, head: int) -> int:
        if selection.topics is None:
            (place,) = self._connection.execute("SELECT min(place) FROM event").fetchone()
        else:
            (place,) = self._connection.execute(
                "SELECT min((SELECT min(place) FROM topic_event WHERE topic = value))"
                " FROM json_each(?)",
                (json.dumps(selection.topics),),
            ).fetchone()
        return head if place is None or position_of(place) > head else position_of(place) - 1


def _whole(record: bytes, place: int) -> Entry | None:
    """The entry of a record that was found at a place, if it is whole and its own."""
    try:
        (entry,) = unpack_entries(record)
    except (ValueError, TypeError):
        return None
    return entry if place_of(entry.position) == place else None


def _meant_topic(entry: Entry, selection: Selection) -> str | None:
    """A topic of the entry that a selector matches."""
    for topic in entry.topics:
        if any(selector.matches(topic) for selector in selection.selectors):
            return topic
    return None


def _why(entry: Entry | None) -> str:
    return "the record is damaged" if entry is None else "the event is another's"
