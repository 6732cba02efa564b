"""The schema of the file: its tables, how connections are opened, and which files are refused.

Tables:
    event: every stored event once, by place; the record contains everything about it.
    topic: names, what is kept of each, up to where events of it were evicted, and where it ended.
    topic_event: which events a topic keeps, in order; `shared` is 1 where other topics have it too,
        2 for a control entry, 3 for a deleted event.
    publish: the keys of recent batches, so that a repeated batch is recognised.
    state: one row about the whole; see `State`.
    control: what control services keep over restarts.
    meta: further values about the whole, by name.
    time_mark: the times of places where positions were ahead of the clock.

Version 2 has records of entry format 2, `meta` and `time_mark`; a file of version 1 is upgraded
when it is opened for writing (`upgrade.py`). Version 3 is version 2 of which rows may be missing
(`late_rows.py`): a file in use, or one that was not closed cleanly. A record of no bytes stands for
an event that was lost: readers get a gap event there.

Each connection is used by one thread at a time.
"""

import os
import sqlite3
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import quote
from uuid import uuid4

from fastsse.backbone.sqlite.additions import add_missing
from fastsse.backbone.sqlite.errors import HistoryError, trouble_of
from fastsse.backbone.sqlite.upgrade import NEW_TABLES, upgrade
from fastsse.entries import Entry, unpack_entries, unpack_entries_1

__all__ = [
    "VERSION",
    "VERSION_LATE",
    "Connect",
    "State",
    "check_path",
    "open_reading",
    "open_writing",
    "read_state",
    "unpacker",
    "versions",
]

Connect = Callable[..., sqlite3.Connection]

APPLICATION_ID: Final = 0x46535345
VERSION: Final = 2
# The same while rows may be missing that are written late. Programs of before that refuse the file.
VERSION_LATE: Final = 3
# For another program that holds the file for a moment, such as the sqlite3 shell.
BUSY_TIMEOUT_MS: Final = 1_000
WRITE_CACHE_KIB: Final = 32 * 1024
READ_CACHE_KIB: Final = 8 * 1024
STATEMENTS_KEPT: Final = 512

# SQLite's message about a damaged schema quotes it, and need not be UTF-8.
_UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)

_TABLES: Final = """
CREATE TABLE event (place INTEGER PRIMARY KEY, own_id BLOB, record BLOB NOT NULL);
CREATE INDEX event_own_id ON event (own_id) WHERE own_id IS NOT NULL;
CREATE TABLE topic (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    events INTEGER NOT NULL, bytes INTEGER NOT NULL, evicted_through INTEGER NOT NULL
);
CREATE INDEX topic_empty ON topic (evicted_through) WHERE events = 0;
CREATE TABLE topic_event (
    topic INTEGER NOT NULL, place INTEGER NOT NULL, bytes INTEGER NOT NULL,
    shared INTEGER NOT NULL, PRIMARY KEY (topic, place)
) WITHOUT ROWID;
CREATE TABLE publish (
    place INTEGER PRIMARY KEY, worker BLOB NOT NULL, n INTEGER NOT NULL, events INTEGER NOT NULL
);
CREATE UNIQUE INDEX publish_key ON publish (worker, n);
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1), leased_through INTEGER NOT NULL,
    evicted_through INTEGER NOT NULL, forgotten_through INTEGER NOT NULL,
    events INTEGER NOT NULL, bytes INTEGER NOT NULL, next_topic INTEGER NOT NULL,
    ack TEXT NOT NULL, boot TEXT NOT NULL, identity TEXT NOT NULL DEFAULT '',
    commits INTEGER NOT NULL DEFAULT 0, lost_through INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE desk (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
_COLUMNS: Final = {
    "event": "place, own_id, record",
    "topic": "number, name, events, bytes, evicted_through, ended",
    "topic_event": "topic, place, bytes, shared",
    "publish": "place, worker, n, events",
    "state": "one",
    "desk": "key, value",
    "meta": "key, value",
    "time_mark": "time, place",
}


class State(NamedTuple):
    """The state of the file as a whole. Numbers are places.

    `leased_through`: no position up to here is used again. `evicted_through`: events were evicted
    up to here. `forgotten_through`: up to here nothing is known of topics without a row. `ack` and
    `boot`: the acknowledgement option and the start of the machine of the present writer; both are
    empty after a clean end. `identity` is the file's own, `commits` counts what changed it; see
    `commits`. `lost_through`: up to here events may be missing that were not evicted.
    """

    leased_through: int
    evicted_through: int
    forgotten_through: int
    events: int
    bytes: int
    next_topic: int
    ack: str
    boot: str
    identity: str = ""
    commits: int = 0
    lost_through: int = 0


def check_path(path: str) -> None:
    """Raises HistoryError if a path can't be a history file, before anything is opened."""
    if os.path.isdir(path):
        raise HistoryError(path, "is a directory; name a file in it")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise HistoryError(path, f"can't be made: there is no directory {folder}")
    if not os.path.exists(path):
        return
    if not os.path.isfile(path):
        raise HistoryError(path, "is not a regular file")


def open_writing(
    path: str, start: int, connect: Connect = sqlite3.connect, must_exist: bool = False
) -> sqlite3.Connection:
    """A connection that may write; the file is made when there is none.

    Arguments:
        start: the place at which a new file begins.
        connect: opens it; tests pass one with a failing disk.

    Raises HistoryError.
    """
    check_path(path)
    try:
        connection = _connect(path, "rw" if must_exist else "rwc", connect)
    except sqlite3.Error as error:
        raise HistoryError(path, f"can't be used: {trouble_of(error).words}") from error
    try:
        _prepare_writing(connection, path, start)
    except _UNREADABLE as error:
        connection.close()
        raise HistoryError(path, f"can't be used: {trouble_of(error).words}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_reading(path: str, connect: Connect = sqlite3.connect) -> sqlite3.Connection:
    """A read-only connection to an existing file. Raises HistoryError."""
    if not os.path.exists(path):
        raise HistoryError(path, "is not there")
    check_path(path)
    try:
        connection = _connect(path, "ro", connect)
        try:
            connection.execute(f"PRAGMA cache_size = {-READ_CACHE_KIB}")
            _check_versions(connection, path)
        except BaseException:
            connection.close()
            raise
    except _UNREADABLE as error:
        raise HistoryError(path, f"can't be read: {trouble_of(error).words}") from error
    return connection


def read_state(connection: sqlite3.Connection) -> State:
    """The one row of `state`."""
    # Version 1 ends with `boot`.
    names = State._fields if versions(connection)[1] > 1 else State._fields[:-3]
    row = connection.execute(f"SELECT {', '.join(names)} FROM state").fetchone()
    if row is None or None in row:
        raise sqlite3.DatabaseError("the state of the file is not there")
    return State(*row)


def unpacker(connection: sqlite3.Connection) -> Callable[[bytes], list[Entry]]:
    """The function that reads the records of a file. A file that was not opened for writing since
    the upgrade of the program has records of version 1."""
    return unpack_entries_1 if versions(connection)[1] == 1 else unpack_entries


def versions(connection: sqlite3.Connection) -> tuple[int, int]:
    """Checks which program made the file, and its schema version."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application_id, version


def _connect(path: str, mode: str, connect: Connect) -> sqlite3.Connection:
    connection = connect(
        f"file:{quote(os.path.abspath(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_KEPT,
    )
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


def _prepare_writing(connection: sqlite3.Connection, path: str, start: int) -> None:
    if versions(connection) == (0, 0) and _is_empty(connection):
        _make(connection, start)
    _check_versions(connection, path)
    (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal != "wal":
        raise HistoryError(
            path, "can't have a write-ahead log: its file system has no shared memory"
        )
    # The writer starts checkpoints itself, so that it sees all of their errors.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute(f"PRAGMA cache_size = {-WRITE_CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")
    if versions(connection)[1] < VERSION:
        upgrade(connection, path, VERSION)
    add_missing(connection)
    _check_columns(connection, path)
    # A write without a change fails for a read-only file.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")


def _check_columns(connection: sqlite3.Connection, path: str) -> None:
    """A bit that was flipped in the schema's text may give a column another name."""
    try:
        for table, columns in _COLUMNS.items():
            connection.execute(f"SELECT {columns} FROM {table} LIMIT 0").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise HistoryError(path, f"can't be used: the file is damaged: {error}") from error


def _is_empty(connection: sqlite3.Connection) -> bool:
    return not connection.execute("SELECT 1 FROM sqlite_schema").fetchall()


def _make(connection: sqlite3.Connection, start: int) -> None:
    """In one transaction, so a file whose creation was interrupted is empty."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in (_TABLES + NEW_TABLES).split(";\n"):
            if statement.strip():
                connection.execute(statement)
        row = State(start, start, start, 0, 0, 1, "", "", uuid4().hex)
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO state VALUES (1, {marks})", row)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_versions(connection: sqlite3.Connection, path: str) -> None:
    application_id, version = versions(connection)
    if application_id != APPLICATION_ID:
        raise HistoryError(path, "belongs to another program, or is empty")
    if version > VERSION_LATE:
        raise HistoryError(
            path,
            f"was written by a newer fastsse (version {version}; this one reads {VERSION_LATE})",
        )
