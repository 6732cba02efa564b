"""A file that an earlier version wrote is read and upgraded; one of a later version is refused."""

import sqlite3
from pathlib import Path

import pytest

from fastsse.backbone.sqlite import HistoryError
from fastsse.backbone.sqlite.checking import check
from fastsse.backbone.sqlite.schema import open_writing, versions
from fastsse.backbone.sqlite.transfer import export_lines
from fastsse.config import Config
from fastsse.events import Event
from fastsse.subscriptions import Cursor
from tests.backbone.storage import append, opened
from tests.hub.backbone_contract import Tail

# The file that the version before wrote: with a private event of two topics and an own id, one of
# several lines with a type and a retry, one with a UUID, a batch with a key, and evicted events.
SCHEMA_1 = Path(__file__).with_name("schema1.sql")
CONFIG = Config(history_age="3650d", history_events=5)
BODIES = [
    b"id: 1800000000040-1\ndata: a4\n\n",
    b"id: 1800000000050-1\ndata: a5\n\n",
    b"id: 1800000000060-1\ndata: a6\n\n",
    b"id: 1800000000070-1\ndata: a7\n\n",
    b"id: own one\ndata: both\n\n",
    b"event: tick\nretry: 5000\nid: 1800000000080-2\ndata: line\ndata: line\n\n",
    b"id: urn:uuid:01a3185c-505a-75e5-8000-000000000001\ndata: uuid\n\n",
    b"id: x y\ndata: own two\n\n",
    b"id: 1800000000110-1\ndata: for some\n\n",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "history.db"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_1.read_text())
    connection.close()
    return path


async def bodies(tail: Tail, *selectors: str) -> list[bytes]:
    return [entry.frame.body for entry in await tail.read_all(selectors, 0, 1 << 20)]


async def test_a_file_of_the_version_before_is_upgraded_with_all_that_it_holds(path: Path) -> None:
    async with opened(path, CONFIG) as tail:
        found = await tail.read_all(("*",), 0, 1 << 20)
        assert [entry.frame.body for entry in found] == BODIES
        assert [entry.frame.private for entry in found] == [False] * 4 + [True] + [False] * 3 + [
            True
        ]
        assert [entry.own_id for entry in found if entry.own_id] == [b"own one", b"x y"]
        assert found[4].topics == ("a", "b")
        assert await bodies(tail, "b") == [BODIES[4], BODIES[5], BODIES[7]]
        assert await bodies(tail, "é/{x}") == [BODIES[6]]
        assert await tail.seek(("b",), Cursor("after", "x y")) == found[7].position
        assert (await tail.read(("a",), 0)).evicted_through == found[0].position - (10 << 64)
        # The worker's batch is known again, and new events lie behind the old ones.
        again = await append(tail, Event("b"), Event("b"), key=(b"worker01", 7))
        assert again == [entry.position for entry in found[4:6]]
        (position,) = await tail.append(Event("new", "x", id="mine", private=True))
        assert position > found[-1].position
    assert check(str(path)).problems == []
    async with opened(path, CONFIG) as tail:
        assert len(await bodies(tail, "*")) == len(BODIES) + 1
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (2,)


def test_a_file_of_the_version_before_is_checked_and_exported_as_it_is(path: Path) -> None:
    assert check(str(path)).problems == []
    assert len(list(export_lines(str(path)))) == 1 + 4 + len(BODIES)
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (1,)


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if sql.startswith("PRAGMA user_version ="):
                raise sqlite3.OperationalError("injected")
            return super().execute(sql, *values)

    def connect(*arguments: object, **options: object) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, factory=Connection, **options)  # type: ignore[call-overload, no-any-return]

    before = list(export_lines(str(path)))
    with pytest.raises(HistoryError, match="can't be used"):
        open_writing(str(path), 0, connect)
    assert list(export_lines(str(path))) == before
    connection = open_writing(str(path), 0)
    assert versions(connection)[1] == 2
    connection.close()
    after = list(export_lines(str(path)))
    assert after == before


async def test_a_record_damaged_before_the_upgrade_is_reported_as_lost(path: Path) -> None:
    connection = sqlite3.connect(path)
    ((place, record),) = connection.execute(
        "SELECT place, record FROM event WHERE instr(record, CAST('own two' AS BLOB))"
    ).fetchall()
    with connection:
        connection.execute("UPDATE event SET record = ? WHERE place = ?", (record[:30], place))
    connection.close()
    async with opened(path, CONFIG) as tail:
        before = await tail.read(("b",), 0)
        assert [entry.frame.body for entry in before.entries] == [BODIES[4], BODIES[5]]
        after = await tail.read(("b",), before.through)
        assert not after.entries
        assert after.damaged_through == before.through + 1
        assert await tail.seek(("b",), Cursor("after", "x y")) is None
    assert check(str(path)).problems == []


def test_a_file_of_a_later_version_is_refused_with_a_sentence(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 4")
    connection.close()
    for use in (lambda: open_writing(str(path), 0), lambda: list(export_lines(str(path)))):
        with pytest.raises(HistoryError, match=r"newer fastsse \(version 4; this one reads 3\)"):
            use()
