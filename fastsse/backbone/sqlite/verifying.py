"""Checks a file for damage when a server opens it.

SQLite finds damage only where it reads, and some of it never: a topic's tree that names a place of
no event is a sound tree. So all pages are read once, in a thread with its own connection. A small
file is checked before it is served. While a large one is checked, publishes are accepted and
streams open, but the service does not count as ready.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Final

from fastsse.backbone.sqlite.errors import HistoryError, trouble_of
from fastsse.backbone.sqlite.schema import Connect, open_reading
from fastsse.backbone.sqlite.values import WRONG_TYPES
from fastsse.log import get_logger

__all__ = ["CHECKS", "FileVerifier", "cut_short"]

log = get_logger("history")

# How long a start waits for the result.
WAIT_S: Final = 1.0
# The check ends after this time, because its snapshot prevents the log from starting again.
GIVE_UP_S: Final = 120.0
# SQLite steps between two reads of the clock: about a millisecond.
STEPS: Final = 50_000

# A tree whose rows are out of order, or an index that names other rows, is found by the full check
# only. Records have checksums, so the table of events does not need it.
_STRUCTURE: Final = {
    "pages": "PRAGMA quick_check(1)",
    "tree of topics": "PRAGMA integrity_check(topic)",
    "trees of kept events": "PRAGMA integrity_check(topic_event)",
}
# Queries that must return no row, by the name of the check, and what a row means.
_NOTHING: Final = {
    "types": (WRONG_TYPES, "a value is of another type than its column"),
    "counts of topics": (
        "SELECT 1 FROM topic LEFT JOIN (SELECT topic, count(*) AS kept FROM topic_event"
        " GROUP BY topic) ON topic = number WHERE coalesce(kept, 0) <> topic.events LIMIT 1",
        "a topic does not count what it keeps",
    ),
    "names of topics": (
        "SELECT 1 FROM topic_event LEFT JOIN topic ON number = topic WHERE number IS NULL LIMIT 1",
        "a topic has no name",
    ),
    "events of topics": (
        "SELECT 1 FROM topic_event LEFT JOIN event USING (place) WHERE event.place IS NULL LIMIT 1",
        "a topic keeps an event that is not there",
    ),
    "count of events": (
        "SELECT 1 FROM state WHERE events <> (SELECT count(*) FROM event)",
        "the file does not count what it holds",
    ),
}
#: The names of all checks, in order.
CHECKS: Final = (*_STRUCTURE, *_NOTHING)


class FileVerifier:
    """Checks one file, once.

    Arguments:
        path: the file.
        connect: opens the connection.
        done: called from its thread when it has ended.

    Attributes:
        is_under_way: whether the check still runs.
        unchecked: names of the checks that were not finished in time; empty before the end.
        problem: what it found, in a few words; None: nothing so far.
    """

    def __init__(self, path: str, connect: Connect, done: Callable[[], None]) -> None:
        self._path: Final = path
        self._connect: Final = connect
        self._done: Final = done
        self._stops = False
        self._deadline_s = time.monotonic() + GIVE_UP_S
        self.is_under_way = True
        self.unchecked: tuple[str, ...] = ()
        self.problem: str | None = None
        self._thread: Final = threading.Thread(
            target=self._run, name="fastsse-history-verifier", daemon=True
        )

    def start(self) -> bool:
        """Starts the check and returns whether it has ended. Waits at most WAIT_S. Call it once."""
        self._thread.start()
        self._thread.join(WAIT_S)
        return not self.is_under_way

    def stop(self) -> None:
        """Ends it, and waits for that."""
        self._stops = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self.problem = self._look()
        finally:
            self.is_under_way = False
            self._done()

    def _look(self) -> str | None:
        try:
            connection = open_reading(self._path, self._connect)
        except HistoryError as error:
            return error.why
        name = CHECKS[0]
        try:
            connection.set_progress_handler(self._must_stop, STEPS)
            connection.execute("BEGIN")
            for name in CHECKS:
                problem = _problem(connection, name)
                if problem is not None:
                    return problem
            return None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                self._give_up(name)
                return None
            return trouble_of(error).words
        finally:
            connection.close()

    def _give_up(self, name: str) -> None:
        """A check was stopped by its deadline, or because the server stops."""
        if self._stops:
            return
        self.unchecked = CHECKS[CHECKS.index(name) :]
        log.warning(
            "History is too large to be checked in time; it is served unchecked.",
            path=self._path,
            after_s=GIVE_UP_S,
            unchecked=self.unchecked,
        )

    def _must_stop(self) -> bool:
        return self._stops or time.monotonic() > self._deadline_s


def _problem(connection: sqlite3.Connection, name: str) -> str | None:
    """The result of one check, in a few words."""
    if name in _STRUCTURE:
        (line,) = connection.execute(_STRUCTURE[name]).fetchone()
        return None if line == "ok" else str(line).splitlines()[-1]
    sql, words = _NOTHING[name]
    return None if connection.execute(sql).fetchone() is None else words


def cut_short(path: str) -> str | None:
    """The missing part of a file without a log, according to the number of pages in its header
    (SQLite file format 1.3); None: nothing. Call it before SQLite opens the file."""
    try:
        with open(path, "rb") as file:
            head = file.read(100)
            size_bytes = os.fstat(file.fileno()).st_size
    except OSError:
        return None  # The next open reports why it can't be read.
    if len(head) < 100 or head[24:28] != head[92:96]:
        return None
    page_bytes = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    there = size_bytes // (65_536 if page_bytes == 1 else max(page_bytes, 512))
    return None if there >= pages else f"{pages - there} of its {pages} pages are gone"
