"""What flows through a real Redis reaches streams, whatever else flows there too."""

import asyncio
import pathlib
from contextlib import AsyncExitStack

import pytest

from fastsse.sources import lease
from tests.redis import cluster
from tests.redis.cluster import subscribers, until
from tests.redis.proxy import Proxy
from tests.redis.server import RedisServer
from tests.sources.flows import (
    CHANNELS,
    STREAM,
    has_group,
    listens,
    metric,
    until_metric,
    until_taken,
)


async def test_a_program_that_publishes_to_channels_reaches_streams(redis: RedisServer) -> None:
    source = CHANNELS | {"url": redis.url, "dead_letter": "dead"}
    async with (
        cluster.node("memory", sources=[source]) as url,
        subscribers([url], "orders/paid") as (reader,),
    ):
        await until(lambda: listens(redis))
        redis.client.publish("orders.paid", '{"order":1}')
        redis.client.publish("orders.sent", "another topic")
        redis.client.publish("other.paid", "another channel")
        redis.client.publish("orders.pa\nid", "no topic's name")
        redis.client.publish("orders.paid", b"\xff not text")
        redis.client.publish("orders.paid", "line 1\nline 2")
        await reader.saw('{"order":1}', "line 1\nline 2")
        assert len(reader.seen) == 2
        assert await metric(url, 'fastsse_sources_total{what="skipped"}') == 2
        await until(lambda: redis.client.xlen("dead") == 2)
        letters = [fields for _, fields in redis.client.xrange("dead")]
        assert letters[1][b"payload"] == b"\xff not text"
        assert letters[0][b"origin"] == b"orders.pa\nid"
        assert await metric(url, 'fastsse_source_lag_seconds{source="orders"}') == 0


async def test_channels_are_taken_once_by_nodes_that_share_a_log(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LIFE_MS", 10_000)
    monkeypatch.setattr(lease, "RENEWAL_S", 0.1)
    async with AsyncExitStack() as first:
        goes = await first.enter_async_context(cluster.node(redis.url, sources=[CHANNELS]))
        await until(lambda: redis.client.exists("{fastsse}:source:orders") == 1)
        async with (
            cluster.node(redis.url, sources=[CHANNELS]) as stays,
            subscribers([stays, goes], "orders/x") as (reader, other),
        ):
            await until(lambda: listens(redis))
            for index in range(50):
                redis.client.publish("orders.x", str(index))
            await reader.saw("49")
            await other.saw("49")
            assert reader.seen == other.seen == list(map(str, range(50)))
            await first.aclose()
            # The one that is left takes over, within the life of a lease.
            for index in range(600):
                redis.client.publish("orders.x", f"later {index}")
                await asyncio.sleep(0.02)
                if len(reader.seen) > 50:
                    break
            assert len(set(reader.seen)) == len(reader.seen) > 50


async def test_a_channel_source_comes_back_after_its_redis_was_away(redis: RedisServer) -> None:
    async with (
        Proxy(redis.port) as proxy,
        cluster.node("memory", sources=[CHANNELS | {"url": proxy.url}]) as url,
        subscribers([url], "orders/x") as (reader,),
    ):
        await until(lambda: listens(redis))
        proxy.cut()
        await until(lambda: proxy.connections >= 2)
        await until(lambda: listens(redis))
        for index in range(600):
            redis.client.publish("orders.x", str(index))
            await asyncio.sleep(0.01)
            if reader.seen:
                break
        assert reader.seen


async def test_every_entry_of_a_stream_becomes_an_event(redis: RedisServer) -> None:
    source = STREAM | {
        "url": redis.url,
        "event": "{field.kind}",
        "payload": "envelope",
        "dead_letter": "dead",
    }
    async with (
        cluster.node("memory", sources=[source]) as url,
        subscribers([url]) as (reader,),
    ):
        await until(lambda: has_group(redis))
        for index in range(450):
            redis.client.xadd("jobs", {"kind": "k", "data": f'{{"data":"{index}"}}'})
        redis.client.xadd("jobs", {"kind": "k", "data": "no envelope"})
        redis.client.xadd("jobs", {"data": '{"data":"no kind"}'})
        redis.client.xadd("jobs", {"kind": "k", "data": '{"data":"last","topic":["t","u"]}'})
        await reader.saw("last")
        assert reader.seen == [*map(str, range(450)), "last"]
        await until(lambda: redis.client.xpending("jobs", "fastsse")["pending"] == 0)
        await until(lambda: redis.client.xlen("dead") == 2)
        assert await metric(url, 'fastsse_sources_total{what="events"}') == 451
        await until_metric(url, 'fastsse_sources_total{what="skipped"}', 2)


async def test_entries_wait_in_their_stream_while_the_log_takes_none(redis: RedisServer) -> None:
    """The source's Redis is well; the log's is away."""
    async with (
        Proxy(redis.port) as proxy,
        cluster.node(proxy.url, sources=[STREAM | {"url": redis.url, "pending": 10}]) as url,
        subscribers([url]) as (reader,),
    ):
        await until(lambda: has_group(redis))
        proxy.target = 1
        proxy.cut()
        for index in range(100):
            redis.client.xadd("jobs", {"data": str(index)})
        await until_metric(url, 'fastsse_sources_total{what="refused"}', 1)
        assert 1 <= redis.client.xpending("jobs", "fastsse")["pending"] <= 10
        proxy.target = redis.port
        await reader.saw("99")
        assert sorted(set(reader.seen), key=int) == list(map(str, range(100)))
        assert reader.gaps == []


async def test_a_flood_is_dropped_and_counted_beyond_the_bound(redis: RedisServer) -> None:
    source = CHANNELS | {"url": redis.url, "pending": 10}
    async with Proxy(redis.port) as proxy, cluster.node(proxy.url, sources=[source]) as url:
        await until_taken(redis, url, "orders.x")
        proxy.target = 1
        proxy.cut()
        for index in range(100):
            redis.client.publish("orders.x", str(index))
        await until_metric(url, 'fastsse_sources_total{what="dropped"}', 80)
        await until_metric(url, 'fastsse_source_lag_seconds{source="orders"}', 0)
        proxy.target = redis.port


async def test_a_key_that_is_no_stream_stops_nothing_else(redis: RedisServer) -> None:
    redis.client.set("jobs", "not a stream")
    sources = [STREAM | {"url": redis.url}, CHANNELS | {"url": redis.url}]
    async with (
        cluster.node("memory", sources=sources) as url,
        subscribers([url], "orders/x") as (reader,),
    ):
        await until(lambda: listens(redis))
        redis.client.publish("orders.x", "here")
        await reader.saw("here")
        await until_metric(url, 'fastsse_sources_total{what="reconnects"}', 2)
        redis.client.delete("jobs")
        await until(lambda: has_group(redis))


BAD = [
    *(
        b"",
        b"\0",
        b"\xff\xfe",
        b"[" * 100_000,
        b"7" * 2_000_000,
        b"no JSON",
        b'{"data":"no topic"}',
    ),
    b'{"topic":"t","data":' + b"[" * 600 + b"]" * 600 + b"}",
    b'{"topic":"/.well-known/mercure/subscriptions","data":""}',
    b'{"topic":"$t","data":""}',
    b'{"topic":"t","data":"","event":"fastsse.gap"}',
    b'{"topic":"t","data":"","event":"a\\r\\nid: 7"}',
]


async def test_bad_entries_stop_nothing_wherever_they_can_not_go(redis: RedisServer) -> None:
    """Their dead-letter stream is none, besides."""
    redis.client.set("dead", "no stream")
    given = {"url": redis.url, "payload": "envelope", "dead_letter": "dead", "topic": None}
    sources = [STREAM | given, CHANNELS | given | {"event": None}]
    async with (
        cluster.node("memory", sources=sources) as url,
        subscribers([url]) as (reader,),
    ):
        await until(lambda: has_group(redis) and listens(redis))
        for payload in BAD:
            redis.client.xadd("jobs", {"data": payload})
            redis.client.publish("orders.x", payload)
        redis.client.xadd("jobs", {b"\xff\0": b"\xff", b"": b""})
        redis.client.xadd("jobs", {"data": '{"topic":"t","data":"of the stream"}'})
        redis.client.publish("orders.x", '{"topic":"t","data":"of a channel"}')
        await reader.saw("of the stream", "of a channel")
        assert len(reader.seen) == 2
        await until_metric(url, 'fastsse_sources_total{what="skipped"}', 2 * len(BAD) + 1)
        await until_metric(url, 'fastsse_sources_total{what="letters_lost"}', 2 * len(BAD) + 1)
        assert await metric(url, 'fastsse_sources_total{what="events"}') == 2


async def test_dead_letters_outlive_connections_that_break(redis: RedisServer) -> None:
    """One whose answer was lost may be written twice."""
    wanted = [b"%d" % index for index in range(40)]

    def letters() -> list[bytes]:
        return [fields[b"payload"] for _, fields in redis.client.xrange("dead")]

    async with Proxy(redis.port) as proxy:
        source = STREAM | {"url": proxy.url, "topic": "{field.none}", "dead_letter": "dead"}
        async with cluster.node("memory", sources=[source]):
            await until(lambda: has_group(redis))
            for index, text in enumerate(wanted):
                if index % 10 == 5:
                    proxy.cut()
                redis.client.xadd("jobs", {"data": text})
                await asyncio.sleep(0.01)
            await until(lambda: list(dict.fromkeys(letters())) == wanted)


async def test_a_service_with_workers_has_each_source_once(
    redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    options = tmp_path / "fastsse.toml"
    options.write_text(
        """[[sources]]
        name = "orders"
        channels = ["orders.*"]
        topic = "orders/{1}"
        [[topics]]
        match = "orders/*"
        event_types = "message"
        [[sources]]
        name = "untyped"
        channels = ["untyped.*"]
        topic = "orders/{1}"
        event = "of no allowed type"
        """
    )
    async with (
        cluster.process(redis.url, "--workers", "2", "--config", str(options)) as url,
        subscribers([url] * 4, "orders/x") as readers,
    ):
        await until_taken(redis, url, "orders.another")
        await until_taken(redis, url, "untyped.x", "skipped")
        redis.client.publish("orders.x", "once")
        redis.client.publish("orders.x", "last")
        for reader in readers:
            await reader.saw("last")
            assert reader.seen == ["once", "last"]
        assert redis.client.pubsub_numpat() == 2
