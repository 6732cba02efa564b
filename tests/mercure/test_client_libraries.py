"""Libraries that others wrote for Mercure work unchanged: a publisher, and readers of streams."""

import asyncio
import json
from typing import Any

import httpx
import httpx_sse
import pytest
from mercure_publisher import AsyncMercurePublisher, MercureConfig
from mercure_publisher.exceptions import MercurePublishError

from fastsse.server import Server
from tests.http.raw import until
from tests.mercure.client import HUB, KEY, token

USER = "https://example.com/users/7"


def publisher(hub: Server, topics: list[str], key: str = KEY) -> AsyncMercurePublisher:
    """The library's client, which makes its own tokens."""
    config = MercureConfig(hub.addresses[0] + HUB, key, topics)
    return AsyncMercurePublisher(config, httpx.AsyncClient(trust_env=False))


async def read(hub: Server, count: int, params: dict[str, str], **client: Any) -> list[Any]:
    """The first events that a reader gets."""
    events: list[Any] = []
    async with (
        httpx.AsyncClient(trust_env=False, **client) as http,
        httpx_sse.aconnect_sse(http, "GET", hub.addresses[0] + HUB, params=params) as source,
    ):
        async for event in source.aiter_sse():
            events.append(event)
            if len(events) == count:
                break
    return events


async def test_what_a_publisher_sends_reaches_who_may_read_it(hub: Server) -> None:
    cookies = {"mercureAuthorization": token(subscribe=["https://example.com/users/{id}"])}
    params = {"topic": "https://example.com/{+all}"}
    reading = asyncio.create_task(read(hub, 3, params, cookies=cookies))
    await until(lambda: hub.stream_count == 1)
    async with publisher(hub, ["*"]) as ours:
        await ours.publish("https://example.com/books/1", {"title": "one"})
        await ours.publish("https://example.com/books/2", "hidden", private=True)
        topics = [USER, "https://example.com/books/3"]
        more: dict[str, Any] = {"id": "urn:own:1", "type": "changed", "retry": 2000}
        await ours.publish(topics, "two\nlines", private=True, **more)
        await ours.publish("https://example.com/books/4", "last")
    first, second, third = await asyncio.wait_for(reading, 60)
    assert json.loads(first.data) == {"title": "one"}
    assert (second.data, second.id, second.event) == ("two\nlines", "urn:own:1", "changed")
    assert (third.data, third.event) == ("last", "message")
    resumed = {**params, "lastEventID": first.id}
    again = await asyncio.wait_for(read(hub, 2, resumed, cookies=cookies), 60)
    assert [event.data for event in again] == ["two\nlines", "last"]


async def test_a_publisher_without_the_right_receives_an_error(hub: Server) -> None:
    for topics, key in (
        (["https://example.com/a"], KEY),
        (["*"], "another key, which is also long enough"),
    ):
        async with publisher(hub, topics, key) as ours:
            with pytest.raises(MercurePublishError) as refused:
                await ours.publish("https://example.com/b", "x")
            assert refused.value.status_code == 401
