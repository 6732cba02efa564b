"""Requests are counted by route and status, and those refused leave a line in the log."""

import logging
from typing import Any

import pytest

from fastsse.server import Server
from tests.http.conftest import Start
from tests.http.raw import HOST, connected, get, request, until
from tests.mercure.client import KEY, bearer

SECRET = "very-secret"
FORGED = f"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.{SECRET}-long-enough-to-be-a-token.{SECRET}"
JSON = "Content-Type: application/json"
MAY = bearer(["a"], ["a"])

# What is sent, and the status, route and field that it is refused with.
REFUSED: dict[str, tuple[bytes, int, str, str | None]] = {
    "no token": (get(f"/events?topic=a&x={SECRET}"), 401, "/events", "Authorization"),
    "a forged one": (get("/events?topic=a", FORGED), 401, "/events", "Authorization"),
    "a forged one in the query": (
        get(f"/events?topic=a&authorization={SECRET}"), 401, "/events", "Authorization",
    ),
    "a spent ticket": (get(f"/events?topic=a&ticket={SECRET}"), 401, "/events", "Authorization"),
    "a topic of others": (
        request("POST", "/events?topic=b", MAY, body=b"x"), 403, "/events", None,
    ),
    "no such path": (get(f"/nothing?{SECRET}"), 404, "other", None),
    "another method": (request("PUT", "/events", MAY), 405, "/events", None),
    "a large body": (
        request("POST", "/events?topic=a", MAY, body=b"x" * 2000), 413, "/events", "body",
    ),
    "a body without length": (
        request("POST", "/tickets", MAY, "Transfer-Encoding: chunked"),
        411, "/tickets", "Transfer-Encoding",
    ),
    "another type": (
        request("POST", "/events", MAY, "Content-Type: text/x", body=b"x"),
        415, "/events", "Content-Type",
    ),
    "an expectation": (
        request("POST", "/events?topic=a", MAY, "Expect: x", body=b"x"), 417, "/events", "Expect",
    ),
    "another host": (
        f"GET /events?topic={SECRET} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode(),
        421, "unread", "Host",
    ),
    "a long head": (get("/events", f"X: {SECRET * 300}"), 431, "unread", "head"),
    "no HTTP": (f"GET /{SECRET}\r\n\r\n".encode(), 400, "unread", "request line"),
    "no JSON": (request("POST", "/events", MAY, JSON, body=b"{"), 400, "/events", "body"),
    "a slow head": (b"GET /events HTTP/1.1\r\n" + HOST, 408, "unread", "head"),
}  # fmt: skip


@pytest.fixture
async def hub(start: Start) -> Server:
    return await start(
        jwt_key=KEY,
        access_lines=100,
        max_body="1KiB",
        max_head="2KiB",
        head_timeout="200ms",
        allowed_hosts=["app.example"],
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == "Request refused."]


async def metrics(server: Server) -> str:
    async with connected(server) as raw:
        await raw.send(get("/metrics"))
        return (await raw.answer()).body.decode()


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_request_leaves_a_line_and_is_counted(
    hub: Server, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    caplog.set_level(logging.INFO)
    sent, status, route, field = REFUSED[case]
    async with connected(hub) as raw:
        await raw.send(sent)
        answer = await raw.answer()
        port = raw.writer.get_extra_info("sockname")[1]
    assert (answer.status, answer.json.get("field")) == (status, field)
    (line,) = lines(caplog)
    assert (line["status"], line.get("field")) == (status, field)
    assert line["reason"] == answer.json["detail"]
    assert line["client"] == f"127.0.0.1:{port}"
    if route != "unread":
        assert (line["method"], line["path"]) == tuple(
            sent.decode().partition("?")[0].split(" HTTP")[0].split(" ")
        )
    assert SECRET not in str(line)
    counted = f'fastsse_requests_total{{route="{route}",status="{status}"}} 1.0'
    assert counted in await metrics(hub)


async def test_streams_and_publishes_are_counted_too(hub: Server) -> None:
    async with connected(hub) as whole, connected(hub) as pieces, connected(hub) as raw:
        await whole.send(get("/events?topic=a", MAY))
        await pieces.trickle(get("/events?topic=a", MAY))
        for one in (whole, pieces):
            await (await one.stream()).opening()
        await raw.send(request("POST", "/events?topic=a", MAY, body=b"x"))
        assert (await raw.answer()).status == 200
        assert 'fastsse_requests_total{route="/events",status="200"} 3.0' in await metrics(hub)


async def test_who_is_turned_away_leaves_a_line(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = await start(max_connections=1, access_lines=100)
    async with connected(server) as first:
        await first.send(get("/events?topic=a"))
        await (await first.stream()).opening()
        for trickles in (False, True):
            async with connected(server) as raw:
                await (raw.trickle if trickles else raw.send)(get("/events?topic=a"))
                await raw.answer()
    assert [(line["status"], line["reason"]) for line in lines(caplog)] == [
        (200, "turned away: full")
    ] * 2


async def test_lines_and_routes_are_bounded(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = await start(access_lines=3)
    async with connected(server) as raw:
        await raw.send(b"".join(get(f"/path/{number}") for number in range(200)))
        for _ in range(200):
            assert (await raw.answer()).status == 404
    # A second may have begun meanwhile, in which three more may be written.
    assert 3 <= len(lines(caplog)) < 30
    server._worker._access.tick()
    told = [record for record in caplog.records if record.message == "Access lines were omitted."]
    assert sum(vars(record)["refused"] for record in told) == 200 - len(lines(caplog))
    text = await metrics(server)
    assert 'fastsse_requests_total{route="other",status="404"} 200.0' in text
    assert "/path/" not in text


async def test_the_client_behind_a_proxy_is_named(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = await start(access_lines=3, trusted_proxies=["127.0.0.1"])
    async with connected(server) as raw:
        await raw.send(get("/nothing", "X-Forwarded-For: 192.0.2.7"))
        assert (await raw.answer()).status == 404
    await until(lambda: lines(caplog))
    assert lines(caplog)[0]["client"] == "192.0.2.7"
