"""Promises of `tls_records = native`: streams are as with OpenSSL's records, whatever they are
asked for, and what does not fit stays with OpenSSL."""

import asyncio
import json
import ssl
from typing import Any

import pytest

from fastsse.config import Config, ConfigError
from fastsse.http import tls
from fastsse.server import Server
from tests.http.conftest import Start
from tests.http.raw import TIMEOUT_S, request, secure

pytest.importorskip("tests.http.test_tls", exc_type=ImportError)

from tests.http.test_tls import options, pair, read_until

__all__ = ["pair"]  # a fixture


def native(pair: tuple[str, str], **more: Any) -> dict[str, Any]:
    return options(pair, tls_records="native", **more)


def counted(server: Server, name: str) -> int:
    return server._worker.frontend.counters()[f"tls_records_{name}"]


async def released(server: Server, count: int) -> None:
    """Waits until so many streams have left OpenSSL."""
    async with asyncio.timeout(TIMEOUT_S):
        while counted(server, "released") < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def sealed(server: Server, count: int) -> None:
    """As `released`, for servers without other connections."""
    await released(server, count)
    assert server._worker.frontend.counters()["tls_open"] == 0


async def to_end(raw: Any) -> bytes:
    """All bytes up to close_notify. Without it asyncio reports the end as well, so the tests of the
    core look at records."""
    async with asyncio.timeout(TIMEOUT_S):
        return await raw.reader.read()


async def test_stream_gets_each_event_and_resumes(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**native(pair, heartbeat="1s"))
    async with secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/events?topic=t"))
        assert b"text/event-stream" in await read_until(raw, b"\r\n\r\n")
        await sealed(server, 1)
        ids = [server.publish("t", f"event {n}") for n in range(3)]
        assert b"event 2" in await read_until(raw, b"event 2\n\n")
        await read_until(raw, b":\n")  # a heartbeat
    async with secure(server.port, pair[0]) as again:
        await again.send(request("GET", "/events?topic=t", f"Last-Event-ID: {ids[0]}"))
        got = await read_until(again, b"event 2\n\n")
        assert b"event 0" not in got
        assert got.index(b"event 1") < got.index(b"event 2")
    assert counted(server, "released") == 2


async def test_stream_after_other_requests_of_its_connection(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**native(pair))
    async with secure(server.port, pair[0]) as raw:
        for n in range(3):
            await raw.send(request("POST", "/events?topic=t", body=b"event %d" % n))
            assert json.loads((await raw.answer()).body)["id"]
            await raw.send(request("GET", "/nowhere"))
            assert (await raw.answer()).status == 404
        await raw.send(request("GET", "/events?topic=t&last=2"))
        got = await read_until(raw, b"event 2\n\n")
        assert b"event 1" in got
        await sealed(server, 1)
        server.publish("t", "live")
        await read_until(raw, b"live\n\n")


async def test_large_replays_and_events_cross_whole(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**native(pair, max_body="2MiB"))
    data = "x" * 1_000_000
    for n in range(3):
        server.publish("t", f"{n} {data}")
    async with secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/events?topic=t&last=3", "Connection: close"))
        async with asyncio.timeout(TIMEOUT_S):
            got = b""
            while b"2 xx" not in got or not got.endswith(b"\n\n\r\n"):
                got += await raw.reader.read(1 << 20)
        assert got.count(b"x" * 1_000_000) == 3


async def test_replay_from_a_store_attaches_later_and_is_sealed(
    start: Start, pair: tuple[str, str], tmp_path: Any
) -> None:
    server = await start(
        **native(pair, store=f"sqlite:{tmp_path}/t.db", history_total="64KiB", max_lag="64KiB")
    )
    async with secure(server.port, pair[0]) as publisher:
        for n in range(200):
            await publisher.send(request("POST", "/events?topic=t", body=b"%d " % n + b"y" * 2000))
            assert (await publisher.answer()).status == 200
        async with secure(server.port, pair[0]) as raw:
            await raw.send(request("GET", "/events?topic=t", "Last-Event-ID: earliest"))
            async with asyncio.timeout(TIMEOUT_S):
                got = b""
                while b"data: 199 " not in got:
                    got += await raw.reader.read(1 << 20)
            assert [b"data: %d y" % n in got for n in range(200)] == [True] * 200
            await released(server, 1)


async def test_drain_ends_streams_with_retry(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**native(pair, drain="100ms"))
    async with secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/events?topic=t"))
        await read_until(raw, b"\n\n")
        await sealed(server, 1)
        await server.drain()
        assert b"retry: " in await to_end(raw)


async def test_tls_1_2_is_counted_and_served_by_openssl(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**native(pair))
    context = ssl.create_default_context(cafile=pair[0])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
    )
    writer.write(request("GET", "/events?topic=t"))
    async with asyncio.timeout(TIMEOUT_S):
        await reader.readuntil(b"\n\n")
        server.publish("t", "old")
        await reader.readuntil(b"old\n\n")
    writer.transport.abort()
    assert (counted(server, "old_version"), counted(server, "released")) == (1, 0)


async def test_refused_streams_are_answered_by_openssl(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**native(pair, address_streams=1))
    async with secure(server.port, pair[0]) as first, secure(server.port, pair[0]) as second:
        await first.send(request("GET", "/events?topic=t"))
        await read_until(first, b"\n\n")
        await second.send(request("GET", "/events?topic=t&refuse=status"))
        assert (await second.answer()).status == 429


async def test_reload_of_certificates_leaves_streams_alone(
    start: Start, pair: tuple[str, str]
) -> None:
    server = await start(**native(pair))
    async with secure(server.port, pair[0]) as raw, secure(server.port, pair[0]) as later:
        await raw.send(request("GET", "/events?topic=t"))
        await read_until(raw, b"\n\n")
        await sealed(server, 1)
        server._worker.frontend.apply(server._worker.config)
        await later.send(request("GET", "/events?topic=t"))
        await read_until(later, b"\n\n")
        await sealed(server, 2)
        server.publish("t", "both")
        for one in (raw, later):
            await read_until(one, b"both\n\n")


async def test_openssl_keeps_all_records_by_default(start: Start, pair: tuple[str, str]) -> None:
    server = await start(**options(pair))
    async with secure(server.port, pair[0]) as raw:
        await raw.send(request("GET", "/events?topic=t"))
        await read_until(raw, b"\n\n")
        server.publish("t", "one")
        await read_until(raw, b"one\n\n")
        counters = server._worker.frontend.counters()
        assert counters["tls_open"] == 1
        assert counters["tls_records_released"] == 0


async def test_start_without_what_is_needed_is_refused(
    start: Start, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise tls.SealError("libcrypto.so.3 was not found")

    monkeypatch.setattr(tls, "check_sealing", fail)
    with pytest.raises(ConfigError, match=r"tls_records.*libcrypto"):
        await start(**native(pair))
    await start(**options(pair))


def test_native_records_need_a_certificate() -> None:
    with pytest.raises(ConfigError, match="tls_records"):
        Config(tls_records="native")
    with pytest.raises(ConfigError, match="tls_records"):
        Config(tls_records="kernel")
