"""A Redis that evicts keys, or from which keys are deleted by hand: what is gone is not taken for
what never was, and readers receive a gap."""

from collections.abc import Callable
from typing import Any

import pytest

from fastsse.backbone.redis.follower import find_end
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.keys import Keys
from tests.redis.onelog import Node, node_on
from tests.redis.server import RedisServer

KEYS = Keys("fastsse")
EVENTS = [f"q{n}" for n in range(35)]


async def filled(node: Node) -> int:
    """The place before all events of a quiet topic."""
    await node.answered("first", topic="busy")
    await node.answered(*EVENTS, topic="quiet")
    return node.acknowledged["q0"] - 1


def gone_through(stretch: Any) -> int:
    return stretch.evicted.through  # type: ignore[no-any-return]


def delete(redis: RedisServer, *names: bytes) -> None:
    assert redis.client.delete(*names) == len(names)


QUIET = (KEYS.prefix + b"topic:quiet", KEYS.prefix + b"last:quiet")


async def test_events_that_an_evicting_redis_dropped_are_reported_after_a_restart(
    make_redis: Callable[..., RedisServer],
) -> None:
    redis = make_redis(maxmemory="12mb", maxmemory_policy="allkeys-lru", maxmemory_samples=64)
    options = {"redis_events": 1_000, "history_events": 10, "redis_may_evict": True}
    async with node_on(redis.url, **options) as node:
        before = await filled(node)
        for n in range(400):
            if not redis.client.exists(*QUIET):
                break
            await node.answered(*(f"{n}/{i}" + "x" * 4_000 for i in range(20)), topic=f"busy/{n}")
        assert not redis.client.exists(*QUIET)
    async with node_on(redis.url, **options) as node:
        stretch = await node.read("quiet", after=before)
        assert not stretch.entries
        assert gone_through(stretch) > before + 35 - 1
        # It is reported once.
        again = await node.read("quiet", after=stretch.through)
        assert gone_through(again) <= stretch.through


@pytest.mark.parametrize("names", [QUIET, QUIET[:1], QUIET[1:]], ids=["both", "list", "last"])
@pytest.mark.parametrize("more", [False, True], ids=["quiet", "goes on"])
async def test_deleted_keys_of_a_topic_are_noticed(
    redis: RedisServer, names: tuple[bytes, ...], more: bool
) -> None:
    async with node_on(redis.url) as node:
        before = await filled(node)
        last = node.acknowledged["q34"]
    delete(redis, *names)
    async with node_on(redis.url) as node:
        if more:
            await node.answered("more", topic="quiet")
        stretch = await node.read("quiet", after=before)
        found = [entry.position for entry in stretch.entries]
        if QUIET[0] in names:
            assert gone_through(stretch) >= last
            assert len(found) == more
        else:
            # All events are there, so nothing is reported.
            assert gone_through(stretch) <= before
            assert len(found) == 35 + more
        again = await node.read("quiet", after=stretch.through)
        assert gone_through(again) <= stretch.through


async def test_a_trimmed_topic_whose_last_key_was_deleted_is_still_known_to_be_trimmed(
    redis: RedisServer,
) -> None:
    async with node_on(redis.url, history_events=5) as node:
        before = await filled(node)
        delete(redis, QUIET[1])
        await node.answered(*(f"m{n}" for n in range(5)), topic="quiet")
        assert gone_through(await node.read("quiet", after=before)) == node.acknowledged["q34"]


async def test_a_topic_that_never_was_gives_no_gap_whatever_was_deleted(redis: RedisServer) -> None:
    async with node_on(redis.url) as node:
        before = await filled(node)
        delete(redis, *QUIET)
        for topic in (f"never/{n}" for n in range(50)):
            assert gone_through(await node.read(topic, after=before)) <= before
            await node.answered(f"first of {topic}", topic=topic)
            stretch = await node.read(topic, after=before)
            assert (gone_through(stretch) <= before, len(stretch.entries)) == (True, 1)
        keys = redis.client.keys(KEYS.prefix + b"seen:*")
        assert redis.client.memory_usage(keys[0]) < 1.3 * (1 << 20)
        assert redis.client.pttl(keys[0]) > 0


async def test_a_deleted_filter_is_noticed_too(redis: RedisServer) -> None:
    """Nothing is left that knows of the topic, so every topic without a key is reported."""
    async with node_on(redis.url) as node:
        before = await filled(node)
    (seen,) = redis.client.keys(KEYS.prefix + b"seen:*")
    delete(redis, *QUIET, seen)
    async with node_on(redis.url) as node:
        assert gone_through(await node.read("quiet", after=before)) > before + 34
        await node.answered("of another topic", topic="busy/2")
        assert gone_through(await node.read("quiet", after=before)) > before + 34
        head = node.backbone.head
        await node.answered("on", topic="quiet")
        assert gone_through(await node.read("quiet", after=before)) > before + 34
        assert gone_through(await node.read("quiet", after=head)) <= head


async def test_a_deleted_floor_promises_nothing_from_before(redis: RedisServer) -> None:
    async with node_on(redis.url) as node:
        before = await filled(node)
    delete(redis, KEYS.floor)
    async with node_on(redis.url) as node:
        assert gone_through(await node.read("quiet", after=before)) > before
        assert redis.client.exists(KEYS.floor)
        await node.answered("more", topic="quiet")
        assert not node.broken


async def test_a_loss_is_known_after_a_restart_too(redis: RedisServer) -> None:
    """Another node marked the log: what was lost may have been of any topic."""
    async with node_on(redis.url) as node:
        before = await filled(node)
        link = await RedisConnection.open(RedisAddress(redis.url, 10.0))
        await find_end(link, KEYS, 0, True)
        await link.close()
        await node.until(lambda: bool(node.broken))
        place = node.broken[-1][1]
    async with node_on(redis.url) as node:
        for selector in ("quiet", "*", "never"):
            assert gone_through(await node.read(selector, after=before)) >= place - 1
            assert gone_through(await node.read(selector, after=place)) <= place


async def test_what_was_revoked_is_written_again_when_redis_loses_it(redis: RedisServer) -> None:
    """A node that starts later has to know it."""
    async with node_on(redis.url) as node:
        node.control_store.put("revocations/one", b"value")
        await node.until(lambda: bool(redis.client.exists(KEYS.control)))
        delete(redis, KEYS.control)
        await node.until(lambda: bool(redis.client.exists(KEYS.control)))
        async with node_on(redis.url) as later:
            assert later.control_store.get("revocations/one") == b"value"
