# ruff: noqa: ASYNC110, ASYNC240 — it waits for the server, and looks at files.
"""What servers of this protocol got wrong, by public reports: each is a test of ours."""

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from threading import active_count

import httpx
import pytest

from fastsse.backbone.sqlite import SqliteBackbone
from fastsse.server import Server
from tests.backbone.storage import NOT_SYNCED, Disk
from tests.http.conftest import Start, asked
from tests.http.raw import Raw, Stream, connected, get, request, until
from tests.streams.test_protocol import CLOSED, JSON, TEXT, content, created, producer, tail
from tests.supervisor.service import Service


@pytest.fixture
async def failing(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> tuple[Server, Disk]:
    """A server with a file on a disk that fails on request, and that disk."""
    disk = Disk()
    backbone = partial(SqliteBackbone, connect=disk.connect)
    monkeypatch.setattr("fastsse.backbone.sqlite.SqliteBackbone", backbone)
    return await start(store=f"sqlite:{tmp_path}/h.db", ack="synced"), disk


async def test_readers_see_nothing_that_was_not_committed(failing) -> None:
    server, disk = failing
    ask = partial(asked, server)
    await created(ask, "/streams/log", body=b"kept ")
    before = (await ask("HEAD", "/streams/log")).headers["stream-next-offset"]
    async with connected(server) as raw, connected(server) as polling:
        live = await tail(raw, f"/streams/log?offset={before}&live=sse")
        await live.next()
        await polling.send(get(f"/streams/log?offset={before}&live=long-poll"))
        disk.fail(NOT_SYNCED, is_after=True)
        refused = await ask("POST", "/streams/log", TEXT, *producer(0), body=b"lost ")
        assert refused.status == 503
        assert (await ask("HEAD", "/streams/log")).headers["stream-next-offset"] == before
        assert await content(ask, "/streams/log") == b"kept "
        disk.repair()
        await _writable(server)
        again = await ask("POST", "/streams/log", TEXT, *producer(0), body=b"again")
        assert again.status == 200
        assert (await live.next()).data == "again"
        assert (await polling.answer()).body == b"again"
    assert await content(ask, "/streams/log") == b"kept again"


async def test_a_deletion_that_the_disk_refused_changes_nothing(
    failing, start: Start, tmp_path: Path
) -> None:
    server, disk = failing
    ask = partial(asked, server)
    names = ("/streams/log", "/streams/closed")
    for name in names:
        await created(ask, name, body=b"kept")
    await ask("POST", "/streams/closed", CLOSED)
    disk.fail(NOT_SYNCED, is_after=True)
    for name in names:
        assert (await ask("DELETE", name)).status == 503
        assert await content(ask, name) == b"kept"
    disk.repair()
    await _writable(server)
    # Memory has the content, too. What is in the file shows after a restart.
    await until(lambda: not server._worker._hub._backbone._file.streams.has_dropped)
    await server.close()
    server = await start(store=f"sqlite:{tmp_path}/h.db", ack="synced")
    ask = partial(asked, server)
    for name in names:
        assert await content(ask, name) == b"kept"
    late = await ask("POST", "/streams/closed", TEXT, *producer(0), body=b"late")
    assert (late.status, late.headers["stream-closed"]) == (409, "true")
    for name in names:
        assert (await ask("DELETE", name)).status == 204
        assert (await ask("GET", name)).status == 404


async def _writable(server: Server) -> None:
    async with asyncio.timeout(60):
        while (await asked(server, "GET", "/readyz")).status != 200:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=60) as client:
        yield client


async def test_what_was_acknowledged_survives_a_kill_deletions_too(tmp_path: Path) -> None:
    options = ("--port", "0", "--store", f"sqlite:{tmp_path}/h.db")
    headers = {"Content-Type": "text/plain"}
    service = await (await Service.start(*options)).wait()
    async with _client(service) as client:
        for name in ("gone", "source", "kept", "closed"):
            answer = await client.put(f"/streams/{name}", headers=headers, content=name)
            assert answer.status_code == 201
        forked = {**headers, "Stream-Forked-From": "/streams/source"}
        assert (await client.put("/streams/fork", headers=forked)).status_code == 201
        closing = {"Stream-Closed": "true"}
        assert (await client.post("/streams/closed", headers=closing)).status_code == 204
        for name in ("source", "gone"):
            assert (await client.delete(f"/streams/{name}")).status_code == 204
        service.signal(signal.SIGKILL)
    await service.ended()
    service = await (await Service.start(*options)).wait()
    try:
        async with _client(service) as client:
            names = ("gone", "source", "kept", "fork", "closed")
            answers = [await client.get(f"/streams/{name}") for name in names]
            assert [one.status_code for one in answers] == [404, 410, 200, 200, 200]
            assert [one.text for one in answers[2:]] == ["kept", "source", "closed"]
            assert answers[-1].headers["stream-closed"] == "true"
            assert (await client.delete("/streams/fork")).status_code == 204
            assert (await client.get("/streams/source")).status_code == 404
    finally:
        service.signal(signal.SIGTERM)
        await service.ended()


async def test_a_tail_is_not_behind_when_a_writer_is_cut_within_an_append(ask, server) -> None:
    await created(ask, "/streams/cut")
    async with connected(server) as raw:
        live = await tail(raw, "/streams/cut?offset=-1&live=sse")
        await live.next()
        for n in range(20):
            async with connected(server) as writer:
                head = f"POST /streams/cut HTTP/1.1\r\nHost: localhost\r\n{TEXT}\r\n"
                await writer.send(f"{head}Content-Length: 9\r\n\r\npart".encode())
            await ask("POST", "/streams/cut", TEXT, body=b"%d" % n)
            assert (await live.next()).data == str(n)
            assert json.loads((await live.next()).data)["upToDate"] is True
    assert await content(ask, "/streams/cut") == b"".join(b"%d" % n for n in range(20))


async def test_equal_content_is_never_taken_for_a_repeat(ask) -> None:
    await created(ask, "/streams/same", JSON)
    for _ in range(5):
        assert (await ask("POST", "/streams/same", JSON, body=b'{"a": 1}')).status == 204
    assert (await ask("POST", "/streams/same", JSON, body=b"[1, 1, 1]")).status == 204
    assert json.loads(await content(ask, "/streams/same")) == [{"a": 1}] * 5 + [1, 1, 1]


class _Reader:
    """Reads a stream in every way, returning with the offset that it was given last."""

    def __init__(self, server: Server, seed: int) -> None:
        self.text = b""
        self.offset = "-1"
        self.is_over = False
        self._server = server
        self._luck = random.Random(seed)

    async def run(self) -> None:
        """To the end of the stream."""
        while not self.is_over:
            way = self._luck.choice((self._page, self._poll, self._follow))
            async with connected(self._server) as raw:
                await way(raw)

    async def _page(self, raw: Raw, live: str = "") -> None:
        await raw.send(get(f"/streams/log?offset={self.offset}{live}"))
        answer = await raw.answer()
        assert answer.status in (200, 204)
        self.text += answer.body
        self._moved(answer.headers["stream-next-offset"])
        self.is_over = "stream-closed" in answer.headers

    async def _poll(self, raw: Raw) -> None:
        await self._page(raw, "&live=long-poll")

    async def _follow(self, raw: Raw) -> None:
        stream: Stream = await tail(raw, f"/streams/log?offset={self.offset}&live=sse")
        for _ in range(self._luck.randrange(1, 9)):
            event = await stream.next()
            if event.type == "data":
                self.text += event.data.encode()
                event = await stream.next()
            assert event.type == "control"  # One `data`, one `control`.
            control = json.loads(event.data)
            self._moved(control["streamNextOffset"])
            if control.get("streamClosed"):
                self.is_over = True
                return

    def _moved(self, offset: str) -> None:
        assert self.offset == "-1" or offset >= self.offset, "the reader was reset"
        self.offset = offset


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_reader_that_changes_its_way_of_reading_misses_and_repeats_nothing(
    start: Start, tmp_path: Path, store: str
) -> None:
    options = {} if store == "memory" else {"store": f"sqlite:{tmp_path}/h.db"}
    server = await start(streams_poll=1, **options)
    ask = partial(asked, server)
    await created(ask, "/streams/log")
    readers = [_Reader(server, seed) for seed in range(4)]
    async with asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.run())
        async with connected(server) as raw:
            for n in range(150):
                body = b"%d " % n
                head = f"POST /streams/log HTTP/1.1\r\nHost: localhost\r\n{TEXT}\r\n"
                await raw.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                assert (await raw.answer()).status == 204
        await ask("POST", "/streams/log", CLOSED)
    whole = b"".join(b"%d " % n for n in range(150))
    assert [reader.text == whole for reader in readers] == [True] * 4


async def test_a_stream_has_no_timer_thread_or_file_of_its_own(
    start: Start, tmp_path: Path
) -> None:
    server = await start(store=f"sqlite:{tmp_path}/h.db")
    ask = partial(asked, server)
    await created(ask, "/streams/first", TEXT, "Stream-TTL: 3600")
    files, threads = sorted(tmp_path.iterdir()), active_count()
    timers: list[float] = []
    loop = asyncio.get_running_loop()
    call_at, call_later = loop.call_at, loop.call_later
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_at", lambda *a, **k: timers.append(1) or call_at(*a, **k))
        patch.setattr(loop, "call_later", lambda *a, **k: timers.append(1) or call_later(*a, **k))
        async with connected(server) as raw:
            for n in range(300):
                await raw.send(request("PUT", f"/streams/s{n}", TEXT, "Stream-TTL: 60", body=b"x"))
            seen = b""
            while seen.count(b"HTTP/1.1 201 ") < 300:
                seen += await raw.reader.read(1 << 16)
    assert (sorted(tmp_path.iterdir()), active_count()) == (files, threads)
    assert len(timers) < 100


async def test_many_appends_of_a_turn_are_one_control_event_each(ask, server) -> None:
    await created(ask, "/streams/list", JSON)
    async with connected(server) as raw, connected(server) as writer:
        live = await tail(raw, "/streams/list?offset=-1&live=sse")
        await live.next()
        one = (
            f"POST /streams/list HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: 6\r\n\r\n"
        )
        await writer.send((one + "[1, 2]").encode() * 8)
        seen: list[int] = []
        while len(seen) < 16:
            data, control = await live.next(), await live.next()
            assert (data.type, control.type) == ("data", "control")
            seen += json.loads(data.data)
        assert seen == [1, 2] * 8


async def test_streams_that_expired_are_deleted_without_a_request(start: Start) -> None:
    server = await start()
    ask = partial(asked, server)
    for n in range(5):
        await created(ask, f"/streams/s{n}", TEXT, "Stream-TTL: 1", body=b"x" * 100)
    await created(ask, "/streams/source", TEXT, "Stream-TTL: 1", body=b"kept")
    fork = ("Stream-Forked-From: /streams/source", "Stream-TTL: 3600")
    await created(ask, "/streams/fork", TEXT, *fork)
    kept = server._worker._hub._backbone.streams
    await until(lambda: set(kept.rows) == {"source", "fork"} and kept.rows["source"].is_hidden)
    assert await content(ask, "/streams/fork") == b"kept"
