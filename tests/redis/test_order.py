"""Nodes on one log: the same events in the same order everywhere, each once."""

import asyncio
import random

from tests.redis.onelog import node_on
from tests.redis.proxy import Proxy
from tests.redis.server import RedisServer


async def test_every_node_delivers_the_same_order(redis: RedisServer) -> None:
    async with node_on(redis.url) as one, node_on(redis.url) as two, node_on(redis.url) as three:
        nodes = [one, two, three]
        for index in range(100):
            for node in nodes:
                node.publish(f"{id(node)} {index}", f"{id(node)} {index} again")
        for node in nodes:
            await node.until(lambda node=node: len(node.seen) == 600)
            assert not node.refused
        assert one.seen == two.seen == three.seen
        assert one.positions == two.positions == three.positions


async def test_a_batch_stands_together_in_the_order(redis: RedisServer) -> None:
    async with node_on(redis.url) as one, node_on(redis.url) as two:
        for index in range(20):
            one.publish(*(f"one {index} {n}" for n in range(50)))
            two.publish(*(f"two {index} {n}" for n in range(50)))
        await one.until(lambda: len(one.seen) == 2000)
        for first in range(0, 2000, 50):
            batch = [text.rsplit(" ", 1)[0] for text in one.seen[first : first + 50]]
            assert len(set(batch)) == 1


async def test_a_batch_larger_than_one_read_is_delivered_whole(redis: RedisServer) -> None:
    async with node_on(redis.url) as node:
        await node.answered(*map(str, range(2500)))
        assert node.seen == list(map(str, range(2500)))


async def test_positions_go_up_when_the_clock_of_redis_goes_back(redis: RedisServer) -> None:
    async with node_on(redis.url) as node:
        await node.answered("before")
        last = redis.client.xinfo_stream("fastsse")["last-generated-id"]
        ms = int(last.split(b"-")[0]) + 3_600_000
        redis.client.execute_command("XSETID", "fastsse", f"{ms}-5")
        await node.answered("after")
        assert node.acknowledged["after"] == ms << 64 | 6
        assert not node.broken


async def test_a_node_that_starts_again_delivers_only_what_is_new(redis: RedisServer) -> None:
    async with node_on(redis.url) as node:
        await node.answered("old")
    async with node_on(redis.url) as node:
        assert node.backbone.start == node.backbone.head
        await node.answered("new")
        assert node.seen == ["new"]
        found = await node.read("t")
        assert len(found.entries) == 2


async def test_a_publish_whose_answer_was_lost_is_stored_once(redis: RedisServer) -> None:
    async with Proxy(redis.port) as proxy, node_on(proxy.url) as node, node_on(redis.url) as other:
        for index in range(10):
            # The log itself must not tell before it is sent again.
            proxy.mute, proxy.swallow = b"XREAD", b"stored"
            node.publish(f"{index}", f"{index} too")
            await node.until(lambda index=index: proxy.swallowed > index)
            await node.until(lambda index=index: node.backbone.counters()["redis_resent"] > index)
            proxy.mute = None
            await node.saw(f"{index} too")
        assert not node.refused
        await other.saw("9 too")
        assert node.seen == other.seen == [f"{i}{too}" for i in range(10) for too in ("", " too")]
        assert redis.client.xlen("fastsse") == 20 + 1
        assert len((await node.read("t")).entries) == 20


async def test_cuts_and_half_closes_lose_and_repeat_nothing(redis: RedisServer) -> None:
    chance = random.Random(6)
    async with Proxy(redis.port) as proxy, node_on(proxy.url) as node, node_on(redis.url) as other:
        for index in range(300):
            node.publish(str(index))
            if index % 10 == 9:
                await asyncio.sleep(chance.random() / 100)
                chance.choice([proxy.cut, proxy.half_close])()
        await node.until(lambda: len(node.acknowledged) + len(node.refused) == 300)
        await other.saw(*node.acknowledged, *node.seen)
        await node.saw(*other.seen)
        assert node.seen == other.seen
        assert not node.broken


async def test_a_silent_network_is_noticed_and_left(redis: RedisServer) -> None:
    async with (
        Proxy(redis.port) as proxy,
        node_on(proxy.url, redis_timeout="1s") as node,
        node_on(redis.url) as other,
    ):
        await node.answered("before")
        proxy.freeze()
        await other.answered("meanwhile")
        node.publish("waiting")
        await node.troubled("does not answer")
        assert node.refused == ["waiting"]
        proxy.thaw()
        await node.saw("meanwhile")
        await node.published_again("after")
        await other.saw(*node.acknowledged)
        assert not node.broken


async def test_a_slow_network_is_no_trouble(redis: RedisServer) -> None:
    async with Proxy(redis.port) as proxy, node_on(proxy.url) as node:
        proxy.delay_s = 0.05
        for index in range(20):
            node.publish(str(index))
        await node.until(lambda: len(node.acknowledged) == 20)
        assert node.backbone.trouble is None
        assert node.backbone.counters()["redis_reconnects"] == 0


async def test_a_batch_with_a_key_is_stored_once_by_whatever_process(redis: RedisServer) -> None:
    key = (b"worker", 7)
    async with node_on(redis.url) as node:
        await node.answered("a", "b", key=key)
        stored = list(node.acknowledged.values())
    async with node_on(redis.url) as node:
        await node.answered("between")
        await node.answered("a", "b", key=key)
        assert [node.acknowledged[text] for text in "ab"] == stored
        await node.answered("c", key=(b"worker", 8))
        assert node.seen == ["between", "c"]
        assert node.backbone.counters()["redis_repeats"] == 1


async def test_positions_leave_room_before_the_first_event_of_a_millisecond(
    redis: RedisServer,
) -> None:
    async with node_on(redis.url) as node:
        for index in range(50):
            await node.answered(str(index))
        assert all(position & (2**64 - 1) > 0 for position in node.positions)
