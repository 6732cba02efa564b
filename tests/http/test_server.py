"""A server's whole life in a program of others, and what it logs."""

import asyncio
import gc
import resource
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from fastsse.config import Config
from fastsse.errors import InvalidEvent, Unavailable
from fastsse.http.connection import Connection
from fastsse.metrics import Metrics
from fastsse.server import Server
from tests.http.raw import Stream, connected, get, opened, request, until

# ── In a program of others ────────────────────────────────────────────────────────────────────


async def test_events_are_published_from_python(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a&topic=b"))
        stream = await raw.stream()
        await stream.opening()
        assert server.publish("a", {"n": 1}, event="tick", id="7", retry=2000) == "7"
        event = await stream.next()
        assert (event.data, event.type, event.last_event_id) == ('{"n":1}', "tick", "7")
        position = server.publish(["a", "b"], "text")
        event = await stream.next()
        assert (event.data, event.last_event_id) == ("text", position)
        server.publish("b", b"bytes")
        assert (await stream.next()).data == "bytes"


@pytest.mark.parametrize(
    ("arguments", "options", "field"),
    [
        (("", "x"), {}, "topic"),
        (("$x", "x"), {}, "topic"),
        (("a", b"\xff"), {}, "data"),
        (("a", object()), {}, "data"),
        (("a", "x"), {"event": "a\nb"}, "event"),
        (("a", "x"), {"id": "1-1"}, "id"),
        (("a", "x"), {"retry": -1}, "retry"),
    ],
)
async def test_what_can_not_be_published_raises(server, arguments, options, field) -> None:
    with pytest.raises(InvalidEvent) as caught:
        server.publish(*arguments, **options)
    assert caught.value.field == field


async def test_nothing_is_left_when_a_server_is_closed() -> None:
    threads = threading.active_count()
    for _ in range(3):
        async with Server(Config(port=0, drain=0)) as server, connected(server) as raw:
            await raw.send(get("/events?topic=a"))
            await (await raw.stream()).opening()
    assert threading.active_count() == threads
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Connection]
    assert len(asyncio.all_tasks()) == 1


async def test_closed_server_can_start_again(start) -> None:
    server = await start()
    await server.close()
    with pytest.raises(RuntimeError, match="not running"):
        server.publish("a", "x")
    await server.close()
    await server.start()
    assert server.publish("a", "x")
    with pytest.raises(RuntimeError, match="already"):
        await server.start()


async def test_exception_in_the_program_ends_streams_at_once() -> None:
    async with connected_to_failing_program() as stream:
        await stream.to_end()


@asynccontextmanager
async def connected_to_failing_program() -> AsyncIterator[Stream]:
    """A stream of a server whose program has failed, and which would drain for an hour."""
    async with AsyncExitStack() as clients:
        with suppress(ZeroDivisionError):
            async with Server(Config(port=0, drain="1h")) as server:
                raw = await clients.enter_async_context(connected(server))
                await raw.send(get("/events?topic=a"))
                stream = await raw.stream()
                await stream.opening()
                raise ZeroDivisionError
        yield stream


async def test_signals_and_limits_of_the_program_are_left_alone(start) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    await start()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert limits == resource.getrlimit(resource.RLIMIT_NOFILE)


# ── Draining ──────────────────────────────────────────────────────────────────────────────────


async def test_drain_ends_streams_each_with_a_time_to_come_back(start) -> None:
    server = await start(retry="4s")
    async with connected(server) as first, connected(server) as second:
        told = set()
        streams = []
        for raw in (first, second):
            await raw.send(get("/events?topic=a"))
            streams.append(await raw.stream())
            await streams[-1].opening()
        await server.drain(0.1)
        for stream in streams:
            await stream.to_end()
            assert stream.parsed.retry_ms is not None
            assert 4000 <= stream.parsed.retry_ms <= 8000
            told.add(stream.parsed.retry_ms)
    assert server.stream_count == 0


async def test_draining_server_is_unready_and_takes_nothing_new(start) -> None:
    server = await start(admin_port=0)
    async with (
        connected(server) as stream_raw,
        connected(server) as publisher,
        connected(server) as subscriber,
        opened(server.admin_addresses[0]) as admin,
    ):
        await stream_raw.send(get("/events?topic=a"))
        stream = await stream_raw.stream()
        await stream.opening()
        # Requests under way: their connections stay open for the answer.
        publish = request("POST", "/events?topic=a", body=b"xy")
        await publisher.send(publish[:-1])
        await subscriber.send(get("/events?topic=a")[:-1])
        await admin.send(get("/readyz")[:-1])
        deadlines = server._worker.frontend._deadlines
        await until(lambda: len(deadlines.body.since) == 1 and len(deadlines.head.since) == 2)
        draining = asyncio.create_task(server.drain(0.3))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", server.port)
        await publisher.send(b"y")
        answer = await publisher.answer()
        assert (answer.status, answer.json["reason"]) == (503, "draining")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["connection"] == "close"
        await subscriber.send(b"\n")
        answer = await subscriber.answer()
        assert answer.status == 200
        assert answer.body.startswith(b"retry: ")
        await admin.send(b"\n")
        answer = await admin.answer()
        assert (answer.status, answer.body) == (503, b"draining\n")
        async with opened(server.admin_addresses[0]) as probe:
            await probe.send(get("/healthz"))
            assert (await probe.answer()).status == 200
        await stream.to_end()
        await draining
        with pytest.raises(Unavailable):
            server.publish("a", "x")


async def test_drain_closes_idle_connections(server) -> None:
    async with connected(server) as raw:
        await raw.send(get("/healthz"))
        await raw.answer()
        await server.drain(0)
        assert await raw.is_closed()


async def test_drain_does_not_wait_for_ever(start, caplog) -> None:
    server = await start()
    async with connected(server) as raw:
        await raw.send(b"GET /never")
        await until(lambda: server._worker.frontend._deadlines)
        await server.drain(0)
        await server.close()
        assert await raw.is_closed()


@pytest.mark.parametrize("path", ["/metrics", "/stats"])
async def test_what_is_costly_to_tell_is_made_once_a_request(start, monkeypatch, path) -> None:
    made = []
    for name in ("exposition", "stats"):
        tell = getattr(Metrics, name)
        monkeypatch.setattr(Metrics, name, lambda self, tell=tell: made.append(1) or tell(self))
    server = await start()
    async with connected(server) as raw:
        await raw.send(get(path))
        assert (await raw.answer()).status == 200
    assert len(made) == 1


# ── Logs ──────────────────────────────────────────────────────────────────────────────────────


async def test_streams_are_logged_as_they_open_and_end(start, caplog) -> None:
    caplog.set_level("INFO", "fastsse")
    server = await start(access_lines=100)
    for whole in (True, False):
        caplog.clear()
        async with connected(server) as raw:
            host, port = raw.writer.get_extra_info("sockname")[:2]
            path = "/events?topic=a&authorization=s3cret"
            await (raw.send if whole else raw.trickle)(get(path))
            stream = await raw.stream()
            await stream.opening()
            server.publish("a", "x")
            await stream.next()
        await until(lambda: not server.stream_count)
        opened_line, closed_line = [one for one in caplog.records if "Stream" in one.message]
        assert opened_line.client == f"{host}:{port}"
        assert opened_line.topics == ["a"]
        assert (closed_line.reason, closed_line.events) == ("client_closed", 1)
        assert closed_line.bytes > 0
        assert closed_line.duration_s >= 0
        assert "s3cret" not in str([vars(record) for record in caplog.records])


async def test_publishes_are_logged_at_debug(start, caplog) -> None:
    caplog.set_level("DEBUG", "fastsse")
    server = await start(log_level="debug", access_lines=100)
    async with connected(server) as raw:
        await raw.send(request("POST", "/events?topic=a", body=b"x"))
        assert (await raw.answer()).status == 200
        await raw.send(request("POST", "/events?topic=a&id=1-1", body=b"x"))
        assert (await raw.answer()).status == 400
    published = [record for record in caplog.records if record.message == "Published."]
    assert [(one.events, one.bytes, one.status) for one in published] == [(1, 1, 200)]
