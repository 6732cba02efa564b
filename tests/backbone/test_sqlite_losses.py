# ruff: noqa: ASYNC240 — files and processes are what these tests are about.
"""A file that is missing commits says so: each way to lose its log ends in a gap, and what is whole
does not. The writers are real processes, killed for good."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fastsse.backbone.sqlite import Ack
from fastsse.config import Config
from fastsse.events import Event
from fastsse.positions import now_ms
from tests.backbone.storage import abandon, opened, until
from tests.backbone.test_sqlite_killed import live_and_die

EVERYTHING = Config(history_events=1_000_000)
Damage = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def without_log(path: Path) -> None:
    log_of(path).unlink()


def with_an_empty_log(path: Path) -> None:
    log_of(path).write_bytes(b"")


def with_half_a_log(path: Path) -> None:
    log_of(path).write_bytes(log_of(path).read_bytes()[: log_of(path).stat().st_size // 2])


def with_another_log_header(path: Path) -> None:
    raw = bytearray(log_of(path).read_bytes())
    raw[17] ^= 4
    log_of(path).write_bytes(raw)


def with_a_flipped_bit_in_the_log(path: Path) -> None:
    raw = bytearray(log_of(path).read_bytes())
    raw[random.randrange(32, len(raw) // 2)] ^= 1 << random.randrange(8)
    log_of(path).write_bytes(raw)


def with_zeros_in_the_log(path: Path) -> None:
    raw = bytearray(log_of(path).read_bytes())
    # A frame in the middle: its header, and a page (SQLite file format 4.1).
    middle = 32 + (len(raw) // (24 + 4096) // 2) * (24 + 4096)
    raw[middle : middle + 512] = bytes(512)
    log_of(path).write_bytes(raw)


def without_the_record(path: Path) -> None:
    path.with_name("history.db-commits").unlink()


def with_a_damaged_record(path: Path) -> None:
    record = path.with_name("history.db-commits")
    record.write_bytes(b"\xff" * record.stat().st_size)


def as_a_copy_of_the_file_alone(path: Path) -> None:
    for ending in ("-wal", "-shm", "-commits", "-lock"):
        path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)


DAMAGES: list[Damage] = [
    without_log,
    with_an_empty_log,
    with_half_a_log,
    with_another_log_header,
    with_a_flipped_bit_in_the_log,
    with_zeros_in_the_log,
    without_the_record,
    with_a_damaged_record,
    as_a_copy_of_the_file_alone,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_missing_parts_of_a_killed_servers_file_are_reported(
    path: Path, damage: Damage
) -> None:
    seen, _ = live_and_die(path, "written", 600)
    damage(path)
    async with opened(path, now_ms=now_ms) as tail:
        start = tail.backbone.start
        assert start >= max(seen)
        assert tail.broken == [("lost", start)]
        assert tail.backbone.counters()["store_losses"] == 1
        for selectors in (("all",), ("t1", "t2"), ("*",), ("t{n}",), ("never seen",)):
            assert (await tail.read(selectors, seen[-1])).evicted_through >= max(seen)
        (position,) = await tail.append(Event("all", "next"))
        assert position > start
    # It is reported after later restarts too, to clients that have not come back before.
    async with opened(path, now_ms=now_ms) as tail:
        assert tail.broken == []
        assert (await tail.read(("all",), seen[-1])).evicted_through == start
        assert (await tail.read(("all",), position)).evicted_through <= position


@pytest.mark.parametrize("ack", ["written", "synced"])
@pytest.mark.parametrize("lines", [1, 40, 3_000])
async def test_a_killed_server_that_left_everything_leaves_no_gap(
    path: Path, ack: Ack, lines: int
) -> None:
    for _ in range(2):
        seen, _ = live_and_die(path, ack, lines)
        async with opened(path, EVERYTHING, ack, now_ms) as tail:
            assert tail.broken == []
            for selectors in (("all",), ("*",), ("never seen",)):
                assert (await tail.read(selectors, seen[0])).evicted_through <= seen[0]


async def test_a_commit_that_was_not_noted_before_the_kill_leaves_no_gap(path: Path) -> None:
    async with opened(path) as tail:
        await tail.append(Event("a", "1"))
        record = tail.backbone._file.commits  # type: ignore[attr-defined]
        record.note = lambda promise: None
        (position,) = await tail.append(Event("a", "2"))
        abandon(tail)
    # Another program closes the file, which moves the log into it and removes it.
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM event").fetchone() == (2,)
    assert not log_of(path).exists()
    async with opened(path) as tail:
        assert tail.broken == []
        assert (await tail.read(("a",), position)).evicted_through < position


async def test_a_server_killed_before_its_first_commit_leaves_no_gap(path: Path) -> None:
    async with opened(path) as tail:
        (position,) = await tail.append(Event("a"))
    for ack in ("received", "written", "synced"):
        async with opened(path, ack=ack) as tail:  # type: ignore[arg-type]
            abandon(tail)
    async with opened(path) as tail:
        assert tail.broken == []
        assert (await tail.read(("a",), position)).evicted_through <= position


async def test_a_closed_file_needs_nothing_next_to_it(path: Path) -> None:
    async with opened(path) as tail:
        positions = await tail.append(Event("a", "1"), Event("a", "2"))
    moved = path.with_name("elsewhere.db")
    shutil.copy(path, moved)
    async with opened(moved) as tail:
        assert tail.broken == []
        found = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in found] == positions


async def test_an_older_copy_of_a_closed_file_is_reported(path: Path) -> None:
    copy = path.with_name("copy")
    async with opened(path) as tail:
        await tail.append(Event("a", "1"))
    shutil.copy(path, copy)
    async with opened(path) as tail:
        (lost,) = await tail.append(Event("a", "2"))
    copy.rename(path)
    async with opened(path) as tail:
        assert tail.broken == [("lost", tail.backbone.start)]
        assert (await tail.read(("a",), lost)).evicted_through >= lost
        (position,) = await tail.append(Event("a", "3"))
        assert position > lost


async def test_a_new_file_in_the_place_of_another_goes_on_above_it(path: Path) -> None:
    async with opened(path) as tail:
        (before,) = await tail.append(Event("a"))
    path.unlink()
    async with opened(path) as tail:
        (after,) = await tail.append(Event("a"))
        assert after > before
        assert (await tail.read(("a",), before - 1)).evicted_through >= before


async def test_the_record_is_synced_within_its_time_under_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastsse.backbone.sqlite.writer.SYNC_EVERY_S", 0.0)
    async with opened(path, ack="synced") as tail:
        await tail.append(Event("a"))
        record = tail.backbone._file.commits  # type: ignore[attr-defined]
        await until(lambda: record.is_synced)
