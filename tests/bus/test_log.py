"""One order for all workers, and a worker that starts has what the others have."""

import asyncio
import pathlib
import random
from collections.abc import AsyncIterator

import pytest

from fastsse.backbone import Stretch
from fastsse.bus.server import fanout
from fastsse.entries import encode_entries
from fastsse.errors import FastsseError, InvalidEvent
from fastsse.events import Event
from fastsse.positions import format_position
from fastsse.subscriptions import Cursor
from tests.bus.onebus import Bus, End, a_bus, until


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with a_bus(history_events=5) as bus:
        await bus.start()
        yield bus


async def read(end: End, selectors: tuple[str, ...], after: int) -> Stretch:
    answer: asyncio.Future[Stretch] = asyncio.get_running_loop().create_future()

    def done(outcome: Stretch | FastsseError) -> None:
        assert isinstance(outcome, Stretch)
        answer.set_result(outcome)

    end.backbone.read(selectors, after, 1 << 20, done)
    return await answer


async def seek(end: End, cursor: Cursor) -> int | None:
    answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def done(outcome: int | FastsseError | None) -> None:
        assert not isinstance(outcome, FastsseError)
        answer.set_result(outcome)

    end.backbone.seek(("*",), cursor, done)
    return await answer


async def test_all_workers_get_all_events_in_the_same_order(bus: Bus) -> None:
    ends = [await bus.worker() for _ in range(3)]
    chance = random.Random(1)
    answers = []
    for index in range(300):
        end = chance.choice(ends)
        answers.append(end.publish(Event("a", f"{index}"), Event("b", f"{index}")))
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    taken = [position for answer in answers for position in await answer]
    await until(lambda: all(len(end.entries) == 600 for end in ends))
    assert len(set(taken)) == 600
    assert ends[0].positions == ends[1].positions == ends[2].positions == sorted(taken)
    assert ends[0].data == ends[1].data == ends[2].data


async def test_what_one_worker_publishes_keeps_its_order(bus: Bus) -> None:
    first, second = await bus.worker(), await bus.worker()
    answers = [first.publish(Event("a", str(index))) for index in range(200)]
    await asyncio.gather(*answers)
    await until(lambda: len(second.entries) == 200)
    assert second.data == [b"%d" % index for index in range(200)]


async def test_a_publish_is_answered_with_its_own_positions(bus: Bus) -> None:
    end = await bus.worker()
    batches = [[Event("a", f"{index}.{n}") for n in range(index % 4 + 1)] for index in range(50)]
    answers = [end.publish(*batch) for batch in batches]
    at = dict(zip(end.positions, end.data, strict=True))
    for batch, answer in zip(batches, answers, strict=True):
        positions = await answer
        at = dict(zip(end.positions, end.data, strict=True))
        assert [at[position] for position in positions] == [event.data for event in batch]


async def test_a_new_worker_is_handed_what_the_others_keep(bus: Bus) -> None:
    first = await bus.worker()
    await first.publish(Event("quiet", "old", id="mine"))
    for index in range(20):
        await first.publish(Event(("noisy", "both"), str(index), private=index % 2 == 0))
    second = await bus.worker()
    assert second.kept == first.kept == [b"old", *(b"%d" % index for index in range(15, 20))]
    assert second.history.find(b"mine") == first.history.find(b"mine") is not None
    kept = second.history.entries(0)
    assert [entry.topics for entry in kept] == [entry.topics for entry in first.history.entries(0)]
    assert [entry.frame.private for entry in kept] == [False, False, True, False, True, False]


async def test_a_new_worker_knows_which_topics_evicted_events(bus: Bus) -> None:
    first = await bus.worker()
    await first.publish(Event("quiet", "old"))
    for index in range(8):
        await first.publish(Event("noisy", str(index)))
    second = await bus.worker()
    by_topic, of_all, _ = second.history.evictions()
    assert by_topic["noisy"] == first.positions[3] == of_all
    assert by_topic["quiet"] < first.positions[0]


async def test_a_new_worker_gets_what_is_published_while_it_comes(bus: Bus) -> None:
    first = await bus.worker()
    answers = []

    async def publish() -> None:
        for index in range(400):
            answers.append(first.publish(Event(f"t{index % 100}", str(index))))
            await asyncio.sleep(0)

    publishing = asyncio.create_task(publish())
    others = [await bus.worker() for _ in range(5)]
    await publishing
    await asyncio.gather(*answers)
    for other in others:
        await until(lambda other=other: other.backbone.head == first.backbone.head)
        assert other.kept == first.kept
        assert other.broken == []


async def test_a_long_history_is_handed_over_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "RECENT_BYTES", 10_000)
    async with a_bus() as bus:
        await bus.start()
        first = await bus.worker()
        for _ in range(40):
            await first.publish(*(Event(f"t{n}", "x" * 5_000) for n in range(20)))
        second = await bus.worker()
        assert len(second.kept) == 800
        assert second.kept == first.kept


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_reconnecting_worker_receives_what_it_missed(
    store: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "RECENT_BYTES", 10_000)
    url = store if store == "memory" else f"sqlite:{tmp_path / 'history.db'}"
    async with a_bus(store=url) as bus:
        hub = await bus.start()
        first, second = await bus.worker(), await bus.worker()
        for _ in range(3):
            session = next(
                session for session in hub.broker.sessions.values() if session.worker == 1
            )
            session.abort()
            hub.broker.leave(session)
            answers = [first.publish(*[Event("a", "x" * 5_000)] * 20) for _ in range(10)]
            answers.append(second.publish(Event("a", "of the one that was away")))
            await asyncio.gather(*answers)
        await until(lambda: len(second.entries) == 603)
        assert second.positions == first.positions
        assert second.broken == []


async def test_a_worker_that_was_away_too_long_learns_what_may_be_missing() -> None:
    async with a_bus(history_events=3) as bus:
        hub = await bus.start()
        first, second = await bus.worker(), await bus.worker()
        hub.broker.fanout = fanout.Fanout(hub.broker.fanout.head)  # Remembers nothing of before.
        session = next(session for session in hub.broker.sessions.values() if session.worker == 1)
        session.abort()
        hub.broker.leave(session)
        entries = encode_entries(
            range(hub.broker.fanout.head + 1, hub.broker.fanout.head + 6), [Event("a")] * 5
        )
        assert hub.broker.kept is not None
        hub.broker.kept.keep(entries)
        hub.broker.fanout = fanout.Fanout(entries[-1].position)
        # The loss comes first, and then what is kept behind it.
        await until(lambda: len(second.positions) == 3)
        assert second.broken == [("lost", entries[1].position)]
        assert second.positions == [entry.position for entry in entries[2:]]
        assert first.broken == []


async def test_a_worker_that_is_behind_waits_for_a_place_that_others_have(bus: Bus) -> None:
    first, second = await bus.worker(), await bus.worker()
    (position,) = await first.publish(Event("a", id="mine"))
    # Whether or not it came there yet.
    assert await seek(second, Cursor("after", format_position(position))) == position
    assert second.backbone.head >= position
    assert await seek(second, Cursor("after", "mine")) == position
    future = format_position(position + (60_000 << 64))
    assert await seek(second, Cursor("after", future)) is None


async def test_what_is_read_from_a_store_was_delivered_before(tmp_path: pathlib.Path) -> None:
    async with a_bus(store=f"sqlite:{tmp_path / 'history.db'}", history_events=100) as bus:
        await bus.start()
        first, second = await bus.worker(), await bus.worker()
        start = first.backbone.start
        answers = [first.publish(Event("a", str(index))) for index in range(50)]
        for answer in answers:
            await answer
            stretch = await read(second, ("a",), start)
            assert stretch.through <= second.backbone.head
            assert [entry.position for entry in stretch.entries] == second.positions


async def test_a_publish_that_is_too_long_for_the_bus_is_refused_alone() -> None:
    async with a_bus(max_body="1KiB") as bus:
        await bus.start()
        end = await bus.worker()
        with pytest.raises(InvalidEvent):
            await end.publish(Event("a", "x" * 5_000_000))
        assert await end.publish(Event("a", "x" * 1_000_000))


async def test_data_of_nothing_but_line_ends_fits_through() -> None:
    async with a_bus(max_body="1MiB") as bus:
        await bus.start()
        first, second = await bus.worker(), await bus.worker()
        await first.publish(Event("a", "\n" * 1024 * 1024))
        await until(lambda: second.entries)
        assert second.entries[0].frame.body == first.entries[0].frame.body


async def test_nothing_is_delivered_to_a_worker_that_closes() -> None:
    """Its sender has stopped by then. What is in the socket already is read, and goes nowhere."""
    async with a_bus() as bus:
        hub = await bus.start()
        ending = await bus.worker()
        heard: list[bytes] = []
        ending.control.listen("any", heard.append)
        (session,) = hub.broker.sessions.values()
        place = hub.broker.fanout.head + 1
        hub.broker.fanout.deliver(encode_entries([place], [Event("a", "late")]))
        hub.broker.fanout.flush()
        hub.broker._broadcast("any", b"late")
        session.link.flush()
        await ending.backbone.close()
        assert (ending.entries, heard) == ([], [])
