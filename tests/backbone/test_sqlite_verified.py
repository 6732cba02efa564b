# ruff: noqa: ASYNC240, PT017 — files are what these tests are about; damage may refuse or be reported.
"""A damaged file is found at the start, and its readers get a gap event."""

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fastsse.backbone.sqlite import HistoryError, SqliteBackbone, verifying
from fastsse.backbone.sqlite.checking import check
from fastsse.backbone.sqlite.transfer import export_lines
from fastsse.config import Config
from fastsse.events import Event
from tests.backbone.storage import Clock, opened, until

PAGE_BYTES = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


async def filled(path: Path) -> list[int]:
    """A closed file of some hundred pages; returns the positions that are in it."""
    async with opened(path) as tail:
        for index in range(20):
            await tail.append(
                *(Event((f"t{index % 3}", "all"), f"{index} {n} " * 50) for n in range(20))
            )
        return tail.positions


async def is_notified(path: Path, seen: list[int]) -> bool:
    """Whether a server on the file tells its readers of a loss, or is refused with one line."""
    try:
        async with opened(path) as tail:
            assert tail.broken == [("lost", tail.backbone.start)]
            assert tail.backbone.counters()["store_malformed"] == 1
            stretch = await tail.read(("never seen",), seen[0])
            assert max(stretch.evicted_through, stretch.damaged_through) == tail.backbone.start
    except HistoryError as error:
        assert "\n" not in str(error)
        assert "damaged" in str(error)
    return True


async def test_a_sound_file_is_checked_and_nothing_is_reported(path: Path) -> None:
    await filled(path)
    async with opened(path) as tail:
        assert tail.broken == []
        assert tail.backbone.counters()["store_checking"] == 0
        assert tail.backbone.counters()["store_malformed"] == 0


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.9, 0.999])
async def test_a_truncated_file_is_reported(path: Path, kept: float) -> None:
    seen = await filled(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])
    try:
        async with opened(path) as tail:
            assert tail.broken == [("lost", tail.backbone.start)]
            assert (await tail.read(("never seen",), seen[0])).evicted_through >= seen[-1]
    except HistoryError as error:
        assert "damaged" in str(error)


async def test_zeroed_pages_are_reported(path: Path, tmp_path: Path) -> None:
    seen = await filled(path)
    raw = path.read_bytes()
    numbers = random.sample(range(1, len(raw) // PAGE_BYTES), 12)
    reported = 0
    for number in numbers:
        file = tmp_path / f"{number}.db"
        start = number * PAGE_BYTES
        file.write_bytes(raw[:start] + bytes(PAGE_BYTES) + raw[start + PAGE_BYTES :])
        if not any(raw[start : start + PAGE_BYTES]):
            continue
        with closing(sqlite3.connect(file)) as connection:
            (line,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if line != "ok":  # What SQLite has no use for may be zeroed.
            assert await is_notified(file, seen)
            reported += 1
    assert reported, numbers


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM topic_event WHERE place = (SELECT max(place) FROM event)",
        "DELETE FROM event WHERE place = (SELECT min(place) FROM event)",
        "UPDATE topic_event SET topic = 77 WHERE place = (SELECT max(place) FROM event)"
        " AND topic = (SELECT max(topic) FROM topic_event"
        " WHERE place = (SELECT max(place) FROM event))",
        "DELETE FROM topic WHERE number = 1",
    ],
)
async def test_contradicting_tables_are_reported(path: Path, statement: str) -> None:
    seen = await filled(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    assert await is_notified(path, seen)


async def test_damage_found_while_serving_is_reported_to_all_streams(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await filled(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM event WHERE place = (SELECT min(place) FROM event)")
    monkeypatch.setattr(verifying, "WAIT_S", 0.0)
    async with opened(path) as tail:
        await until(lambda: bool(tail.broken))
        ((why, place),) = tail.broken
        assert (why, place) == ("lost", seen[-1])
        assert tail.backbone.counters()["store_checking"] == 0
        (position,) = await tail.append(Event("all"))
        await until(
            lambda: tail.backbone._file.state.lost_through > 0  # type: ignore[attr-defined]
        )
        assert (await tail.read(("all",), seen[0])).evicted_through == seen[-1]
        assert (await tail.read(("all",), position)).evicted_through < position


async def test_a_file_that_is_closed_while_it_is_checked_is_closed_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(path)
    monkeypatch.setattr(verifying, "WAIT_S", 0.0)
    monkeypatch.setattr(verifying, "STEPS", 1)
    async with asyncio.timeout(60), opened(path) as tail:
        tail.backbone._verifier._stops = True  # type: ignore[attr-defined]
        await until(lambda: tail.backbone.counters()["store_checking"] == 0)
        assert tail.broken == []


async def test_any_flipped_bits_in_the_schema_end_in_one_line(path: Path, tmp_path: Path) -> None:
    """Names that are not UTF-8, or are others, in the text that SQLite keeps of its tables."""
    await filled(path)
    raw = path.read_bytes()
    for seed in range(40):
        chance = random.Random(seed)
        damaged = bytearray(raw)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(100, PAGE_BYTES)] ^= 1 << chance.randrange(8)
        file = tmp_path / f"{seed}.db"
        file.write_bytes(damaged)
        for read in (check, lambda name: list(export_lines(name))):
            try:
                read(str(file))
            except HistoryError as error:
                assert "\n" not in str(error), seed
        try:
            backbone = SqliteBackbone(str(file), Config(), now_ms=Clock())
        except HistoryError as error:
            assert "\n" not in str(error), seed
        else:
            await backbone.close()
