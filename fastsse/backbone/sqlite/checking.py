"""Checks whether a file is complete: `fastsse history check`."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from fastsse.backbone.sqlite.errors import HistoryError
from fastsse.backbone.sqlite.places import EVENT_COST_BYTES, place_of
from fastsse.backbone.sqlite.position_lease import may_have_lost
from fastsse.backbone.sqlite.schema import State, open_reading, read_state, unpacker
from fastsse.backbone.sqlite.upgrade import LOST_RECORD
from fastsse.backbone.sqlite.values import WRONG_TYPES
from fastsse.entries import Entry
from fastsse.events import as_header_value

__all__ = ["CheckReport", "check"]

PROBLEMS_MAX: Final = 20

# Queries that must return no row, and what a row means.
_NOTHING: Final = {
    WRONG_TYPES: "table {} has a value of another type than its column",
    "SELECT name FROM topic LEFT JOIN topic_event ON topic = number GROUP BY number"
    " HAVING count(topic) <> topic.events OR total(topic_event.bytes) <> topic.bytes": (
        "topic {} does not count what it keeps"
    ),
    "SELECT topic_event.place FROM topic_event LEFT JOIN event USING (place)"
    " WHERE event.place IS NULL": "a topic keeps place {}, which has no event",
    "SELECT topic FROM topic_event LEFT JOIN topic ON number = topic WHERE number IS NULL": (
        "topic number {} has no name"
    ),
    "SELECT name FROM topic JOIN topic_event ON topic = number, state"
    " WHERE place <= topic.evicted_through AND place > state.forgotten_through"
    " GROUP BY number": "topic {} keeps an event from before its eviction",
}


@dataclass
class CheckReport:
    """What a file contains, and its problems, a sentence each."""

    state: State
    topics: int
    first: int | None
    last: int | None
    problems: list[str] = field(default_factory=list)
    lost: int = 0  # Events of which only the place is known. Readers get a gap event there.

    @property
    def is_unclean(self) -> bool:
        """Whether it was left by a process that was killed, or is in use."""
        return bool(self.state.ack)

    @property
    def may_have_lost(self) -> bool:
        """Whether events that clients have received may be missing."""
        return may_have_lost(self.state)


def check(path: str) -> CheckReport:
    """Reads all of a file, in one snapshot; a server may use it meanwhile.

    Raises HistoryError when it can't be read at all. O(events).
    """
    connection = open_reading(path)
    try:
        connection.execute("BEGIN")
        report = _report(connection)
        for problem in _problems(connection, report):
            report.problems.append(problem)
            if len(report.problems) == PROBLEMS_MAX:
                report.problems.append("and perhaps more")
                break
        return report
    except sqlite3.DatabaseError as error:
        raise HistoryError(path, f"is damaged: {error}") from error
    finally:
        connection.close()


def _report(connection: sqlite3.Connection) -> CheckReport:
    (topics,) = connection.execute("SELECT count(*) FROM topic").fetchone()
    first, last = connection.execute(
        "SELECT (SELECT min(place) FROM event), (SELECT max(place) FROM event)"
    ).fetchone()
    return CheckReport(read_state(connection), topics, first, last)


def _problems(connection: sqlite3.Connection, report: CheckReport) -> Iterator[str]:
    for (line,) in connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})"):
        if line != "ok":
            yield str(line)
    for sql, words in _NOTHING.items():
        for (value,) in connection.execute(f"{sql} LIMIT {PROBLEMS_MAX}"):
            yield words.format(value)
    yield from _problems_of_events(connection, report)


def _problems_of_events(connection: sqlite3.Connection, report: CheckReport) -> Iterator[str]:
    state = report.state
    events = total_bytes = kept = 0
    unpack = unpacker(connection)
    for place, own_id, record in connection.execute(
        "SELECT place, own_id, record FROM event ORDER BY place"
    ):
        events += 1
        total_bytes += len(record or b"") + EVENT_COST_BYTES
        if record == LOST_RECORD:
            report.lost += 1
            continue
        try:
            (entry,) = unpack(record)
        except (ValueError, TypeError) as error:
            yield f"the event at place {place} can't be read: {error}"
            continue
        kept += len(entry.topics)
        if place_of(entry.position) != place or own_id != _own_id(entry):
            yield f"the event at place {place} is another one"
    if (events, total_bytes) != (state.events, state.bytes):
        yield f"the file counts {state.events} events and holds {events}"
    (rows,) = connection.execute(
        "SELECT count(*) FROM topic_event LEFT JOIN event USING (place) WHERE length(record) > 0"
    ).fetchone()
    if rows > kept:
        yield "topics keep events that are not theirs"


def _own_id(entry: Entry) -> bytes | None:
    return None if entry.own_id is None else as_header_value(entry.own_id)
