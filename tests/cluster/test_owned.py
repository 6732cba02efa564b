"""Values that one node at a time owns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastsse.cluster.owned import RedisOwnedValues
from fastsse.redis.connection import RedisAddress
from fastsse.redis.keys import Keys
from tests.redis.cluster import until
from tests.redis.server import RedisServer

OWNER, VALUES = "{fastsse}:things:owner", "{fastsse}:things"
LIFE_S = 0.4


class Node:
    """One that wants the values."""

    def __init__(self, redis: RedisServer, name: bytes, life_s: float = LIFE_S) -> None:
        address = RedisAddress(redis.url, 5)
        self.values = RedisOwnedValues(address, Keys("fastsse"), "things", name, life_s)
        self.heard: list[str] = []
        self.values.begin(self)
        self.task = asyncio.create_task(self.values.run())

    def on_gained(self) -> None:
        self.heard.append("gained")

    def on_lost(self) -> None:
        self.heard.append("lost")

    async def stop(self) -> None:
        """As a process that is paused or killed: it says nothing any more."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def go_on(self) -> None:
        self.task = asyncio.create_task(self.values.run())

    async def put(self, key: str, value: bytes | None) -> bool:
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.values.put(key, value)
        self.values.when_stored(stored.set_result)
        async with asyncio.timeout(20):
            return await stored


@asynccontextmanager
async def node(redis: RedisServer, name: bytes, life_s: float = LIFE_S) -> AsyncIterator[Node]:
    made = Node(redis, name, life_s)
    try:
        yield made
    finally:
        await made.stop()
        await made.values.close()


async def test_one_node_owns_them_and_the_next_has_what_was_stored(redis: RedisServer) -> None:
    async with node(redis, b"b" * 12) as other, node(redis, b"a" * 12) as one:
        await until(lambda: bool(one.values.owner and other.values.owner))
        assert one.values.owner == other.values.owner
        owner, late = (one, other) if one.heard else (other, one)
        assert (owner.heard, late.heard) == (["gained"], [])
        assert [node.values.is_owned for node in (owner, late)] == [True, False]
        assert await owner.put("k", b"v")
        assert await owner.put("gone", b"v")
        assert await owner.put("gone", None)
        assert not await late.put("k", b"of another")
        await owner.stop()
        await until(lambda: late.heard == ["gained"])
        assert late.values.items() == [("k", b"v")]
        # The one that was paused learns it, and has nothing of its own any more.
        await owner.go_on()
        await until(lambda: owner.heard == ["gained", "lost"])
        assert (owner.values.items(), owner.values.is_owned) == ([], False)


async def test_a_write_of_an_earlier_owner_changes_nothing(redis: RedisServer) -> None:
    async with node(redis, b"a" * 12, life_s=60) as one:
        await until(lambda: one.heard == ["gained"])
        assert await one.put("k", b"before")
        redis.client.set(OWNER, "another 9")
        assert not await one.put("k", b"too late")
        assert one.heard == ["gained", "lost"]
        assert redis.client.hgetall(VALUES) == {b"k": b"before"}


async def test_an_owner_that_ends_makes_room_at_once(redis: RedisServer) -> None:
    async with node(redis, b"a" * 12, life_s=60) as one:
        await until(lambda: one.heard == ["gained"])
    assert redis.client.get(OWNER) is None


async def test_what_was_not_confirmed_is_written_after_redis_is_back(redis: RedisServer) -> None:
    async with node(redis, b"a" * 12, life_s=60) as one:
        await until(lambda: one.heard == ["gained"])
        redis.client.client_kill_filter(_type="normal")
        assert await one.put("k", b"v")
        assert redis.client.hgetall(VALUES) == {b"k": b"v"}
        assert one.heard == ["gained"]
