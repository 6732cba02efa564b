"""The least that SQLite needs for appends to many streams, without a server: what of the growing
cost of an append is the file's own.

Each round is a transaction of 50 appends to as many streams, with the pages of the store: the
record, its place in the tree of its stream, and the row of the stream. `trees` is without rows,
`records` without trees too.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from bench.streams.appends import BODY, WRITERS

PARTS = ("records", "trees", "rows")
_ROUNDS = 200
_RUNS = 3
_RECORD = b"\0" * 120 + BODY
_ROW = b"\0" * 260
_TABLES = (
    "CREATE TABLE event (place INTEGER PRIMARY KEY, own_id BLOB, record BLOB NOT NULL)",
    "CREATE TABLE topic_event (topic INTEGER NOT NULL, place INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, shared INTEGER NOT NULL, PRIMARY KEY (topic, place)) WITHOUT ROWID",
    "CREATE TABLE stream (topic TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID",
)


class Floor:
    """One file with so many streams, each with one append."""

    def __init__(self, path: Path, streams: int, part: str) -> None:
        self._streams = streams
        self._level = PARTS.index(part)
        self._place = self._turn = 0
        self._connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
            f"PRAGMA cache_size = {-32 * 1024}",
            *_TABLES,
        ):
            self._connection.execute(statement).fetchall()
        for first in range(0, streams, WRITERS):
            self._store(range(first, min(streams, first + WRITERS)))

    def append_us(self) -> float:
        """CPU of this thread for an append, in µs."""
        began = time.thread_time_ns()
        for _ in range(_ROUNDS):
            topics = [(self._turn + 7919 * n) % self._streams for n in range(1, 1 + WRITERS)]
            self._turn = topics[-1]
            self._store(topics)
        return (time.thread_time_ns() - began) / 1000 / (_ROUNDS * WRITERS)

    def _store(self, topics: Sequence[int]) -> None:
        places = range(self._place + 1, self._place + 1 + len(topics))
        self._place = places[-1]
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        _insert(run, "event", [(place, None, _RECORD) for place in places])
        if self._level > 0:
            pairs = zip(topics, places, strict=True)
            _insert(run, "topic_event", [(topic, place, 400, 0) for topic, place in pairs])
        if self._level > 1:
            # As in the store, a stream that is there twice is written once.
            rows = [(f"s{topic}", _ROW) for topic in dict.fromkeys(topics)]
            more = " ON CONFLICT (topic) DO UPDATE SET row = excluded.row"
            _insert(run, "stream", rows, more)
        run("COMMIT")

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


def _insert(run: object, table: str, rows: Sequence[tuple[object, ...]], more: str = "") -> None:
    marks = ",".join(["(" + ",".join("?" * len(rows[0])) + ")"] * len(rows))
    assert callable(run)
    run(f"INSERT INTO {table} VALUES {marks}{more}", [one for row in rows for one in row])


def floor(folder: Path, counts: Sequence[int]) -> str:
    """CPU µs of an append by the number of streams, for each part; medians."""
    said = []
    for count in counts:
        found = []
        for part in PARTS:
            path = folder / f"{part}-{count}.db"
            file = Floor(path, count, part)
            found.append(statistics.median(file.append_us() for _ in range(_RUNS)))
            file.close()
            os.unlink(path)
        parts = ", ".join(f"{part} {us:.1f}" for part, us in zip(PARTS, found, strict=True))
        said.append(f"{count}: {parts} µs")
    return "  ".join(said)
