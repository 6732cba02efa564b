"""A value of a wrong type in a row is counted as damage; reads, writes and evictions go on."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fastsse.backbone.sqlite.checking import check
from fastsse.backbone.sqlite.repair import repair
from fastsse.config import Config
from fastsse.events import Event
from tests.backbone.storage import append, opened, until
from tests.hub.backbone_contract import Tail

VALUES = [
    ("event", "record"),
    ("topic_event", "bytes"),
    ("topic_event", "shared"),
    ("topic", "events"),
    ("topic", "bytes"),
    ("topic", "evicted_through"),
    ("topic", "name"),
    ("publish", "n"),
    ("publish", "events"),
    ("publish", "worker"),
    ("desk", "value"),
]
# NULL, and a type that no column of the schema has.
WRONG = ["NULL", "1.5"]
# What says only which batch was sent before, or who has a ticket, is no event's.
NOT_COUNTED = ("publish", "desk")
BOUNDS = {"by topic": (Config(history_events=5), 0), "in total": (Config(), 4_096)}
# Which rows have it; a key is unique.
ROWS = {"topic": "number = 2", "desk": "1", "publish": "place = (SELECT min(place) FROM publish)"}
SELECTORS = (("*",), ("all",), ("t0",), ("t1", "t2"), ("t{n}",))


async def damaged(path: Path, table: str, column: str, wrong: str) -> list[int]:
    """A file with such values in some rows; returns the positions of its events."""
    async with opened(path) as tail:
        tail.backbone.control_store.put("kept", b"value")  # type: ignore[attr-defined]
        for n in range(12):
            events = [Event((f"t{n % 3}", "all"), f"{n} {k}") for k in range(5)]
            await append(tail, *events, key=(b"worker", n))
        positions = tail.positions
    # While the value is put in, the column has no type and no constraint.
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        (schema,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE name = ?", (table,)
        ).fetchone()
        free = re.sub(f"{column} (INTEGER|BLOB|TEXT) NOT NULL", column, schema)
        assert free != schema
        set_schema(connection, table, free)
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = ROWS.get(table, "place % 3 = 1")
        changed = connection.execute(f"UPDATE {table} SET {column} = {wrong} WHERE {rows}")
        assert changed.rowcount > 0
        connection.execute("PRAGMA writable_schema = ON")
        set_schema(connection, table, schema)
    return positions


def set_schema(connection: sqlite3.Connection, table: str, sql: str) -> None:
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
    connection.execute(f"PRAGMA schema_version = {version + 1}")


async def read_all(tail: Tail, selectors: tuple[str, ...], after: int) -> tuple[list[int], bool]:
    """Positions that a reader gets from there, and whether it receives a gap."""
    positions: list[int] = []
    has_gap = False
    while True:
        stretch = await tail.read(selectors, after, 1_000)
        has_gap |= max(stretch.evicted_through, stretch.damaged_through) > after
        positions += [entry.position for entry in stretch.entries]
        if stretch.is_last:
            return positions, has_gap
        after = stretch.through


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("table", "column"), VALUES)
async def test_a_wrong_value_is_reported_and_stops_neither_reads_nor_writes(
    tmp_path: Path, table: str, column: str, wrong: str, bound: str
) -> None:
    path = tmp_path / "history.db"
    before = await damaged(path, table, column, wrong)
    config, total_bytes = BOUNDS[bound]
    async with opened(path, config, total_bytes=total_bytes) as tail:
        assert tail.broken == [("lost", tail.backbone.start)]
        for selectors in SELECTORS:
            _, has_gap = await read_all(tail, selectors, before[0] - 1)
            assert has_gap
        for n in range(30):
            await append(
                tail, *(Event((f"t{n % 3}", "all"), f"later {k}") for k in range(5)), key=(b"w", n)
            )
        counters = tail.backbone.counters
        await until(lambda: counters()["store_evicted"] > 60)
        await until(lambda: not tail.backbone._retention.is_behind)  # type: ignore[attr-defined]
        for selectors in SELECTORS:
            found, _ = await read_all(tail, selectors, tail.backbone.start)
            assert found
            assert found[-1] >= tail.positions[-15]
        assert counters()["store_failures"] == 0
        await until(lambda: table in NOT_COUNTED or counters()["store_damaged"] > 0)


@pytest.mark.parametrize(("table", "column"), VALUES)
async def test_a_wrong_value_is_repaired(tmp_path: Path, table: str, column: str) -> None:
    path = tmp_path / "history.db"
    await damaged(path, table, column, "NULL")
    assert check(str(path)).problems
    repair(str(path))
    assert check(str(path)).problems == []


async def test_a_batch_whose_stored_count_is_damaged_is_still_known(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    before = await damaged(path, "publish", "events", "NULL")
    async with opened(path) as tail:
        for n in range(12):
            events = [Event((f"t{n % 3}", "all"), f"{n} {k}") for k in range(5)]
            assert await append(tail, *events, key=(b"worker", n)) == before[5 * n : 5 * n + 5]
