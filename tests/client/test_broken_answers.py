"""Answers that break off, never end, or are no HTTP: each is an error with its reason, and waits
that grow. Each test counts the attempts."""

import asyncio
import socket
import struct

import httpx
import pytest

import fastsse
from fastsse.client import (
    Client,
    ClientError,
    Listener,
    OutcomeUnknown,
    Publisher,
    Refused,
    RelayBroken,
    StreamState,
    Unreachable,
    fetch_page,
)
from tests.client.test_listener import Waits
from tests.client.test_publisher import Clock
from tests.client.test_relaying import Target
from tests.streamserver import Answer, Exchange, StreamServer, answering, streaming

OK = b"HTTP/1.1 200 OK\r\n"
HEAD = OK + b"Content-Type: text/event-stream\r\n\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
RECEIPT = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"id":"5-1"}'


def cut(data: bytes, *, is_reset: bool) -> Answer:
    """These bytes, then the end of the connection, or its reset."""

    async def answer(exchange: Exchange) -> None:
        if data:
            await exchange.send(data)
        if is_reset:
            sock = exchange._writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.reset()

    return answer


def endless(begin: bytes, more: bytes, pause_s: float = 0) -> Answer:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(begin)
        while True:
            await exchange.send(more)
            await asyncio.sleep(pause_s)

    return answer


@pytest.mark.parametrize("is_reset", [False, True])
async def test_head_that_is_cut_at_any_byte_is_asked_for_less_and_less(is_reset: bool) -> None:
    cuts = [cut(HEAD[:count], is_reset=is_reset) for count in range(len(HEAD))]
    waits, states = Waits(), list[StreamState]()
    async with StreamServer(*cuts, streaming(b"data: whole\n\n", hold=True)) as server:
        events = Listener(server.url, "news", sleep=waits, on_state=states.append)
        async with asyncio.timeout(20):
            assert (await anext(events)).data == "whole"
        await events.aclose()
        assert len(server.requests) == len(HEAD) + 1
    reasons = {state.reason for state in states if state.kind == "waiting"}
    assert reasons <= {"the connection was closed", "connection reset by peer"}
    assert len(waits.waits_s) == len(HEAD)
    assert waits.waits_s[0] >= 1
    assert min(waits.waits_s[6:]) >= 30


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("has_httpx", [False, True])
async def test_receipt_that_is_cut_at_any_byte_is_asked_for_with_the_same_key(
    has_httpx: bool, is_reset: bool
) -> None:
    clock = Clock()
    cuts = [cut(RECEIPT[:count], is_reset=is_reset) for count in range(len(RECEIPT))]
    client = httpx.AsyncClient() if has_httpx else None
    async with (
        StreamServer(*cuts, cut(RECEIPT, is_reset=False)) as server,
        Publisher(server.url, client=client, patience_s=1e9, **clock.options()) as publisher,
        asyncio.timeout(20),
    ):
        assert (await publisher.publish("news", "x", key="k")).id == "5-1"
        assert {request.target for request in server.requests} == {"/events?topic=news&key=k"}
        assert len(server.requests) == len(RECEIPT) + 1
    assert len(clock.waits_s) == len(RECEIPT)
    assert min(clock.waits_s[7:]) >= 30
    if client is not None:
        await client.aclose()


async def test_upstream_that_is_reset_at_any_byte_ends_the_topic_with_an_error() -> None:
    stream = CHUNKED + b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"
    for count in range(len(stream)):
        to = Target()
        answer = cut(stream[:count], is_reset=True)
        async with StreamServer(answer) as server, httpx.AsyncClient() as client:
            with pytest.raises(RelayBroken):
                await fastsse.relay(client.stream("GET", server.url), "run/1", to)
            assert len(server.requests) == 1
        assert to.error == "the upstream broke"
        assert to.ended == ["run/1"]
        assert [data for data, _ in to.events[:-1]] == ["1", "2"][: len(to.events) - 1]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (endless(OK, b"X-Y: " + b"z" * 1000 + b"\r\n"), "not valid HTTP"),
        (endless(OK + b"X: ", b"z", 0.01), "no data was received in time"),
        (endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.001), "no data was received in time"),
        (endless(CHUNKED, b"1" * 10_000), "not valid HTTP"),
        (cut(CHUNKED + b"ZZ\r\nrubbish\r\n", is_reset=False), "not valid HTTP"),
        (cut(CHUNKED + b"-5\r\nhello\r\n", is_reset=False), "not valid HTTP"),
        (cut(CHUNKED + b"5\r\nhello, more\r\n", is_reset=False), "not valid HTTP"),
        (cut(CHUNKED + b"3\r\n:\n\n\r\n", is_reset=False), "was closed"),
        (cut(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", is_reset=False), "not valid"),
        (cut(OK + b"no colon\r\n\r\n", is_reset=False), "not valid HTTP"),
        (cut(b"HTTP/1.1 2000 OK\r\n\r\n", is_reset=False), "not valid HTTP"),
        (cut(HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\nno", is_reset=False), "decompressed"),
    ],
)
async def test_answer_that_is_no_http_is_an_error_with_its_reason(
    answer: Answer, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastsse.client.listener.CONNECT_TIMEOUT_S", 0.2)
    waits = Waits()
    async with StreamServer(answer) as server, asyncio.timeout(20):
        events = Listener(server.url, "news", sleep=waits, tries=6, idle_timeout_s=0.2)
        with pytest.raises(Unreachable, match=says):
            await anext(events)
        await events.aclose()
        assert len(server.requests) == 6
    assert len(waits.waits_s) == 5
    assert min(waits.waits_s) >= 1
    assert waits.waits_s[-1] > 3 * waits.waits_s[0]


async def test_refusal_whose_body_never_ends_is_known_by_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastsse.client.http.ANSWER_TIMEOUT_S", 0.2)
    drip = endless(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n", b"x", 0.01)
    async with StreamServer(drip) as server, asyncio.timeout(20):
        events = Listener(server.url, "news")
        with pytest.raises(Refused, match="403"):
            await anext(events)
        await events.aclose()


async def test_page_that_never_ends_is_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastsse.client.polling._PAGE_BYTES_MAX", 1_000_000)
    page = OK + b"Content-Type: application/json\r\n\r\n{"
    async with StreamServer(endless(page, b" " * 10_000)) as server, asyncio.timeout(20):
        with pytest.raises(Refused, match="not from a fastsse server"):
            await fetch_page(server.url, "news")
    monkeypatch.setattr("fastsse.client.polling.ANSWER_TIMEOUT_S", 0.2)
    async with StreamServer(endless(page, b" ", 0.01)) as server, asyncio.timeout(20):
        with pytest.raises(Unreachable, match="no data was received in time"):
            await fetch_page(server.url, "news")


async def test_publish_by_httpx_whose_answer_never_ends_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CONNECT_TIMEOUT_S", "ANSWER_TIMEOUT_S"):
        monkeypatch.setattr(f"fastsse.client.exchanges.{name}", 0.2)
    async with (
        StreamServer(endless(OK + b"X: ", b"z", 0.01)) as server,
        httpx.AsyncClient() as client,
        Publisher(server.url, client=client) as publisher,
        asyncio.timeout(20),
    ):
        with pytest.raises(OutcomeUnknown, match="no data was received in time"):
            await publisher.publish("news", "x")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (cut(CHUNKED + b"ZZ\r\n", is_reset=False), Unreachable),
        (cut(HEAD[:9], is_reset=True), Unreachable),
        (answering("200 OK", b"<html>", b"Content-Type: text/html\r\n"), Refused),
    ],
)
async def test_client_without_asyncio_raises_the_same(
    answer: Answer, error: type[ClientError]
) -> None:
    async with StreamServer(answer) as server:

        def read() -> None:
            with Client(server.url) as client, pytest.raises(error):
                next(client.subscribe("news", tries=1))

        await asyncio.to_thread(read)
        assert len(server.requests) == 1
