"""Peers that are slow, dead or lying are cut off; the others notice nothing."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest

from fastsse.bus import BusError, connect, transport
from fastsse.bus.client.outbox import BATCH_HEAD, monotonic_ms
from fastsse.bus.frames import (
    HEADER,
    HELLO_BYTES_MAX,
    VERSION,
    FrameKind,
    frame,
    text,
)
from fastsse.bus.handshake import Hello, Welcome
from fastsse.bus.server import broker, session
from fastsse.entries import encode_entries, pack_entry, pack_events
from fastsse.errors import Unavailable
from fastsse.events import Event
from fastsse.positions import position_at
from tests.bus.onebus import Bus, End, a_bus, listen, until

KEY = b"a key..."
START = position_at(1_000)


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with a_bus() as bus:
        await bus.start()
        yield bus


async def still_works(bus: Bus) -> None:
    """Others publish and get what is published."""
    first, second = await bus.worker(), await bus.worker()
    await first.publish(Event("a", "works"))
    await until(lambda: second.data[-1:] == [b"works"])


class RawWorker:
    """A worker's end made by hand."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address)
        self.socket.setblocking(False)

    async def send(self, *data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, b"".join(data))

    async def receive(self) -> tuple[int, bytes]:
        """The next frame that is no beat."""
        while True:
            size, kind = HEADER.unpack(await self._exactly(HEADER.size))
            body = await self._exactly(size)
            if kind != FrameKind.BEAT:
                return kind, body

    async def greet(self, key: bytes = KEY) -> None:
        await self.send(Hello(VERSION, 1, key, 0).pack())
        assert (await self.receive())[0] == FrameKind.WELCOME
        while (await self.receive())[0] != FrameKind.CAUGHT_UP:
            pass

    async def cut_off(self) -> bool:
        """Reads until the other end closes."""
        try:
            while await asyncio.wait_for(self._some(1 << 20), 60):
                pass
        except ConnectionResetError:
            pass
        return True

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = await asyncio.wait_for(self._some(size - len(data)), 60)
            assert part, "the other end closed"
            data += part
        return data

    async def _some(self, size: int) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, size)


@pytest.fixture
def raw(bus: Bus) -> Iterator[RawWorker]:
    worker = RawWorker(bus.address)
    yield worker
    worker.socket.close()


def batch(n: int, packed: bytes, count: int, deadline_ms: int | None = None) -> bytes:
    deadline_ms = monotonic_ms() + 10_000 if deadline_ms is None else deadline_ms
    return frame(FrameKind.BATCH, BATCH_HEAD.pack(n, deadline_ms, count), packed)


HELLO = Hello(VERSION, 1, KEY, 0).pack()
HELLO_BYTES = len(HELLO) - HEADER.size
ONE = pack_events([Event("a", "from a raw worker")])
LIES_INSTEAD_OF_A_HELLO = {
    "not a greeting": frame(FrameKind.BATCH, b""),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "too long": HEADER.pack(HELLO_BYTES_MAX + 1, FrameKind.HELLO),
    "too short": frame(FrameKind.HELLO, b"fsse"),
    "another magic": frame(FrameKind.HELLO, b"esse" + bytes(40)),
    "too much": HEADER.pack(HELLO_BYTES + 4, FrameKind.HELLO) + HELLO[HEADER.size :] + b"more",
}
LIES = {
    "a second hello": Hello(VERSION, 1, KEY, 0).pack(),
    "an unknown kind": frame(FrameKind.BEAT)[:4] + b"\xff",
    "a frame of the hub's": frame(FrameKind.LOG, bytes(4)),
    "a dump that was not requested": frame(FrameKind.KEPT, b""),
    "a beat with something in it": frame(FrameKind.BEAT, b"x"),
    "a frame that is too long": HEADER.pack(1 << 30, FrameKind.BATCH),
    "an empty batch": batch(1, b"", 0),
    "a batch without a head": frame(FrameKind.BATCH, b"123"),
    "another number of events": batch(1, ONE, 2),
    "a batch that was cut": batch(1, ONE[:-1], 1),
    "an event that can't be": batch(1, ONE.replace(b"\1\0a", b"\1\0\n"), 1),
    "a batch numbered 0": batch(0, ONE, 1),
    "a number twice": batch(1, ONE, 1) + batch(1, ONE, 1),
    "numbers that go back": batch(2, ONE, 1) + batch(1, ONE, 1),
    "a read of nothing": frame(FrameKind.READ, bytes(8 + 16 + 4) + b"\0\0"),
    "a read that was cut": frame(FrameKind.READ, bytes(8 + 16)),
    "selectors that are not there": frame(FrameKind.READ, bytes(8 + 16 + 4) + b"\2\0" + text("a")),
    "a seek of many": frame(FrameKind.SEEK, bytes(8) + b"\1" + text("10001") + b"\1\0" + text("a")),
    "a seek of no number": frame(
        FrameKind.SEEK, bytes(8) + b"\1" + text("-1") + b"\1\0" + text("a")
    ),
    "a subject that is too long": frame(FrameKind.NOTIFY, text("s" * 65)),
    "a message that is too long": frame(FrameKind.NOTIFY, text("s"), bytes((1 << 20) + 1)),
    "a question that is too long": frame(FrameKind.ASK, bytes(8), text("s"), bytes((1 << 20) + 1)),
}


@pytest.mark.parametrize("lie", LIES_INSTEAD_OF_A_HELLO)
async def test_who_does_not_greet_is_cut_off(bus: Bus, raw: RawWorker, lie: str) -> None:
    await raw.send(LIES_INSTEAD_OF_A_HELLO[lie])
    assert await raw.cut_off()
    await still_works(bus)


@pytest.mark.parametrize("lie", LIES)
async def test_a_worker_that_violates_the_protocol_is_disconnected_with_a_reason(
    bus: Bus, raw: RawWorker, lie: str
) -> None:
    await raw.greet()
    await raw.send(LIES[lie])
    assert await raw.cut_off()
    again = RawWorker(bus.address)
    await again.send(Hello(VERSION, 1, KEY, 0).pack())
    assert (await again.receive())[0] == FrameKind.BYE
    assert await again.cut_off()
    again.socket.close()
    await still_works(bus)


async def test_who_says_nothing_is_cut_off(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HELLO_S", 0.05)
    silent, half = RawWorker(bus.address), RawWorker(bus.address)
    await half.send(Hello(VERSION, 1, KEY, 0).pack()[:-1])
    assert await silent.cut_off()
    assert await half.cut_off()
    silent.socket.close()
    half.socket.close()
    await still_works(bus)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_is_cut_off(bus: Bus) -> None:
    os.seteuid(65534)
    try:
        stranger = RawWorker(bus.address)
    finally:
        os.seteuid(0)
    assert await stranger.cut_off()
    stranger.socket.close()
    await still_works(bus)


async def test_a_worker_that_falls_silent_is_given_up(
    bus: Bus, raw: RawWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "SILENCE_S", 0.2)
    await raw.greet()
    assert await raw.cut_off()


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1, 99])
async def test_a_worker_of_another_version_is_refused_with_both_versions(
    bus: Bus, raw: RawWorker, version: int
) -> None:
    await raw.send(
        frame(FrameKind.HELLO, b"fsse", struct.pack("<HI", version, 1), b"who knows what")
    )
    kind, body = await raw.receive()
    words = b"it speaks version %d of the bus, this hub %d" % (version, VERSION)
    assert (kind, body[2:]) == (FrameKind.BYE, words)
    assert await raw.cut_off()


async def test_a_worker_that_does_not_read_is_disconnected_and_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "QUEUE_BYTES_MAX", 4 * 1024 * 1024)
    async with a_bus() as bus:
        hub = await bus.start()
        slow = RawWorker(bus.address)
        await slow.greet()
        first, second = await bus.worker(), await bus.worker()
        slow_peer = hub.broker.sessions[KEY]
        sent = 0
        while slow_peer.link.is_open:
            await first.publish(Event("a", "x" * 100_000))
            sent += 1
            assert sent < 100
        await first.publish(Event("a", "on"))
        await until(lambda: len(second.entries) == sent + 1)
        assert KEY not in hub.broker.sessions
        assert await slow.cut_off()
        again = RawWorker(bus.address)
        await again.send(Hello(VERSION, 1, KEY, START).pack())
        kind, body = await again.receive()
        assert (kind, body[2:]) == (FrameKind.BYE, b"it could not keep up")
        slow.socket.close()
        again.socket.close()


async def test_a_batch_that_comes_after_its_deadline_is_not_published(
    bus: Bus, raw: RawWorker
) -> None:
    await raw.greet()
    await raw.send(batch(1, ONE, 1, monotonic_ms() - 1), batch(2, ONE, 1))
    kind, body = await raw.receive()
    assert (kind, struct.unpack_from("<QI", body)) == (FrameKind.REFUSED, (1, 1))
    assert (await raw.receive())[0] == FrameKind.LOG
    end = await bus.worker()
    assert len(end.kept) == 1


async def test_a_batch_that_comes_twice_is_published_once(bus: Bus, raw: RawWorker) -> None:
    await raw.greet()
    await raw.send(batch(7, ONE, 1))
    assert (await raw.receive())[0] == FrameKind.LOG
    again = RawWorker(bus.address)
    await again.greet()
    await again.send(batch(7, ONE, 1), batch(8, ONE, 1))
    assert (await again.receive())[0] == FrameKind.TAKEN
    assert (await again.receive())[0] == FrameKind.LOG
    again.socket.close()
    end = await bus.worker()
    assert len(end.kept) == 2


async def test_a_worker_that_comes_back_takes_its_own_place(bus: Bus, raw: RawWorker) -> None:
    await raw.greet()
    again = RawWorker(bus.address)
    await again.greet()
    assert await raw.cut_off()
    await again.send(batch(1, ONE, 1))
    assert (await again.receive())[0] == FrameKind.LOG
    again.socket.close()


# -- a hub that lies ------------------------------------------------------------------------------


class RawHub:
    """A hub's end made by hand. `says` is what it sends after its welcome, each time again."""

    def __init__(self) -> None:
        self.listening, self.address = listen()
        self.welcome = Welcome(START, START, START, 1 << 20, 1 << 20, False, "")
        self.says = b""
        self.greeted = 0
        self.server: asyncio.AbstractServer | None = None
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self._serve, sock=self.listening)

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await reader.readexactly(HEADER.size + 34)
        self.greeted += 1
        writer.write(self.welcome.pack() + frame(FrameKind.CAUGHT_UP))
        if self.greeted > 1:
            self.welcome = self.welcome._replace(start=START)
        writer.write(self.says)
        while await reader.read(65_536):
            pass
        writer.close()


@pytest.fixture
async def raw_hub() -> AsyncIterator[RawHub]:
    hub = RawHub()
    await hub.start()
    yield hub
    await hub.close()


def entry_at(position: int) -> bytes:
    return pack_entry(encode_entries([position], [Event("a", "x")])[0])


LIES_OF_A_HUB = {
    "an unknown kind": b"\0\0\0\0\xff",
    "a frame of a worker's": frame(FrameKind.BATCH, b""),
    "a second welcome": Welcome(START, START, START, 1 << 20, 1 << 20, False, "").pack(),
    "a frame that is too long": HEADER.pack(1 << 21, FrameKind.LOG),
    "a log without a count": frame(FrameKind.LOG, b"\0"),
    "batches that are not there": frame(FrameKind.LOG, b"\1\0\0\0"),
    "an entry that was cut": frame(FrameKind.LOG, bytes(4), entry_at(START + 1)[:-1]),
    "entries out of order": frame(
        FrameKind.LOG, bytes(4), entry_at(START + 2), entry_at(START + 1)
    ),
    "the same entry twice": frame(
        FrameKind.LOG, bytes(4), entry_at(START + 2), entry_at(START + 2)
    ),
    "an answer that was not requested": frame(FrameKind.STRETCH, bytes(8 + 33)),
    "a failure that was not requested": frame(FrameKind.FAILED, bytes(8), text("x")),
    "a refusal that was cut": frame(FrameKind.REFUSED, bytes(8)),
    "a dump that is asked for badly": frame(FrameKind.DUMP, b"\0"),
    "a loss without a place": frame(FrameKind.LOST),
    "a catch-up with more than it has": frame(FrameKind.CAUGHT_UP, bytes(16)),
    "evictions of too many topics": frame(FrameKind.EVICTED, bytes(32), b"\xff\xff\0\0"),
}


@pytest.mark.parametrize("lie", LIES_OF_A_HUB)
async def test_a_hub_that_lies_is_left_and_delivers_nothing_wrong(
    raw_hub: RawHub, lie: str
) -> None:
    backbone, control = await connect(raw_hub.address, 0, KEY)
    end = End(backbone, control, Bus.config_of())
    raw_hub.says = LIES_OF_A_HUB[lie]
    raw_hub.writers[0].write(raw_hub.says)
    await until(lambda: raw_hub.greeted > 1)
    assert end.positions in ([], [START + 2])
    await backbone.close()


async def test_a_hub_that_does_not_answer_lets_no_publisher_wait_for_ever(raw_hub: RawHub) -> None:
    backbone, control = await connect(raw_hub.address, 0, KEY, timeout_s=0.1)
    end = End(backbone, control, Bus.config_of())
    with pytest.raises(Unavailable):
        await end.publish(Event("a"))
    # What arrives too late is not an error.
    raw_hub.writers[0].write(frame(FrameKind.REFUSED, struct.pack("<QI", 1, 1), text("backbone")))
    await backbone.close()


async def test_a_worker_that_is_not_taken_says_why() -> None:
    async with a_bus() as bus:
        hub = await bus.start()
        key = os.urandom(8)
        backbone, _ = await bus.connected(key=key)
        hub.broker.give_up(hub.broker.sessions[key], "it lied")
        hub.broker.sessions[key].abort()
        assert await asyncio.wait_for(backbone.ended, 60) == "it lied"
        with pytest.raises(BusError, match="it lied"):
            await connect(bus.address, 1, key)
