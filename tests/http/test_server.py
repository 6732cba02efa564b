"""A server's whole life: in a program of others, and as a program of its own."""

import asyncio
import gc
import json
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from fastsse.config import Config, ConfigError
from fastsse.errors import InvalidEvent, Refused
from fastsse.http.descriptors import Descriptors, reserve, spare
from fastsse.http.protocol import Connection
from fastsse.metrics import Metrics
from fastsse.server import Server
from tests.cli.commandline import environment
from tests.http.raw import Stream, connected, get, opened, request, until

ROOT = Path(__file__).parents[2]


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
    assert not [one for one in gc.get_objects() if isinstance(one, Connection)]
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
        waits = server._worker.entrance._waits
        await until(lambda: len(waits.body.since) == 1 and len(waits.head.since) == 2)
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
        with pytest.raises(Refused):
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
        await until(lambda: server._worker.entrance._waits)
        began_s = time.monotonic()
        await server.drain(0)
        assert time.monotonic() - began_s < 10
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


# ── Descriptors ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def soft_limit(monkeypatch):
    def pretend(limit: int) -> None:
        monkeypatch.setattr("fastsse.http.descriptors.resource.getrlimit", lambda _: (limit, limit))

    return pretend


@pytest.mark.parametrize(
    ("limit", "streams"),
    [(1024, 768), (20_000, 19_744), (100_000, 99_000), (2**30, 1_000_000), (256, 128)],
)
def test_streams_leave_a_reserve_of_descriptors(soft_limit, limit, streams) -> None:
    soft_limit(limit)
    plan = Descriptors.plan(0)
    assert plan.max_connections == streams
    assert plan.limit <= limit
    assert plan.limit - plan.max_connections == reserve(limit) or streams == 1_000_000


def test_more_streams_than_descriptors_carry_are_refused(soft_limit) -> None:
    soft_limit(20_000)
    assert Descriptors.plan(19_744).max_connections == 19_744
    with pytest.raises(ConfigError, match=r"max_connections = 19745 .* at most 19744"):
        Descriptors.plan(19_745)


@pytest.mark.parametrize("limit", [64, 80, 128, 200, 512, 1024])
@pytest.mark.parametrize("others", [10, 30, 64, 300])
def test_streams_leave_requests_room_under_every_limit(
    soft_limit, monkeypatch, limit, others
) -> None:
    soft_limit(limit)
    monkeypatch.setattr("fastsse.http.descriptors._open_count", lambda: others)
    for asked in (0, 3):
        if limit < others + spare(limit) + 8 + max(1, asked):
            with pytest.raises(ConfigError):
                Descriptors.plan(asked)
        else:
            plan = Descriptors.plan(asked)
            assert plan.requests_most(plan.max_connections) >= 8
            assert plan.limit <= limit


def test_a_limit_that_leaves_streams_nothing_is_refused(soft_limit) -> None:
    soft_limit(20)
    with pytest.raises(ConfigError, match=r"limit of 20 descriptors leaves none .* raise it"):
        Descriptors.plan(0)


async def test_a_newcomer_is_never_the_one_that_goes(start) -> None:
    server = await start()
    entrance = server._worker.entrance
    entrance._descriptors = entrance._descriptors._replace(others=1 << 40)
    async with connected(server) as probe:
        await probe.send(get("/healthz"))
        assert (await probe.answer()).status == 200


async def test_newcomer_is_served_when_idle_connections_fill_the_reserve(start) -> None:
    server = await start()
    entrance = server._worker.entrance
    plan = entrance._descriptors
    entrance._descriptors = plan._replace(others=plan.requests_most(0) + plan.others - 3)
    assert entrance._descriptors.requests_most(0) == 3
    async with connected(server) as idle, connected(server) as slow, connected(server) as busy:
        await idle.send(get("/healthz"))
        assert (await idle.answer()).status == 200
        await slow.send(b"GET /slow")
        await busy.send(request("POST", "/events?topic=a", body=b"xy")[:-1])
        await until(lambda: len(entrance._waits) == 3)
        async with connected(server) as probe:
            await probe.send(get("/healthz"))
            assert (await probe.answer()).status == 200
            assert await idle.is_closed()
            async with connected(server) as second:
                await second.send(b"GET /")
                await until(lambda: len(entrance._waits) == 3)
                await busy.send(b"y")
                assert (await busy.answer()).status == 200


async def test_descriptors_run_out_and_streams_go_on(start, monkeypatch) -> None:
    """The process has none left: those who come wait, and whoever streams notices nothing."""
    monkeypatch.setattr("fastsse.http.listeners.ACCEPT_PAUSE_S", 0.05)
    server = await start()
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        stream = await raw.stream()
        await stream.opening()
        # A client's own socket, made before there are none left.
        client = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        try:
            client.connect(("127.0.0.1", server.port))
            client.send(get("/healthz"))
            await until(lambda: server._worker.entrance.main._paused)
            server.publish("a", "x")
            assert (await stream.next()).data == "x"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200")
        client.close()


async def test_hand_over_without_descriptors_turns_away(start, monkeypatch) -> None:
    server = await start()
    monkeypatch.setattr(
        "fastsse.http.streams.fcntl.fcntl",
        lambda *_: (_ for _ in ()).throw(OSError(24, "Too many open files")),
    )
    async with connected(server) as raw:
        await raw.trickle(get("/events?topic=a"))
        answer = await raw.answer()
        assert (answer.status, answer.body[:7]) == (200, b"retry: ")
        assert server._worker.entrance.main._paused is not None


# ── As a program of its own ───────────────────────────────────────────────────────────────────

PROGRAM = """
import sys
from fastsse.config import Config
from fastsse.log import configure
from fastsse.server import run
config = Config(port=0, log_format="json", drain=sys.argv[1])
configure(config)
sys.exit(run(config))
"""


class Program:
    """A server process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> dict:
        assert self.process.stderr is not None
        return json.loads(await asyncio.wait_for(self.process.stderr.readline(), 20))

    async def status(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 20)


@pytest.fixture
async def program():
    running = []

    async def start_program(drain: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            drain,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        running.append(process)
        return Program(process)

    yield start_program
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_and_exits_0(program, number) -> None:
    running = await program("200ms")
    started = await running.line()
    assert started["event"] == "fastsse is serving."
    assert started["max_connections"] > 0
    assert started["memory_limit"] == "1GiB"
    async with opened(started["addresses"][0]) as raw:
        await raw.send(get("/events?topic=a"))
        stream = await raw.stream()
        await stream.opening()
        running.process.send_signal(number)
        await stream.to_end()
        assert stream.parsed.retry_ms is not None
        assert stream.parsed.retry_ms >= 3000
    assert await running.status() == 0


async def test_second_signal_exits_at_once(program) -> None:
    running = await program("1h")
    started = await running.line()
    async with opened(started["addresses"][0]) as raw, opened(started["addresses"][0]) as other:
        for one in (raw, other):
            await one.send(get("/events?topic=a"))
            await (await one.stream()).opening()
        running.process.send_signal(signal.SIGTERM)
        while (await running.line())["event"] != "Draining.":
            pass
        running.process.send_signal(signal.SIGTERM)
        assert await running.status() == 128 + signal.SIGTERM


async def test_hangup_is_a_reload_and_survived(program) -> None:
    running = await program("0s")
    started = await running.line()
    running.process.send_signal(signal.SIGHUP)
    assert (await running.line())["event"] == "Reloaded."
    async with opened(started["addresses"][0]) as raw:
        await raw.send(get("/healthz"))
        assert (await raw.answer()).status == 200
    running.process.send_signal(signal.SIGTERM)
    assert await running.status() == 0


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
