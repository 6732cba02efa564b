"""Delayed events in a cluster of two versions.

A node of the version before follows the stream of changes, reads values only from there, and
ignores a change without one (`OldNode`). After each reconnect it reads the whole hash, and writes
what is missing there of its own copy.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastsse import Config, Server
from fastsse.client import listen
from fastsse.cluster.store import CHANGE_BYTES_MAX
from tests.redis.onelog import until
from tests.redis.server import RedisServer
from tests.redis.test_format import an_old_node, written_in

DESK, CHANGES = "{fastsse}:desk", "{fastsse}:changes"
LARGE = "x" * (2 * CHANGE_BYTES_MAX)


class OldNode:
    """What a node of the version before does with control values.

    Attributes:
        values: its copy.
        ignored: number of changes that had no value.
    """

    def __init__(self, redis: RedisServer) -> None:
        self.values: dict[bytes, bytes] = {}
        self.ignored = 0
        self._client = redis.client
        self._place = b"0-0"

    def connect(self) -> None:
        """Reads all, and writes what is missing there."""
        newest = self._client.xrevrange(CHANGES, count=1)
        self._place = newest[0][0] if newest else b"0-0"
        kept = self._client.hgetall(DESK)
        self.values |= kept
        for key, value in self.values.items():
            if key not in kept:
                self._client.hset(DESK, key, value)
                self._client.xadd(CHANGES, {"k": key, "v": value})

    def follow(self) -> None:
        """Reads the changes since."""
        for _, changes in self._client.xread({CHANGES: self._place}):
            for self._place, fields in changes:
                if len(fields) == 2:
                    self.values[fields[b"k"]] = fields[b"v"]
                else:
                    assert set(fields) == {b"k"}
                    self.ignored += 1


@asynccontextmanager
async def following(redis: RedisServer) -> AsyncIterator[OldNode]:
    """An old node that is alive and follows."""
    old = OldNode(redis)
    old.connect()

    async def follow() -> None:
        while True:
            old.follow()
            await asyncio.sleep(0.02)

    async with an_old_node(redis):
        task = asyncio.create_task(follow())
        try:
            yield old
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def options(redis: RedisServer) -> dict[str, object]:
    return {
        "port": 0, "drain": 0, "access_lines": 0, "store": redis.url, "redis_node_timeout": "1s",
    }  # fmt: skip


def waiting(node: Server) -> int:
    return node._worker.frontend.delayed.schedule._control.services["schedule"]._counts[
        "schedule_events"
    ]


async def test_an_old_node_never_has_delayed_events_so_none_returns(redis: RedisServer) -> None:
    async with (
        Server(Config(**options(redis))) as one,
        Server(Config(**options(redis))) as two,
        listen(two.addresses[0], "a") as events,
    ):
        async with following(redis) as old:
            await written_in(redis, 1)
            await one.schedule("a", "small", delay=0.01)
            await one.schedule("a", LARGE, delay=0.02)
            cancelled = await one.schedule("a", "cancelled", delay=1.5)
            await one.schedule("a", "last", delay=1.8)
            await until(lambda: waiting(two) > 0 and old.ignored >= 4)
            assert sorted([(await anext(events)).data for _ in range(2)]) == ["small", LARGE]
            await until(lambda: waiting(one) == waiting(two) == 2)
            await two.cancel(cancelled)
            await until(lambda: waiting(one) == waiting(two) == 1)
        # It was cut off meanwhile, and writes its copies again.
        old.connect()
        assert not [key for key in old.values if key.startswith(b"schedule/p/")]
        assert (await anext(events)).data == "last"
        await until(lambda: waiting(one) == waiting(two) == 0)
