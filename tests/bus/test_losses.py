"""A loss of the store is reported to every worker, also to one whose link was down; and no question
waits for an event that does not come."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastsse.bus.server.losses import Losses
from fastsse.events import Event
from fastsse.subscriptions import Cursor
from tests.bus.onebus import Bus, End, a_bus, until


@pytest.fixture
async def bus(tmp_path: Any) -> AsyncIterator[Bus]:
    async with a_bus(store=f"sqlite:{tmp_path}/h.db") as bus:
        await bus.start()
        yield bus


def lose(bus: Bus, place: int) -> None:
    """What a store calls that lost something."""
    assert bus.hub is not None
    bus.hub.broker._on_broken("lost", place)


def cut(bus: Bus, end: End) -> None:
    """Cuts one worker's link; it dials again."""
    assert bus.hub is not None
    session = bus.hub.broker.sessions[end.backbone._key]
    session.drop()


async def is_back(bus: Bus, end: End) -> None:
    assert bus.hub is not None
    sessions = bus.hub.broker.sessions
    await until(lambda: end.backbone._key in sessions and sessions[end.backbone._key].is_live)
    await until(lambda: end.control._connection.is_up)


async def test_a_worker_whose_link_was_down_is_notified_of_a_loss(bus: Bus) -> None:
    near, far = await bus.worker(), await bus.worker()
    await near.publish(Event("a", "one"))
    await until(lambda: len(far.entries) == 1)
    place = near.positions[-1] + 5
    cut(bus, far)
    lose(bus, place)
    await until(lambda: near.broken == [("lost", place)])
    await is_back(bus, far)
    await until(lambda: far.broken == [("lost", place)])
    await near.publish(Event("a", "two"))
    await until(lambda: far.data == [b"one", b"two"])
    # Each got the report once, and does not get it again when its link is lost another time.
    for end in (near, far):
        cut(bus, end)
        await is_back(bus, end)
    await near.publish(Event("a", "three"))
    await until(lambda: far.data[-1:] == [b"three"])
    assert [near.broken, far.broken] == [[("lost", place)]] * 2


async def test_a_notice_that_is_lost_with_a_link_is_sent_on_the_next_link(bus: Bus) -> None:
    end = await bus.worker()
    await end.publish(Event("a", "one"))
    place = end.positions[-1]
    lose(bus, place)
    cut(bus, end)
    await is_back(bus, end)
    await until(lambda: end.broken == [("lost", place)])


async def test_a_worker_that_begins_after_a_loss_knows_of_it(bus: Bus) -> None:
    """A reader may come to it with the place that was the last before the loss."""
    first = await bus.worker()
    await first.publish(Event("a", "one"))
    place = first.positions[-1] + 5
    lose(bus, place)
    late = await bus.newcomer()
    assert late.broken == [("lost", place)]


async def test_a_loss_found_by_a_catch_up_is_reported_on_the_next_link(bus: Bus) -> None:
    """The link is lost between the pages of the catch-up and the word that they are not all."""
    losses = Losses()
    losses.owe(b"worker", 50)
    assert losses.owed(b"worker", 100) == 50
    losses.said(b"worker", 50, 100)
    assert losses.owed(b"worker", 100) == 50
    assert losses.owed(b"worker", 101) == 0
    losses.owe(b"worker", 200)
    losses.owe(b"worker", 150)
    assert losses.owed(b"worker", 300) == 200
    losses.happened(400)
    assert [losses.owed(b"worker", head) for head in (300, 400)] == [400, 400]
    assert [losses.owed(b"another", head) for head in (300, 400, 401)] == [400, 400, 0]


async def test_a_catch_up_reports_a_loss_before_its_pages(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next hub knows nothing of the loss, and finds the worker to have all that came later."""
    near, far = await bus.worker(), await bus.worker()
    await near.publish(Event("a", "one"))
    await until(lambda: len(far.entries) == 1)
    assert bus.hub is not None
    backbone: Any = bus.hub.broker.backbone
    read, held = backbone.read, list[Any]()
    monkeypatch.setattr(backbone, "read", lambda *question: held.append(question))
    monkeypatch.setattr(bus.hub.broker.fanout, "covers", lambda after: False)
    place = near.positions[-1]
    cut(bus, far)
    lose(bus, place)
    await until(lambda: held)
    await near.publish(Event("a", "two"))
    read(*held.pop())
    await until(lambda: held and len(far.entries) == 2)
    await bus.stop()
    await bus.start()
    await is_back(bus, far)
    await near.publish(Event("a", "three"))
    await until(lambda: far.data == [b"one", b"two", b"three"])
    assert [reason for reason, _ in far.broken] == ["lost"]
    assert place <= far.broken[0][1] < far.positions[1]


async def test_a_place_that_the_store_passes_over_is_answered_at_once(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of a store moves over marks and entries that are none; no event comes for that."""
    end = await bus.worker()
    await end.publish(Event("a", "one"))
    assert bus.hub is not None
    passed_over = end.positions[-1] + 1_000
    monkeypatch.setattr(
        bus.hub.broker.backbone, "seek", lambda selectors, cursor, done: done(passed_over)
    )
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    end.backbone.seek(("quiet",), Cursor("last", 1), answer.set_result)
    assert await asyncio.wait_for(answer, 5) == end.positions[-1]


async def test_a_question_of_a_worker_that_catches_up_is_answered_when_it_is_live(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is above what the worker has yet, and above all that it will have then."""
    first, second = await bus.worker(), await bus.worker()
    await first.publish(Event("a", "one"))
    await until(lambda: second.entries)
    assert bus.hub is not None
    backbone: Any = bus.hub.broker.backbone
    read = backbone.read
    held: list[Any] = []
    monkeypatch.setattr(backbone, "read", lambda *question: held.append(question))
    monkeypatch.setattr(bus.hub.broker.fanout, "covers", lambda after: bool(read_on))
    read_on: list[bool] = []
    cut(bus, second)
    await until(lambda: held)
    monkeypatch.setattr(
        backbone, "seek", lambda selectors, cursor, done: done(first.positions[-1] + 1_000)
    )
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    second.backbone.seek(("quiet",), Cursor("last", 1), answer.set_result)
    await until(lambda: bus.hub.broker.sessions[second.backbone._key]._answers._later)  # type: ignore[union-attr]
    read_on.append(True)
    read(*held.pop())
    assert await asyncio.wait_for(answer, 5) == first.positions[-1]
