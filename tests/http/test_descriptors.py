"""Descriptors: who gets them, and what happens when they run out."""

import asyncio
import resource
import socket

import pytest

from fastsse.config import ConfigError
from fastsse.http.descriptors import Descriptors, raise_soft_limit, spare
from fastsse.limits import reserved_descriptors
from tests.http.raw import connected, get, request, until


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
    assert plan.limit - plan.max_connections == reserved_descriptors(limit) or streams == 1_000_000


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


@pytest.mark.parametrize(("least", "streams"), [(3, 6_581), (1, 19_742)])
def test_streams_over_tls_are_planned_by_the_fewest_descriptors_that_they_need(
    soft_limit, least, streams
) -> None:
    soft_limit(20_000)
    plan = Descriptors.plan(0, 3, least)
    assert plan.max_connections == streams
    assert plan.limit <= 20_000
    with pytest.raises(ConfigError, match=f"at most {streams}"):
        Descriptors.plan(streams + 1, 3, least)
    soft_limit(100_000)
    # With such a limit it does not matter who keeps the records.
    assert Descriptors.plan(10_000, 3, least).streams_left(9_999, 0) == 1


@pytest.mark.parametrize("sealed", [0, 1, 500, 5_000, 19_742])
def test_streams_that_are_open_leave_room_by_the_descriptors_that_they_have(
    soft_limit, monkeypatch, sealed
) -> None:
    soft_limit(20_000)
    monkeypatch.setattr("fastsse.http.descriptors._open_count", lambda: 30)
    plan = Descriptors.plan(0, 3, 1)
    kept = (plan.limit - plan.held_back - sealed) // 3
    assert plan.streams_left(sealed + kept, sealed) == 0
    if kept:
        assert plan.streams_left(sealed + kept - 1, sealed) == 1
    assert plan.requests_most(sealed + kept, sealed) >= 8


def test_soft_limit_is_raised_by_the_descriptors_of_a_stream(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1_000_000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    raise_soft_limit(10_000, 3)
    assert asked[0][0] >= 30_000 + reserved_descriptors(asked[0][0])


def test_a_limit_that_leaves_streams_nothing_is_refused(soft_limit) -> None:
    soft_limit(20)
    with pytest.raises(
        ConfigError, match=r"limit of 20 descriptors leaves none .* Raise the limit"
    ):
        Descriptors.plan(0)


async def test_a_newcomer_is_never_the_one_that_goes(start) -> None:
    server = await start()
    frontend = server._worker.frontend
    frontend._descriptors = frontend._descriptors._replace(others=1 << 40)
    async with connected(server) as probe:
        await probe.send(get("/healthz"))
        assert (await probe.answer()).status == 200


async def test_newcomer_is_served_when_idle_connections_fill_the_reserve(start) -> None:
    server = await start()
    frontend = server._worker.frontend
    plan = frontend._descriptors
    frontend._descriptors = plan._replace(others=plan.requests_most(0) + plan.others - 3)
    assert frontend._descriptors.requests_most(0) == 3
    async with connected(server) as idle, connected(server) as slow, connected(server) as busy:
        await idle.send(get("/healthz"))
        assert (await idle.answer()).status == 200
        await slow.send(b"GET /slow")
        await busy.send(request("POST", "/events?topic=a", body=b"xy")[:-1])
        await until(lambda: len(frontend._deadlines) == 3)
        async with connected(server) as probe:
            await probe.send(get("/healthz"))
            assert (await probe.answer()).status == 200
            assert await idle.is_closed()
            async with connected(server) as second:
                await second.send(b"GET /")
                await until(lambda: len(frontend._deadlines) == 3)
                await busy.send(b"y")
                assert (await busy.answer()).status == 200


async def test_descriptors_run_out_and_streams_go_on(start, monkeypatch) -> None:
    """The process has none left: new clients wait, and open streams notice nothing."""
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
            await until(lambda: server._worker.frontend.main._paused)
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
        "fastsse.api.handoff.fcntl.fcntl",
        lambda *_: (_ for _ in ()).throw(OSError(24, "Too many open files")),
    )
    async with connected(server) as raw:
        await raw.trickle(get("/events?topic=a"))
        answer = await raw.answer()
        assert (answer.status, answer.body[:7]) == (200, b"retry: ")
        assert server._worker.frontend.main._paused is not None
