"""The schedule of two nodes that share a Redis: all try, one publishes."""

import asyncio
import random
from collections import Counter

from fastsse import Config, Server
from fastsse.client import Publisher, listen
from tests.redis.onelog import until
from tests.redis.server import RedisServer


async def test_each_delayed_event_is_published_once_and_cancelled_anywhere(
    redis: RedisServer,
) -> None:
    options = {"port": 0, "drain": 0, "access_lines": 0, "store": redis.url}
    rand, count = random.Random(3), 100
    async with Server(Config(**options)) as one, Server(Config(**options)) as two:
        await until(lambda: redis.client.get("{fastsse}:format") == b"2")
        nodes = (one, two)
        async with listen(one.addresses[0], "a") as events:
            kept = [
                await rand.choice(nodes).schedule("a", "x" * (n * 90), delay=rand.random())
                for n in range(count)
            ]
            assert len(set(kept)) == count
            cancelled = [await one.schedule("a", "never", delay="1h") for _ in range(3)]
            for scheduled in cancelled:
                await _cancel_soon(two, scheduled)
            await two.schedule("a", "end", delay=1.5)
            seen: Counter[int] = Counter()
            while (event := await anext(events)).data != "end":
                seen[len(event.data)] += 1
        assert seen == Counter({n * 90: 1 for n in range(count)})
        for node in nodes:
            await until(lambda node=node: _waiting(node) == 0)
        assert not redis.client.hkeys("{fastsse}:delayed")


async def test_events_of_a_node_that_ended_are_published_by_another(redis: RedisServer) -> None:
    options = {"port": 0, "drain": 0, "access_lines": 0, "store": redis.url}
    async with Server(Config(**options)) as two:
        async with Server(Config(**options)) as one:
            await one.schedule("a", "of another", delay=0.7)
            await one.schedule("a", "later", delay="1h")
        async with listen(two.addresses[0], "a", since="earliest") as events:
            assert (await anext(events)).data == "of another"
    async with Server(Config(**options)) as again, Publisher(again.addresses[0]) as publisher:
        assert _waiting(again) == 1
        sent = await publisher.publish("b", "x", delay="1h")
        await publisher.cancel(sent.scheduled)


async def test_dead_letter_is_known_to_every_node_once(redis: RedisServer) -> None:
    options = {"port": 0, "drain": 0, "access_lines": 0, "store": redis.url}
    async with Server(Config(**options)) as one, Server(Config(**options)) as two:
        await until(lambda: redis.client.get("{fastsse}:format") == b"2")
        await two.end_topic("a")
        await one.schedule("a", "x", delay=0.3)
        await until(lambda: _counts(one)["schedule_dead"] + _counts(two)["schedule_dead"] >= 1)
        await until(lambda: _waiting(one) + _waiting(two) == 0)
        for node in (one, two):
            async with Publisher(node.addresses[0]) as publisher:
                await _lists_one_dead(publisher)


async def _lists_one_dead(publisher: Publisher) -> None:
    """Another node knows of it a moment later."""
    async with asyncio.timeout(30):
        while not (found := await publisher.list_scheduled()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert [(one.topics, bool(one.reason)) for one in found] == [(("a",), True)]


async def _cancel_soon(node: Server, scheduled: str) -> None:
    """Another node knows of it a moment later."""
    await until(lambda: f"p/{scheduled}" in dict(_service(node)._store.items("p/")))
    await node.cancel(scheduled)


def _service(node: Server):
    return node._worker.frontend.delayed.schedule._control.services["schedule"]


def _counts(node: Server) -> dict[str, int]:
    return _service(node)._counts


def _waiting(node: Server) -> int:
    return _counts(node)["schedule_events"]
