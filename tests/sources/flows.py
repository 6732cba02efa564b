"""What flows through a Redis in these tests, and how far it got."""

import asyncio
from typing import Any

from tests.redis import cluster
from tests.redis.server import RedisServer

CHANNELS: dict[str, Any] = {
    "name": "orders",
    "channels": ["orders.*"],
    "topic": "orders/{1}",
    "event": "{1}",
}
STREAM: dict[str, Any] = {"name": "jobs", "stream": "jobs", "topic": "t"}
SOURCES = "fastsse_sources_total"


def listens(redis: RedisServer) -> bool:
    """Whether somebody follows channels."""
    return bool(redis.client.pubsub_numpat())


def has_group(redis: RedisServer) -> bool:
    """Whether the stream is read by a group."""
    return bool(redis.client.exists("jobs")) and bool(redis.client.xinfo_groups("jobs"))


def pending(redis: RedisServer) -> int:
    """How many entries were read and not confirmed."""
    return int(redis.client.xpending("jobs", "fastsse")["pending"])


def add(redis: RedisServer, *data: str) -> None:
    """Entries of the stream."""
    for text in data:
        redis.client.xadd("jobs", {"data": text})


async def metric(url: str, name: str) -> float:
    """The value of a metric."""
    lines = (await cluster.get(url, "/metrics")).text.splitlines()
    return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)))


async def until_metric(url: str, name: str, least: float) -> None:
    """Waits until a metric is at least so much."""
    for _ in range(600):
        if await metric(url, name) >= least:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} never was {least}")


async def until_taken(redis: RedisServer, url: str, channel: str, what: str = "events") -> None:
    """Waits until a node takes what is published: it listens, and knows that it is the one to."""
    for _ in range(600):
        redis.client.publish(channel, "does anybody take this?")
        if await metric(url, f'{SOURCES}{{what="{what}"}}') >= 1:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{channel} was not taken")
