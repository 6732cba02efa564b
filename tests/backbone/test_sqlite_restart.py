"""What was acknowledged is there after a restart, and no position is used twice."""

from pathlib import Path

import pytest

from fastsse.backbone.sqlite import Ack
from fastsse.config import Config
from fastsse.events import Event
from fastsse.positions import position_at
from fastsse.subscriptions import Cursor
from tests.backbone.storage import Clock, abandon, append, opened
from tests.hub.backbone_contract import EVERY_FIELD, same

DAY_MS = 86_400_000
ACKS: list[Ack] = ["received", "written", "synced"]
EVERYTHING = Config(history_age="3650d")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a history.db"


async def test_events_survive_a_restart_to_the_last_byte(path: Path) -> None:
    clock = Clock()
    async with opened(path, now_ms=clock) as tail:
        await tail.append(EVERY_FIELD, Event("a", "2"), Event(("c", "a"), "3", id="another"))
        before = list(tail.entries)
    async with opened(path, now_ms=clock) as tail:
        assert tail.backbone.start == tail.backbone.head == before[-1].position
        found = await tail.read_all(("*",), 0, 1 << 20)
        assert len(found) == len(before)
        assert all(map(same, found, before))
        assert await tail.seek(("a",), Cursor("after", "another")) == before[-1].position
        assert await tail.seek(("a",), Cursor("last", 2)) == before[1].position - 1


async def test_a_clean_restart_promises_continuity(path: Path) -> None:
    async with opened(path) as tail:
        start = tail.backbone.start
        await tail.append(Event("a"))
    async with opened(path) as tail:
        for selectors in (("a",), ("*",), ("never seen",), ("t/{id}",)):
            assert (await tail.read(selectors, start)).evicted_through <= start


@pytest.mark.parametrize("ack", ACKS)
@pytest.mark.parametrize("is_clean", [True, False], ids=["clean", "killed"])
async def test_no_position_is_used_twice_whatever_the_clock_does(
    path: Path, ack: Ack, is_clean: bool
) -> None:
    clock, seen = Clock(), []
    for jump_ms in (0, -DAY_MS, -DAY_MS, 3 * DAY_MS, -DAY_MS, 0, 1):
        clock.ms += jump_ms
        async with opened(path, EVERYTHING, ack, clock) as tail:
            for _ in range(3):
                seen += await tail.append(Event("a"), Event("b"))
                clock.ms += jump_ms
            if not is_clean:
                abandon(tail)
    assert seen == sorted(set(seen))


async def test_a_position_that_was_seen_and_lost_is_not_given_again(path: Path) -> None:
    clock = Clock()
    async with opened(path, ack="received", now_ms=clock) as tail:
        await tail.append(Event("a"))  # Positions are leased from here on.
        tail.backbone._writer.put = lambda work: None  # type: ignore[attr-defined]
        lost = await tail.append(Event("a"))
        tail.backbone._ahead_bytes = 0  # type: ignore[attr-defined]
        abandon(tail)
    async with opened(path, ack="received", now_ms=clock) as tail:
        (position,) = await tail.append(Event("a"))
        assert position > lost[0]
        # A client that had the lost one, or the one before it, receives a gap.
        for selectors in (("a",), ("*",)):
            assert (await tail.read(selectors, lost[0])).evicted_through >= lost[0]


@pytest.mark.parametrize("ack", ["written", "synced"])
async def test_a_killed_process_leaves_no_gap(path: Path, ack: Ack) -> None:
    async with opened(path, ack=ack) as tail:
        (position,) = await tail.append(Event("a"))
        abandon(tail)
    async with opened(path, ack=ack) as tail:
        assert tail.backbone.start > position
        assert (await tail.read(("a",), position)).evicted_through < position


async def test_a_crash_of_the_machine_may_leave_one_unless_all_was_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ack, is_gap in (("written", True), ("synced", False)):
        file = path.with_name(ack)
        async with opened(file, ack=ack) as tail:  # type: ignore[arg-type]
            (position,) = await tail.append(Event("a"))
            abandon(tail)
        monkeypatch.setattr(
            "fastsse.backbone.sqlite.position_lease.boot_id", lambda: "another start"
        )
        async with opened(file) as tail:
            stretch = await tail.read(("a",), position)
            assert (stretch.evicted_through > position) is is_gap
        monkeypatch.undo()


async def test_a_file_written_far_ahead_of_the_clock_goes_on_from_there(path: Path) -> None:
    clock = Clock()
    async with opened(path, EVERYTHING, now_ms=clock) as tail:
        clock.ms += DAY_MS
        (late,) = await tail.append(Event("a"))
    clock.ms -= DAY_MS
    async with opened(path, EVERYTHING, now_ms=clock) as tail:
        (later,) = await tail.append(Event("a"))
        assert later == late + 1
        assert (await tail.read_all(("a",), late - 1, 1))[0].position == late


async def test_more_positions_than_a_millisecond_has_run_ahead_of_it(path: Path) -> None:
    clock = Clock()
    async with opened(path, now_ms=clock) as tail:
        tail.backbone._clock.last = position_at(clock.ms) + (1 << 20) - 3  # type: ignore[attr-defined]
        positions = [*(await tail.append(Event("a"), Event("a"))), *(await tail.append(Event("a")))]
        assert positions == sorted(positions)
        assert positions[-1] == position_at(clock.ms + 1) + 1
        found = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in found] == positions


@pytest.mark.parametrize("ack", ACKS)
async def test_a_batch_that_is_sent_again_is_not_stored_twice(path: Path, ack: Ack) -> None:
    async with opened(path, ack=ack) as tail:
        first = await append(tail, Event("a", "1"), Event("a", "2"), key=(b"worker", 7))
        again = await append(tail, Event("a", "1"), Event("a", "2"), key=(b"worker", 7))
        assert first == again == tail.positions
    async with opened(path, ack=ack) as tail:
        assert await append(tail, Event("a", "1"), Event("a", "2"), key=(b"worker", 7)) == first
        other = await append(tail, Event("a", "1"), key=(b"another", 7))
        later = await append(tail, Event("a", "3"), key=(b"worker", 8))
        assert tail.positions == [*other, *later]
        assert len(await tail.read_all(("a",), 0, 1 << 20)) == 4


async def test_what_desks_keep_survives(path: Path) -> None:
    async with opened(path) as tail:
        control_store = tail.backbone.control_store  # type: ignore[attr-defined]
        control_store.put("revocations/b", b"\x00\xff")
        control_store.put("revocations/a", b"1")
        control_store.put("tickets/a", b"2")
        control_store.put("tickets/a", None)
    async with opened(path) as tail:
        control_store = tail.backbone.control_store  # type: ignore[attr-defined]
        assert control_store.items("revocations/") == [
            ("revocations/a", b"1"),
            ("revocations/b", b"\x00\xff"),
        ]
        assert control_store.get("tickets/a") is None


async def test_data_of_any_bytes_and_sizes_comes_back(path: Path) -> None:
    async with opened(path) as tail:
        texts = ["\0", "\0\n\0", "é" * 1000, "x" * 300_000, "", "\r\n"]
        await tail.append(*(Event("a", text) for text in texts))
        for limit_bytes in (1, 1 << 20):
            assert all(map(same, await tail.read_all(("a",), 0, limit_bytes), tail.entries))


async def test_a_hundred_topics_and_templates_of_thousands_are_read_in_order(path: Path) -> None:
    async with opened(path) as tail:
        for start in range(0, 1_000, 100):
            await tail.append(
                *(Event(f"t/{index}", str(index)) for index in range(start, start + 100))
            )
        names = tuple(f"t/{index}" for index in range(0, 1_000, 10))
        found = await tail.read_all(names, 0, 5_000)
        assert [entry.topics[0] for entry in found] == list(names)
        everyone = await tail.read_all(("t/{id}",), 0, 20_000)
        assert [entry.position for entry in everyone] == tail.positions
        assert await tail.seek(("t/{id}",), Cursor("last", 3)) == tail.positions[-3] - 1
