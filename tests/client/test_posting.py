"""Publishes without httpx read what servers and proxies answer, and never publish twice because of
it."""

import asyncio

import pytest

from fastsse.client import AsyncClient, OutcomeUnknown, Publisher, Refused
from tests.streamserver import Answer, Exchange, StreamServer

OK = b'{"id":"1-0"}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def raw(*pieces: bytes, close: bool = True) -> Answer:
    async def answer(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(0)
        if close:
            exchange._writer.close()
        await exchange.gone()

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + OK),
        raw(*(bytes([b]) for b in b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n" + OK)),
        raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + OK),
        raw(b"HTTP/1.1 102 Wait\r\n\r\n" * 10_000 + b"HTTP/1.1 200 OK\r\n\r\n" + OK),
        raw(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in OK) + b"0\r\n\r\n"),
        raw(CHUNKED + b"6;x=y\r\n" + OK[:6] + b"\r\n6\r\n", OK[6:] + b"\r\n0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n\r\n" + OK[:5], OK[5:]),
        raw(b"HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\n" + OK),
    ],
)
async def test_answer_of_each_form_is_read(answer: Answer) -> None:
    async with StreamServer(answer) as server, Publisher(server.url) as publisher:
        assert (await publisher.publish("t", "x")).id == "1-0"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"SSH-2.0-x\r\n\r\n", close=False),
        raw(b"HTTP/1.1 OK\r\n\r\n", close=False),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", close=False),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", close=False),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", close=False),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", close=False),
        raw(CHUNKED + b"1" * 100_000, close=False),
        raw(CHUNKED + b"1;" + b"x" * 100_000 + b"\r\n", close=False),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, close=False),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhalf"),
        raw(),
    ],
)
async def test_answer_that_can_not_be_read_leaves_the_outcome_unknown(answer: Answer) -> None:
    async with StreamServer(answer) as server, Publisher(server.url) as publisher:
        with pytest.raises(OutcomeUnknown):
            await publisher.publish("t", "x")
        assert len(server.requests) == 1


async def test_redirect_is_followed() -> None:
    async def moved(exchange: Exchange) -> None:
        location = b"Location: /elsewhere?topic=t\r\n"
        await exchange.answer("307 Temporary Redirect", b"", location)

    async def there(exchange: Exchange) -> None:
        await exchange.answer("200 OK", OK)

    async with StreamServer(moved, moved, there) as server, Publisher(server.url) as publisher:
        assert (await publisher.publish("t", "x")).id == "1-0"
        assert server.requests[-1].body == b"x"


async def test_error_with_a_problem_is_refused() -> None:
    async def problem(exchange: Exchange) -> None:
        body = b'{"detail":"no","field":"topic"}'
        await exchange.answer(
            "400 Bad Request", body, b"Content-Type: application/problem+json\r\n"
        )

    async with StreamServer(problem) as server, AsyncClient(server.url) as client:
        with pytest.raises(Refused, match="400 Bad Request: no") as refused:
            await client.publish("t", "x")
        assert refused.value.field == "topic"
