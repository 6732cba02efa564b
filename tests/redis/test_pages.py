"""A node that asks receives everything in pages, however much it is."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from fastsse.backbone.redis import open_redis, writer
from fastsse.backbone.redis.writer import WriteBatch
from fastsse.cluster import full_copies, messaging
from fastsse.cluster import roster as roster_module
from fastsse.cluster.membership import Membership
from fastsse.cluster.messaging import RedisNodeMessaging
from fastsse.cluster.roster import RedisRoster
from fastsse.config import Config
from fastsse.control import roster as own_roster
from fastsse.control.cluster import Subscriber
from fastsse.control.roster import LocalRoster
from fastsse.control.service import Broadcast, MemoryControlStore
from fastsse.control.usage import Usage, UsageService, _packed
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.redis.connection import RedisAddress
from fastsse.redis.keys import Keys
from tests.bus.test_paging import held_bytes
from tests.redis.onelog import until
from tests.redis.server import RedisServer

MIB = 1024 * 1024


class Store(MemoryControlStore):
    """A control service's store at a node, with messages to other nodes."""

    def __init__(self, nodes: RedisNodeMessaging) -> None:
        super().__init__()
        self._nodes = nodes

    @property
    def messaging(self) -> RedisNodeMessaging:
        return self._nodes


class Node:
    """The messages of one node to others, and nothing else of it."""

    def __init__(self, url: str) -> None:
        address, keys = RedisAddress(url, 10.0), Keys("pages")
        self.membership = Membership(address, keys, 4.0)
        self.messaging = RedisNodeMessaging(address, keys, self.membership)
        self.heard: Counter[tuple[int, str]] = Counter()
        self.service = UsageService(
            Broadcast(lambda message: None), Store(self.messaging), _nothing
        )

    @property
    def others(self) -> dict[tuple[int, str], int]:
        """What this node knows that others hold."""
        held: Counter[tuple[int, str]] = Counter()
        for holder, accounts in self.service._streams.items():
            if isinstance(holder, bytes):
                held.update(accounts)
        return dict(held)

    def use(self, accounts: range, streams: int) -> None:
        for start in range(0, len(accounts), 1_000):
            some = accounts[start : start + 1_000]
            self.service.on_message(
                0, _packed(Usage(1, _account(n), streams=streams) for n in some)
            )


def _account(n: int) -> str:
    return f"={n:0100d}"


def _nothing(events: Any, done: Callable[[bool], None]) -> None:
    done(True)


@asynccontextmanager
async def node_at(url: str) -> AsyncIterator[Node]:
    node = Node(url)
    tasks = [asyncio.create_task(part.run()) for part in (node.membership, node.messaging)]
    try:
        yield node
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues that hold less than the whole."""
    monkeypatch.setattr(messaging, "QUEUE_BYTES_MAX", 1 * MIB)
    monkeypatch.setattr(messaging, "HIGH_WATER_BYTES", MIB // 4)


async def test_a_node_that_comes_later_learns_of_any_number_of_accounts(
    redis: RedisServer, narrow: None
) -> None:
    """More than the queue holds, while some are used and others end."""
    async with node_at(redis.url) as one:
        one.use(range(20_000), 2)
        async with node_at(redis.url) as other:
            await until(lambda: len(other.others) > 1_000)
            one.use(range(1_000), -2)
            one.use(range(19_000, 20_000), -1)
            one.use(range(20_000, 21_000), 1)
            right = {(1, _account(n)): 2 for n in range(1_000, 19_000)}
            right |= {(1, _account(n)): 1 for n in range(19_000, 21_000)}
            await until(lambda: other.others == right)


@pytest.mark.timeout(600)
async def test_a_node_that_comes_later_learns_of_400_000_accounts(redis: RedisServer) -> None:
    """22 MB of names, more than the queue of 16 MiB holds."""
    async with node_at(redis.url) as one:
        one.use(range(400_000), 1)
        async with node_at(redis.url) as other:
            async with asyncio.timeout(550):
                while len(other.others) < 400_000:  # noqa: ASYNC110
                    await asyncio.sleep(1)
            assert set(other.others.values()) == {1}
        assert one.messaging._queued_bytes <= messaging.QUEUE_BYTES_MAX


async def test_a_node_that_confirms_nothing_receives_a_full_copy_too(
    redis: RedisServer, narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of an earlier version knows no confirmation."""
    monkeypatch.setattr(full_copies, "CONFIRM_S", 0.01)
    async with node_at(redis.url) as one:
        one.use(range(15_000), 1)
        copies = one.messaging._copies
        monkeypatch.setattr(copies, "confirm", _Once(copies.confirm))
        async with node_at(redis.url) as old:
            await until(lambda: len(old.others) == 15_000)


class _Once:
    """Confirms only what the sender itself takes as confirmed."""

    def __init__(self, confirm: Callable[[bytes], None]) -> None:
        self._confirm = confirm

    def __call__(self, node: bytes) -> None:
        import sys

        if sys._getframe(1).f_code.co_name == "_confirm_late":
            self._confirm(node)


async def test_a_node_that_is_gone_holds_up_no_other(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It requested a full copy, and reads no page of it."""
    monkeypatch.setattr(full_copies, "CONFIRM_S", 60.0)
    async with node_at(redis.url) as one:
        one.use(range(20_000), 1)
        await until(lambda: one.messaging._is_linked)
        one.messaging._copies.add(b"0123456789ab")
        async with node_at(redis.url) as other:
            await until(lambda: len(other.others) == 20_000)


@pytest.mark.parametrize("topics", [1, 100])
@pytest.mark.parametrize("size", [1, 1_000])
def test_a_batch_counts_what_it_holds(topics: int, size: int) -> None:
    """Topics and an own id too: they are as long as data may be."""
    batches: list[WriteBatch] = []

    def fill() -> None:
        for n in range(200):
            names = tuple(f"{n}/{t}/" + "t" * size for t in range(topics))
            event = Event(names, b"x" * size, id=f"{n}" + "i" * min(size, 200))
            batches.append(WriteBatch([event], lambda outcome: None))

    held = held_bytes(fill)
    counted = sum(batch.size_bytes for batch in batches)
    assert 0.3 < held / counted < 1.3


def subscriber(n: int, size: int) -> bytes:
    return Subscriber(f"urn:uuid:{n}", (f"{n}" + "t" * size,), {"a": "p" * size, "n": n}).pack()


@pytest.mark.parametrize("size", [1, 5_000])
async def test_announcements_that_wait_are_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Nothing is published: what is listed stays right, the oldest changes are not announced."""
    monkeypatch.setattr(own_roster, "UNANNOUNCED_BYTES_MAX", MIB)

    def fill(roster: LocalRoster) -> None:
        for n in range(8 * MIB // (size * 3 + 512)):
            one = subscriber(n, size)
            roster.note([(one, True)])
            roster.note([(one, False)])

    # The interpreter's table of interned names is replaced now and then, which counts as growth.
    rosters = [LocalRoster(lambda events, done: None) for _ in range(3)]
    assert min(held_bytes(partial(fill, roster)) for roster in rosters) < 3 * MIB
    assert all(roster._unannounced_bytes <= MIB for roster in rosters)


async def test_what_is_published_of_subscriptions_is_published_again_when_it_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_roster, "_AGAIN_S", 0.01)
    answers = iter([False, False])
    published: list[str] = []

    def publish(events: Any, done: Callable[[bool], None]) -> None:
        is_taken = next(answers, True)
        if is_taken:
            published.extend(event.topics[0].rpartition("%3A")[2] for event in events)
        done(is_taken)

    roster = LocalRoster(publish)
    for n in range(1_200):
        roster.note([(subscriber(n, 1), True)])
    await until(lambda: len(published) == 1_200)
    assert published == [str(n) for n in range(1_200)]


async def test_a_roster_of_more_streams_than_its_queue_holds_is_written(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who are there when a node begins are not what may wait too long."""
    monkeypatch.setattr(roster_module, "QUEUE_BYTES_MAX", MIB // 4)
    address, keys = RedisAddress(redis.url, 10.0), Keys("roster")
    membership = Membership(address, keys, 4.0)
    roster = RedisRoster(address, keys, membership, lambda events, done: done(range(len(events))))
    there = {n: subscriber(n, 100) for n in range(3_000)}
    roster.begin(lambda: _values(there))
    tasks = [asyncio.create_task(part.run()) for part in (membership, roster)]
    try:
        await until(lambda: roster.writes)
        for n in range(3_000, 3_010):
            there[n] = subscriber(n, 100)
            roster.note([(there[n], True)])
        held = keys.held(membership.name)
        await until(lambda: bool(redis.client.hlen(held) == 3_010))
        assert membership.name.endswith(b"0000")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await roster.close()


def _values(there: dict[int, bytes]) -> Iterator[bytes]:
    return iter(list(there.values()))


async def test_what_waits_for_its_delivery_is_bounded_in_bytes(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis stores what is sent, but it does not come back down the log."""
    monkeypatch.setattr(writer, "QUEUE_BYTES_MAX", MIB)
    backbone = await open_redis(redis.url, Config(port=0, redis_timeout="60s"))
    may_follow = asyncio.Event()
    follow = backbone._tail.follow

    async def wait_and_follow(deliver: Any, broken: Any) -> None:
        await may_follow.wait()
        await follow(deliver, broken)

    monkeypatch.setattr(backbone._tail, "follow", wait_and_follow)
    try:
        backbone.tail(backbone.start, lambda entries: None, lambda why, place: None)
        outcomes: list[Any] = []
        count = 0
        while not any(isinstance(outcome, Unavailable) for outcome in outcomes):
            backbone.append([Event("t", "x" * 20_000)], outcomes.append)
            count += 1
            assert count * 20_000 < 2 * MIB
            await until(lambda: not backbone._appender._queue)
        may_follow.set()
        await until(lambda: len(outcomes) == count)
        assert backbone._appender._held_bytes == 0
        backbone.append([Event("t", "again")], outcomes.append)
        await until(lambda: len(outcomes) == count + 1)
        assert not isinstance(outcomes[-1], FastsseError)
    finally:
        await backbone.close()
