"""A client survives all that a server or a proxy sends: a clear error or a wait that grows, and
never a tight loop. Each test counts the attempts."""

import asyncio
import gzip
import random

import pytest

from fastsse.client import (
    AsyncClient,
    ClientError,
    EventTooLarge,
    Listener,
    Outbox,
    Pending,
    Refused,
    Unreachable,
    fetch_page,
    listen,
)
from fastsse.client.exchanges import FIRST_WAIT_S
from fastsse.client.http import growing_wait_s
from tests.client.test_listener import Waits
from tests.streamserver import Answer, Exchange, StreamServer, answering, streaming

STREAM = b"Content-Type: text/event-stream\r\n"


def page(status: str) -> Answer:
    """A page of a proxy, such as one that wants a login."""
    return answering(status, b"<html>Sign in</html>", b"Content-Type: text/html\r\n")


async def untyped(exchange: Exchange) -> None:
    await exchange.answer("200 OK", b"data: x\n\n")


async def to_itself(exchange: Exchange) -> None:
    await exchange.answer("302 Found", b"", b"Location: /events?topic=news\r\n")


async def elsewhere(exchange: Exchange) -> None:
    await exchange.answer("302 Found", b"", b"Location: gopher://x/\r\n")


async def not_found(exchange: Exchange) -> None:
    await exchange.answer("404 Not Found", b"\xff\xfe not JSON")


@pytest.mark.parametrize(
    ("answer", "error", "says", "attempts"),
    [
        (page("200 OK"), Refused, "text/html", 1),
        (untyped, Refused, "not an event stream", 1),
        (to_itself, ClientError, "redirect", 21),
        (elsewhere, ClientError, "gopher|protocol", 1),
        (not_found, Refused, "404", 1),
    ],
)
async def test_answer_that_can_not_become_a_stream_is_an_error(
    answer: Answer, error: type[Exception], says: str, attempts: int
) -> None:
    waits = Waits()
    async with StreamServer(answer) as server:
        events = listen(server.url, "news", sleep=waits)
        with pytest.raises(error, match=f"(?i){says}"):
            await anext(events)
        await events.aclose()
        assert len(server.requests) == attempts
    assert waits.waits_s == []


async def test_line_above_the_bound_ends_the_stream() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.stream(b"data: " + b"x" * 10_000_000)
        await exchange.gone()

    async with StreamServer(endless) as server:
        events = listen(server.url, "news", max_event_bytes=1_000_000)
        with pytest.raises(EventTooLarge, match="1000000"):
            await anext(events)
        await events.aclose()
        assert len(server.requests) == 1


async def test_line_of_ten_megabytes_arrives_within_the_default_bound() -> None:
    async def long(exchange: Exchange) -> None:
        await exchange.stream(b"data: " + b"x" * 10_000_000 + b"\n\n")
        await exchange.gone()

    async with StreamServer(long) as server:
        events = listen(server.url, "news")
        assert len((await anext(events)).data) == 10_000_000
        await events.aclose()


async def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    cut = streaming(b"id: \xff\ndata: a\xe2\x82\n\ndata: b\xf0\x9f\n\n", hold=True)
    async with StreamServer(cut) as server:
        events = listen(server.url, "news")
        assert [(await anext(events)).data for _ in range(2)] == ["a�", "b�"]
        await events.aclose()


async def test_gzip_that_was_not_asked_for_is_decoded() -> None:
    async def packed(exchange: Exchange) -> None:
        body = gzip.compress(b"data: packed\n\n")
        await exchange.answer("200 OK", body, STREAM + b"Content-Encoding: gzip\r\n")

    async with StreamServer(packed) as server:
        events = listen(server.url, "news")
        assert (await anext(events)).data == "packed"
        await events.aclose()


async def broken_gzip(exchange: Exchange) -> None:
    await exchange.answer("200 OK", b"not gzip", STREAM + b"Content-Encoding: gzip\r\n")


async def silent_end(exchange: Exchange) -> None:
    await exchange.stream(b"retry: 0\n\n")


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def nonsense(exchange: Exchange) -> None:
    await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n")


async def short(exchange: Exchange) -> None:
    await exchange.answer("200 OK", b"", STREAM.replace(b"\r\n", b"\r\nX: y\r\n"))


@pytest.mark.parametrize("answer", [broken_gzip, silent_end, reset, nonsense, short])
async def test_stream_that_never_brings_an_event_is_tried_less_and_less(answer: Answer) -> None:
    waits = Waits()
    async with StreamServer(answer) as server:
        events = Listener(server.url, "news", sleep=waits, tries=8)
        with pytest.raises((Unreachable, ClientError)):
            await anext(events)
        await events.aclose()
        assert len(server.requests) == 8
    assert min(waits.waits_s) >= 0.1
    assert waits.waits_s[-1] > 8 * waits.waits_s[0]


async def test_server_that_sends_nothing_is_left_after_the_idle_timeout() -> None:
    async def mute(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.gone()

    waits = Waits()
    async with StreamServer(mute) as server:
        events = Listener(server.url, "news", idle_timeout_s=0.1, sleep=waits, tries=2)
        async with asyncio.timeout(10):
            with pytest.raises(Unreachable, match="no data"):
                await anext(events)
        await events.aclose()
        assert len(server.requests) == 2


async def test_feed_that_was_lost_and_can_not_be_stored_again_is_tried_less_and_less() -> None:
    stored = answering("201 Created", b'{"feed":"f"}')
    lost = b'event: fastsse.gap\ndata: {"reason":"feed","requested":"","from":"1-0"}\n\n'
    away = answering("503 Busy")
    waits = Waits()
    async with StreamServer(stored, streaming(lost), away) as server:
        events = Listener(server.url, map(str, range(200)), sleep=waits, tries=8)
        with pytest.raises(Refused, match="503"):
            await anext(events)
        await events.aclose()
        assert len(server.requests) <= 2 + 8
    assert len(waits.waits_s) == len(server.requests) - 3
    assert min(waits.waits_s) >= 0.1
    assert waits.waits_s[-1] > 8 * waits.waits_s[0]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"events":5,"next":"","gap":null,"ended":false}']
)
async def test_page_that_is_none_is_an_error(body: bytes) -> None:
    async with StreamServer(answering("200 OK", body)) as server:
        with pytest.raises(Refused, match="not from a fastsse server"):
            await fetch_page(server.url, "news")


RECEIPT = answering("200 OK", b'{"count":1,"first":"1-1","last":"1-1"}')


async def garbage(exchange: Exchange) -> None:
    await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


# The first attempt asks once more, by httpx, when the answer is a redirect; a loop has 21 requests.
@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        (page("200 OK"), 3),
        (page("407 Proxy Authentication Required"), 3),
        (page("511 Network Authentication Required"), 3),
        (page("522 Connection Timed Out"), 3),
        (to_itself, 1 + 3 * 21),
        (elsewhere, 1 + 3),
        (reset, 3),
        (garbage, 3),
    ],
)
async def test_outbox_keeps_its_events_whatever_a_proxy_answers(
    answer: Answer, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_s: list[float] = []

    async def wait(client: AsyncClient, failures: int) -> None:
        waits_s.append(growing_wait_s(FIRST_WAIT_S, failures, random.Random(failures)))
        await asyncio.sleep(0)

    monkeypatch.setattr(AsyncClient, "_wait_again", wait)
    with Outbox() as outbox:
        async with (
            StreamServer(*[answer] * requests, RECEIPT) as server,
            AsyncClient(server.url, outbox=outbox, timeout_s=0) as client,
            asyncio.timeout(20),
        ):
            with pytest.raises(Pending):
                await client.publish("news", "kept")
            await client.flush()
            assert len(server.requests) == requests + 1
    assert len(waits_s) == 3
    assert waits_s == sorted(waits_s)
