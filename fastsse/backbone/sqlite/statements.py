"""Statements that do much at once.

Each step of a statement releases the interpreter's lock and must get it back. Few large statements
keep a busy loop thread and the store's threads from blocking each other.
"""

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

__all__ = ["insert"]

INSERT_ROWS: Final = 128


def insert(connection: sqlite3.Connection, into: str, width: int, values: Sequence[Any]) -> None:
    """Inserts rows of `width` values that lie behind each other, in few statements."""
    rows, at = len(values) // width, 0
    count = INSERT_ROWS
    while rows:
        while count > rows:
            count >>= 1
        stop = at + count * width
        connection.execute(_insert_statement(into, width, count), values[at:stop])
        at, rows = stop, rows - count


@cache
def _insert_statement(into: str, width: int, rows: int) -> str:
    row = f"({','.join('?' * width)})"
    head, _, tail = into.partition(" ON CONFLICT ")
    return f"INSERT INTO {head} VALUES {','.join([row] * rows)}" + (
        f" ON CONFLICT {tail}" if tail else ""
    )
