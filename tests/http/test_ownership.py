"""A socket has one owner at any time: the loop's transport, the accepting code, or the sender."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fastsse.http.connection import Connection
from fastsse.server import Server
from tests.http.conftest import Start
from tests.http.raw import connected, get, until
from tests.mercure.client import KEY, bearer

PUBLIC = {"port": 0, "jwt_key": KEY, "subscriptions": True, "address_streams": 100}


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("injected")


def later_calls(server: Server) -> dict[str, tuple[object, str]]:
    """Every call that follows once the sender has a subscriber's descriptor."""
    frontend, hub = server._worker.frontend, server._worker._hub
    return {
        "the bearer": (type(hub.streams._tokens), "add"),
        "the quota": (type(frontend._rate_limits), "on_stream_opened"),
        "the presence": (type(frontend._endpoints.presence), "on_stream_opened"),
        "the access line": (type(server._worker._access), "opened"),
        "a page of history": (hub.streams._replayer, "on_page"),
        "the count of gaps": (type(hub.streams._replayer), "_count"),
    }


def failures(caplog: pytest.LogCaptureFixture) -> int:
    """How many were logged. Their tracebacks hold frames, which would look like leaks."""
    count = sum(record.exc_info is not None for record in caplog.records)
    for record in caplog.records:
        record.exc_info = None
    return count


CALLS = (
    *("the bearer", "the quota", "the presence", "the access line"),
    *("a page of history", "the count of gaps"),
)


@pytest.mark.parametrize("whole", [True, False], ids=["no transport", "a transport"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_failure_after_the_hand_over_ends_the_stream_and_closes_nothing_twice(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    whole: bool,
) -> None:
    server = await start(**PUBLIC)
    assert set(CALLS) == later_calls(server).keys()
    await server.publish_later("a", "kept")
    subscribe = get("/events?topic=a&last_event_id=earliest", bearer(subscribe=["a"]))
    with monkeypatch.context() as patch:
        patch.setattr(*later_calls(server)[call], fail)
        for _ in range(3):
            async with connected(server) as raw:
                await (raw.send if whole else raw.trickle)(subscribe)
                # A socket that was closed by its former owner never carries a response.
                assert (await raw.rest()).startswith(b"HTTP/1.1 200 OK")
    await until(lambda: not server.stream_count)
    assert server._worker._reading().counters["closed_ended"] == 3
    assert failures(caplog) == 3
    async with connected(server) as raw:
        await raw.send(subscribe)
        assert (await (await raw.stream()).next()).data == "kept"


@pytest.mark.parametrize("whole", [True, False], ids=["no transport", "a transport"])
@pytest.mark.parametrize("call", ["head", "join", "opening"])
async def test_a_failure_before_the_hand_over_closes_the_socket_once(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    whole: bool,
) -> None:
    server = await start()
    hub_streams = server._worker._hub.streams
    before_it = {
        "head": (server._worker.frontend._streams, "_head"),
        "join": (hub_streams._channels, "join"),
        "opening": (hub_streams, "_at_head"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*before_it[call], fail)
        for _ in range(3):
            async with connected(server) as raw:
                await (raw.send if whole else raw.trickle)(get("/events?topic=a"))
                assert await raw.is_closed()
    assert server.stream_count == 0
    assert failures(caplog) == 3
    async with connected(server) as raw:
        await raw.send(get("/events?topic=a"))
        await (await raw.stream()).opening()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each connection was notified that it is lost."""
    counts: Counter[int] = Counter()
    really: Callable[..., None] = Connection.connection_lost
    kept: list[Connection] = []

    def lost(connection: Connection, exc: Exception | None) -> None:
        kept.append(connection)  # So that no two have the same id.
        counts[id(connection)] += 1
        really(connection, exc)

    monkeypatch.setattr(Connection, "connection_lost", lost)
    return counts


# More bytes than the buffers of two sockets hold.
ANSWERS = 400


@pytest.mark.parametrize(
    "last", [get("/events?topic=a"), get("/healthz", "Connection: close")], ids=["stream", "close"]
)
async def test_a_peer_that_reads_again_is_never_closed_inside_its_transports_callback(
    server: Server, ends: Counter[int], last: bytes
) -> None:
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    async with connected(server) as raw:
        raw.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await raw.send(get("/metrics") * ANSWERS + last)
        deadlines = server._worker.frontend._deadlines
        await until(lambda: [c for c in deadlines if c._choked])
        raw.reader._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(ANSWERS):
            assert (await raw.answer()).status == 200
        assert (await raw.head())[0] == 200
    await until(lambda: not deadlines and not server.stream_count)
    assert wrong == []
    assert list(ends.values()) == [1]
