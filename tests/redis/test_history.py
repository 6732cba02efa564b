"""What the log keeps for clients that come back: at least what was promised, and gaps exactly."""

import asyncio
import random

import pytest

from fastsse.config import Config
from fastsse.positions import format_position
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost
from fastsse.subscriptions import Cursor
from tests.redis.onelog import data_of, node_on, until
from tests.redis.proxy import Proxy
from tests.redis.server import RedisServer

RULES = [{"match": "none*", "history_events": 0}, {"match": "few*", "history_events": 3}]


async def test_a_topic_keeps_at_least_what_its_rule_says(redis: RedisServer) -> None:
    async with node_on(redis.url, history_events=50, redis_events=100, topics=RULES) as node:
        await node.answered("first of a quiet one", topic="quiet")
        for first in range(0, 1000, 100):
            await node.answered(*(f"few {first + n}" for n in range(100)), topic="few")
            await node.answered(*(f"busy {first + n}" for n in range(100)), topic="busy")
            await node.answered(*(f"none {first + n}" for n in range(100)), topic="none")
        quiet, busy, few = await node.read("quiet"), await node.read("busy"), await node.read("few")
        # The common stream has evicted it long ago.
        assert list(map(data_of, quiet.entries)) == ["first of a quiet one"]
        assert quiet.evicted_through <= node.backbone.start
        for name, stretch, least in (("busy", busy, 50), ("few", few, 3)):
            kept = list(map(data_of, stretch.entries))
            assert len(kept) >= least
            assert kept == [f"{name} {1000 - len(kept) + n}" for n in range(len(kept))]
            # Exactly the one before the oldest is the newest that is gone.
            gone = node.seen[node.positions.index(stretch.evicted_through)]
            assert gone == f"{name} {999 - len(kept)}"
        none = await node.read("none")
        assert none.entries == []
        assert node.seen[node.positions.index(none.evicted_through)] == "none 999"
        every = await node.read("*", limit_bytes=1 << 24)
        assert len(every.entries) >= 100
        assert every.evicted_through >= every.entries[0].position - 2


async def test_other_rules_hold_for_what_is_appended_from_then_on(redis: RedisServer) -> None:
    async with node_on(redis.url, history_events=50) as node:
        await node.answered(*(str(n) for n in range(20)), topic="few")
        kept = "{fastsse}:topic:few"
        assert redis.client.llen(kept) == 20
        rules = [*RULES, {"match": "long", "history_age": "30d"}]
        node.backbone.apply_rules(Config(history_events=50, topics=rules))
        await node.answered("20", topic="few")
        await node.answered("x", topic="long")
        assert redis.client.llen(kept) == 3
        assert redis.client.pttl("{fastsse}:topic:long") > 29 * 24 * 3600 * 1000


async def test_too_old_events_are_evicted_with_their_topic(redis: RedisServer) -> None:
    async with node_on(redis.url, history_age="1s") as node:
        await node.answered("old")
        last = node.positions[-1]
        redis.client.pexpire("{fastsse}:topic:t", 1)
        await until(lambda: not redis.client.exists("{fastsse}:topic:t"))
        stretch = await node.read("t")
        assert (list(stretch.entries), stretch.evicted_through) == ([], last)
        never = await node.read("never")
        assert never.evicted_through <= node.backbone.start


def put_ids_ahead(redis: RedisServer, by_ms: int) -> None:
    """As a clock that was ahead, and is right again, leaves them."""
    sequence, last = redis.client.get("{fastsse}:newest").split(b" ")
    ahead = b"%d-1" % (int(last.split(b"-")[0]) + by_ms)
    redis.client.set("{fastsse}:newest", b"%b %b" % (sequence, ahead))


# Redis trims whole blocks of this many entries.
BLOCK = 100


async def test_ids_ahead_of_the_clock_make_no_event_too_old(redis: RedisServer) -> None:
    async with node_on(redis.url, history_age="30m") as node:
        await node.answered(*map(str, range(3 * BLOCK)))
        put_ids_ahead(redis, 3_600_000)
        await node.answered("ahead")
        assert redis.client.xlen("fastsse") > 3 * BLOCK


async def test_an_event_is_trimmed_by_its_time_also_where_its_id_is_ahead(
    redis: RedisServer,
) -> None:
    async with node_on(redis.url, history_age="1s") as node:
        await node.answered("first")
        put_ids_ahead(redis, 3_600_000)
        await node.answered(*map(str, range(3 * BLOCK)))
        count = 0
        async with asyncio.timeout(60):
            while redis.client.xlen("fastsse") > 2 * BLOCK + count:
                await node.answered(f"later {count}")
                count += 1


async def test_a_topic_s_name_can_be_anything(redis: RedisServer) -> None:
    names = ["}", "{a}:topic:b", "a b", "é\u2028", "*", "a[b]?", "x" * 1024, "t\\"]
    async with node_on(redis.url) as node:
        for name in names:
            await node.answered(f"in {name}", topic=name, id=f"id {names.index(name)}")
        for name in names[:4] + names[5:]:
            found = await node.read(name)
            assert list(map(data_of, found.entries)) == [f"in {name}"]
            place = await node.seek(Cursor("after", f"id {names.index(name)}"), name)
            assert place == found.entries[0].position


async def test_large_events_are_read_a_page_at_a_time(redis: RedisServer) -> None:
    async with node_on(redis.url, redis_timeout="10s") as node:
        for index in range(20):
            await node.answered(f"{index} " + "x" * 500_000)
        for selectors in (("t",), ("t{x}",)):
            after, pages, found = 0, 0, 0
            while True:
                stretch = await node.read(*selectors, after=after, limit_bytes=1_200_000)
                assert sum(entry.frame.size for entry in stretch.entries) < 1_300_000
                found, pages, after = found + len(stretch.entries), pages + 1, stretch.through
                if stretch.is_last:
                    break
            assert (found, pages) == (20, 10)


async def test_a_node_waits_for_a_place_that_another_node_gave(redis: RedisServer) -> None:
    async with Proxy(redis.port) as proxy, node_on(proxy.url) as node, node_on(redis.url) as other:
        proxy.mute = b"XREAD"
        await other.answered("ahead")
        ahead = format_position(other.positions[-1])
        asking = asyncio.create_task(node.seek(Cursor("after", ahead), "t"))
        await asyncio.sleep(0)
        proxy.mute = None
        assert await asking == other.positions[-1]
        assert node.seen == ["ahead"]


async def test_reading_while_redis_is_away_is_refused(redis: RedisServer) -> None:
    async with Proxy(redis.port) as proxy, node_on(proxy.url) as node:
        await node.answered("kept")
        assert len((await node.read("t")).entries) == 1
        proxy.target = 1
        proxy.cut()
        with pytest.raises(Exception, match="backbone"):
            await node.read("t")
        proxy.target = redis.port
        await node.well()
        assert len((await node.read("t")).entries) == 1


async def test_the_answer_of_a_cancelled_command_goes_to_no_other(redis: RedisServer) -> None:
    chance = random.Random(18)
    for index in range(50):
        redis.client.set(f"user:{index}", f"secret of {index}")
    async with Proxy(redis.port) as proxy:
        proxy.delay_s = 0.001
        link = await RedisConnection.open(RedisAddress(proxy.url, 5))

        async def ask(index: int) -> bool:
            answer = await link.call(b"GET", f"user:{index}")
            assert answer == f"secret of {index}".encode()
            return True

        answered = 0
        for _ in range(20):
            tasks = [asyncio.create_task(ask(index)) for index in range(50)]
            await asyncio.sleep(chance.random() / 100)
            for task in chance.sample(tasks, 20):
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled = sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            answered += outcomes.count(True)
            assert cancelled + outcomes.count(True) == 50
        assert answered >= 20 * 30
        proxy.freeze()
        link._timeout_s = 0.1
        with pytest.raises(AnswerLost):
            await link.call(b"GET", b"user:1")
        proxy.thaw()
        # The next client does not get the answer that came too late.
        with pytest.raises(AnswerLost):
            await link.call(b"GET", b"user:2")
        await link.close()
