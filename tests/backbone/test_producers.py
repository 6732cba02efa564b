"""Producers: bounds, expiry, and what a failed transaction or a restart leaves of them."""

import sqlite3
from pathlib import Path

import pytest

from fastsse._records import pack_events
from fastsse.backbone.producers import ProducerRow, ProducerTable, producer_cost
from fastsse.config import Config
from fastsse.directives import Producer, producer_key
from fastsse.entries import unpack_events
from fastsse.errors import Unavailable
from tests.backbone.storage import NOT_SYNCED, Clock, Disk, opened, until
from tests.hub.backbone_contract import appended


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def test_a_producer_is_forgotten_a_window_after_its_newest_append() -> None:
    clock = [0]
    table = ProducerTable(1_000, 10_000, lambda: clock[0])
    table.add(b"busy", ProducerRow(0, 1, 5))
    table.add(b"rests", ProducerRow(0, 1, 6))
    clock[0] = 900
    table.add(b"busy", ProducerRow(0, 2, 7))
    clock[0] = 1_100
    assert table.find(b"rests") is None
    assert table.find(b"busy") == ProducerRow(0, 2, 7)
    assert table.has_room(0)
    assert (len(table), table.bytes) == (1, producer_cost(b"busy"))


def test_what_a_log_brings_back_never_sets_a_producer_back() -> None:
    table = ProducerTable(1_000, 10_000, lambda: 0)
    table.restore(b"p", ProducerRow(1, 4, 50), 0)
    table.restore(b"p", ProducerRow(1, 3, 40), 0)
    table.restore(b"p", ProducerRow(0, 9, 30), 0)
    assert table.find(b"p") == ProducerRow(1, 4, 50)


def test_a_producer_travels_with_its_draft() -> None:
    event = appended("a", 7, epoch=(1 << 53) - 1, strict=True)
    (copy,) = unpack_events(pack_events([event]))
    assert copy.directives == event.directives


@pytest.mark.parametrize("numbers", [(-1, 0), (0, -1), (1 << 53, 0), (0, 1 << 53)])
def test_numbers_that_a_script_can_not_hold_are_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="2\\*\\*53"):
        Producer(b"key", *numbers).encode()


async def test_above_the_bound_new_producers_are_refused_and_known_ones_go_on(path: Path) -> None:
    clock, size = Clock(), producer_cost(producer_key("a", b"p"))
    config = Config(producers_total=2 * size, producer_window="1m")
    async with opened(path, config, now_ms=clock) as tail:
        for name in "pq":
            await tail.append(appended("a", 0, name=name))
        with pytest.raises(Unavailable, match="producers"):
            await tail.append(appended("a", 0, name="r"))
        clock.ms += 30_000
        await tail.append(appended("a", 1, name="q"))
        clock.ms += 31_000
        await tail.append(appended("a", 0, name="r"))
        assert len(await tail.append(appended("a", 1, name="q"))) == 1
        assert len(tail.entries) == 4


async def test_producers_are_known_after_a_restart(path: Path) -> None:
    async with opened(path) as tail:
        await tail.append(appended("a", 3))
    async with opened(path) as tail:
        again = await tail.append(appended("a", 3))
        assert not tail.entries
        await tail.append(appended("a", 4))
        assert tail.positions > list(again)


@pytest.mark.parametrize("code", [NOT_SYNCED, sqlite3.SQLITE_BUSY], ids=["fsync", "busy"])
async def test_an_append_that_was_refused_is_stored_when_it_is_sent_again(
    path: Path, code: int
) -> None:
    disk = Disk()
    async with opened(path, ack="synced", connect=disk.connect) as tail:
        await tail.append(appended("a", 0, strict=True))
        disk.fail(code, is_after=True)
        with pytest.raises(Unavailable):
            await tail.append(appended("a", 1, strict=True))
        disk.repair()
        await until(lambda: tail.backbone.trouble is None)
        await tail.append(appended("a", 1, strict=True))
        found = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in found] == tail.positions
