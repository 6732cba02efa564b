"""What is sent again as a whole goes in pages, so a small link carries any amount of it."""

import asyncio
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
import pytest

from fastsse.bus import transport
from fastsse.bus.client import control, outbox, requests
from fastsse.bus.client.outbox import Outbox
from fastsse.bus.client.requests import PendingRequests
from fastsse.bus.frames import FrameKind
from fastsse.control.cluster import Subscriber
from fastsse.control.presence import SUBJECT as PRESENCE
from fastsse.control.presence import Presence, PresenceService
from fastsse.control.service import MakeService
from fastsse.control.usage import SUBJECT as SHARES
from fastsse.control.usage import Usage, UsageClient, UsageService
from fastsse.errors import Unavailable
from fastsse.events import Event
from fastsse.paging import Pager
from tests.bus.onebus import Bus, a_bus, until

KIB = 1024
STREAMS = 10_000
PAYLOAD = {"of": "x" * 400}


def makers(*_: object) -> Mapping[str, MakeService]:
    return {PRESENCE: PresenceService, SHARES: UsageService}


@pytest.fixture
async def bus(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    """A bus whose links hold little: less than is sent again as a whole."""
    async with a_bus() as bus:
        await bus.start(makers=makers)
        yield bus


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers ask again soon what others hold."""
    monkeypatch.setattr("fastsse.control.usage_learning.RELEARN_S", 0.05)


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "QUEUE_BYTES_MAX", 2048 * KIB)
    monkeypatch.setattr(transport, "HIGH_WATER_BYTES", 128 * KIB)


def later(delay_s: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay_s, call)


async def find(presence: Presence) -> Any:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    presence.find("news", None, 0, answer.set_result)
    return await answer


async def test_a_worker_with_many_streams_comes_back_to_a_new_hub(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = await bus.worker()
    presence = Presence(end.control, asyncio.get_running_loop().call_soon)
    for stream in range(STREAMS):
        presence.on_stream_opened(stream, ("news",), PAYLOAD)
        if stream % 100 == 0:
            await asyncio.sleep(0)
    await bus.stop()
    narrow(monkeypatch)
    lost_before = end.backbone.counters()["bus_hub_lost"]
    await bus.start(makers=makers, workers=1, restarted=True)
    await until(lambda: end.control._connection.is_up)
    # Some end and some begin while the pages are on their way.
    for stream in range(500):
        presence.on_stream_closed(stream)
        presence.on_stream_opened(STREAMS + stream, ("news",), PAYLOAD)
        if stream % 20 == 0:
            await asyncio.sleep(0)
    for stream in range(STREAMS, STREAMS + 250):
        presence.on_stream_closed(stream)
    async with asyncio.timeout(60):
        while (found := await find(presence)).total != STREAMS - 250:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert end.backbone.counters()["bus_hub_lost"] == lost_before
    assert found.total == STREAMS - 250


class Worker:
    """What a worker knows of the streams that others hold."""

    def __init__(self, end: Any) -> None:
        self.others: dict[tuple[int, str], int] = {}
        self.end = end
        self.shares = UsageClient(end.control, later, self._heard)

    def uses(self, accounts: range, streams: int) -> None:
        for n in accounts:
            self.shares.used(Usage(1, _account(n), streams=streams))

    def _heard(self, use: Usage) -> None:
        account = use[:2]
        self.others[account] = self.others.get(account, 0) + use.streams
        if not self.others[account]:
            del self.others[account]


def _account(n: int) -> str:
    return f"={n:0100d}"


def _all(accounts: range, streams: int) -> dict[tuple[int, str], int]:
    return {(1, _account(n)): streams for n in accounts}


async def test_any_number_of_accounts_passes_between_workers_and_a_new_hub(
    bus: Bus, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others receive what is right: what is used, by a new hub, when one begins, when one ends."""
    narrow(monkeypatch)
    one, other = [Worker(await bus.worker()) for _ in range(2)]
    accounts = range(24_000)
    one.uses(accounts, 2)
    await until(lambda: other.others == _all(accounts, 2))
    await bus.stop()
    await bus.start(makers=makers, workers=2, restarted=True)
    one.uses(range(100), -2)
    one.uses(range(100, 200), 1)
    right = {**_all(range(200, 24_000), 2), **_all(range(100, 200), 3)}
    await until(lambda: other.others == right)
    third = Worker(await bus.worker())
    await until(lambda: third.others == right)
    await one.end.backbone.close()
    await until(lambda: not other.others and not third.others)
    for worker in (other, third):
        assert worker.end.backbone.counters()["bus_hub_lost"] <= 1


@pytest.mark.parametrize("is_up", [False, True])
async def test_the_end_of_a_stream_that_a_new_desk_did_not_know_counts_once(
    bus: Bus, quick: None, is_up: bool
) -> None:
    """An account ends while there is no hub, or between its return and the account's page."""
    one, other = [Worker(await bus.worker()) for _ in range(2)]
    one.uses(range(5_000), 1)
    await until(lambda: other.others == _all(range(5_000), 1))
    await bus.stop()
    if not is_up:
        one.uses(range(5_000), -1)
    await bus.start(makers=makers, workers=2, restarted=True)
    await until(lambda: one.end.control._connection.is_up)
    if is_up:
        one.uses(range(5_000), -1)
    await until(lambda: not other.others)
    assert bus.hub is not None
    service = bus.hub.broker.services[SHARES]
    assert isinstance(service, UsageService)
    await until(lambda: not any(service.held_here()))


async def test_what_a_dead_hub_held_is_sent_again_in_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches without an answer may be all that a link may hold, and more is sent next to them."""
    async with a_bus() as bus:
        await bus.start()
        end = await bus.worker()
        await bus.stop()
        # A hub that takes batches up, and never answers.
        hub = await bus.start(workers=1, restarted=True)
        await until(lambda: end.control._connection.is_up)
        monkeypatch.setattr(hub.broker.backbone, "append", lambda *_: None)
        published = [end.publish(Event("a", "x" * 60_000)) for _ in range(1)]
        for _ in range(50):
            await until(lambda: not end.backbone._outbox._not_held)
            published.append(end.publish(Event("a", "x" * 60_000)))
        narrow(monkeypatch)
        await bus.stop()
        await bus.start(workers=1, restarted=True)
        await asyncio.gather(*published)
        assert len(end.entries) == len(published)
        assert end.backbone.counters()["bus_hub_lost"] == 2


# -- the pager itself -----------------------------------------------------------------------------


async def test_pages_wait_for_room_and_jobs_take_turns() -> None:
    room = True
    sent: list[str] = []
    pager = Pager(lambda: room)
    pager.add(iter("abc"), sent.append)
    pager.add(iter("123"), sent.append)
    assert sent == ["a"]
    room = False
    for _ in range(3):
        await asyncio.sleep(0)
    assert sent == ["a"]
    room = True
    pager.go_on()
    await until(lambda: not len(pager))
    assert sent == ["a", "b", "1", "c", "2", "3"]


async def test_a_lost_connection_ends_its_pages() -> None:
    pager = Pager()
    sent: list[int] = []

    def send(page: int) -> None:
        sent.append(page)
        if page == 2:
            pager.clear()

    pager.add(range(10), send)
    for _ in range(20):
        await asyncio.sleep(0)
    assert sent == [0, 1, 2]


# -- queues that are full -------------------------------------------------------------------------


def held_bytes(fill: Callable[[], None]) -> int:
    """What stays in memory of what a call did."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    fill()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


@pytest.mark.parametrize("size", [1, 20_000])
async def test_messages_without_a_hub_are_bounded_in_bytes(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    bound = 1024 * KIB
    monkeypatch.setattr(control, "UNSENT_BYTES_MAX", bound)
    end = await bus.worker()
    await bus.stop()
    await until(lambda: not end.control._connection.is_up)

    def fill() -> None:
        for n in range(3 * bound // (size + 64)):
            end.control.notify("book", b"%07d" % n + bytes(size))

    assert bound // 2 < held_bytes(fill) < 2 * bound
    newest = end.control._unsent[-1]
    assert b"%07d" % (3 * bound // (size + 64) - 1) in newest


@pytest.mark.parametrize("size", [1, 20_000])
async def test_questions_that_wait_are_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    bound = 1024 * KIB
    monkeypatch.setattr(requests, "QUEUE_BYTES_MAX", bound)
    waiting = PendingRequests(lambda data: None)
    refused: list[Any] = []

    def fill() -> None:
        while not refused:
            waiting.ask(FrameKind.ASK, bytes(size), refused.append, may_repeat=False)

    assert bound // 4 < held_bytes(fill) < 2 * bound
    assert isinstance(refused[0], Unavailable)
    waiting.close()
    assert waiting._bytes == 0


@pytest.mark.parametrize("size", [1, 20_000])
async def test_an_outbox_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    bound = 1024 * KIB
    monkeypatch.setattr(outbox, "QUEUE_BYTES_MAX", bound)
    box = Outbox(lambda data: None, lambda pages: None)
    refused: list[Any] = []

    def fill() -> None:
        while not refused:
            box.add([Event("a", bytes(size))], lambda outcome: refused.append(outcome))

    assert bound // 4 < held_bytes(fill) < 2 * bound
    box.close()
    assert box.bytes == 0


async def test_a_turn_holds_no_more_of_a_link_than_its_bound(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)
    end = await bus.worker()
    connection = end.control._connection
    sent = connection.link
    assert sent is not None
    for _ in range(100):
        if connection.is_up:
            end.control.notify("book", os.urandom(64 * KIB))
            assert sent._out_bytes <= transport.HIGH_WATER_BYTES
    assert not connection.is_up


def test_pages_are_valid_messages() -> None:
    """A page is a list as any message of presence."""

    class Told:
        def __init__(self) -> None:
            self.on_back: list[Callable[[], None]] = []
            self.pages: list[bytes] = []

        def notify_pages(self, subject: str, pages: Any) -> None:
            self.pages += pages

    told = Told()
    presence = Presence(told, lambda call: None)  # type: ignore[arg-type]
    for stream in range(1_000):
        presence.on_stream_opened(stream, ("a" * 300,), None)
    told.on_back[0]()
    names = [name for page in told.pages for _, name, *_ in orjson.loads(page)]
    assert len(names) == len(set(names)) == 1_000
    assert max(map(len, told.pages)) < 66 * KIB


class Listed:
    """A store whose roster takes down what it is given, each time."""

    def __init__(self) -> None:
        self.notes: list[list[tuple[str, bool]]] = []
        self.roster, self.messaging, self.one_time = self, None, None

    def begin(self, present: Callable[[], Any]) -> None:
        self.present = present

    def note(self, changes: Any) -> None:
        self.notes.append([(Subscriber.unpack(packed).name, came) for packed, came in changes])


def opened_all(names: range) -> bytes:
    return orjson.dumps([(1, str(n), ["news"], None) for n in names])


async def test_the_streams_of_a_lost_worker_are_taken_out_a_page_a_turn() -> None:
    store = Listed()
    service = PresenceService(lambda *_: None, store, lambda *_: None)  # type: ignore[arg-type]
    service.on_message(1, opened_all(range(5_000)))
    service.on_worker_gone(1)
    assert 0 < len(store.notes[-1]) <= 500
    assert len(list(store.present())) == 5_000 - len(store.notes[-1])
    await until(lambda: not list(store.present()))
    assert max(map(len, store.notes[1:])) <= 500
    ended = [change for note in store.notes[1:] for change in note]
    assert sorted(ended) == sorted((str(n), False) for n in range(5_000))


async def test_a_worker_that_is_back_keeps_the_streams_that_were_not_taken_out_yet() -> None:
    store = Listed()
    service = PresenceService(lambda *_: None, store, lambda *_: None)  # type: ignore[arg-type]
    service.on_message(1, opened_all(range(2_000)))
    service.on_worker_gone(1)
    gone = {name for name, _ in store.notes[-1]}
    service.on_message(1, opened_all(range(2_000)))
    assert {name for name, came in store.notes[-1] if came} == gone
    service.on_message(1, orjson.dumps([(0, "7")]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(list(store.present())) == 1_999
    count = sum(1 if came else -1 for note in store.notes for _, came in note)
    assert count == 1_999
