"""The file's clock: places may be ahead of it, ages and `since` go by it."""

from pathlib import Path

import pytest

from fastsse.backbone.sqlite import Ack
from fastsse.backbone.sqlite.position_lease import LEASE_MS_MIN
from fastsse.config import Config
from fastsse.events import Event
from fastsse.positions import position_ms
from fastsse.subscriptions import Cursor
from tests.backbone.storage import Clock, abandon, opened, until
from tests.hub.backbone_contract import Tail

HOUR_MS = 3_600_000
EVERYTHING = Config(history_age="3650d")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


async def bodies_since(tail: Tail, time_ms: int) -> list[bytes]:
    place = await tail.seek(("a",), Cursor("since", time_ms))
    assert place is not None
    return [entry.frame.body for entry in await tail.read_all(("a",), place, 1 << 20)]


async def test_since_goes_by_time_after_a_clock_that_was_ahead_also_after_a_restart(
    path: Path,
) -> None:
    clock = Clock()
    async with opened(path, EVERYTHING, now_ms=clock) as tail:
        clock.ms += HOUR_MS
        await tail.append(Event("a", "by the wrong clock"))
        clock.ms -= HOUR_MS
        for second in range(20):
            await tail.append(Event("a", str(second)))
            clock.ms += 1_000
        assert tail.entries[-1].frame.time_ms == clock.ms - 1_000
        expected = [entry.frame.body for entry in tail.entries[-5:]]
        assert await bodies_since(tail, clock.ms - 5_000) == expected
    async with opened(path, EVERYTHING, now_ms=clock) as tail:
        assert await bodies_since(tail, clock.ms - 5_000) == expected
        stored = await tail.read_all(("a",), 0, 1 << 20)
        assert stored[-1].frame.time_ms == clock.ms - 1_000


async def test_events_are_evicted_by_their_age_after_a_clock_that_was_ahead(path: Path) -> None:
    clock = Clock()
    async with opened(path, Config(history_age="10s"), now_ms=clock) as tail:
        clock.ms += HOUR_MS
        await tail.append(Event("a", "by the wrong clock"))
        clock.ms -= HOUR_MS
        for _ in range(20):
            await tail.append(Event("a"))
            clock.ms += 1_000
        await until(lambda: tail.backbone.counters()["stored_events"] == 10)


@pytest.mark.parametrize("ack", ["received", "written", "synced"])
async def test_kills_do_not_move_positions_further_and_further_ahead(path: Path, ack: Ack) -> None:
    clock, seen = Clock(), []
    for _ in range(30):
        async with opened(path, EVERYTHING, ack, clock) as tail:
            for _ in range(3):
                seen += await tail.append(Event("a"))
                lead_ms = position_ms(seen[-1]) - clock.ms
                assert lead_ms <= LEASE_MS_MIN
                clock.ms += 7
            abandon(tail)
    assert seen == sorted(set(seen))
    clock.ms += 2 * LEASE_MS_MIN
    async with opened(path, EVERYTHING, ack, clock) as tail:
        seen = await tail.append(Event("a"))
        assert position_ms(seen[0]) == clock.ms, "the clock has reached them"
