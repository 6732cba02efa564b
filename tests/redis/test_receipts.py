"""Receipts over two nodes that share a Redis: `node` is the one that was asked, `cluster` both."""

import asyncio
from contextlib import AsyncExitStack

from fastsse import Config, Server
from fastsse.client import Publisher, listen
from tests.redis.cluster import doomed
from tests.redis.onelog import until
from tests.redis.server import RedisServer

OPTIONS = {"port": 0, "drain": 0, "access_lines": 0}


async def counted(server: Server, topic: str, node: int, cluster: int, **fields: object) -> None:
    """Publishes until the receipt says so: an answer may be a second old."""
    async with Publisher(server.addresses[0]) as publisher, asyncio.timeout(60):
        while True:
            receipt = await publisher.publish(topic, "x", receipt=True, **fields)
            assert receipt.streams is not None
            if receipt.streams == {"node": node, "cluster": cluster}:
                return
            await asyncio.sleep(0.02)


async def test_a_receipt_counts_the_streams_of_every_node_once(redis: RedisServer) -> None:
    options = {**OPTIONS, "store": redis.url}
    async with Server(Config(**options)) as one, Server(Config(**options)) as two:
        async with AsyncExitStack() as stack:
            for server, topics in (
                (one, ["a"]),
                (two, ["a", "b"]),
                (two, "*"),
                (two, "{x}"),
                (two, ["other"]),
            ):
                await stack.enter_async_context(listen(server.addresses[0], topics))
            await until(lambda: (one.stream_count, two.stream_count) == (1, 4))
            await counted(one, "a", 1, 4)
            await counted(two, "a", 3, 4)
            await counted(two, "b", 3, 3)
            await counted(one, "none/here", 0, 1)
            found = await one.count_streams("a")
            assert (found.node, found.cluster, found.missing) == (1, 4, ())
        await until(lambda: (one.stream_count, two.stream_count) == (0, 0))
        await counted(one, "a", 0, 0)


async def test_a_node_that_was_killed_counts_no_more(redis: RedisServer) -> None:
    options = {**OPTIONS, "store": redis.url}
    async with Server(Config(**options)) as one:
        async with doomed(redis.url, "--workers", "2") as other, AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(listen(other.url, "a"))
            await stack.enter_async_context(listen(one.addresses[0], "a"))
            await counted(one, "a", 1, 5)
        await counted(one, "a", 0, 0)
