"""Several nodes act as one service: publish to any, subscribe to any, resume on any."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.redis import cluster
from tests.redis.cluster import Publishing, saw_the_same, subscribers, until
from tests.redis.proxy import Proxy
from tests.redis.server import RedisServer

MakeRedis = Callable[..., RedisServer]


class Three:
    """Three nodes, one of them with two workers, on a Redis that may be harmed."""

    def __init__(self, redis: RedisServer, urls: list[str]) -> None:
        self.redis = redis
        self.urls = urls


@pytest.fixture
async def three(make_redis: MakeRedis) -> AsyncIterator[Three]:
    redis = make_redis(appendonly="yes", appendfsync="always")
    async with (
        cluster.process(redis.url, "--workers", "2") as one,
        cluster.node(redis.url) as two,
        cluster.node(redis.url) as third,
    ):
        yield Three(redis, [one, two, third])


async def test_any_node_takes_a_publish_and_all_deliver_it_in_one_order(three: Three) -> None:
    publishing = Publishing(three.urls)
    async with subscribers(three.urls * 2) as readers:
        await asyncio.gather(
            *(publishing.publish(*(f"{name} {index}" for index in range(30))) for name in "abc")
        )
        assert not publishing.refused
        for reader in readers:
            await reader.saw(*publishing.acknowledged)
            assert reader.seen == readers[0].seen
            assert len(reader.seen) == 90
            assert not reader.gaps
        ids = list(readers[0].ids)
    # A client that was cut here continues there.
    for url in three.urls:
        async with subscribers([url], last_event_id=ids[44]) as (later,):
            await until(lambda later=later: len(later.seen) >= 45, later)  # type: ignore[misc]
            assert later.ids == ids[45:]
            assert later.gaps == []


async def test_a_killed_redis_under_load_loses_nothing_acknowledged(three: Three) -> None:
    publishing, ended = Publishing(three.urls), asyncio.Event()
    async with subscribers(three.urls) as readers:
        load = asyncio.create_task(publishing.keep_on("x", ended))
        for _ in range(2):
            before = len(publishing.acknowledged)
            await until(lambda before=before: len(publishing.acknowledged) > before + 50)  # type: ignore[misc]
            await asyncio.to_thread(three.redis.restart)
        before = len(publishing.acknowledged)
        await until(lambda: len(publishing.acknowledged) > before + 50)
        ended.set()
        await load
        await saw_the_same(readers, *publishing.acknowledged)
        assert [reader.connections for reader in readers] == [1] * len(readers)


async def test_while_redis_is_away_streams_stay_and_publishers_are_refused(three: Three) -> None:
    async with subscribers(three.urls) as readers:
        publishing = Publishing(three.urls)
        await publishing.publish("one", "two", "three")
        for reader in readers:
            await reader.saw("one", "two", "three")
        await asyncio.to_thread(three.redis.kill)
        for url in three.urls:
            await _until_unready(url)
            answer = await cluster.post(url, "refused")
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            # What the node holds can be read as before.
            async with cluster.Listener(url, "t", last=2) as listener:
                assert [(await anext(listener)).data for _ in range(2)] == ["two", "three"]
        await asyncio.to_thread(three.redis.start)
        for url in three.urls:
            await _until_ready(url)
        await publishing.publish("four", "five", "six")
        assert not publishing.refused
        for reader in readers:
            await reader.saw("four", "five", "six")
            assert sorted(reader.seen) == sorted(publishing.acknowledged)
            assert (reader.gaps, reader.connections) == ([], 1)


async def _until_unready(url: str) -> None:
    for _ in range(600):
        answer = await cluster.get(url, "/readyz")
        if answer.status_code == 503:
            assert "Redis can't be reached" in answer.text
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it stayed ready")


async def _until_ready(url: str) -> None:
    for _ in range(600):
        if (await cluster.get(url, "/readyz")).status_code == 200:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never was ready again")


async def test_every_stream_receives_a_gap_event_for_a_flushed_log(three: Three) -> None:
    async with subscribers(three.urls) as readers:
        publishing = Publishing(three.urls)
        await publishing.publish("one", "two", "three")
        for reader in readers:
            await reader.saw("one", "two", "three")
        three.redis.client.flushall()
        for reader in readers:
            await until(lambda reader=reader: reader.gaps != [], reader)  # type: ignore[misc]
        await publishing.publish("four", "five", "six")
        for reader in readers:
            await reader.saw("four", "five", "six")
            assert len(reader.gaps) == 1
    # Resumes from before it receive the gap too, later ones do not.
    for url in three.urls:
        metrics = await cluster.get(url, "/metrics")
        assert 'fastsse_redis_total{what="gaps_flushed"} 1.0' in metrics.text


async def test_a_node_cut_off_alone_catches_up_without_gap(redis: RedisServer) -> None:
    async with (
        Proxy(redis.port) as proxy,
        cluster.node(proxy.url) as cut_off,
        cluster.node(redis.url) as other,
        subscribers([cut_off, other]) as readers,
    ):
        publishing = Publishing([cut_off, other])
        await publishing.publish("one", "two")
        proxy.target = 1
        proxy.cut()
        alone = Publishing([other])
        await alone.publish(*(f"meanwhile {index}" for index in range(20)))
        assert len(alone.acknowledged) == 20
        proxy.target = redis.port
        for reader in readers:
            await reader.saw(*alone.acknowledged)
            assert reader.seen == ["one", "two", *alone.acknowledged]
            assert reader.gaps == []
