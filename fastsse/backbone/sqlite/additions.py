"""What the schema of version 2 has since its first files: made where it is missing."""

import sqlite3
from typing import Final

__all__ = ["ADDED_COLUMNS", "ADDED_TABLES", "add_missing"]

#: By table: the column, and what it is.
ADDED_COLUMNS: Final = (("topic", "ended", "INTEGER NOT NULL DEFAULT 0"),)
#: `used_key`: publishers' keys, until when each is known (unix ms), and what was published with it.
#: `stream`: durable streams. `dropped`: up to where those that were dropped are to be removed.
#: `loss`: after which place and up to which one content of them may be missing.
#: `producer`: their newest appends, each with its last event's place, and until when it is known.
ADDED_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS used_key (key BLOB PRIMARY KEY, until INTEGER NOT NULL,"
    " digest BLOB NOT NULL, places BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS used_key_until ON used_key (until)",
    "CREATE TABLE IF NOT EXISTS producer (key BLOB PRIMARY KEY, epoch INTEGER NOT NULL,"
    " sequence INTEGER NOT NULL, place INTEGER NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS producer_until ON producer (until)",
    "CREATE TABLE IF NOT EXISTS stream (topic TEXT PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS dropped (topic TEXT PRIMARY KEY, place INTEGER NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS loss (through INTEGER PRIMARY KEY, after INTEGER NOT NULL)",
)
_NEWEST: Final = ("used_key", "producer", "stream", "dropped", "loss")


def add_missing(connection: sqlite3.Connection) -> None:
    """All at once or nothing. Raises sqlite3.Error."""
    missing = [
        f"ALTER TABLE {table} ADD COLUMN {column} {kind}"
        for table, column, kind in ADDED_COLUMNS
        if not _has(connection, table, column)
    ]
    if not all(_is_there(connection, table) for table in _NEWEST):
        missing += ADDED_TABLES
    if not missing:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in missing:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_there(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    return found is not None


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)
    ).fetchone()
    return found is not None
