"""Promises of `tls_records = native` with real processes: killed, reloaded and drained, streams go
on with the next event, and what ends in order ends behind close_notify."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from fastsse import _seal
from tests.certificates import issue
from tests.eventstream import EventStream
from tests.http.raw import Raw, request, secure
from tests.supervisor.service import TIMEOUT_S, Service, reload

try:
    _seal.check()
except _seal.SealError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)

EVENTS = 240
READERS = 6


class Site:
    """A service over TLS, and the certificate that its clients trust."""

    def __init__(self, service: Service, certificate: str) -> None:
        self.service = service
        self.port = int(service.url.rpartition(":")[2])
        self.certificate = certificate

    def connected(self) -> AbstractAsyncContextManager[Raw]:
        return secure(self.port, self.certificate)

    async def released(self) -> int:
        """Streams that have left OpenSSL, in all workers that live."""
        async with self.connected() as raw:
            await raw.send(request("GET", "/metrics", "Connection: close"))
            lines = (await raw.answer()).body.decode().splitlines()
        name = 'fastsse_tls_records_total{result="released"} '
        return round(sum(float(line.removeprefix(name)) for line in lines if name in line))

    async def publish(self, data: str) -> None:
        """Repeats it, with one key, until it is answered."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                async with self.connected() as raw:
                    key = f"Idempotency-Key: {data}"
                    await raw.send(request("POST", "/events?topic=t", key, body=data.encode()))
                    if (await raw.answer()).status == 200:
                        return
            await asyncio.sleep(0.01)


class Reader:
    """Reads a topic, reconnecting after the last id whenever its stream ends."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.seen: list[str] = []
        self.kinds: set[str] = set()
        self.connects = 0
        self.is_open = asyncio.Event()
        self._last_id = ""

    async def run(self) -> None:
        while not self.seen or self.seen[-1] != "end":
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                async with self.site.connected() as raw:
                    await self._read(raw)
            await asyncio.sleep(0.01)

    async def _read(self, raw: Raw) -> None:
        resume = (f"Last-Event-ID: {self._last_id}",) if self._last_id else ()
        await raw.send(request("GET", "/events?topic=t", *resume))
        stream = await raw.stream()
        stream.parsed = EventStream(last_event_id=self._last_id)
        self.connects += 1
        while await stream.read():
            self.is_open.set()
            self.seen += [one.data for one in stream.parsed.events]
            self.kinds |= {one.type for one in stream.parsed.events}
            stream.parsed.events.clear()
            self._last_id = stream.parsed.last_event_id
            if self.seen and self.seen[-1] == "end":
                return


@contextlib.asynccontextmanager
async def reading(site: Site, count: int) -> AsyncIterator[list[Reader]]:
    """Readers whose streams are open; at the end all that is published was read once, in order."""
    readers = [Reader(site) for _ in range(count)]
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.run())
        for reader in readers:
            await reader.is_open.wait()
        yield readers
        await site.publish("end")
    for reader in readers:
        assert reader.seen == [*map(str, range(len(reader.seen) - 1)), "end"]
        assert reader.kinds == {"message"}  # no gap


def options(pair: tuple[str, str]) -> tuple[str, ...]:
    return ("--tls-cert", pair[0], "--tls-key", pair[1], "--tls-records", "native")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return issue(tmp_path, "localhost", file="site")


@pytest.mark.timeout(150)
async def test_streams_go_on_exactly_when_workers_and_the_hub_are_killed(
    serve, tmp_path: Path, pair: tuple[str, str]
) -> None:
    store = f"sqlite:{tmp_path}/t.db"
    service = await serve("--workers", "2", "--store", store, *options(pair))
    site = Site(service, pair[0])
    async with reading(site, READERS) as readers:
        assert await site.released() >= READERS
        for number in range(EVENTS):
            await site.publish(str(number))
            if number % 60 == 30:
                children = service.children()
                # Each worker has a door of its own; the hub has none.
                victim = children["hub" if number == 90 else "worker"][0]
                os.kill(victim, signal.SIGKILL)
    assert sum(reader.connects for reader in readers) > READERS


async def test_rolling_reload_moves_streams_to_new_workers_and_a_new_certificate(
    serve, tmp_path: Path, pair: tuple[str, str]
) -> None:
    pidfile = str(tmp_path / "pid")
    service = await serve("--workers", "2", "--pidfile", pidfile, *options(pair))
    site = Site(service, pair[0])
    before = service.children()
    async with reading(site, READERS) as readers:
        await site.publish("0")
        issue(tmp_path, "localhost", file="site")  # New handshakes need the new one.
        status, said = await reload("--pidfile", pidfile)
        assert status == 0, said
        for number in range(1, 50):
            await site.publish(str(number))
        await service.replaced(before)
        assert await site.released() >= READERS
    assert all(reader.connects == 2 for reader in readers)


async def test_reload_of_one_process_changes_the_certificate_and_ends_no_stream(
    serve, tmp_path: Path, pair: tuple[str, str]
) -> None:
    service = await serve(*options(pair))
    site = Site(service, pair[0])
    async with reading(site, READERS) as readers:
        shutil.copy(pair[0], tmp_path / "old.pem")
        issue(tmp_path, "localhost", file="site")
        service.signal(signal.SIGHUP)
        await service.logged("Reloaded.")
        await site.publish("0")
        site.certificate = str(tmp_path / "old.pem")
        with pytest.raises(ssl.SSLCertVerificationError):
            async with site.connected():
                pass
        site.certificate = pair[0]
        shutil.copy(pair[0], pair[1])  # It is no key.
        service.signal(signal.SIGHUP)
        await service.logged("Reload refused; all is as it was.")
        await site.publish("1")
        assert await site.released() == READERS
    assert all(reader.connects == 1 for reader in readers)


def read_strictly(port: int, certificate: str) -> bytes:
    """A stream to its end, which must be close_notify: else this raises SSLEOFError."""
    context = ssl.create_default_context(cafile=certificate)
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as raw,
        context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as client,
    ):
        client.sendall(request("GET", "/events?topic=t"))
        got = b""
        while piece := client.recv(1 << 16):
            got += piece
        return got


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_drain_ends_each_stream_with_its_time_and_close_notify(
    serve, pair: tuple[str, str], workers: str
) -> None:
    service = await serve("--workers", workers, *options(pair))
    site = Site(service, pair[0])
    reads = [asyncio.to_thread(read_strictly, site.port, pair[0]) for _ in range(READERS)]
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(read) for read in reads]
        while await site.released() < READERS:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await site.publish("last")
        service.signal(signal.SIGTERM)
    for task in tasks:
        got = task.result()
        assert b"data: last\n" in got
        assert b"retry: " in got.partition(b"data: last\n")[2]
    assert await service.ended() == 0
