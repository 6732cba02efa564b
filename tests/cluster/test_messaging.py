"""What nodes tell each other: what clients have used of their limits, and where a stream is."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.cluster import watching
from tests.cluster.watching import SECRET, has_room, id_of, is_full, says, stream, until
from tests.redis import cluster
from tests.redis.proxy import Proxy
from tests.redis.server import RedisServer


@pytest.fixture
async def three(redis: RedisServer) -> AsyncIterator[list[str]]:
    """A node with workers, and two without, which ping."""
    options: dict[str, Any] = {"jwt_key": SECRET, "ping": "100ms", "pong_timeout": "1h"}
    options |= {"subject_streams": 3, "subject_publishes": 50}
    async with (
        cluster.process(redis.url, "--workers", "2", **options) as one,
        cluster.node(redis.url, **options) as two,
        cluster.node(redis.url, **options) as third,
    ):
        yield [one, two, third]


async def test_a_stream_is_found_from_every_node(three: list[str]) -> None:
    for holder in three:
        async with stream(holder, "ann", more="&ping=true") as data:
            assert data is not None
            stream_id = await id_of(data)
            for url in three:
                await until(says, 204, url, "pong", stream_id)
                await until(says, 204, url, "renew", stream_id, "ann")
                # What the node that has it says is what is said.
                await until(says, 403, url, "renew", stream_id, "eve")
    assert all(await asyncio.gather(*(says(404, url, "pong", stream_id) for url in three)))


async def test_what_is_used_at_one_node_counts_at_all(three: list[str]) -> None:
    for one, other in ((0, 1), (1, 2), (2, 0)):
        name = f"user {one}"
        async with stream(three[one], name), stream(three[other], name), stream(three[one], name):
            await until(is_full, three[3 - one - other], name)
        await until(has_room, three[one], name)
    # Two seconds' worth at once, at whatever nodes.
    body = "\n".join(['{"topic": "t", "data": ""}'] * 1_000)
    assert (await publish(three[0], "bob", body)) == 200
    for url in three[1:]:
        await until(_may_not_publish, url, "bob")
        assert (await publish(url, "carol", '{"topic": "t", "data": ""}')) == 200


async def test_the_oldest_stream_of_a_client_may_be_at_another_node(redis: RedisServer) -> None:
    options: dict[str, Any] = {"jwt_key": SECRET, "subject_streams": 1, "over_limit": "oldest"}
    async with cluster.node(redis.url, **options) as one, cluster.node(redis.url, **options) as two:
        for holder, newcomer in ((one, two), (two, one)):
            async with stream(holder, "ann") as older, AsyncExitStack() as newer:
                assert older is not None
                ended = asyncio.ensure_future(to_end(older))
                # Until the other node knows of it, a quarter of a second, one more gets in.
                while not ended.done():
                    assert await newer.enter_async_context(stream(newcomer, "ann")) is not None
                    await asyncio.wait([ended], timeout=0.5)


async def to_end(data: AsyncIterator[bytes]) -> None:
    """Reads until the stream is cut."""
    with contextlib.suppress(httpx.RemoteProtocolError):
        async for _ in data:
            pass


async def publish(url: str, subject: str, body: str) -> int:
    """The status of a publish."""
    answer = await watching.ask(
        "POST", url + "/events", subject, "application/x-ndjson", content=body
    )
    return answer.status_code


async def _may_not_publish(url: str, subject: str) -> bool:
    return await publish(url, subject, '{"topic": "t", "data": ""}') == 429


async def test_missed_messages_are_sent_again(redis: RedisServer) -> None:
    options: dict[str, Any] = {"jwt_key": SECRET, "subject_streams": 2}
    async with (
        Proxy(redis.port) as proxy,
        cluster.node(proxy.url, **options) as cut_off,
        cluster.node(redis.url, **options) as other,
        stream(other, "ann"),
    ):
        proxy.target = 1
        proxy.cut()
        async with stream(other, "ann"), stream(cut_off, "bob"), stream(cut_off, "bob"):
            proxy.target = redis.port
            await until(is_full, cut_off, "ann")
            await until(is_full, other, "bob")
            # Connections that break again and again, and all are right in the end.
            for _ in range(5):
                proxy.cut()
                await asyncio.sleep(0)
                assert await is_full(cut_off, "bob")
        await until(has_room, cut_off, "ann")
        await until(has_room, other, "bob")


async def test_damaged_and_foreign_messages_change_nothing(redis: RedisServer) -> None:
    options: dict[str, Any] = {"jwt_key": SECRET, "subject_streams": 1, "ping": "100ms"}
    chance = random.Random(7)
    async with (
        cluster.node(redis.url, **options) as one,
        cluster.node(redis.url, **options) as other,
        stream(one, "ann", more="&ping=true") as data,
    ):
        assert data is not None
        await until(is_full, other, "ann")
        channel = "{fastsse}:node:0:all"
        (channels,) = [redis.client.pubsub_channels("{fastsse}:node:0:*")]
        assert len(channels) == 3
        node = next(c for c in channels if c.decode() != channel).rpartition(b":")[2]
        for body in (
            b"", b"n", bytes(22), chance.randbytes(40), b"\xff" * 300,
            *(_message(kind, node, subject, said)
              for kind in b"ndpw?x"
              for subject in (b"shares", b"reach", b"figures", b"\xff", b"")
              for said in (b"", b"[", b"[[7,\"a\"]]", b"[[0,\"a\",\"b\"]]", b"[[0]]", b"{}",
                           b"[[0,\"a\",1.5]]", b"[[0,\"a\",1,1,1,1,1,1,1,1]]", b"?", b"!",
                           b"?" + bytes(17), b"?" + bytes(16) + b"p\xffx")),
        ):  # fmt: skip
            for to in channels:
                redis.client.publish(to, body)
        stream_id = await id_of(data)
        await until(says, 204, other, "pong", stream_id)
        await until(is_full, other, "ann")
        await until(has_room, other, "bob")


def _message(kind: int, node: bytes, subject: bytes, said: bytes) -> bytes:
    return bytes((kind,)) + node + bytes(8) + bytes((len(subject),)) + subject + said
