"""Whether a file is sound, looked at when a server opens it.

SQLite finds damage only where it reads, and some of it never: a topic's tree that names a place of
no event is a sound tree. So all pages are looked at once, in a thread and on a connection of its
own. A small file is done before it is served. While a large one is read, events are taken and
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

__all__ = ["FileVerifier", "cut_short"]

# A start waits so long for the result.
WAIT_S: Final = 1.0
# A snapshot keeps the log from starting again, so it is given up after that.
GIVE_UP_S: Final = 120.0
# Between two looks at the clock: about a millisecond.
STEPS: Final = 50_000

# A tree whose rows are out of order, or an index that names other rows, is found by the full check
# only. Records have checksums, so the table of events does not need it.
_CHECKS: Final = (
    "PRAGMA quick_check(1)",
    "PRAGMA integrity_check(topic)",
    "PRAGMA integrity_check(topic_event)",
)
# What must be empty, and what it means when it is not.
_NOTHING: Final = {
    WRONG_TYPES: "a value is of another type than its column",
    "SELECT 1 FROM topic LEFT JOIN (SELECT topic, count(*) AS kept FROM topic_event GROUP BY topic)"
    " ON topic = number WHERE coalesce(kept, 0) <> topic.events LIMIT 1": (
        "a topic does not count what it keeps"
    ),
    "SELECT 1 FROM topic_event LEFT JOIN topic ON number = topic WHERE number IS NULL LIMIT 1": (
        "a topic has no name"
    ),
    "SELECT 1 FROM topic_event LEFT JOIN event USING (place) WHERE event.place IS NULL LIMIT 1": (
        "a topic keeps an event that is not there"
    ),
    "SELECT 1 FROM state WHERE events <> (SELECT count(*) FROM event)": (
        "the file does not count what it holds"
    ),
}


class FileVerifier:
    """Looks at one file, once.

    Arguments:
        path: the file.
        connect: opens the connection.
        done: called from its thread when it has ended.

    Attributes:
        is_under_way: whether it still looks.
        problem: what it found, in a few words; None: nothing, yet or at all.
    """

    def __init__(self, path: str, connect: Connect, done: Callable[[], None]) -> None:
        self._path: Final = path
        self._connect: Final = connect
        self._done: Final = done
        self._stops = False
        self._deadline_s = time.monotonic() + GIVE_UP_S
        self.is_under_way = True
        self.problem: str | None = None
        self._thread: Final = threading.Thread(
            target=self._run, name="fastsse-history-verifier", daemon=True
        )

    def start(self) -> bool:
        """Begins; returns whether it is done already. Waits for WAIT_S at most. Once."""
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
        try:
            connection.set_progress_handler(self._must_stop, STEPS)
            connection.execute("BEGIN")
            for check in _CHECKS:
                (line,) = connection.execute(check).fetchone()
                if line != "ok":
                    return str(line).splitlines()[-1]
            for sql, words in _NOTHING.items():
                if connection.execute(sql).fetchone() is not None:
                    return words
            return None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                return None
            return trouble_of(error).words
        finally:
            connection.close()

    def _must_stop(self) -> bool:
        return self._stops or time.monotonic() > self._deadline_s


def cut_short(path: str) -> str | None:
    """What is missing of a file that has no log, by the number of pages that its header names
    (SQLite file format 1.3); None: nothing. To be asked before SQLite opens it."""
    try:
        with open(path, "rb") as file:
            head = file.read(100)
            size_bytes = os.fstat(file.fileno()).st_size
    except OSError:
        return None  # Who opens it next says why it can't be read.
    if len(head) < 100 or head[24:28] != head[92:96]:
        return None
    page_bytes = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    there = size_bytes // (65_536 if page_bytes == 1 else max(page_bytes, 512))
    return None if there >= pages else f"{pages - there} of its {pages} pages are gone"
