"""The client reconnects and resumes as a browser does, and stops where a browser stops."""

import asyncio
import random
from typing import Any

import httpx
import pytest

from fastsse.client import (
    ClientError,
    EventTooLarge,
    Listener,
    ReceivedEvent,
    Refused,
    StreamState,
    Unreachable,
    listen,
)
from tests.streamserver import Answer, Exchange, StreamServer, answering, streaming


class Waits:
    """Stands in for sleeping: notes how long, and goes on at once."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def __call__(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)
        await asyncio.sleep(0)


async def received(listener: Listener, count: int) -> list[str]:
    async with listener:
        return [(await anext(listener)).data for _ in range(count)]


async def test_events_arrive_in_order_with_type_and_id() -> None:
    answer = streaming(b"id: 1\nevent: tick\ndata: a\n\ndata: b", b"\n\n", hold=True)
    async with StreamServer(answer) as server, listen(server.url, "news") as events:
        assert await anext(events) == ReceivedEvent("a", "tick", "1")
        assert await anext(events) == ReceivedEvent("b", "message", "1")
        assert events.last_event_id == "1"


@pytest.mark.parametrize(
    ("url", "topics", "target"),
    [
        ("", "news", "/events?topic=news"),
        ("/", ["a", "b"], "/events?topic=a&topic=b"),
        ("/stream?x=1", [], "/stream?x=1"),
        ("/stream?x=1", "a&b=c é", "/stream?x=1&topic=a%26b%3Dc"),
    ],
)
async def test_address_and_topics_make_the_request(
    url: str, topics: str | list[str], target: str
) -> None:
    async with StreamServer(streaming(b"data: x\n\n", hold=True)) as server:
        await received(listen(server.url + url, topics), 1)
        assert server.requests[0].target.startswith(target)
        assert server.requests[0].headers[b"accept"] == b"text/event-stream"


async def test_end_of_stream_reconnects_with_the_last_id_after_the_servers_retry() -> None:
    waits = Waits()
    answers = [streaming(b"retry: 200\nid: 7\ndata: a\n\n"), streaming(b"data: b\n\n", hold=True)]
    async with StreamServer(*answers) as server:
        listener = listen(server.url, "t", since="10m", sleep=waits, rand=random.Random(1))
        assert await received(listener, 2) == ["a", "b"]
        first, second = server.requests
        assert "since=10m" in first.target
        assert "since" not in second.target
        assert b"last-event-id" not in first.headers
        assert second.headers[b"last-event-id"] == b"7"
    [wait_s] = waits.waits_s
    assert 0.2 <= wait_s <= 0.3


async def test_opening_block_alone_is_enough_to_resume() -> None:
    answers = [streaming(b": hi\nid: 9-0\n\n"), streaming(b"data: b\n\n", hold=True)]
    async with StreamServer(*answers) as server:
        assert await received(listen(server.url, "t", sleep=Waits()), 1) == ["b"]
        assert server.requests[1].headers[b"last-event-id"] == b"9-0"


async def test_reset_connection_reconnects_without_the_unfinished_event() -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.stream(b"id: 1\ndata: a\n\nid: 2\ndata: lost")
        exchange.reset()

    async with StreamServer(cut, streaming(b"data: b\n\n", hold=True)) as server:
        assert await received(listen(server.url, "t", sleep=Waits()), 2) == ["a", "b"]
        assert server.requests[1].headers[b"last-event-id"] == b"1"


async def test_waits_grow_while_nothing_answers_and_shrink_when_it_does() -> None:
    waits = Waits()

    async def nothing(exchange: Exchange) -> None:
        exchange.reset()

    answers: list[Answer] = [nothing] * 8 + [streaming(), streaming(b"data: a\n\n", hold=True)]
    async with StreamServer(*answers) as server:
        listener = listen(server.url, "t", sleep=waits, rand=random.Random(2))
        assert await received(listener, 1) == ["a"]
    assert all(b > a * 1.3 for a, b in zip(waits.waits_s[:4], waits.waits_s[1:4], strict=False))
    assert max(waits.waits_s) <= 45
    assert 1 <= waits.waits_s[-1] <= 1.5


async def test_servers_retry_over_a_minute_is_kept() -> None:
    waits = Waits()
    answers = [streaming(b"retry: 120000\n\n"), streaming(b"data: a\n\n", hold=True)]
    async with StreamServer(*answers) as server:
        await received(listen(server.url, "t", sleep=waits), 1)
    assert 120 <= waits.waits_s[0] <= 180


async def test_status_204_ends_quietly() -> None:
    async with StreamServer(answering("204 No Content")) as server:
        assert [event async for event in listen(server.url, "t")] == []
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["205 X", "401 Unauthorized", "404 Not Found", "410 Gone"])
async def test_other_statuses_end_it_for_good(status: str) -> None:
    body = b'{"title":"No","detail":"Not here.","field":"topic","line":3}'
    async with StreamServer(answering(status, body)) as server:
        with pytest.raises(Refused) as caught:
            await received(listen(server.url, "t"), 1)
        assert len(server.requests) == 1
    assert (caught.value.status, caught.value.field) == (int(status[:3]), "topic")
    assert str(caught.value) == f"{status}: Not here."


@pytest.mark.parametrize(
    "status",
    ["408 Late", "425 Early", "429 Many", "500 Error", "502 Gateway", "503 Busy", "522 Away"],
)
async def test_busy_or_failing_server_is_asked_again_after_its_time(status: str) -> None:
    waits = Waits()
    busy = answering(status, b"<html>", b"Retry-After: 20\r\n")
    back = streaming(b"data: a\n\n", hold=True)
    async with StreamServer(busy, busy, back) as server:
        assert await received(listen(server.url, "t", sleep=waits), 1) == ["a"]
        assert len(server.requests) == 3
    assert all(20 <= wait_s <= 30 for wait_s in waits.waits_s)


@pytest.mark.parametrize("options", [{"reconnect": False}, {"tries": 1}])
async def test_busy_server_is_an_error_with_its_status_where_it_is_not_asked_again(
    options: dict[str, Any],
) -> None:
    async with StreamServer(answering("503 Busy", b'{"detail":"Full."}')) as server:
        with pytest.raises(Refused, match=r"503 Busy: Full\.") as caught:
            await received(listen(server.url, "t", **options), 1)
        assert len(server.requests) == 1
    assert caught.value.status == 503


async def test_other_content_types_end_it_for_good() -> None:
    async with StreamServer(answering("200 OK", b"x", b"Content-Type: text/html\r\n")) as server:
        with pytest.raises(Refused, match="text/html"):
            await received(listen(server.url, "t"), 1)


async def test_redirects_are_followed_and_endless_ones_are_not() -> None:
    away = answering("307 Temporary Redirect", b"", b"Location: /other\r\n")
    async with StreamServer(away, streaming(b"data: a\n\n", hold=True)) as server:
        assert await received(listen(server.url, "t"), 1) == ["a"]
        assert server.requests[1].target == "/other"
    async with StreamServer(away) as server:
        with pytest.raises(ClientError):
            await received(listen(server.url, "t"), 1)


async def test_refused_connection_is_tried_again() -> None:
    async with StreamServer(streaming(b"data: a\n\n", hold=True)) as server:
        free = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = free.sockets[0].getsockname()[1]
        free.close()
        await free.wait_closed()

        async def serve_there(wait_s: float) -> None:
            again = await asyncio.start_server(server.take, "127.0.0.1", port)
            stack.append(again)

        stack: list[asyncio.Server] = []
        states: list[StreamState] = []
        listener = listen(
            f"http://127.0.0.1:{port}", "t", sleep=serve_there, on_state=states.append
        )
        assert await received(listener, 1) == ["a"]
        stack[0].close()
        await stack[0].wait_closed()
    assert [state.kind for state in states] == ["waiting", "open"]
    assert states[0].reason
    assert states[0].wait_s > 0


async def test_without_reconnecting_it_ends_with_the_stream() -> None:
    async with StreamServer(streaming(b"data: a\n\n")) as server:
        events = listen(server.url, "t", reconnect=False)
        assert [event.data async for event in events] == ["a"]
        await events.aclose()


async def test_without_reconnecting_a_broken_connection_is_an_error() -> None:
    async def cut(exchange: Exchange) -> None:
        exchange.reset()

    async with StreamServer(cut) as server:
        with pytest.raises(Unreachable, match=str(server.port)):
            await received(listen(server.url, "t", reconnect=False), 1)


async def test_silent_connection_counts_as_dead() -> None:
    answers = [streaming(b"data: a\n\n", hold=True), streaming(b"data: b\n\n", hold=True)]
    states: list[StreamState] = []
    async with StreamServer(*answers) as server:
        listener = listen(
            server.url, "t", idle_timeout_s=0.05, sleep=Waits(), on_state=states.append
        )
        assert await received(listener, 2) == ["a", "b"]
    assert "in time" in states[1].reason


async def test_event_over_the_limit_ends_it() -> None:
    async with StreamServer(streaming(b"data: " + b"x" * 5000, hold=True)) as server:
        with pytest.raises(EventTooLarge):
            await received(listen(server.url, "t", max_event_bytes=1000), 1)


@pytest.mark.parametrize(
    ("id", "header", "in_query"),
    [
        ("é~1", "é~1".encode(), False),
        ("a b", b"a b", False),
        ("a\x01", None, True),
        (" 5 ", None, True),
        ("\x7f", None, True),
    ],
)
async def test_id_that_no_header_can_carry_goes_into_the_query(
    id: str, header: bytes | None, in_query: bool
) -> None:
    answers = [
        streaming(b"id: " + id.encode() + b"\ndata: a\n\n"),
        streaming(b"data: b\n\n", hold=True),
    ]
    async with StreamServer(*answers) as server:
        await received(listen(server.url, "t", sleep=Waits()), 2)
        assert server.requests[1].headers.get(b"last-event-id") == header
        assert ("last_event_id=" in server.requests[1].target) is in_query


async def test_start_and_credentials_are_sent() -> None:
    async with StreamServer(streaming(b"data: a\n\n", hold=True)) as server:
        await received(
            listen(server.url, "t", last=5, token="s3cret", headers={"X-Tenant": "é"}), 1
        )
        await received(listen(server.url, "t", last_event_id="earliest", last=5), 1)
        first, second = server.requests
    assert "last=5" in first.target
    assert first.headers[b"authorization"] == b"Bearer s3cret"
    assert first.headers[b"x-tenant"] == "é".encode()
    assert second.headers[b"last-event-id"] == b"earliest"
    assert "last=" not in second.target


async def test_entering_waits_until_the_stream_is_open() -> None:
    async with StreamServer(streaming(hold=True)) as server, listen(server.url, "t"):
        assert len(server.requests) == 1


async def test_entering_a_refused_stream_raises_and_leaves_nothing_open() -> None:
    async with StreamServer(answering("404 Not Found")) as server:
        with pytest.raises(Refused):
            async with listen(server.url, "t"):
                pytest.fail("the block must not run")


async def test_entering_an_ended_stream_gives_no_events() -> None:
    async with StreamServer(answering("204 No Content")) as server:
        async with listen(server.url, "t") as events:
            assert [event async for event in events] == []
        assert len(server.requests) == 1


async def test_breaking_out_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def watch(exchange: Exchange) -> None:
        await exchange.stream(b"data: a\n\n")
        await exchange.gone()
        closed.set()

    async with StreamServer(watch) as server:
        async with listen(server.url, "t") as events:
            async for event in events:
                assert event.data == "a"
                break
        await closed.wait()
        await events.aclose()


async def test_clients_own_http_client_is_used_and_left_open() -> None:
    async with (
        StreamServer(streaming(b"data: a\n\n", hold=True)) as server,
        httpx.AsyncClient(headers={"X-Mine": "1"}) as client,
    ):
        await received(listen(server.url, "t", client=client), 1)
        assert server.requests[0].headers[b"x-mine"] == b"1"
        assert not client.is_closed


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not an http:// or https:// address"):
        listen(url, "t")


async def test_slow_reader_holds_the_server_back_not_memory() -> None:
    sent = 0
    piece = b"data: " + b"x" * 65536 + b"\n\n"

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.stream()
        while True:
            await exchange.send(piece)
            sent += len(piece)

    async with StreamServer(flood) as server, listen(server.url, "t") as events:
        await anext(events)
        before = -1
        while before != sent:  # Until the socket buffers are full and nothing moves.
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 32 * 1024 * 1024
        await anext(events)
