"""Rows that are written late: where the trees of durable streams have their events, and the rows of
the streams.

An append to a stream changes pages that depend on the stream: of its tree, of its topic's row and
of its own row. With many streams each append would write all of them. So an append writes its event
alone. Rows of many appends are written together later, in the order of the streams' names. The file
says up to which place all events have their rows. After a crash the rows of later events are made
again from the events.

In every committed state the tree of a topic and its counts agree. Readers of a topic wait until its
rows are written.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Final

from fastsse._appends import add_rows, pack_appends
from fastsse.backbone.sqlite.errors import is_malformed
from fastsse.backbone.sqlite.places import EVENT_COST_BYTES, place_of
from fastsse.backbone.sqlite.statements import NewEvents, insert
from fastsse.backbone.sqlite.values import RECORD
from fastsse.backbone.stream_rows import RowChange, replayed
from fastsse.entries import Entries, Entry, unpack_entries
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY

if TYPE_CHECKING:
    from fastsse.backbone.sqlite.file import HistoryFile

__all__ = [
    "LateRows",
    "is_content",
    "make_rows",
    "read_through",
    "store_through",
    "write_all_rows",
    "write_rows",
    "write_step",
]

_PAIR: Final = Struct("=qq")
# Rows are written when so much was stored since the last time; after a crash so much is read. The
# rows of a stream cost about as much as 20 events, so with many streams more events share them.
ROUND_EVENTS: Final = 64 * 1024
EVENTS_A_STREAM: Final = 16
ROUND_EVENTS_MAX: Final = 512 * 1024
ROUND_BYTES: Final = 256 * 1024 * 1024
# Names that are sorted at once: longer lists would hold the interpreter's lock for too long.
SORTED_NAMES: Final = 4_096
# Streams of one transaction: 5 to 20 ms.
STEP_STREAMS: Final = 1_024
# About so much is inserted at once, so that little memory is in use; a multiple of a pair.
INSERT_BYTES: Final = 256 * 16
INSERT_VALUES: Final = 256 * 4
# Events that are read at once after a crash.
STEP_EVENTS: Final = 1_000


class LateRows:
    """What is to be written. Used by the thread that writes; `concerns` by any thread.

    Arguments:
        through: all events up to this place have their rows. The rest is made from the events.
        topics: those of later events, as far as `concerns` is asked before that.

    Attributes:
        last_place: the newest event that is stored.
        size_bytes: what topics keep more than their rows say.
        are_known: whether rows were made from the events since this was made.
    """

    def __init__(self, through: int = 0, topics: Collection[str] = ()) -> None:
        self.through: Final = through
        self._doubtful: Collection[str] = topics
        self.last_place = through
        self.size_bytes = 0
        self.are_known = False
        # By topic: place and size of each event without a row, one behind the other (`_PAIR`).
        self._kept: dict[str, bytearray] = {}
        self._taken: list[str] = []
        self._stored_events = self._stored_bytes = 0
        self._round: Iterator[str] | None = None
        self._is_last_step = False
        self._round_through = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, topic: str, place: int, size_bytes: int) -> None:
        """Notes an event of one topic, which the transaction under way stores."""
        self._kept.setdefault(topic, bytearray()).extend(_PAIR.pack(place, size_bytes))
        self.size_bytes += size_bytes

    def add_appends(self, entries: Entries, events: NewEvents) -> int:
        """As `add`, all entries of a batch, of which each is content of one stream. What
        the file is to store of them is added to `events`. Returns their bytes. O(bytes)."""
        first = place_of(entries[0].position)
        size_bytes = pack_appends(entries, first, EVENT_COST_BYTES, *events, self._kept)
        self.size_bytes += size_bytes
        return size_bytes

    def note(self, last_place: int, events: int, size_bytes: int) -> None:
        """Counts what the transaction under way stores, with rows or without."""
        self.last_place = max(self.last_place, last_place)
        self._stored_events += events
        self._stored_bytes += size_bytes

    @property
    def are_due(self) -> bool:
        """Whether rows should be written now."""
        enough = max(ROUND_EVENTS, EVENTS_A_STREAM * len(self._kept))
        return (
            self._round is not None
            or self._stored_events >= min(enough, ROUND_EVENTS_MAX)
            or self._stored_bytes >= ROUND_BYTES
        )

    @property
    def are_missing(self) -> bool:
        """Whether rows are missing when the transaction under way is committed. O(topics that it
        writes)."""
        return any(self._kept.values())

    def concerns(self, selectors: Iterable[str], *, by_topic: bool = False) -> bool:
        """Whether rows of matching topics are missing. For `*` no rows are needed, unless each
        topic is looked at. O(selectors)."""
        kept, doubtful = self._kept, self._doubtful
        return bool(kept or doubtful) and any(
            one in kept
            or one in doubtful
            or (by_topic if one == ANY else not compile_selector(one).is_exact)
            for one in selectors
        )

    def named(self, selectors: Iterable[str]) -> list[str]:
        """The topics without all of their rows that selectors may match; for a template all."""
        if all(one != ANY and compile_selector(one).is_exact for one in selectors):
            return [one for one in selectors if one in self._kept]
        return list(self._kept)

    def newest(self, topic: str) -> int:
        """The newest place of a topic without a row; 0: there is none."""
        kept = self._kept.get(topic)
        return int(_PAIR.unpack(kept[-_PAIR.size :])[0]) if kept else 0

    def take(self, topics: Iterable[str]) -> dict[str, bytearray]:
        """What is to be written of topics, in the transaction under way. `concerns` has them until
        it is committed, because readers do not see it earlier."""
        taken: dict[str, bytearray] = {}
        for topic in topics:
            kept = self._kept.get(topic)
            if kept:
                taken[topic], self._kept[topic] = kept, bytearray()
                self._taken.append(topic)
        return taken

    def next_topics(self, others: Iterable[str]) -> list[str]:
        """The next topics of a round, in the order of names, which writes what there was when it
        began. `others`: streams whose own rows are missing."""
        if self._round is None:
            names = [*self._kept, *(one for one in others if one not in self._kept)]
            parts = range(0, len(names), SORTED_NAMES)
            self._round = merge(*[sorted(names[at : at + SORTED_NAMES]) for at in parts])
            self._round_through = self.last_place
            self._stored_events = self._stored_bytes = 0
        topics = list(islice(self._round, STEP_STREAMS))
        self._is_last_step = len(topics) < STEP_STREAMS
        return topics

    def finished_through(self) -> int | None:
        """Ends a round of which nothing is left; returns up to where all rows are written then."""
        if not self._is_last_step:
            return None
        self._round = None
        return self._round_through

    def committed(self) -> None:
        """The transaction is committed."""
        for topic in self._taken:
            if not self._kept.get(topic, (0,)):
                del self._kept[topic]
        self._taken.clear()
        self._doubtful = ()
        self.are_known = True

    @property
    def topics(self) -> Collection[str]:
        """Topics of which rows are missing."""
        return frozenset(self._kept).union(self._doubtful)


def read_through(connection: sqlite3.Connection) -> int | None:
    """Up to which place all events of a file have their rows; None: it has no late ones."""
    found = connection.execute(
        "SELECT iif(typeof(value) = 'integer', value, 0) FROM meta WHERE key = 'rows_through'"
    ).fetchone()
    return None if found is None else int(found[0])


def store_through(connection: sqlite3.Connection, place: int) -> None:
    """Notes up to which place all events have their rows, within a transaction."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('rows_through', ?)", (place,))


def write_rows(file: "HistoryFile", topics: Iterable[str]) -> None:
    """Writes the missing rows of these topics, within a transaction. O(rows log n)."""
    topics = list(topics)
    taken = file.late.take(topics)
    if taken:
        rows = file.rows_of(set(taken))
        values: list[int] = []
        for name, kept in taken.items():
            for at in range(0, len(kept), INSERT_BYTES):
                some = kept[at : at + INSERT_BYTES]
                size_bytes = add_rows(some, rows[name].number, values)
                rows[name].events += len(some) // _PAIR.size
                rows[name].bytes += size_bytes
                file.late.size_bytes -= size_bytes
                if len(values) >= INSERT_VALUES:
                    _insert(file, values)
        _insert(file, values)
    file.streams.write_late(topics)


def _insert(file: "HistoryFile", values: list[int]) -> None:
    insert(file.connection, "topic_event (topic, place, bytes, shared)", 4, values)
    values.clear()


def write_step(file: "HistoryFile") -> int:
    """Writes some rows of a round, which begins if there is none, within a transaction. Returns of
    how many topics."""
    topics = file.late.next_topics(file.streams.late)
    write_rows(file, topics)
    through = file.late.finished_through()
    if through is not None:
        file.rows_through = through
    return len(topics)


def write_all_rows(file: "HistoryFile") -> None:
    """Writes all rows that are missing, within a transaction."""
    write_rows(file, _all(file))
    file.rows_through = max(file.rows_through, file.late.last_place)


def _all(file: "HistoryFile") -> list[str]:
    return sorted({*file.late.named((ANY,)), *file.streams.late})


def make_rows(file: "HistoryFile") -> None:
    """Makes the rows that are missing from the events that have none, within a transaction.
    O(events after `through`)."""
    file.streams.begin(file.connection)
    rows_end: dict[str, int] = {}
    count = 0
    after = file.rows_through = file.late.through
    if not file.streams.topics:
        # The rows of other topics are never late.
        (last,) = file.connection.execute("SELECT coalesce(max(place), 0) FROM event").fetchone()
        after = max(after, last)
    try:
        while rows := file.connection.execute(
            f"SELECT place, {RECORD} FROM event WHERE place > ? ORDER BY place LIMIT ?",
            (after, STEP_EVENTS),
        ).fetchall():
            _make_rows(file, rows, rows_end)
            after = rows[-1][0]
            count += len(rows)
            if count >= ROUND_EVENTS:  # Rows of many events of a stream cost as much as of one.
                count = 0
                _write_made(file)
    except sqlite3.DatabaseError as error:
        if not is_malformed(error):
            raise
        # Which topics have the events behind it is not known, so all readers get a gap.
        file.damage.found(after, str(error))
        after = max(after, file.last_place)
        file.lose(after)
    _write_made(file)
    file.late.last_place = max(file.late.last_place, after)
    file.rows_through = after


def _make_rows(
    file: "HistoryFile", rows: Sequence[tuple[int, bytes | None]], rows_end: dict[str, int]
) -> None:
    """The same for some events, as rows of the table of events. `rows_end`: the newest row of each
    topic of them that was in the file before."""
    found = {place: _entry(place, record) for place, record in rows if record != b""}
    entries = {place: entry for place, entry in found.items() if entry is not None}
    file.topics.load(file.connection, {name for one in entries.values() for name in one.topics})
    sizes = {place: len(record or b"") for place, record in rows}
    for place, entry in entries.items():
        if not is_content(entry):
            continue
        _replay(file, entry)
        topic = entry.topics[0]
        # The rows of a topic that is no stream any more were written when it was dropped.
        may_be_late = len(entry.topics) == 1 and topic in file.streams.topics
        if topic not in rows_end:
            rows_end[topic] = _newest_row(file, topic)
        # Most are behind the newest row.
        if may_be_late and (place > rows_end[topic] or not _has_row(file, topic, place)):
            file.late.add(topic, place, sizes[place] + EVENT_COST_BYTES)
    _note_damaged(file, [place for place, entry in found.items() if entry is None])


def _write_made(file: "HistoryFile") -> None:
    file.streams.store()
    write_rows(file, _all(file))


def is_content(entry: Entry) -> bool:
    """Whether it is an event that was not deleted."""
    return bool(entry.frame.events) and (entry.extras is None or entry.extras.control is None)


def _replay(file: "HistoryFile", entry: Entry) -> None:
    """Changes the rows of streams that do not have this event yet."""
    for topic in entry.topics:
        row = file.streams.get(topic)
        if row is not None and entry.position > max(row.tail, row.generation):
            file.streams.add([RowChange(topic, replayed(row, topic, entry))])


def _newest_row(file: "HistoryFile", topic: str) -> int:
    row = file.topics.get(topic)
    found = row and file.connection.execute(
        "SELECT max(place) FROM topic_event WHERE topic = ?", (row.number,)
    )
    return (found and found.fetchone()[0]) or 0


def _has_row(file: "HistoryFile", topic: str, place: int) -> bool:
    row = file.topics.get(topic)
    found = row and file.connection.execute(
        "SELECT 1 FROM topic_event WHERE topic = ? AND place = ?", (row.number, place)
    )
    return bool(found and found.fetchone())


def _note_damaged(file: "HistoryFile", places: Sequence[int]) -> None:
    """Of a damaged event without a row no topic is known, so all readers get a gap there."""
    if not places:
        return
    (lost_through,) = file.connection.execute(
        "SELECT max(value) FROM json_each(?) WHERE value NOT IN (SELECT place FROM topic_event)",
        (f"[{','.join(map(str, places))}]",),
    ).fetchone()
    if lost_through is not None:
        file.damage.found(lost_through, "the record is damaged")
        file.lose(lost_through)


def _entry(place: int, record: bytes | None) -> Entry | None:
    try:
        (entry,) = unpack_entries(record or b"")
    except (ValueError, TypeError):
        return None
    return entry if place_of(entry.position) == place else None
