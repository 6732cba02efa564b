"""The publisher waits for a busy server, and never publishes twice by itself."""

import asyncio
import random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest

from fastsse.client import OutcomeUnknown, Publisher, Receipt, Refused, Unreachable
from tests.streamserver import Exchange, StreamServer, answering

OK = answering("200 OK", b'{"id":"5-1"}')


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits_s: list[float] = []

    async def sleep(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)
        self.now_s += wait_s

    def options(self) -> dict[str, Any]:
        return {"sleep": self.sleep, "now_s": lambda: self.now_s, "rand": random.Random(1)}


def query(exchange: Exchange) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(exchange.target).query, keep_blank_values=True)


async def test_event_goes_out_untouched_with_its_fields_in_the_query() -> None:
    async with StreamServer(OK) as server, Publisher(server.url, token="t") as publisher:
        data = b"line\r\nline\xc3\xa9"
        receipt = await publisher.publish(
            ["a&b", "c d+é"], data, event="tick", id="x=1", retry=5, private=True, meta={"n": 1}
        )
        assert receipt == Receipt(1, "5-1", "5-1")
        assert receipt.id == "5-1"
        [request] = server.requests
    assert (request.method, request.body) == ("POST", data)
    assert query(request) == [
        ("topic", "a&b"),
        ("topic", "c d+é"),
        ("event", "tick"),
        ("id", "x=1"),
        ("retry", "5"),
        ("private", "true"),
        ("meta", '{"n":1}'),
    ]
    assert request.headers[b"authorization"] == b"Bearer t"


@pytest.mark.parametrize(
    ("data", "body"),
    [("é\n", "é\n".encode()), ({"a": [1, None]}, b'{"a":[1,null]}'), (5, b"5")],
)
async def test_what_is_no_text_is_sent_as_json(data: object, body: bytes) -> None:
    async with StreamServer(OK) as server, Publisher(server.url) as publisher:
        await publisher.publish("t", data)
        assert server.requests[0].body == body


async def test_batch_is_one_request_of_ndjson() -> None:
    ok = answering("200 OK", b'{"count":2,"first":"5-1","last":"5-2"}')
    async with StreamServer(ok) as server, Publisher(server.url) as publisher:
        events = [{"topic": "a", "data": "x\ny"}, {"topic": ["b"], "data": {"n": 1}}]
        assert await publisher.publish_batch(events) == Receipt(2, "5-1", "5-2")
        [request] = server.requests
    assert request.headers[b"content-type"] == b"application/x-ndjson"
    assert [orjson.loads(line) for line in request.body.split(b"\n")] == events


async def test_connection_is_kept() -> None:
    ports = set()

    async def note(exchange: Exchange) -> None:
        ports.add(exchange._writer.get_extra_info("peername"))
        await OK(exchange)

    async with StreamServer(note) as server, Publisher(server.url) as publisher:
        for _ in range(3):
            await publisher.publish("t", "x")
    assert len(ports) == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_busy_server_is_asked_again_after_its_time_and_a_random_part(status: str) -> None:
    clock = Clock()
    busy = answering(status, b"{}", b"Retry-After: 4\r\n")
    async with (
        StreamServer(busy, busy, OK) as server,
        Publisher(server.url, **clock.options()) as publisher,
    ):
        assert (await publisher.publish("t", "x")).id == "5-1"
    assert len(clock.waits_s) == 2
    assert all(4 <= wait_s <= 6 for wait_s in clock.waits_s)
    assert clock.waits_s[0] != clock.waits_s[1]


@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [
        (b"", 0.5, 0.75),
        (b"Retry-After: soon\r\n", 0.5, 0.75),
        (b"Retry-After: -5\r\n", 0.5, 0.75),
        (b"Retry-After: 99999999999999999999\r\n", 60, 90),
        (b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 0, 0),
        (b"Retry-After: Wed, 21 Oct 2515 07:28:00 GMT\r\n", 60, 90),
    ],
)
async def test_any_retry_after_gives_a_sane_wait(
    header: bytes, least_s: float, most_s: float
) -> None:
    clock = Clock()
    busy = answering("503 Service Unavailable", b"", header)
    async with (
        StreamServer(busy, OK) as server,
        Publisher(server.url, patience_s=1000, **clock.options()) as publisher,
    ):
        await publisher.publish("t", "x")
    assert least_s <= clock.waits_s[0] <= most_s


async def test_patience_ends() -> None:
    clock = Clock()
    busy = answering("503 Service Unavailable", b'{"detail":"Full."}', b"Retry-After: 10\r\n")
    async with (
        StreamServer(busy) as server,
        Publisher(server.url, patience_s=25, **clock.options()) as publisher,
    ):
        with pytest.raises(Refused, match="Full") as caught:
            await publisher.publish("t", "x")
    assert caught.value.status == 503
    assert sum(clock.waits_s) <= 25


async def test_server_that_is_not_there_is_tried_with_growing_waits() -> None:
    async with StreamServer(OK) as server:
        pass
    clock = Clock()
    async with Publisher(server.url, patience_s=60, **clock.options()) as publisher:
        with pytest.raises(Unreachable, match=str(server.port)):
            await publisher.publish("t", "x")
    assert len(clock.waits_s) > 3
    assert clock.waits_s == sorted(clock.waits_s)


@pytest.mark.parametrize("data", ["x", {"n": 1}, ""])
async def test_event_with_a_key_is_tried_again_when_its_answer_is_lost(data: Any) -> None:
    async def cut(exchange: Exchange) -> None:
        exchange.reset()

    clock = Clock()
    async with (
        StreamServer(cut, OK) as server,
        Publisher(server.url, **clock.options()) as publisher,
    ):
        assert (await publisher.publish("a", data, key="k1")).count == 1
    first, second = server.requests
    assert (first.target, first.body) == (second.target, second.body)


@pytest.mark.parametrize("status", ["502 Bad Gateway", "504 Gateway Timeout", "522 Timed Out"])
async def test_answer_that_a_proxy_lost_is_unknown_and_repeated_with_a_key(status: str) -> None:
    lost = answering(status, b"<html>")
    async with StreamServer(lost) as server, Publisher(server.url) as publisher:
        with pytest.raises(OutcomeUnknown, match=status[:3]):
            await publisher.publish("t", "x")
        assert len(server.requests) == 1
    clock = Clock()
    async with (
        StreamServer(lost, lost, OK) as server,
        Publisher(server.url, **clock.options()) as publisher,
    ):
        assert (await publisher.publish("t", "x", key="k")).id == "5-1"
    assert clock.waits_s == sorted(clock.waits_s)
    assert len(clock.waits_s) == 2


async def test_publishes_at_the_same_time_all_follow_a_redirect() -> None:
    async def moved(exchange: Exchange) -> None:
        if "/new" not in exchange.target:
            # Both are asked before the first is answered.
            arrived.append(exchange)
            async with asyncio.timeout(10):
                while len(arrived) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await exchange.answer("307 Moved", b"", b"Location: /new\r\n")
        else:
            await OK(exchange)

    arrived: list[Exchange] = []
    async with StreamServer(moved) as server, Publisher(server.url) as publisher:
        receipts = await asyncio.gather(*(publisher.publish("t", "x") for _ in range(2)))
    assert [receipt.id for receipt in receipts] == ["5-1", "5-1"]


async def test_broken_connection_is_not_tried_again() -> None:
    async def cut(exchange: Exchange) -> None:
        exchange.reset()

    clock = Clock()
    async with (
        StreamServer(cut, OK) as server,
        Publisher(server.url, **clock.options()) as publisher,
    ):
        with pytest.raises(OutcomeUnknown, match="may be published or not"):
            await publisher.publish("t", "x")
        assert len(server.requests) == 1


async def test_refusal_names_field_and_line_and_is_not_tried_again() -> None:
    no = answering("400 Bad Request", b'{"detail":"Line 2: bad.","field":"topic","line":2}')
    async with StreamServer(no) as server, Publisher(server.url) as publisher:
        with pytest.raises(Refused, match=r"400 Bad Request: Line 2: bad\.") as caught:
            await publisher.publish_ndjson(b"{}")
        assert (caught.value.line, caught.value.field) == (2, "topic")
        assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b"{}", b"5", b"x" * 200_000])
async def test_strange_answer_is_an_error_not_a_receipt(body: bytes) -> None:
    async with StreamServer(answering("200 OK", body)) as server, Publisher(server.url) as pub:
        with pytest.raises(Refused):
            await pub.publish("t", "x")
