"""Input that can not be: each is refused with a reason, and nothing changes."""

import random
from functools import partial

import pytest

from tests.http.conftest import Start, asked
from tests.http.raw import connected, request
from tests.streams.test_protocol import CLOSED, JSON, TEXT, content, created, producer

ZERO = "0" * 16


@pytest.mark.parametrize(
    "offset",
    [
        "",
        "0",
        "-2",
        "NOW",
        "now%20",
        f"{ZERO}_{ZERO[1:]}",
        f"{ZERO}-{ZERO}",
        f"{ZERO}_{ZERO}0",
        f"{ZERO}_{'G' * 16}",
        f"{ZERO}_{'A' * 16}",
        f"{ZERO}_{ZERO[:-1]}%D9%A0",
        "%2e%2e/x",
        "%00",
        "9" * 4000,
        f"{ZERO}_{ZERO}&offset=-1",
    ],
)
async def test_an_offset_that_was_never_given_is_refused(ask, offset: str) -> None:
    await created(ask, "/streams/s", body=b"x")
    for live in ("", "&live=sse", "&live=long-poll"):
        assert (await ask("GET", f"/streams/s?offset={offset}{live}")).field == "offset"


@pytest.mark.parametrize("cursor", ["", "-1", "x", "9" * 4000, "%00", "1e9", "%D9%A3"])
async def test_any_cursor_is_answered_with_a_number(start: Start, cursor: str) -> None:
    server = await start(streams_poll=0.1)
    ask = partial(asked, server)
    await created(ask, "/streams/s", body=b"x")
    answer = await ask("GET", f"/streams/s?offset=now&live=long-poll&cursor={cursor}")
    assert (answer.status, answer.headers["stream-cursor"].isdigit()) == (204, True)


@pytest.mark.parametrize(
    "header",
    [
        *(f"Stream-TTL: {one}" for one in ("-1", "1.5", "1e3", "01", "x", "9" * 30, "+1")),
        *(f"Stream-Expires-At: {one}" for one in ("soon", "2026-13-01T00:00:00Z", "1700000000")),
        "Stream-Fork-Offset: -1",
        "Stream-Fork-Sub-Offset: 1",
        "Stream-Forked-From: /elsewhere/x",
        "Stream-Forked-From: /streams/../x",
        "Stream-Forked-From: /streams/%2e%2e",
        "Stream-Forked-From: /streams/" + "a" * 2000,
        "Content-Type: text",
        "Content-Type: " + "a/" + "b" * 300,
    ],
)
async def test_a_header_that_can_not_be_creates_nothing(ask, header: str) -> None:
    headers = [header] if header.startswith("Content-Type") else [TEXT, header]
    assert (await ask("PUT", "/streams/s", *headers, body=b"x")).status == 400
    assert (await ask("HEAD", "/streams/s")).status == 404


@pytest.mark.parametrize(
    "name",
    ["a" * 1025, "a" * 4096, "%C3%A9" * 600, "..", ".", "a/..", "a%2fb", "a/%2E%2E/b", "%00"],
)
async def test_a_name_that_can_not_be_names_nothing(ask, name: str) -> None:
    for method in ("PUT", "POST", "GET", "DELETE"):
        answer = await ask(
            method, f"/streams/{name}", TEXT, body=b"x" if method[0] == "P" else None
        )
        assert answer.field == "path"


async def test_lengths_that_contradict_each_other_append_nothing(ask, server) -> None:
    await created(ask, "/streams/s", body=b"0")
    await ask("POST", "/streams/s", TEXT, body=b"1")
    start = f"POST /streams/s HTTP/1.1\r\nHost: localhost\r\n{TEXT}\r\n"
    for lengths, body in (
        ("Content-Length: 1\r\nContent-Length: 2", b"xy"),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n"),
        ("Content-Length: 1, 1", b"x"),
        ("Content-Length: +1", b"x"),
        ("Content-Length: 0x1", b"x"),
        ("Transfer-Encoding: chunked, identity", b"1\r\nx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"-1\r\nx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"1\r\nxGET\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"FFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n"),
    ):
        async with connected(server) as raw:
            await raw.send(f"{start}{lengths}\r\n\r\n".encode() + body)
            assert (await raw.answer()).status in (400, 413, 501)
    assert await content(ask, "/streams/s") == b"01"


async def test_producers_have_a_bound_and_none_is_forgotten_for_another(start: Start) -> None:
    server = await start(producers_total="16KiB")
    ask = partial(asked, server)
    await created(ask, "/streams/s")
    statuses: list[int] = []
    for n in range(100):
        answer = await ask("POST", "/streams/s", TEXT, *producer(0, name=f"p{n}"), body=b"x")
        statuses.append(answer.status)
    kept = statuses.count(200)
    assert 10 < kept < 90
    assert statuses == [200] * kept + [503] * (100 - kept)
    for n in (0, kept - 1):
        again = await ask("POST", "/streams/s", TEXT, *producer(0, name=f"p{n}"), body=b"x")
        assert again.status == 204
        more = await ask("POST", "/streams/s", TEXT, *producer(1, name=f"p{n}"), body=b"y")
        assert more.status == 200
    assert await content(ask, "/streams/s") == b"x" * kept + b"yy"


VALUES = ("0", "1", "2", "00", "-1", "+1", " 1", "1 ", "", "9007199254740991", "9007199254740992")
VALUES += ("9" * 40, "1e1", "0x1", "1.0", "\u0661", "x", "true", "TRUE", "a" * 257)
HEADERS = ("Producer-Id", "Producer-Epoch", "Producer-Seq", "Stream-Seq", "Stream-Closed")
BODIES = (b"x", b"[]", b"[1,2]", b"{}", b"1", b"{", b"\r", b"\xff", b'"\\u0000"', b" 1 ", b"[[]]")


@pytest.mark.parametrize("kind", [TEXT, JSON, "Content-Type: application/octet-stream"])
async def test_the_intake_and_the_connection_agree_on_any_append(ask, server, kind: str) -> None:
    """One stream is appended to through the intake, the other never; the same is sent to both."""
    luck = random.Random(kind)
    paths = ("/streams/fast", "/streams/slow")
    for round_number in range(12):
        for path in paths:
            await created(ask, path, kind)
            await ask("POST", path, kind, body=b"0")
        async with connected(server) as raw:
            for _ in range(25):
                names = luck.sample(HEADERS, luck.choice((0, 0, 1, 3, 3)))
                if len(names) == 3:
                    names = list(HEADERS[:3])
                headers = [f"{name}: {luck.choice(VALUES)}" for name in names]
                if names[:1] == ["Producer-Id"] and luck.random() < 0.7:
                    headers = list(producer(luck.randrange(4), epoch=luck.randrange(3)))
                body = luck.choice(BODIES)
                answers = []
                for path in paths:
                    more = () if path == "/streams/fast" else ("Cookie: a=b",)
                    data = request("POST", path, kind, *headers, *more, body=body)
                    await raw.send(data)
                    answers.append(await raw.answer())
                fast, slow = answers
                assert (fast.status, sorted(fast.headers)) == (slow.status, sorted(slow.headers))
                for name in ("producer-seq", "producer-epoch", "producer-expected-seq"):
                    assert fast.headers.get(name) == slow.headers.get(name), (headers, body)
                if fast.headers.get("connection") == "close":
                    break
        assert await content(ask, paths[0]) == await content(ask, paths[1]), round_number
        for path in paths:
            assert (await ask("DELETE", path)).status == 204


async def test_what_is_closed_or_reserved_takes_nothing(ask) -> None:
    await created(ask, "/streams/s", body=b"x")
    await ask("POST", "/streams/s", CLOSED)
    for headers, body in (((TEXT,), b"y"), ((JSON,), b"1"), ((TEXT, *producer(0)), b"y")):
        answer = await ask("POST", "/streams/s", *headers, body=body)
        assert (answer.status, answer.headers["stream-closed"]) == (409, "true")
    for path in ("/streams/__ds", "/streams/__ds/x", "/streams/__ds/subscriptions"):
        for method in ("PUT", "POST", "GET", "DELETE"):
            sent = b"x" if method[0] == "P" else None
            assert (await ask(method, path, TEXT, body=sent)).status == 404


async def test_json_that_is_nested_too_deep_is_refused(ask) -> None:
    deep = b"[" * 1000 + b"]" * 1000
    two = b"[%b,1]" % deep
    assert (await ask("PUT", "/streams/deep", JSON, body=two)).status == 400
    assert (await ask("PUT", "/streams/s", JSON)).status == 201
    assert (await ask("POST", "/streams/s", JSON, body=two)).status == 400
    wake = "Authorization: Bearer any"
    for method, rest in (("PUT", ""), ("POST", "/claim"), ("POST", "/streams"), ("POST", "/ack")):
        path = f"/streams/__ds/subscriptions/q{rest}"
        answer = await ask(method, path, JSON, wake, body=deep)
        assert (answer.status, answer.field) == (400, "body")
