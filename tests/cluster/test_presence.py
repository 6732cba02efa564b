"""Who is there, at whatever node, and whatever becomes of nodes and of Redis."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from tests.cluster import watching
from tests.cluster.watching import (
    DEAD_AFTER,
    OPTIONS,
    SUBSCRIPTIONS,
    Watcher,
    counts,
    has_room,
    is_full,
    stream,
    until,
)
from tests.redis import cluster
from tests.redis.server import RedisServer

MakeRedis = Callable[..., RedisServer]


@pytest.fixture
async def three(redis: RedisServer) -> AsyncIterator[list[str]]:
    """A node with workers, and two without."""
    async with (
        cluster.process(redis.url, "--workers", "2", **OPTIONS) as one,
        cluster.node(redis.url, **OPTIONS) as two,
        cluster.node(redis.url, **OPTIONS) as third,
    ):
        yield [one, two, third]


async def listed(url: str, path: str = "") -> list[dict[str, object]]:
    answer = await watching.ask("GET", url + SUBSCRIPTIONS + path)
    assert answer.status_code == 200
    return list(answer.json()["subscriptions"])


async def test_every_node_lists_and_tells_who_is_at_any_of_them(three: list[str]) -> None:
    async with AsyncExitStack() as stack:
        for url in three:
            await stack.enter_async_context(stream(url, "ann", "t&topic=other"))
        last = AsyncExitStack()
        await last.enter_async_context(stream(three[0], "bob"))
        await counts(4, *three)
        for url in three:
            assert len(await listed(url)) == 7
            assert [one["topic"] for one in await listed(url, "/other")] == ["other"] * 3
            plain = await watching.ask("GET", url + "/presence?topic=t&limit=2")
            assert (plain.json()["count"], len(plain.json()["subscribers"])) == (4, 2)
            one = (await listed(three[1], "/t"))[0]
            alone = await watching.ask("GET", f"{url}{one['id']}")
            assert alone.json()["subscriber"] == one["subscriber"]
            unknown = str(one["id"]).replace("/t/", "/u/")
            assert (await watching.ask("GET", f"{url}{unknown}")).status_code == 404
        await last.aclose()
        await counts(3, *three)
        watchers = [await stack.enter_async_context(Watcher.at(url)) for url in three]
        for url in three:
            async with stream(url, "ann", "news"):
                for watcher in watchers:
                    await until(_events_of_batch, watcher, True)
                # Who is announced is listed at once, and who is announced as ended is not.
                assert [await watching.count(at, "news") for at in three] == [1, 1, 1]
            for watcher in watchers:
                await until(_events_of_batch, watcher, False)
            assert [await watching.count(at, "news") for at in three] == [0, 0, 0]
        for watcher in watchers:
            await watcher.sees(*([True, False] for _ in three), topic="news")
    await counts(0, *three)
    await until(_nobody, three[0])


async def _nobody(url: str) -> bool:
    return await listed(url) == []


async def _events_of_batch(watcher: Watcher, active: bool) -> bool:
    told = list(watcher.seen("news").values())
    return bool(told) and told[-1][-1] is active


async def test_a_killed_node_is_taken_out_once_and_a_stopped_one_comes_again(
    redis: RedisServer,
) -> None:
    options = OPTIONS | DEAD_AFTER | {"subject_streams": 1}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        urls = [await enter(cluster.node(redis.url, **options)) for _ in range(2)]
        killed = await enter(cluster.doomed(redis.url, **options))
        stopped = await enter(cluster.doomed(redis.url, **options))
        watchers = [await enter(Watcher.at(url)) for url in urls]
        at = {urls[0]: "bob", urls[1]: "eve", killed.url: "ann", stopped.url: "dan"}
        for url, subject in at.items():
            assert await enter(stream(url, subject))
        await counts(4, *urls)
        # What they have at whatever node counts here.
        for subject in at.values():
            await until(is_full, urls[0], subject)
        killed.signal(signal.SIGKILL)
        stopped.signal(signal.SIGSTOP)
        await counts(2, *urls)
        for watcher in watchers:
            await watcher.sees([True], [True], [True, False], [True, False])
        for subject in ("ann", "dan"):
            await until(has_room, urls[1], subject)
        stopped.signal(signal.SIGCONT)
        await counts(3, *urls, stopped.url)
        for watcher in watchers:
            await watcher.sees([True], [True], [True, False], [True, False, True])
        there = {one["subscriber"] for one in await listed(urls[0], "/t")}
        assert there == {who for who, told in watchers[0].seen().items() if told[-1]}
        await until(is_full, urls[0], "dan")
        await until(_nobody_dead, redis)


async def test_a_redis_that_lost_everything_receives_the_roster_again(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    options = OPTIONS | {"ping": "100ms", "redis_timeout": "1s"}
    async with (
        cluster.node(redis.url, **options) as one,
        cluster.process(redis.url, "--workers", "2", **options) as two,
        stream(one, "ann", more="&ping=true") as data,
        stream(two, "ann"),
        stream(two, "ann"),
    ):
        assert data is not None
        stream_id = await watching.id_of(data)
        await counts(3, one, two)
        redis.client.flushall()
        await counts(3, one, two)
        redis.kill()
        # What is at the other node is not known, and that is what is said.
        for url in (one, two):
            await until(_is_unknown, url)
        await until(watching.says, 503, two, "pong", stream_id)
        assert await watching.says(204, one, "pong", stream_id)
        redis.start()
        await counts(3, one, two)
        await until(watching.says, 204, two, "pong", stream_id)


async def _is_unknown(url: str) -> bool:
    return await watching.count(url) == -1


async def test_a_killed_hub_of_a_node_ends_no_stream(redis: RedisServer) -> None:
    options = OPTIONS | {"redis_node_timeout": "1m"}
    async with (
        cluster.node(redis.url, **options) as here,
        cluster.doomed(redis.url, "--workers", "2", **options) as node,
        Watcher.at(here) as watcher,
        stream(node.url, "ann"),
        stream(node.url, "bob"),
    ):
        await watcher.sees([True], [True])
        os.kill(node.children()["hub"][0], signal.SIGKILL)
        # The next hub is another member, and has both for its own before the first is dead. The
        # watcher is there too.
        await until(_counted, redis, [b"1", b"2", b"2"])
        async with stream(node.url, "eve"):
            await watcher.sees([True], [True], [True])
            assert await watching.count(here) == 3


async def _counted(redis: RedisServer, counts: list[bytes]) -> bool:
    """Whether Redis has so many subscriptions of members."""
    return sorted(redis.client.hvals("{fastsse}:counts")) == counts


async def _nobody_dead(redis: RedisServer) -> bool:
    return not redis.client.exists("{fastsse}:dead")
