"""Live tails: event streams that wait, and how late each append is at each of them."""

from __future__ import annotations

import re
import selectors
import time
from collections.abc import Sequence
from typing import NamedTuple

from bench.streams.servers import Running
from bench.streams.wire import TEXT, Client

_STAMP = re.compile(rb"t=(\d+);")


class Tailed(NamedTuple):
    """How late each delivery was in ms, in order, and how many were expected; CPU of the server in
    µs for each delivery, and memory in bytes for each tail."""

    late_ms: Sequence[float]
    expected: int
    cpu_us: float
    tail_bytes: float

    @property
    def delivered(self) -> int:
        """Deliveries."""
        return len(self.late_ms)

    def at(self, part: float) -> float:
        """The latency that such a part of the deliveries does not exceed."""
        return self.late_ms[int(len(self.late_ms) * part)]


def tail(server: Running, count: int, rate: int, seconds: float) -> Tailed:
    """One writer appends at a rate; so many tails read."""
    writer = Client(server.url)
    writer.ask("PUT", "tailed", (TEXT,), b"")
    before = server.pss_bytes()
    poll = selectors.DefaultSelector()
    readers = []
    for _ in range(count):
        reader = Client(server.url, buffer_bytes=0)
        reader.socket.sendall(reader.head("GET", "tailed?offset=now&live=sse"))
        reader.socket.setblocking(False)
        poll.register(reader.socket, selectors.EVENT_READ)
        readers.append(reader)
    _read(poll, time.monotonic() + 1 + count / 2000)
    tail_bytes = (server.pss_bytes() - before) / count
    cpu_us, late = server.cpu_us(), []
    began, sent = time.monotonic(), 0
    while sent < rate * seconds:
        due = began + sent / rate
        late += _read(poll, due)
        writer.ask("POST", "tailed", (TEXT,), stamped())
        sent += 1
    late += _read(poll, time.monotonic() + 1.5)
    used_us = server.cpu_us() - cpu_us
    for reader in readers:
        reader.close()
    writer.close()
    late.sort()
    if not late:
        raise RuntimeError("nothing was delivered")
    return Tailed(late, sent * count, used_us / len(late), tail_bytes)


def _read(poll: selectors.BaseSelector, until: float) -> list[float]:
    """Reads until a time; returns how late each append was, in ms."""
    late: list[float] = []
    while (left := until - time.monotonic()) > 0:
        for key, _ in poll.select(left):
            try:
                data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
            except BlockingIOError:
                continue
            late += late_ms(data)
    return late


def stamped() -> bytes:
    """Content that says when it was appended."""
    return b"t=%d; token" % time.monotonic_ns()


def late_ms(data: bytes) -> list[float]:
    """How late the content in received bytes is, in ms."""
    now = time.monotonic_ns()
    return [(now - int(stamp)) / 1e6 for stamp in _STAMP.findall(data)]
