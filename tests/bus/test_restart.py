"""A hub that is gone for a while: streams stay, publishers wait, nothing is lost or repeated."""

import asyncio
import pathlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastsse.backbone.stream_expiry import control_event
from fastsse.errors import Unavailable
from fastsse.events import Event
from fastsse.positions import now_ms, position_at
from fastsse.streamstate import StreamConfig, StreamControl
from tests.backbone.storage import opened
from tests.bus.onebus import Bus, End, a_bus, data_of, until

STORES = ["memory", "sqlite"]


@pytest.fixture(params=STORES)
async def bus(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Bus]:
    store = "memory" if request.param == "memory" else f"sqlite:{tmp_path / 'history.db'}"
    async with a_bus(store=store, history_events=100) as bus:
        await bus.start()
        yield bus


async def all_have(ends: list[End], count: int) -> None:
    await until(lambda: all(len(end.entries) >= count for end in ends))
    assert all(end.positions == ends[0].positions for end in ends)
    assert all(end.data == ends[0].data for end in ends)
    assert len(set(ends[0].positions)) == len(ends[0].positions)
    assert ends[0].positions == sorted(ends[0].positions)


async def test_what_is_published_without_a_hub_is_taken_by_the_next(bus: Bus) -> None:
    ends = [await bus.worker() for _ in range(2)]
    await ends[0].publish(Event("a", "before"))
    await bus.stop()
    answers = [ends[index % 2].publish(Event("a", str(index))) for index in range(10)]
    await asyncio.sleep(0.01)
    assert not any(answer.done() for answer in answers)
    await bus.start(workers=2, restarted=True)
    await asyncio.gather(*answers)
    await all_have(ends, 11)
    assert sorted(ends[0].data) == sorted([b"before", *(b"%d" % index for index in range(10))])


async def test_a_hub_comes_and_goes_and_nothing_is_lost_or_repeated(bus: Bus) -> None:
    ends = [await bus.worker() for _ in range(3)]
    answers: list[asyncio.Future[list[int]]] = []

    async def publish(end: End, name: str) -> None:
        for index in range(300):
            answers.append(end.publish(Event(name, f"{name}{index}")))
            await asyncio.sleep(0.001)

    publishing = [asyncio.create_task(publish(end, f"t{n}-")) for n, end in enumerate(ends)]
    for _ in range(4):
        await asyncio.sleep(0.05)
        await bus.stop()
        await bus.start(workers=3, restarted=True)
    await asyncio.gather(*publishing)
    await asyncio.gather(*answers)
    await all_have(ends, 900)
    for name in ("t0-", "t1-", "t2-"):
        sent = [b"%s%d" % (name.encode(), index) for index in range(300)]
        assert [data for data in ends[0].data if data.startswith(name.encode())] == sent


async def test_positions_go_on_above_all_that_were_used(bus: Bus) -> None:
    end = await bus.worker()
    (before,) = await end.publish(Event("a"))
    await bus.stop()
    await bus.start(workers=1, restarted=True, now_ms=lambda: 1_000)
    (after,) = await end.publish(Event("a"))
    assert after > before


async def test_a_worker_that_starts_with_the_new_hub_has_what_the_old_ones_have(bus: Bus) -> None:
    first = await bus.worker()
    for index in range(5):
        await first.publish(Event("a", str(index), id=f"id{index}"))
    await bus.stop()
    coming = asyncio.create_task(bus.worker())
    await asyncio.sleep(0.01)
    await bus.start(workers=2, restarted=True)
    second = await coming
    await first.publish(Event("a", "after"))
    await all_have([first], 6)
    await until(lambda: second.entries and second.data[-1] == b"after")
    if bus.config.store == "memory":
        assert second.kept == first.kept
        assert second.history.evictions() == first.history.evictions()


async def test_publishers_that_wait_too_long_are_refused_and_not_published_later(bus: Bus) -> None:
    end = await bus.worker(timeout_s=1)
    await end.publish(Event("a", "before"))
    await bus.stop()
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await end.publish(Event("a", "refused"))
    assert caught.value.reason == "backbone"
    assert caught.value.retry_after_s > 0
    assert time.monotonic() - began >= 1
    assert end.backbone.trouble == "the hub process is away"
    await bus.start(workers=1, restarted=True)
    await end.publish(Event("a", "after"))
    assert end.backbone.trouble is None
    assert end.data == [b"before", b"after"]
    assert end.backbone.counters()["bus_events_late"] == 0


async def test_a_memory_hub_takes_the_log_from_the_furthest_worker() -> None:
    async with a_bus(history_events=4) as bus:
        hub = await bus.start()
        first, second = await bus.worker(), await bus.worker()
        await first.publish(Event("a", "both"))
        await until(lambda: second.entries)
        # The hub dies when it has handed on to one of them.
        session = next(session for session in hub.broker.sessions.values() if session.worker == 1)
        hub.broker.fanout.leave(session)
        answer = first.publish(*(Event("a", str(index)) for index in range(3)))
        positions = await answer
        await bus.stop()
        assert second.data == [b"both"]
        await bus.start(workers=2, restarted=True)
        await all_have([first, second], 4)
        assert second.positions[1:] == positions
        assert (await second.publish(Event("a", "on")))[0] > positions[-1]
        assert first.kept[-1] == b"on"


async def test_what_a_dead_hub_handed_to_one_worker_is_not_published_again() -> None:
    async with a_bus() as bus:
        hub = await bus.start()
        first, second = await bus.worker(), await bus.worker()
        # What the first publishes comes to the second only, and then the hub dies.
        session = next(session for session in hub.broker.sessions.values() if session.worker == 0)
        hub.broker.fanout.leave(session)
        answer = first.publish(Event("a", "once"))
        await until(lambda: second.entries)
        assert not answer.done()
        await bus.stop()
        await bus.start(workers=2, restarted=True)
        assert await answer == second.positions
        await all_have([first, second], 1)
        assert first.data == [b"once"]


async def test_what_a_dead_hub_stored_without_an_answer_is_not_published_again(
    tmp_path: pathlib.Path,
) -> None:
    async with a_bus(store=f"sqlite:{tmp_path / 'history.db'}") as bus:
        hub = await bus.start()
        first, second = await bus.worker(), await bus.worker()
        for session in hub.broker.sessions.values():
            hub.broker.fanout.leave(session)
        answer = first.publish(Event("a", "once"))
        await until(lambda: hub.broker.fanout.head == hub.broker.backbone.head != 0)
        await until(lambda: hub.broker.batch_ids.is_taken(first.backbone._key, 1))
        await bus.stop()
        assert not answer.done()
        await bus.start(workers=2, restarted=True)
        (position,) = await answer
        await all_have([first, second], 1)
        assert first.positions == [position]


async def test_a_batch_whose_outcome_was_unknown_when_it_was_refused_comes_once() -> None:
    async with a_bus() as bus:
        hub = await bus.start()
        first, second = await bus.worker(timeout_s=1), await bus.worker()
        session = next(session for session in hub.broker.sessions.values() if session.worker == 0)
        hub.broker.fanout.leave(session)
        answer = first.publish(Event("a", "unknown"), Event("a", "outcome"))
        await until(lambda: len(second.entries) == 2)
        await bus.stop()
        with pytest.raises(Unavailable):
            await answer
        await bus.start(workers=2, restarted=True)
        await all_have([first, second], 2)
        await first.publish(Event("a", "on"))
        assert first.data == [b"unknown", b"outcome", b"on"]


async def test_a_worker_ahead_of_its_hub_is_given_up() -> None:
    async with a_bus() as bus:
        await bus.start()
        end = await bus.worker()
        await end.publish(Event("a"))
        await bus.stop()
        await bus.start(now_ms=lambda: 1_000)  # It does not know that there was one before.
        reason = await asyncio.wait_for(end.backbone.ended, 20)
        assert reason == "it has what this hub never had"
        with pytest.raises(Unavailable):
            await end.publish(Event("a"))


async def test_a_hub_does_not_wait_long_for_workers_that_died_with_it() -> None:
    async with a_bus() as bus:
        await bus.start()
        first = await bus.worker()
        await first.publish(Event("a", "kept"))
        await bus.stop()
        await bus.start(workers=7, restarted=True)
        await first.publish(Event("a", "on"))
        assert first.data == [b"kept", b"on"]


async def test_a_memory_hub_leaps_over_positions_that_it_can_not_know() -> None:
    async with a_bus() as bus:
        await bus.start(now_ms=lambda: 5_000)
        end = await bus.worker()
        (before,) = await end.publish(Event("a"))
        assert before == position_at(5_000) + 1
        await bus.stop()
        await bus.start(workers=1, restarted=True, now_ms=lambda: 4_000)
        (after,) = await end.publish(Event("a"))
        assert after > position_at(5_999)


@pytest.mark.parametrize("ends", [False, True])
async def test_rows_and_ends_come_after_what_a_lost_hub_stored_and_never_sent(
    tmp_path: pathlib.Path, ends: bool
) -> None:
    """A row that comes before has a reader skip the content between."""
    path = tmp_path / "history.db"
    async with a_bus(store=f"sqlite:{path}") as bus:
        await bus.start()
        end = await bus.worker()
        await end.publish(Event("other", "before"))
        await bus.stop()
        found: list[tuple[int, int]] = []
        ask = end.backbone.ended_topics if ends else end.backbone.find_streams

        def done(outcome: Any) -> None:
            place = outcome["s"] if ends else outcome["s"].closed
            found.append((place, end.backbone.head))

        ask(("s",), done)
        async with opened(path, now_ms=now_ms) as lost:
            control = StreamControl("create", StreamConfig("text/plain"))
            await lost.append(control_event("s", control, 0))
            for n in range(20):
                await lost.append(Event("s", f"{n}"))
            await lost.append(Event.end("s"))
        await bus.start(workers=1, restarted=True)
        await until(lambda: found)
        assert found[0][0] <= found[0][1]
        assert [data_of(one) for one in end.entries if one.frame.events][1:] == [
            b"%d" % n for n in range(20)
        ]
