"""Connections that carry more than one request, and how they end."""

import asyncio
import socket

import pytest

from tests.http.raw import HOST, connected, get, request, until


async def test_pipelined_requests_are_answered_in_order(server) -> None:
    count = 500
    publishes = [request("POST", f"/events?topic=a&id=n{n}", body=b"x") for n in range(count)]
    async with connected(server) as raw:
        sending = asyncio.create_task(raw.send(b"".join(publishes) + get("/healthz")))
        for n in range(count):
            assert (await raw.answer()).json == {"id": f"n{n}"}
        assert (await raw.answer()).body == b"alive\n"
        await sending


@pytest.mark.parametrize("piece", [1, 7, 100])
async def test_requests_may_come_in_any_pieces(server, piece) -> None:
    chunked = request("POST", "/events?topic=a&id=c", "Transfer-Encoding: chunked")
    data = b"".join(
        [
            request("POST", "/events?topic=a&id=a", body=b"one"),
            chunked + b"3\r\ntwo\r\n0\r\n\r\n",
            get("/nothing"),
            request("POST", "/events?topic=a&id=d", body=b"x"),
        ]
    )
    async with connected(server) as raw:
        for start in range(0, len(data), piece):
            await raw.send(data[start : start + piece])
            await asyncio.sleep(0)
        answers = [await raw.answer() for _ in range(4)]
    assert [answer.json.get("id") for answer in answers] == ["a", "c", None, "d"]
    assert [answer.status for answer in answers] == [200, 200, 404, 200]


async def test_client_that_does_not_read_is_not_read_from(server) -> None:
    """Its answers would pile up otherwise."""
    page = get("/metrics")
    async with connected(server) as raw:
        sock = raw.writer.get_extra_info("socket")
        raw.reader._transport.pause_reading()
        sent, before = 0, -1

        async def flood() -> None:
            nonlocal sent
            while True:
                await raw.send(page * 50)
                sent += 50

        while sent != before:  # Until the kernel's buffers are full and nothing moves.
            before = sent
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await flood()
        assert sent * len(page) < 32 * 1024 * 1024
        assert sock.fileno() >= 0
        connection = next(iter(server._worker.frontend._deadlines))
        assert connection._transport.get_write_buffer_size() < 1_000_000
        raw.reader._transport.resume_reading()
        assert (await raw.answer()).status == 200
        raw.writer.transport.abort()


async def test_flood_on_one_connection_leaves_turns_to_others(server) -> None:
    async with connected(server) as flood, connected(server) as other:
        await flood.send(request("POST", "/events?topic=a", body=b"x") * 3000)
        await other.send(get("/stats"))
        published = (await other.answer()).json["totals"]["events_published"]
        for _ in range(3000):
            assert (await flood.answer()).status == 200
        assert published < 3000


async def test_http_1_0_closes_after_its_answer(server) -> None:
    async with connected(server) as raw:
        await raw.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = await raw.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await raw.is_closed()


async def test_http_1_0_is_kept_when_it_asks_for_it(server) -> None:
    async with connected(server) as raw:
        for _ in range(2):
            await raw.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await raw.answer()).headers["connection"] == "keep-alive"


async def test_connection_close_is_honoured(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/healthz", "Connection: close"))
        assert (await raw.answer()).headers["connection"] == "close"
        assert await raw.is_closed()


async def test_nothing_is_answered_after_connection_close(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/healthz", "Connection: close") + get("/healthz"))
        assert (await raw.answer()).status == 200
        assert await raw.is_closed()


@pytest.mark.parametrize("path", ["/healthz", "/events?topic=a", "/", "/nothing", "/stats"])
async def test_head_is_get_without_a_body(server, path) -> None:
    async with connected(server) as raw:
        await raw.send(request("HEAD", path) + get("/healthz"))
        head = await raw.answer(to_head=True)
        assert (await raw.answer()).body == b"alive\n"
    assert server.stream_count == 0
    async with connected(server) as raw:
        await raw.send(get(path))
        status, headers = await raw.head()
    assert head.status == status
    assert head.headers["content-type"] == headers["content-type"]


async def test_expectation_is_met_before_the_body_is_sent(server) -> None:
    async with connected(server) as raw:
        head = request("POST", "/events?topic=a", "Content-Length: 2", "Expect: 100-Continue")
        await raw.send(head)
        assert (await raw.answer()).status == 100
        await raw.send(b"hi")
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("/events?topic=a", "Content-Length: 9999999", 413),
        ("/nothing", "Content-Length: 2", 404),
        ("/healthz", "Content-Length: 2", 405),
        ("/events", "Content-Length: 2", 415),
        ("/events?topik=a", "Content-Length: 2", 400),
    ],
)
async def test_hopeless_body_is_refused_before_it_is_sent(server, path, header, status) -> None:
    async with connected(server) as raw:
        await raw.send(request("POST", path, header, "Expect: 100-continue"))
        answer = await raw.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert await raw.is_closed()


async def test_other_expectations_fail(server) -> None:
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a", "Expect: wonders", body=b"x"))
        answer = await raw.answer()
        assert (answer.status, answer.field) == (417, "Expect")


async def test_half_closed_client_still_gets_its_answers(server) -> None:
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a", body=b"x") * 200)
        raw.writer.write_eof()
        for _ in range(200):
            assert (await raw.answer()).status == 200
        assert await raw.is_closed()


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"GET /heal",
        b"POST /events?topic=a HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nx",
    ],
)
async def test_client_that_vanishes_leaves_nothing(server, part) -> None:
    deadlines = server._worker.frontend._deadlines
    async with connected(server) as raw:
        await raw.send(part)
        await until(lambda: deadlines)
        sock = raw.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raw.writer.transport.abort()
    await until(lambda: not deadlines)


async def test_small_answers_are_not_delayed(server) -> None:
    """Nagle's algorithm is off on accepted sockets."""
    async with connected(server) as raw:
        await raw.send(b"G")
        deadlines = server._worker.frontend._deadlines
        await until(lambda: deadlines)
        sock = next(iter(deadlines))._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_failing_route_is_a_500_and_tells_nothing(server, monkeypatch, caplog) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(server._worker._stats, "metrics", fail)
    async with connected(server) as raw:
        await raw.send(get("/metrics?token=hidden"))
        answer = await raw.answer()
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert await raw.is_closed()
    assert "ZeroDivisionError" in caplog.text
    assert "/metrics" in str([vars(record) for record in caplog.records])
    assert "hidden" not in str([vars(record) for record in caplog.records])


async def test_a_request_that_meets_a_drain_on_a_kept_connection_is_answered(server) -> None:
    context = server._worker.frontend._acceptors[0].context
    async with connected(server) as late, connected(server) as idle:
        for raw in (late, idle):
            await raw.send(get("/healthz"))
            assert (await raw.answer()).headers.get("connection") is None
        draining = asyncio.create_task(server.drain(0))
        await until(lambda: context.draining)
        await late.send(get("/healthz"))
        answer = await late.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await late.rest() == b""
        assert await idle.rest() == b"", "closed, and not reset"
        await draining


async def test_a_connection_that_is_idle_for_too_long_is_closed_without_a_reset(start) -> None:
    server = await start(idle_timeout="50ms")
    deadlines = server._worker.frontend._deadlines
    async with connected(server) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
        await until(lambda: deadlines.linger.since)
        # A request that was on its way meets no reset.
        await raw.send(get("/healthz"))
        assert await raw.rest() == b""
