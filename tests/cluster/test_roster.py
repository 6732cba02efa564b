"""The roster in Redis by itself: what becomes of its writers when they end at the worst moment."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from fastsse.backbone import Done
from fastsse.cluster.membership import Membership
from fastsse.cluster.roster import RedisRoster
from fastsse.control.cluster import Subscriber
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.redis.connection import RedisAddress
from fastsse.redis.keys import Keys
from tests.redis.onelog import until
from tests.redis.server import RedisServer

KEYS = Keys("fastsse")


class Node:
    """A node without streams: its roster, and what that publishes.

    Attributes:
        published: what was published of each subscriber.
        publishes: whether it gets that far.
        refuses: how often it is refused before.
    """

    def __init__(self, redis: RedisServer, life_s: float) -> None:
        address = RedisAddress(redis.url, 5)
        self.there: dict[str, bytes] = {}
        self.published: dict[str, list[bool]] = {}
        self.publishes = True
        self.refuses = 0
        self.tried = 0
        self.membership = Membership(address, KEYS, life_s, task_s=0.5)
        self.roster = RedisRoster(address, KEYS, self.membership, self._append)
        self.roster.begin(lambda: self.there.values())

    @classmethod
    @asynccontextmanager
    async def on(cls, redis: RedisServer, life_s: float = 4) -> AsyncIterator["Node"]:
        """One that ends as if it was killed: it leaves nothing undone and reports nothing."""
        node = cls(redis, life_s)
        tasks = [asyncio.create_task(part.run()) for part in (node.membership, node.roster)]
        try:
            yield node
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await node.roster.close()

    async def is_named(self) -> None:
        """Waits until it is a member, and writes down who comes."""
        await self.membership.wait_for_name()
        await until(lambda: self.roster.writes)

    def come(self, *names: str, topics: int = 1) -> None:
        new = [
            Subscriber(name, tuple(f"{name} {n}" for n in range(topics)), None) for name in names
        ]
        self.there |= {one.name: one.pack() for one in new}
        self.roster.note([(one.pack(), True) for one in new])

    def go(self, *names: str) -> None:
        self.roster.note([(self.there.pop(name), False) for name in names])

    async def find(self, topic: str | None = None, most: int = 50_000) -> Any:
        answer: asyncio.Future[bytes | FastsseError] = asyncio.get_running_loop().create_future()
        self.roster.find(topic, None, most, answer.set_result)
        outcome = await asyncio.wait_for(answer, 30)
        assert isinstance(outcome, bytes)
        return orjson.loads(outcome)

    def _append(self, events: Sequence[Event], done: Done) -> None:
        self.tried += 1
        if not self.publishes:
            return
        if self.refuses:
            self.refuses -= 1
            done(Unavailable("backbone", 1))
            return
        for event in events:
            document = orjson.loads(event.data)
            self.published.setdefault(document["subscriber"], []).append(document["active"])
        done(range(len(events)))


def kept(redis: RedisServer) -> list[bytes]:
    """What Redis has of anybody."""
    return [
        key
        for pattern in ("held:*", "there:*", "dead")
        for key in redis.client.keys("{fastsse}:" + pattern)
    ]


NAMES = [f"urn:uuid:{number}" for number in range(700)]


async def test_a_node_that_removes_a_dead_node_may_be_killed_itself(redis: RedisServer) -> None:
    async with Node.on(redis, life_s=0.5) as dead:
        dead.come(*NAMES)
        await until(lambda: len(dead.published) == len(NAMES))
    async with Node.on(redis) as killed:
        killed.publishes = False
        await until(lambda: killed.tried > 0)
    assert len(kept(redis)) > 1
    async with Node.on(redis) as survivor:
        await until(lambda: not kept(redis))
        assert survivor.published == {name: [False] for name in NAMES}
        assert await survivor.find() == [0, []]
    assert set(redis.client.hkeys(KEYS.counts)) <= {survivor.membership.name}


async def test_unpublished_ends_of_a_killed_node_are_published(redis: RedisServer) -> None:
    async with Node.on(redis, life_s=0.5) as dead:
        dead.come(*NAMES[:3])
        await until(lambda: len(dead.published) == 3)
        dead.publishes = False
        dead.go(NAMES[0])
        await until(lambda: dead.tried > 1)
        # It is listed no more, whatever becomes of its end.
        assert (await dead.find())[0] == 2
    async with Node.on(redis) as survivor:
        await until(lambda: not kept(redis))
        assert survivor.published == {name: [False] for name in NAMES[:3]}


async def test_whom_another_member_has_by_then_has_not_ended(redis: RedisServer) -> None:
    async with Node.on(redis) as successor:
        async with Node.on(redis, life_s=0.5) as dead:
            dead.come(*NAMES[:3])
            await until(lambda: len(dead.published) == 3)
            await successor.is_named()
            successor.come(*NAMES[:2])
            held = KEYS.held(successor.membership.name)
            await until(lambda: redis.client.hlen(held) == 2)
            # Twice, for a moment, and listed once.
            assert (await successor.find())[0] == 3
        await until(lambda: not redis.client.exists(KEYS.dead, KEYS.held(dead.membership.name)))
        assert successor.published == {NAMES[2]: [False]}
        assert sorted(name for _, name, _ in (await successor.find())[1]) == NAMES[:2]


async def test_what_is_refused_is_published_later_and_in_order(redis: RedisServer) -> None:
    async with Node.on(redis) as node:
        node.come(NAMES[0], topics=2)
        await until(lambda: len(node.published) == 1)
        node.refuses = 1
        for name in NAMES[1:3]:
            node.come(name, topics=2)
        node.go(NAMES[1])
        await until(lambda: len(node.published.get(NAMES[1], ())) == 4)
        both = [True, True]
        assert node.published == {
            NAMES[0]: both, NAMES[1]: [*both, False, False], NAMES[2]: both
        }  # fmt: skip
        count, listed = await node.find()
        assert count == len(listed) == 4
        assert Counter(name for _, name, _ in listed) == {NAMES[0]: 2, NAMES[2]: 2}
        node.go(NAMES[0], NAMES[2])
        await until(lambda: not kept(redis))


async def test_lists_are_bounded(redis: RedisServer) -> None:
    async with Node.on(redis) as node:
        node.come(*NAMES)
        await until(lambda: len(node.published) == len(NAMES))
        assert await node.find(most=len(NAMES) - 1) == [len(NAMES), []]
        assert (await node.find(most=len(NAMES)))[0] == len(NAMES)
        assert await node.find(f"{NAMES[0]} 0", most=0) == [1, []]
        assert await node.find(f"{NAMES[0]} 0", most=9) == [
            1, [[f"{NAMES[0]} 0", NAMES[0], None]]
        ]  # fmt: skip


async def test_what_others_wrote_into_it_is_left_out(redis: RedisServer) -> None:
    async with Node.on(redis, life_s=0.5) as dead:
        dead.come(*NAMES[:2])
        await until(lambda: len(dead.published) == 2)
        held = KEYS.held(dead.membership.name)
        for name, value in {
            "a": b"",
            "b": b"+",
            "c": b"+[",
            "d": b"+[[1]]\n",
            "e": b"-[]\n{",
        }.items():
            redis.client.hset(held, name, value)
    async with Node.on(redis) as survivor:
        await until(lambda: not kept(redis))
        assert {name: survivor.published.get(name) for name in NAMES[:2]} == {
            name: [False] for name in NAMES[:2]
        }


async def test_above_its_bound_a_node_begins_again_with_all_that_is_there(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastsse.cluster.roster.QUEUE_BYTES_MAX", 64 * 1024)
    async with Node.on(redis) as node:
        await node.is_named()
        for start in range(0, len(NAMES), 50):
            node.come(*NAMES[start : start + 50], topics=3)
            assert node.roster._queue_bytes <= 64 * 1024
            assert bool(node.roster._queue) == bool(node.roster._queue_bytes)
        assert "writes all its streams again" in caplog.text
        await until(lambda: set(node.published) == set(NAMES))
        assert (await node.find())[0] == 3 * len(NAMES)
