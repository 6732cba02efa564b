"""`relay` copies an event stream to a topic, event by event, and says how it ended."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import fastsse
from fastsse.client import RelayBroken
from tests.streamserver import Answer, Exchange, StreamServer, streaming


class Target:
    """Records what is published."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ended: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, topics: str, data: Any, /, **fields: Any) -> str:
        await self.gate.wait()
        given = {name: value for name, value in fields.items() if value is not None}
        self.events.append((data, given))
        return ""

    async def end_topic(self, topics: str, /) -> str:
        self.ended.append(topics)
        return ""

    @property
    def error(self) -> str:
        data, fields = self.events[-1]
        assert fields["event"] == "error"
        message: str = json.loads(data)["error"]["message"]
        return message


async def relayed(answer: Answer, to: Target, **options: Any) -> fastsse.client.Relayed:
    async with (
        StreamServer(answer) as server,
        httpx.AsyncClient() as client,
        client.stream("GET", server.url) as response,
    ):
        return await fastsse.relay(response, "run/1", to, **options)


async def test_events_keep_type_id_and_order() -> None:
    to = Target()
    body = b": hi\nretry: 5\n\nid: 1\nevent: tick\ndata: a\ndata: b\n\ndata:  blank\n\nid: 2\n\n"
    done = await relayed(streaming(body, b"data: [DONE]\n\n"), to, private=True)
    assert to.events == [
        ("a\nb", {"event": "tick", "id": "1", "private": True}),
        (" blank", {"private": True}),
        ("[DONE]", {"private": True}),
    ]
    assert (done.events, done.last, to.ended) == (3, "[DONE]", ["run/1"])


async def test_topic_goes_on_when_asked() -> None:
    to = Target()
    await relayed(streaming(b"data: a\n\n"), to, end=False)
    assert to.ended == []


async def error_page(exchange: Exchange) -> None:
    await exchange.answer("500 Internal Server Error", b"oops")


async def html(exchange: Exchange) -> None:
    await exchange.answer("200 OK", b"<html>", b"Content-Type: text/html\r\n")


async def cut(exchange: Exchange) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\n"
    await exchange.send(head + b"data: a\n\ndata: b")
    exchange.reset()


@pytest.mark.parametrize(
    ("answer", "count", "says"),
    [
        (error_page, 0, "answered with 500"),
        (html, 0, "'text/html', not an event stream"),
        (cut, 1, "the upstream broke"),
        (streaming(b"data: a\n\ndata: b"), 1, "in the middle of an event"),
        (streaming(b"data: " + b"x" * 5000), 0, "more than 1000 bytes"),
    ],
)
async def test_upstream_that_breaks_ends_the_topic_with_an_error(
    answer: Answer, count: int, says: str
) -> None:
    to = Target()
    with pytest.raises(RelayBroken) as broken:
        await relayed(answer, to, max_event_bytes=1000)
    assert broken.value.count == count
    assert says in to.error
    assert len(to.events) == count + 1
    assert to.ended == ["run/1"]


async def test_cancelled_relay_says_so() -> None:
    to = Target()
    running = asyncio.create_task(relayed(streaming(b"data: a\n\n", hold=True), to))
    async with asyncio.timeout(10):
        while not to.events:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "cancelled" in to.error
    assert to.ended == ["run/1"]


async def test_slow_hub_slows_the_upstream() -> None:
    to = Target()
    to.gate.clear()
    read = 0

    async def upstream() -> AsyncIterator[bytes]:
        nonlocal read
        for number in range(100):
            read += 1
            yield b"data: %d\n\n" % number

    running = asyncio.create_task(fastsse.relay(upstream(), "run/1", to))
    for _ in range(50):
        await asyncio.sleep(0)
    assert read == 1
    to.gate.set()
    assert (await running).events == 100


class Watched(Target):
    """Knows when the last viewer leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.left = asyncio.Event()

    async def unwatched(self, topic: str, for_s: float) -> None:
        await self.left.wait()


async def test_relay_without_a_viewer_is_cancelled_and_says_so() -> None:
    to = Watched()
    endless = streaming(b"data: a\n\n", hold=True)
    running = asyncio.create_task(relayed(endless, to, unwatched_s=0.5))
    async with asyncio.timeout(20):
        while not to.events:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not running.done()
    to.left.set()
    with pytest.raises(RelayBroken, match=r"no stream followed it for 0\.5 s"):
        await running
    assert "cancelled" in to.error
    assert to.ended == ["run/1"]


async def test_relay_that_is_followed_to_its_end_is_whole() -> None:
    to = Watched()
    done = await relayed(streaming(b"data: a\n\n"), to, unwatched_s=0.5)
    assert done == (1, "a")
    with pytest.raises(TypeError, match="needs a Mount"):
        await relayed(streaming(b"data: a\n\n"), Target(), unwatched_s=1)


async def test_upstream_that_can_not_be_reached_is_an_error_event() -> None:
    to = Target()
    async with httpx.AsyncClient() as client:
        with pytest.raises(RelayBroken, match="broke"):
            await fastsse.relay(client.stream("GET", "http://127.0.0.1:9/"), "run/1", to)
    assert (to.error, to.ended) == ("the upstream broke", ["run/1"])


async def test_stream_that_is_not_opened_yet_is_opened_and_closed() -> None:
    to = Target()
    async with StreamServer(streaming(b"data: a\n\n")) as server, httpx.AsyncClient() as client:
        assert await fastsse.relay(client.stream("GET", server.url), "run/1", to) == (1, "a")
