"""One 128-byte event to 1,000 socket pairs: native sender, uvloop's transports, asyncio streams.

Until every socket has it; reading happens outside of the time measured.
"""

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.conftest import read_all
from fastsse import _core

Pairs = tuple[list[socket.socket], list[socket.socket]]
ROUNDS = 50
FRAME = _core.encode_frame(b"x" * 128, None, b"1763765540123-7", 0, 7)


def measure(benchmark: BenchmarkFixture, pairs: Pairs, send: Callable[[], None]) -> None:
    """Times rounds of `send`; before each the peers are emptied."""
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        send, setup=lambda: read_all(pairs[1]), rounds=ROUNDS, warmup_rounds=3
    )
    assert all(peer.recv(1 << 16).endswith(FRAME.wire) for peer in pairs[1])


@pytest.mark.benchmark(group="fan-out to 1,000")
def test_native_sender(benchmark: BenchmarkFixture, pairs: Pairs) -> None:
    sender = _core.Sender(max_connections=len(pairs[0]))
    sender.start()
    sender.add_channel(1, (1,))
    for ours in pairs[0]:
        handle = sender.allocate()
        first = (_core.wire_frame(b"HTTP/1.1 200 OK\r\n\r\n"),)
        sender.attach(handle, socket.socket.detach(ours), 1, True, True, first)
        sender.wake()
    sent = 0

    def send() -> None:
        nonlocal sent
        sender.publish(FRAME, (1,), _core.POLICY_DISCONNECT)
        sender.wake()
        sent += len(pairs[0])
        while sender.counters()["deliveries"] < sent:
            time.sleep(0)

    try:
        measure(benchmark, pairs, send)
    finally:
        sender.stop()


@pytest.mark.benchmark(group="fan-out to 1,000")
def test_transport_write_on_uvloop(benchmark: BenchmarkFixture, pairs: Pairs) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def open_all() -> list[asyncio.Transport]:
            loop = asyncio.get_running_loop()
            made = [await loop.create_connection(asyncio.Protocol, sock=s) for s in pairs[0]]
            return [transport for transport, _ in made]

        transports = runner.run(open_all())
        wire = FRAME.wire

        async def send_all() -> None:
            for transport in transports:
                transport.write(wire)
            # uvloop writes at the end of its turn; no callback reports it.
            while any(transport.get_write_buffer_size() for transport in transports):  # noqa: ASYNC110
                await asyncio.sleep(0)

        measure(benchmark, pairs, lambda: runner.run(send_all()))
        for transport in transports:
            transport.abort()
        runner.run(asyncio.sleep(0))


@pytest.mark.benchmark(group="fan-out to 1,000")
def test_asyncio_streams(benchmark: BenchmarkFixture, pairs: Pairs) -> None:
    with asyncio.Runner() as runner:

        async def open_all() -> list[asyncio.StreamWriter]:
            made = [await asyncio.open_connection(sock=ours) for ours in pairs[0]]
            return [writer for _, writer in made]

        writers = runner.run(open_all())
        wire = FRAME.wire

        async def send_all() -> None:
            for writer in writers:
                writer.write(wire)
                await writer.drain()

        measure(benchmark, pairs, lambda: runner.run(send_all()))
        for writer in writers:
            writer.close()
        runner.run(asyncio.sleep(0))
