"""Whatever ends between a stream and the log, its entries come, in order, and nothing is left."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from fastsse.sources import consumer_group, redis_streams
from tests.redis.cluster import node, subscribers, until
from tests.redis.proxy import Proxy
from tests.redis.server import RedisServer
from tests.sources.flows import SOURCES, STREAM, add, has_group, pending, until_metric

EARLIEST = {"last_event_id": "earliest"}


async def test_a_streams_place_is_kept_without_a_reader(redis: RedisServer) -> None:
    source = STREAM | {"url": redis.url}
    async with node(redis.url, sources=[source]) as url:
        await until(lambda: has_group(redis))
        redis.client.xadd("jobs", {"data": "first"})
        async with subscribers([url], **EARLIEST) as (reader,):
            await reader.saw("first")
    for index in range(5):
        redis.client.xadd("jobs", {"data": f"while away {index}"})
    async with (
        node(redis.url, sources=[source]) as url,
        subscribers([url], **EARLIEST) as (reader,),
    ):
        await reader.saw("while away 4")
        assert reader.seen == ["first", *(f"while away {index}" for index in range(5))]


async def test_what_a_dead_reader_had_taken_is_taken_over(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "LOOK_S", 0.1)
    redis.client.xgroup_create("jobs", "fastsse", "0", mkstream=True)
    for index in range(3):
        redis.client.xadd("jobs", {"data": str(index)})
    # Read by somebody who was killed before it was published; long ago.
    redis.client.xreadgroup("fastsse", "dead", {"jobs": ">"})
    pending = redis.client.xpending_range("jobs", "fastsse", "-", "+", 9)
    ids = [entry["message_id"] for entry in pending]
    redis.client.xclaim("jobs", "fastsse", "dead", 0, ids, idle=3_600_000)
    async with (
        node("memory", sources=[STREAM | {"url": redis.url}]) as url,
        subscribers([url], **EARLIEST) as (reader,),
    ):
        await reader.saw("0", "1", "2")
        await until(lambda: redis.client.xpending("jobs", "fastsse")["pending"] == 0)


def readers(redis: RedisServer) -> list[bytes]:
    return [consumer["name"] for consumer in redis.client.xinfo_consumers("jobs", "fastsse")]


async def test_a_source_that_ends_leaves_its_group(redis: RedisServer) -> None:
    async with (
        node("memory", sources=[STREAM | {"url": redis.url}]) as url,
        subscribers([url]) as (reader,),
    ):
        await until(lambda: has_group(redis) and len(readers(redis)) == 1)
        add(redis, "one")
        await reader.saw("one")
    assert readers(redis) == []
    assert pending(redis) == 0


async def test_what_a_source_could_not_publish_is_handed_back_and_read_first(
    redis: RedisServer,
) -> None:
    """The log's Redis is away, the source's is well; nothing waits for what was not changed."""
    source = STREAM | {"url": redis.url, "pending": 3}
    async with Proxy(redis.port) as proxy, node(proxy.url, sources=[source]) as url:
        await until(lambda: has_group(redis))
        proxy.target = 1
        proxy.cut()
        add(redis, *map(str, range(8)))
        await until_metric(url, SOURCES + '{what="refused"}', 1)
    assert 1 <= pending(redis) <= 3
    async with (
        node("memory", sources=[source]) as url,
        subscribers([url], **EARLIEST) as (reader,),
    ):
        await reader.saw("7")
        assert reader.seen == list(map(str, range(8)))
        await until(lambda: pending(redis) == 0)
        await until(lambda: len(readers(redis)) == 2)


async def test_a_silent_redis_holds_up_no_end(redis: RedisServer) -> None:
    async with Proxy(redis.port) as proxy:
        async with node("memory", sources=[STREAM | {"url": proxy.url}]):
            await until(lambda: has_group(redis) and len(readers(redis)) == 1)
            proxy.freeze()
        proxy.thaw()


async def test_a_stream_stays_in_order_over_connections_that_break(redis: RedisServer) -> None:
    """Entries that Redis gave to a reader that was gone are this source's, and come first."""
    async with (
        Proxy(redis.port) as proxy,
        node("memory", sources=[STREAM | {"url": proxy.url}]) as url,
        subscribers([url]) as (reader,),
    ):
        await until(lambda: has_group(redis) and len(readers(redis)) == 1)
        for index in range(40):
            if index % 5 == 2:
                proxy.cut()
            add(redis, str(index))
            await asyncio.sleep(0.01)
        await reader.saw("39")
        assert reader.seen == list(map(str, range(40)))
        await until(lambda: pending(redis) == 0)


async def test_readers_that_were_killed_leave_no_name_for_ever(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "LOOK_S", 0.05)
    monkeypatch.setattr(consumer_group, "GONE_MS", -1)
    redis.client.xgroup_create("jobs", "fastsse", "$", mkstream=True)
    for name in ("fastsse-killed", "fastsse-busy", "somebody's"):
        redis.client.xgroup_createconsumer("jobs", "fastsse", name)
    add(redis, "taken and not confirmed")
    redis.client.xreadgroup("fastsse", "fastsse-busy", {"jobs": ">"})
    async with node("memory", sources=[STREAM | {"url": redis.url}]):
        await until(lambda: b"fastsse-killed" not in readers(redis))
        assert {b"fastsse-busy", b"somebody's"} <= set(readers(redis))
    assert pending(redis) == 1


async def test_a_group_that_is_deleted_goes_on_where_it_was(redis: RedisServer) -> None:
    async with (
        node("memory", sources=[STREAM | {"url": redis.url}]) as url,
        subscribers([url]) as (reader,),
    ):
        await until(lambda: has_group(redis))
        add(redis, "first")
        await reader.saw("first")
        await until(lambda: pending(redis) == 0)
        pipeline = redis.client.pipeline(transaction=True)
        pipeline.xgroup_destroy("jobs", "fastsse")
        for index in range(5):
            pipeline.xadd("jobs", {"data": str(index)})
        pipeline.execute()
        await reader.saw("4")
        assert reader.seen == ["first", "0", "1", "2", "3", "4"]


async def test_a_recreated_stream_is_read_from_its_beginning(redis: RedisServer) -> None:
    async with (
        node("memory", sources=[STREAM | {"url": redis.url}]) as url,
        subscribers([url]) as (reader,),
    ):
        await until(lambda: has_group(redis))
        add(redis, "of the old one")
        await reader.saw("of the old one")
        await until(lambda: pending(redis) == 0)
        pipeline = redis.client.pipeline(transaction=True)
        pipeline.delete("jobs")
        for index in range(1, 4):  # Ids by hand, far below.
            pipeline.xadd("jobs", {"data": str(index)}, id=f"{index}-1")
        pipeline.execute()
        await reader.saw("1", "2", "3")
        redis.client.delete("jobs")
        await until(lambda: has_group(redis))
        add(redis, "later")
        await reader.saw("later")
        assert reader.seen == ["of the old one", "1", "2", "3", "later"]


async def test_entries_deleted_after_they_were_read_are_passed_over(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_group, "LEFT_ALONE_MS", 0)
    redis.client.xgroup_create("jobs", "fastsse", "0", mkstream=True)
    add(redis, "deleted", "trimmed", "kept")
    redis.client.xreadgroup("fastsse", "dead", {"jobs": ">"})
    redis.client.xdel("jobs", redis.client.xrange("jobs")[0][0])
    redis.client.xtrim("jobs", maxlen=1, approximate=False)
    async with (
        node("memory", sources=[STREAM | {"url": redis.url}]) as url,
        subscribers([url], **EARLIEST) as (reader,),
    ):
        await reader.saw("kept")
        await until(lambda: pending(redis) == 0)
        assert reader.seen == ["kept"]


async def test_what_may_not_be_confirmed_is_published_once(
    make_redis: Callable[..., RedisServer],
) -> None:
    """The right to XACK is taken away for a while: its entries are not published over and over."""
    redis = make_redis()
    redis.client.execute_command("ACL", "SETUSER", "s", "on", ">p", "~*", "&*", "+@all", "-xack")
    url = redis.url.replace("://", "://s:p@")
    async with (
        node("memory", sources=[STREAM | {"url": url}]) as address,
        subscribers([address]) as (reader,),
    ):
        await until(lambda: has_group(redis))
        add(redis, "one")
        await until_metric(address, SOURCES + '{what="reconnects"}', 3)
        add(redis, "two")
        assert pending(redis) == 1
        redis.client.execute_command("ACL", "SETUSER", "s", "+xack")
        await reader.saw("two")
        await until(lambda: pending(redis) == 0)
        assert reader.seen == ["one", "two"]


async def test_a_user_with_few_rights_reads_all_the_same(
    make_redis: Callable[..., RedisServer],
) -> None:
    """Names stay in the group, and what was not confirmed waits, but nothing is lost."""
    redis = make_redis()
    rights = ("xgroup", "xreadgroup", "xautoclaim", "xack")
    redis.client.execute_command(
        "ACL", "SETUSER", "s", "on", ">p", "~jobs", *(f"+{name}" for name in rights)
    )
    url = redis.url.replace("://", "://s:p@")
    count = itertools.count()
    for _ in range(2):
        async with (
            node("memory", sources=[STREAM | {"url": url}]) as address,
            subscribers([address]) as (reader,),
        ):
            await until(lambda: has_group(redis))
            add(redis, text := str(next(count)))
            await reader.saw(text)
        assert pending(redis) == 0
