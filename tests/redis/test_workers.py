"""Several workers of a node on Redis see what one sees, in the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fastsse.bus.client import connection
from fastsse.events import Event
from fastsse.positions import format_position
from fastsse.subscriptions import Cursor
from tests.bus.onebus import Bus, End, a_bus, until
from tests.redis.server import RedisServer


@pytest.fixture
async def bus(redis: RedisServer) -> AsyncIterator[Bus]:
    async with a_bus(store=redis.url, redis_timeout="5s", redis_start="20s") as bus:
        await bus.start()
        yield bus


async def place_of(end: End, cursor: Cursor) -> Any:
    """From where a reader of a quiet topic goes on. A worker gives a question up after 10 s."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    end.backbone.seek(("quiet",), cursor, answer.set_result)
    return await asyncio.wait_for(answer, 8)


def flush(redis: RedisServer) -> None:
    redis.client.flushall()


def add_foreign(redis: RedisServer) -> None:
    redis.client.xadd("fastsse", {"what": "is this"})


@pytest.mark.parametrize("change", [flush, add_foreign])
async def test_a_question_is_answered_though_the_head_moved_without_an_event(
    redis: RedisServer, bus: Bus, change: Callable[[RedisServer], None]
) -> None:
    end = await bus.worker()
    assert bus.hub is not None
    backbone = bus.hub.broker.backbone
    await end.publish(Event("busy", "one"))
    before = backbone.head
    change(redis)
    await until(lambda: backbone.head > before)
    for worker in (end, await bus.newcomer()):
        assert await place_of(worker, Cursor("last", 1)) is None
        # A place that a reader may have from another node: all that lies there was delivered here.
        passed_over = Cursor("after", format_position(backbone.head))
        assert await place_of(worker, passed_over) == end.positions[-1]


async def test_a_worker_whose_link_was_down_while_redis_was_flushed_is_notified(
    redis: RedisServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = await bus.worker(), await bus.worker()
    await near.publish(Event("a", "one"))
    await until(lambda: far.data == [b"one"])
    assert bus.hub is not None
    may_dial = asyncio.Event()
    dial = connection.HubConnection._dial

    async def wait_and_dial(link: connection.HubConnection) -> None:
        await may_dial.wait()
        await dial(link)

    monkeypatch.setattr(connection.HubConnection, "_dial", wait_and_dial)
    bus.hub.broker.sessions[far.backbone._key].drop()
    redis.client.flushall()
    await until(lambda: near.broken)
    assert not far.broken
    may_dial.set()
    await until(lambda: far.broken)
    assert far.broken == near.broken
    await near.publish(Event("a", "two"))
    await until(lambda: far.data == [b"one", b"two"])
