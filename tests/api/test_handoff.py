"""A subscription's socket becomes the sender's, whatever stands before or behind it."""

import asyncio
import json
import os
import socket

import pytest

from fastsse.http.connection import Connection
from tests.http.raw import HOST, connected, get, opened, request, until

SUBSCRIBE = get("/events?topic=a")
OPENING = b": fastsse\nretry: 3000\nid: "


async def test_stream_has_its_headers_and_opens_at_once(server) -> None:
    async with connected(server) as raw:
        await raw.send(SUBSCRIBE)
        stream = await raw.stream()
        assert stream.headers == {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "same-origin",
            "transfer-encoding": "chunked",
            "connection": "close",
        }
        assert (await stream.opening()).startswith(OPENING)
        server.publish("a", "hello", event="tick")
        event = await stream.next()
        assert (event.data, event.type) == ("hello", "tick")


@pytest.mark.parametrize("piece", [1, 10])
async def test_subscription_may_come_in_pieces(server, piece) -> None:
    async with connected(server) as raw:
        for start in range(0, len(SUBSCRIBE), piece):
            await raw.send(SUBSCRIBE[start : start + piece])
            await asyncio.sleep(0)
        stream = await raw.stream()
        await stream.opening()
        server.publish("a", "x")
        assert (await stream.next()).data == "x"


async def test_publisher_may_subscribe_on_the_same_connection(server) -> None:
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a", body=b"before"))
        assert (await raw.answer()).status == 200
        await raw.send(get("/events?topic=a&last=1"))
        assert (await (await raw.stream()).next()).data == "before"


async def test_answers_before_a_pipelined_subscription_arrive_first(server) -> None:
    publishes = request("POST", "/events?topic=a&id=n", body=b"x") * 30
    async with connected(server) as raw:
        await raw.send(publishes + get("/metrics") * 20 + get("/events?topic=a&last=2"))
        for _ in range(30):
            assert (await raw.answer()).json == {"id": "n"}
        for _ in range(20):
            assert (await raw.answer()).status == 200
        stream = await raw.stream()
        assert [(await stream.next()).last_event_id for _ in "12"] == ["n", "n"]


@pytest.mark.parametrize("behind", [b"\r\n", b"x", SUBSCRIBE, get("/healthz"), b"\0" * 100_000])
@pytest.mark.parametrize("early", [True, False], ids=["at once", "in a second segment"])
async def test_bytes_after_a_subscription_close_it(server, behind, early) -> None:
    async with connected(server) as raw:
        if not early:
            await raw.send(SUBSCRIBE[:20])
            await asyncio.sleep(0.01)
        await raw.send((SUBSCRIBE if early else SUBSCRIBE[20:]) + behind)
        try:
            answer = await raw.rest()
        except ConnectionError:
            answer = b""
        # The kernel may have given the subscription alone first: then it is the sender who closes.
        assert answer == b"" or answer.startswith(b"HTTP/1.1 200 OK")
    await until(lambda: not server.stream_count)


async def test_bytes_sent_later_close_the_stream(server) -> None:
    async with connected(server) as raw:
        await raw.send(SUBSCRIBE)
        await (await raw.stream()).opening()
        await raw.send(b"x")
        with pytest.raises((AssertionError, ConnectionError, asyncio.IncompleteReadError)):
            await (await raw.stream()).opening()
    await until(lambda: not server.stream_count)


async def test_http_1_0_gets_the_raw_stream_until_close(server) -> None:
    async with connected(server) as raw:
        await raw.send(b"GET /events?topic=a HTTP/1.0\r\n\r\n")
        stream = await raw.stream()
        assert stream.headers["connection"] == "close"
        assert "transfer-encoding" not in stream.headers
        assert (await stream.opening()).startswith(OPENING)
        server.publish("a", "x")
        assert (await stream.next()).data == "x"
        assert stream.body.endswith(b"data: x\n\n")


@pytest.mark.parametrize("whole", [True, False])
async def test_wish_to_upgrade_is_ignored(server, whole) -> None:
    upgrade = "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAAA"
    async with connected(server) as raw:
        await (raw.send if whole else raw.trickle)(get("/events?topic=a", *upgrade))
        assert (await (await raw.stream()).opening()).startswith(OPENING)


async def test_a_subscription_with_connection_close_is_a_stream(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a", "Connection: close"))
        assert (await (await raw.stream()).opening()).startswith(OPENING)


async def test_whole_subscription_needs_no_transport(server, monkeypatch) -> None:
    made = []
    really_made = Connection.connection_made

    def note(connection, transport) -> None:
        made.append(connection)
        really_made(connection, transport)

    monkeypatch.setattr(Connection, "connection_made", note)
    server._worker.frontend.main.pause(
        0.05, "a test"
    )  # The request is there before it is accepted.
    async with connected(server) as raw:
        await raw.send(SUBSCRIBE)
        await (await raw.stream()).opening()
        assert not made
    async with connected(server) as raw:
        await raw.send(get("/healthz"))
        await raw.answer()
        assert len(made) == 1
    made.clear()


@pytest.mark.parametrize("uses_unix", [False, True], ids=["tcp", "unix"])
async def test_streams_over_every_kind_of_socket(start, tmp_path, uses_unix) -> None:
    server = await (start(uds=str(tmp_path / "s")) if uses_unix else start(host="::1"))
    for whole in (True, False):
        async with opened(server.addresses[0]) as raw:
            await (raw.send if whole else raw.trickle)(SUBSCRIBE)
            stream = await raw.stream()
            await stream.opening()
            server.publish("a", "x")
            assert (await stream.next()).data == "x"


async def test_options_of_the_listener_hold_for_streams(start, monkeypatch) -> None:
    server = await start(user_timeout="25s", notsent_lowat="32KiB")
    seen: dict[str, int] = {}
    streams = server._worker._hub.streams
    really_open = streams.open

    def look(subscription, head, chunked, fd, *others, **options):
        sock = socket.socket(fileno=os.dup(fd))
        with sock:
            for name in ("TCP_USER_TIMEOUT", "TCP_NOTSENT_LOWAT", "TCP_NODELAY"):
                option = getattr(socket, name)
                seen[name] = sock.getsockopt(socket.IPPROTO_TCP, option)
        assert not os.get_inheritable(fd)
        return really_open(subscription, head, chunked, fd, *others, **options)

    monkeypatch.setattr(streams, "open", look)
    for whole in (True, False):
        async with connected(server) as raw:
            await (raw.send if whole else raw.trickle)(SUBSCRIBE)
            await raw.stream()
        assert seen["TCP_USER_TIMEOUT"] == 25_000
        assert seen["TCP_NOTSENT_LOWAT"] == 32 * 1024
        assert seen["TCP_NODELAY"] != 0
        seen.clear()
    monkeypatch.undo()


@pytest.mark.parametrize("reset", [True, False], ids=["RST", "FIN"])
@pytest.mark.parametrize("part", [len(SUBSCRIBE), 30], ids=["whole", "part"])
async def test_subscribers_that_are_gone_at_once_leave_nothing(server, reset, part) -> None:
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.send(SUBSCRIBE[:part])
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await asyncio.sleep(0)
    deadlines = server._worker.frontend._deadlines
    await until(lambda: not deadlines and not server.stream_count)
    async with connected(server) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200


async def test_subscription_waits_for_a_client_that_does_not_read_its_answers(server) -> None:
    async with connected(server) as raw:
        raw.reader._transport.pause_reading()
        await raw.send(get("/metrics") * 1000 + SUBSCRIBE)
        await asyncio.sleep(0.1)
        assert server.stream_count == 0
        raw.reader._transport.resume_reading()
        for _ in range(1000):
            assert (await raw.answer()).status == 200
        assert (await (await raw.stream()).opening()).startswith(OPENING)


async def test_body_of_a_subscription_is_refused(server) -> None:
    async with connected(server) as raw:
        await raw.send(
            b"GET /events?topic=a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert (await raw.answer()).status == 400


# ── When there is no room ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("whole", [True, False])
async def test_full_server_tells_subscribers_when_to_come_back(start, whole) -> None:
    server = await start(max_connections=1)
    async with connected(server) as first, connected(server) as second:
        await first.send(SUBSCRIBE)
        await (await first.stream()).opening()
        await (second.send if whole else second.trickle)(SUBSCRIBE)
        answer = await second.answer()
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["connection"] == "close"
        retry, event, data = answer.body.decode().split("\n")[:3]
        retry_ms = int(retry.removeprefix("retry: "))
        assert 5000 <= retry_ms <= 7500
        assert event == "event: fastsse.refused"
        assert json.loads(data.removeprefix("data: "))["retry_ms"] == retry_ms
        assert await second.is_closed()
    async with connected(server) as raw:
        await raw.send(get("/stats"))
        assert (await raw.answer()).json["totals"]["turned_away"]["full"] == 1


async def test_room_is_found_again(start) -> None:
    server = await start(max_connections=1)
    for _ in range(3):
        async with connected(server) as raw:
            await raw.send(SUBSCRIBE)
            await (await raw.stream()).opening()
        await until(lambda: not server.stream_count)


async def test_full_server_answers_publishers_and_probes(start) -> None:
    server = await start(max_connections=1)
    async with connected(server) as first, connected(server) as raw:
        await first.send(SUBSCRIBE)
        stream = await first.stream()
        await stream.opening()
        await raw.send(get("/readyz"))
        answer = await raw.answer()
        assert (answer.status, answer.body) == (503, b"full\n")
        await raw.send(request("POST", "/events?topic=a", body=b"x"))
        assert (await raw.answer()).status == 200
        assert (await stream.next()).data == "x"
        for path in ("/healthz", "/metrics", "/stats"):
            await raw.send(get(path))
            assert (await raw.answer()).status == 200
