"""Reading stretches and finding places, each in one snapshot of the file.

Whatever the size of the file, a stretch of some topics costs a search in one tree for each of
them, and then what it gives out. Only a template that means very many topics has the events
themselves looked at, a bounded number a call.
"""

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

import orjson

from fastsse.backbone import Stretch
from fastsse.backbone.sqlite.evictions import Evictions, Marks
from fastsse.backbone.sqlite.places import place_of, position_of
from fastsse.backbone.sqlite.selection import Selection, Selections
from fastsse.entries import Entry, unpack_entries
from fastsse.events import as_header_value
from fastsse.evicted import Evicted, steps_of
from fastsse.subscriptions import Cursor

__all__ = ["Reading"]

# Events of one stretch, at most.
STRETCH_EVENTS: Final = 4_096
# Looked for beyond what should fill a page, where events are smaller than the mean.
SPARE_EVENTS: Final = 32
# Snapshots that are tried until nothing is evicted between their begin and a look at the marks.
SNAPSHOTS_MAX: Final = 8
# Topics whose trees are walked side by side; with more of them events are looked at instead.
WALKED_TOPICS_MAX: Final = 400
LOOKED_AT_EVENTS: Final = 20_000


class _Run(NamedTuple):
    """Places of events to give out, up to where they are all that match, and if that is the end."""

    places: list[int]
    through: int
    is_last: bool


_ALL: Final = (
    "SELECT place, length(record) AS bytes FROM event WHERE place > ?1 AND place <= ?2"
    " ORDER BY place LIMIT ?3"
)


@lru_cache(maxsize=256)
def _walk(topics: tuple[int, ...]) -> str:
    """Walks the trees of these topics side by side; an event of several comes once."""
    walk = " UNION ".join(
        f"SELECT place, bytes FROM topic_event WHERE topic = {topic} AND place > ?1 AND place <= ?2"
        for topic in topics
    )
    return f"{walk} ORDER BY place LIMIT ?3"


class Reading:
    """Reads on one connection, for one thread.

    Arguments:
        connection: opened for reading.
        evictions: what is evicted meanwhile.
    """

    def __init__(self, connection: sqlite3.Connection, evictions: Evictions) -> None:
        self._connection: Final = connection
        self._evictions: Final = evictions
        self._selections: Final = Selections()

    def stretch(
        self, selectors: tuple[str, ...], after: int, through: int, limit_bytes: int
    ) -> Stretch:
        """The matching entries after one position and up to another. As `Backbone.read`."""
        first, last = place_of(after), place_of(through)
        with self._marked_snapshot(selectors) as (selection, marks):
            evicted = self._evicted(selection, marks, after)
            count = min(STRETCH_EVENTS, limit_bytes // selection.mean_bytes + SPARE_EVENTS)
            if selection.topics is None:
                run = self._run(_ALL, (first, last, count), limit_bytes)
            elif not selection.topics:
                run = _Run([], last, True)
            elif len(selection.topics) <= WALKED_TOPICS_MAX:
                run = self._run(_walk(tuple(selection.topics)), (first, last, count), limit_bytes)
            else:
                run = self._run_looked_at(selection, first, last, limit_bytes)
            entries = self._entries(run.places, in_a_row=selection.topics is None)
        # Where nothing was left out the stretch reaches as far as was asked, to the position.
        reached = through if run.is_last else position_of(run.through)
        return Stretch(entries, reached, run.is_last, evicted)

    @contextmanager
    def _marked_snapshot(self, selectors: tuple[str, ...]) -> Iterator[tuple[Selection, Marks]]:
        """A snapshot, what the selectors mean in it, and the marks that belong to it. If others
        are settled again and again meanwhile, the last ones may belong to a later snapshot: then
        an eviction is reported too early."""
        for left in reversed(range(SNAPSHOTS_MAX)):
            settled = self._evictions.settled
            with self._snapshot():
                selection = self._selections.find(self._connection, selectors)
                marks = self._evictions.of(selection.topics)
                if marks.settled == settled or not left:
                    yield selection, marks
                    return

    def _evicted(self, selection: Selection, marks: Marks, after: int) -> Evicted:
        clock, evictions = marks.settled, marks.steps
        if marks.probe is not None and self._sees(*marks.probe):
            clock, evictions = marks.clock, evictions + marks.under_way
        evictions = [*evictions, (self._evictions.began, selection.evicted_through)]
        positions = [(at, position_of(place)) for at, place in evictions]
        steps = steps_of([step for step in positions if step[1] > after])
        return Evicted(clock, steps, position_of(selection.begins))

    def _sees(self, topic: int, evicted_through: int) -> bool:
        found = self._connection.execute(
            "SELECT evicted_through FROM topic WHERE number = ?", (topic,)
        ).fetchone()
        return found is not None and found[0] >= evicted_through

    def place(self, selectors: tuple[str, ...], cursor: Cursor, head: int) -> int | None:
        """The position from which a cursor goes on. As `Backbone.seek`; O(log n + N) for `last`."""
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
        """As many of the places that a query gives as the limit allows; at least one."""
        _, through, count = bounds
        places_text, sizes_text = self._connection.execute(
            f"SELECT json_group_array(place), json_group_array(bytes) FROM ({sql})", bounds
        ).fetchone()
        places: list[int] = orjson.loads(places_text)
        if not places:
            return _Run([], through, True)
        fitting = max(1, bisect_right(list(accumulate(orjson.loads(sizes_text))), limit_bytes))
        if fitting < len(places) or len(places) == count:
            return _Run(places[:fitting], places[:fitting][-1], False)
        return _Run(places, through, True)

    def _run_looked_at(
        self, selection: Selection, after: int, through: int, limit_bytes: int
    ) -> _Run:
        """Looks at events in their order; ends without a match after LOOKED_AT_EVENTS of them."""
        places: list[int] = []
        room_bytes = limit_bytes
        rows = self._connection.execute(
            "SELECT place, record FROM event WHERE place > ? AND place <= ? ORDER BY place",
            (after, through),
        )
        for looked_at, (place, record) in enumerate(rows, 1):
            (entry,) = unpack_entries(record)
            if any(s.matches(topic) for topic in entry.topics for s in selection.selectors):
                room_bytes -= len(record)
                if room_bytes < 0 and places:
                    return _Run(places, places[-1], False)
                places.append(place)
            if looked_at == LOOKED_AT_EVENTS:
                return _Run(places, place, False)
        return _Run(places, through, True)

    def _entries(self, places: list[int], in_a_row: bool) -> list[Entry]:
        if not places:
            return []
        if len(places) == 1:
            sql = "SELECT record FROM event WHERE place = ?"
            return unpack_entries(self._connection.execute(sql, places).fetchone()[0])
        wanted: tuple[str, tuple[str | int, ...]]
        if in_a_row:
            wanted = "BETWEEN ? AND ?", (places[0], places[-1])
        else:
            wanted = "IN (SELECT value FROM json_each(?))", (json.dumps(places),)
        # In one step, so that the interpreter's lock is asked for once and not for each event.
        (text,) = self._connection.execute(
            "SELECT group_concat(hex(record), '') FROM"
            f" (SELECT record FROM event WHERE place {wanted[0]} ORDER BY place)",
            wanted[1],
        ).fetchone()
        return unpack_entries(bytes.fromhex(text))

    def _of_own_id(self, own_id: bytes) -> int | None:
        (place,) = self._connection.execute(
            "SELECT min(place) FROM event WHERE own_id = ?", (as_header_value(own_id),)
        ).fetchone()
        return None if place is None else position_of(place)

    def _before_newest(self, selection: Selection, count: int, head: int) -> int | None:
        if count == 0:
            return head
        places = self._newest(selection, count, place_of(head))
        return position_of(min(places)) - 1 if len(places) == count else None

    def _newest(self, selection: Selection, count: int, through: int) -> list[int]:
        if selection.topics is None:
            sql = "SELECT place FROM event WHERE place <= ? ORDER BY place DESC LIMIT ?"
            rows = self._connection.execute(sql, (through, count)).fetchall()
            return [place for (place,) in rows]
        newest: set[int] = set()
        for topic in selection.topics:
            (found,) = self._connection.execute(
                "SELECT json_group_array(place) FROM (SELECT place FROM topic_event"
                " WHERE topic = ? AND place <= ? ORDER BY place DESC LIMIT ?)",
                (topic, through, count),
            ).fetchone()
            newest.update(json.loads(found))
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
