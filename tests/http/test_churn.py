"""Very many clients that come and go leave nothing behind."""

import asyncio
import gc
import socket
import struct

import pytest

from tests.http.raw import get, until
from tests.sanitized import measures_memory

GROWTH_BYTES = 4 * 1024 * 1024
# What a client has said when it goes.
PARTS = (
    get("/events?topic=a"),
    get("/events?topic=a")[:30],
    get("/events?topic=a") + b"x",
    get("/healthz"),
    b"POST /events?topic=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
    b"nonsense\r\n\r\n",
    b"",
)
RESET = struct.pack("ii", 1, 0)


def come_and_go(port: int, count: int, offset: int) -> None:
    """Connects, says a part, and resets or closes; in a thread of its own."""
    for number in range(offset, offset + count):
        with socket.socket() as sock:
            if number % 3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.connect(("127.0.0.1", port))
            sock.send(PARTS[number % len(PARTS)])


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@measures_memory
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("cycles", [20_000, 100_000])
async def test_clients_that_abort_leave_no_memory_and_no_descriptor(start, cycles: int) -> None:
    server = await start()
    step = cycles // 5  # The first step warms up what a process keeps.
    frontend = server._worker.frontend
    resident = 0
    for done in range(0, cycles, step):
        await asyncio.to_thread(come_and_go, server.port, step, done)
        await until(lambda: not frontend._deadlines and not server.stream_count)
        gc.collect()
        resident = resident or resident_bytes()
    assert resident_bytes() - resident < GROWTH_BYTES
