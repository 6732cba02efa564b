"""Promises of `tls_records = native` about everything else that a stream has: a client gets the
same bytes whether the sender seals them or OpenSSL does, and limits hold for both."""

import asyncio
import contextlib
import itertools
import json
import socket
import ssl
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.http.conftest import Start
from tests.http.raw import TIMEOUT_S, Raw, Stream, request, secure, until

pytest.importorskip("tests.http.test_tls", exc_type=ImportError)

from tests.http.test_tls import pair, read_until
from tests.http.test_tls_records import counted, native, released

__all__ = ["pair"]  # a fixture

#: The last event; no filter here leaves it out.
END = json.dumps({"n": 99, "text": "the end"})


def kept(port: int, certificate: str) -> AbstractAsyncContextManager[Raw]:
    """A client of TLS 1.2, whose streams stay with OpenSSL."""
    return secure(port, certificate, most=ssl.TLSVersion.TLSv1_2)


async def read_all(stream: Stream) -> bytes:
    """The whole body, up to the last event."""
    while b"the end" not in stream.body or not stream.body.endswith(b"\n\n"):
        assert await stream.read(), stream.body[-300:]
    return stream.body


def bearer(**claims: object) -> str:
    return f"Authorization: Bearer {mint(grants(**claims)).decode()}"


async def publish_mix(server: Server, publisher: Raw) -> None:
    """Events of all kinds, public and private, and the last one."""
    for n in range(12):
        server.publish("t", json.dumps({"n": n}), event="tick" if n % 2 else None)
        server.publish(["t", "u"], f"plain text {n}\nof two lines", id=f"own-{n}")
    for topic, data, private in (
        ("t", {"n": 50}, True),
        ("u", {"n": 51}, True),
        ("t", END, False),
    ):
        body = json.dumps(
            {"topic": topic, "data": data, "private": private, "event": "tick", "meta": {"k": "v"}}
        ).encode()
        head = ("Content-Type: application/json", bearer(publish=["*"]))
        await publisher.send(request("POST", "/events", *head, body=body))
        assert (await publisher.answer()).status == 200


QUERIES = [
    "topic=t",
    "topic=t&topic=u",
    "topic=*",
    "topic=t&filter=data.n+%3E+5",
    "topic=t&event=tick",
    "topic=t&envelope=json",
    "topic=t&envelope=json&filter=data.n+%3E+5&event=tick",
    "topic=t&max_rate=100&event=tick",
    "topic=t&last=5",
    "topic=t&last_event_id=earliest",
    "topic=t&last_each=1&topic=u",
    "topic=t&initial_id=data",
    "topic=t&fastsse=false&pad=2048",
]


RIGHTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "t": (bearer(subscribe=["t"]),),
    "all": (bearer(subscribe=["*"]),),
}


async def test_client_gets_the_bytes_that_openssl_would_send(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**native(pair, jwt_key=SECRET, anonymous=True, heartbeat="30s"))
    server.publish("t", json.dumps({"n": 7}), event="tick")
    server.publish("u", "older")
    streams: dict[tuple[str, str], list[Stream]] = {}
    async with contextlib.AsyncExitStack() as stack:
        for query, rights in itertools.product(QUERIES, RIGHTS):
            for client in (secure, kept):
                raw = await stack.enter_async_context(client(server.port, pair[0]))
                await raw.send(request("GET", f"/events?{query}", *RIGHTS[rights]))
                stream = await raw.stream()
                await stream.opening()
                streams.setdefault((query, rights), []).append(stream)
        await released(server, len(streams))
        assert counted(server, "old_version") == len(streams)
        publisher = await stack.enter_async_context(secure(server.port, pair[0]))
        await publish_mix(server, publisher)
        for (query, rights), both in streams.items():
            sealed, by_openssl = [await read_all(stream) for stream in both]
            assert sealed == by_openssl, (query, rights)
            if "max_rate" not in query:  # It may leave an event out for a newer one.
                text = sealed.replace(b" ", b"")
                sees_u = rights == "all" and ("u" in query or "*" in query)
                assert (b'"n":50' in text) == (rights != "none"), (query, rights)
                assert (b'"n":51' in text) == sees_u, (query, rights)


async def test_presence_knows_sealed_streams_until_they_end(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**native(pair, jwt_key=SECRET, subscriptions=True))
    token = mint({"sub": "ann", "mercure": {"subscribe": ["*"]}}).decode()
    who = f"Authorization: Bearer {token}"

    async def present() -> list[Any]:
        async with secure(server.port, pair[0]) as asker:
            await asker.send(request("GET", "/presence?topic=t", who))
            found: list[Any] = (await asker.answer()).json["subscribers"]
            return found

    async with secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/events?topic=t", who))
        await read_until(raw, b"\n\n")
        await released(server, 1)
        assert len(await present()) == 1
    async with asyncio.timeout(TIMEOUT_S):
        while await present():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await until(lambda: server.stream_count == 0)


@contextlib.contextmanager
def slow_client(server: Server, certificate: str, query: str) -> Any:
    """A client with a small buffer that has read the opening and reads on when the test says so."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(TIMEOUT_S)
    raw.connect(("127.0.0.1", server.port))
    context = ssl.create_default_context(cafile=certificate)
    with context.wrap_socket(
        raw, server_hostname="localhost", suppress_ragged_eofs=False
    ) as client:
        client.sendall(request("GET", f"/events?{query}"))
        yield client


def read_to(client: ssl.SSLSocket, ending: bytes) -> bytes:
    """All that comes up to a text."""
    got = b""
    while ending not in got[-200:]:
        piece = client.recv(1 << 16)
        assert piece, got[-200:]
        got += piece
    return got


@pytest.mark.parametrize("policy", ["skip", "latest", "disconnect"])
async def test_slow_client_is_treated_as_its_policy_says(
    start: Start, pair: tuple[str, str], policy: str
) -> None:
    server = await start(
        **native(pair, max_lag="256KiB", lag_policy=policy, max_lag_time="30s", heartbeat="60s")
    )
    entered = contextlib.ExitStack()
    with entered:
        client = await asyncio.to_thread(
            entered.enter_context, slow_client(server, pair[0], "topic=t")
        )
        await asyncio.to_thread(read_to, client, b"\n\n")
        await released(server, 1)
        sender = server._worker._sender
        name = {"skip": "skipped", "latest": "lapped", "disconnect": "closed_lagged"}[policy]
        async with asyncio.timeout(TIMEOUT_S):
            count = 0
            while not sender.counters()[name]:
                server.publish("t", f"{count} " + "x" * 30_000, id=f"own-{count}")
                count += 1
                await asyncio.sleep(0.001)
        if policy == "disconnect":
            with pytest.raises((ssl.SSLError, ConnectionError)):  # A cut has no close_notify.
                await asyncio.to_thread(read_to, client, b"never")
            return
        server.publish("t", "the end")
        got = await asyncio.to_thread(read_to, client, b"the end\n\n")
        assert (b"event: fastsse.gap\n" in got) == (policy == "skip")
        seen = [n for n in range(count) if b"data: %d xx" % n in got]
        assert seen[0] == 0
        assert seen == sorted(seen)
        if policy == "skip":  # With `latest` the last event replaces those before it.
            assert seen[-1] == count - 1
        assert len(seen) < count


async def test_stream_ends_before_its_key_is_used_up_and_goes_on_with_another(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**native(pair, retry="20ms", heartbeat="60s"))
    sender = server._worker._sender
    sender.limit_records(64)
    seen: list[str] = []
    published, last = 0, ""
    for round_number in range(3):
        resume = (f"Last-Event-ID: {last}",) if round_number else ()
        async with secure(server.port, pair[0]) as raw:
            await raw.send(request("GET", "/events?topic=t", *resume))
            stream = await raw.stream()
            await stream.opening()
            await released(server, round_number + 1)
            async with asyncio.timeout(TIMEOUT_S):
                while sender.counters()["closed_lifetime"] == round_number:
                    server.publish("t", str(published))
                    published += 1
                    await asyncio.sleep(0.005)
            await stream.to_end()
            assert stream.parsed.retry_ms is not None
            seen += [one.data for one in stream.parsed.events]
            last = stream.parsed.last_event_id
    assert seen == list(map(str, range(len(seen))))
    assert len(seen) >= 3 * 50


# ---- descriptors ---------------------------------------------------------------------------------


async def test_as_many_streams_as_descriptors_carry_are_planned_for(
    start: Start, pair: tuple[str, str]
) -> None:
    sealed, plain = await start(**native(pair)), await start()
    # While a stream opens, it has both ends of a pair too.
    assert plain.max_connections - sealed.max_connections < 40


@pytest.mark.parametrize(("opened_by_openssl", "sealed"), [(0, 10), (1, 7), (2, 4), (3, 1), (4, 0)])
async def test_streams_that_stay_with_openssl_take_three_places(
    start: Start, pair: tuple[str, str], opened_by_openssl: int, sealed: int
) -> None:
    """Twelve descriptors for streams, three of which a stream needs while it opens."""
    server = await start(**native(pair))
    frontend = server._worker.frontend
    plan = frontend._descriptors
    frontend._descriptors = plan._replace(limit=plan.held_back + 12)
    query = request("GET", "/events?topic=t&refuse=status")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(opened_by_openssl):
            raw = await stack.enter_async_context(kept(server.port, pair[0]))
            await raw.send(query)
            await read_until(raw, b"\n\n")
        for number in range(sealed):
            raw = await stack.enter_async_context(secure(server.port, pair[0]))
            await raw.send(query)
            await read_until(raw, b"\n\n")
            await until(lambda: server._worker._sender.sealed_count == number + 1)  # noqa: B023
        assert frontend.room() == 0
        assert frontend.unready() == "full"
        for client in (secure, kept):
            raw = await stack.enter_async_context(client(server.port, pair[0]))
            await raw.send(query)
            answer = await raw.answer()
            assert (answer.status, answer.json["reason"]) == (503, "full")
    await until(lambda: server.stream_count == 0)
    assert server._worker._sender.sealed_count == 0
    assert frontend.room() == 4
