"""A file of schema version 1 becomes one of version 2: in place, in one transaction.

If the upgrade is interrupted, the file is the old one again. It takes 10 to 20 s for a million
events, and as much free room on the disk as the file has, until the log is moved into it.
"""

import sqlite3
import time
from typing import Final

from fastsse.backbone.sqlite.places import EVENT_COST_BYTES, place_of
from fastsse.entries import pack_entry, unpack_entries_1
from fastsse.log import get_logger

__all__ = ["LOST_RECORD", "NEW_TABLES", "upgrade"]

log = get_logger("history")

#: What stands in the place of an event that was lost.
LOST_RECORD: Final = b""
#: What version 2 has in addition to the tables of version 1.
NEW_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE time_mark (time INTEGER PRIMARY KEY, place INTEGER NOT NULL);
"""
_NEW_COLUMNS: Final = (
    "ALTER TABLE state ADD COLUMN identity TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE state ADD COLUMN commits INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE state ADD COLUMN lost_through INTEGER NOT NULL DEFAULT 0",
)
# Records are longer now, and the counts go by their length.
_COUNTS: Final = (
    "UPDATE event SET own_id = NULL WHERE length(record) = 0 AND own_id IS NOT NULL",
    f"UPDATE topic_event SET bytes = coalesce({EVENT_COST_BYTES} + (SELECT length(record)"
    " FROM event WHERE event.place = topic_event.place), bytes)",
    "UPDATE topic SET bytes = coalesce("
    "(SELECT sum(topic_event.bytes) FROM topic_event WHERE topic = number), 0)",
    "UPDATE state SET events = (SELECT count(*) FROM event), bytes ="
    f" coalesce((SELECT sum({EVENT_COST_BYTES} + length(record)) FROM event), 0)",
)


def upgrade(connection: sqlite3.Connection, path: str, version: int) -> None:
    """Has every record in entry format 2, and what counts them. O(events).

    A record that can't be read becomes LOST_RECORD. Raises sqlite3.Error; nothing was changed then.
    """
    (events,) = connection.execute("SELECT events FROM state").fetchone()
    log.info("History of an earlier version is being upgraded.", path=path, events=events)
    began_s = time.monotonic()
    lost: list[int] = []

    def upgraded(place: int, record: bytes) -> bytes:
        try:
            (entry,) = unpack_entries_1(record)
        except (ValueError, TypeError):
            lost.append(place)
            return LOST_RECORD
        if place_of(entry.position) != place:
            lost.append(place)
            return LOST_RECORD
        return pack_entry(entry)

    connection.create_function("upgraded", 2, upgraded)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in NEW_TABLES.split(";\n"):
            if statement.strip():
                connection.execute(statement)
        for statement in _NEW_COLUMNS:
            connection.execute(statement)
        connection.execute("UPDATE event SET record = upgraded(place, record)")
        for statement in _COUNTS:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.create_function("upgraded", 2, None)
        connection.execute("PRAGMA synchronous = NORMAL")
    seconds = round(time.monotonic() - began_s, 1)
    if lost:
        log.error("Events of history were damaged and are lost.", path=path, events=len(lost))
    log.info("History was upgraded.", path=path, version=version, seconds=seconds)
