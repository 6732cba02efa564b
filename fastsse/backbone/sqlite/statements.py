"""Statements that do much at once.

Each step of a statement releases the interpreter's lock and must get it back. Few large statements
keep a busy loop thread and the store's threads from blocking each other.
"""

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from fastsse.events import as_header_value

__all__ = ["NewEvents", "insert"]

INSERT_ROWS: Final = 128


class NewEvents(NamedTuple):
    """Values to be inserted: place and record of each event without an id of its own; place, id and
    record of each with one.

    Records are bytearrays, and there is no None: Python's module looks for an adapter of each
    `bytes` and each None, which takes longer than the rest of an event.
    """

    plain: list[Any]
    named: list[Any]

    def add(self, place: int, own_id: bytes | None, record: bytes) -> None:
        """Adds one event."""
        if own_id is None:
            self.plain.extend((place, bytearray(record)))
        else:
            self.named.extend((place, as_header_value(own_id), bytearray(record)))


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
