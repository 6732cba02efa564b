"""Live tails while other readers catch up: how much later each append arrives.

`python -m bench.streams.live URL NAME` is the program of the readers. Their process runs only while
the other client does not, so that what is measured is the server and not a client that waits for
its core. A low priority is not enough: Linux lets such a process go on for some milliseconds.
"""

from __future__ import annotations

import os
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.streams.catchup import fill
from bench.streams.servers import Running
from bench.streams.tails import Tailed, tail
from bench.streams.wire import Client

READERS = 8
TAILS = 100
RATE = 50
PAIRS = 9
PARTS = (0.5, 0.9, 0.99, 0.999)
_ROUND_S = 2.0


def compare(server: Running, total_bytes: int) -> str:
    """Percentiles with readers, divided by those without them, in pairs; and how much memory the
    readers took at most."""
    fill(server, "log", total_bytes, 65536)
    pairs: list[tuple[Tailed, Tailed]] = []
    rates: list[float] = []
    tail(server, TAILS, RATE, _ROUND_S)  # So that the memory of tails is not counted.
    server.forget_peak()
    memory_bytes, _ = server.memory_bytes()
    for _ in range(PAIRS):
        before = tail(server, TAILS, RATE, _ROUND_S)
        with _reading(server, "log", rates):
            after = tail(server, TAILS, RATE, _ROUND_S)
        _check(before, after)
        pairs.append((before, after))
    said = [f"{TAILS} tails with {READERS} readers, which get {statistics.median(rates):.0f} MB/s"]
    for part in PARTS:
        alone = statistics.median(before.at(part) for before, _ in pairs)
        ratios = [after.at(part) / before.at(part) for before, after in pairs]
        said.append(
            f"p{part * 100:g} {statistics.median(ratios):.2f} x"
            f" ({min(ratios):.2f} to {max(ratios):.2f}) of {alone:.2f} ms"
        )
    more = (server.memory_bytes()[1] - memory_bytes) / 2**20
    said.append(f"{memory_bytes / 2**20:.0f} MiB of memory before, at most {more:.0f} MiB more")
    return "; ".join(said)


def _check(*found: Tailed) -> None:
    if any(one.delivered != one.expected for one in found):
        raise RuntimeError("not all was delivered")


@contextmanager
def _reading(server: Running, name: str, rates: list[float]) -> Iterator[None]:
    """A context in which readers read; adds how many MB/s they got."""
    command = [sys.executable, "-m", "bench.streams.live", server.url, name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        said, _ = process.communicate()
    rates.append(float(said))


class _Reader:
    """Reads a stream again and again, without a pause."""

    def __init__(self, url: str, name: str) -> None:
        self.client = Client(url, 0)
        self._name = name
        self._left = 0
        self._head = b""
        self._ask("-1")

    def _ask(self, offset: str) -> None:
        self.client.socket.sendall(self.client.head("GET", f"{self._name}?offset={offset}"))

    def receive(self) -> int:
        """Takes what is there; returns how many bytes of content."""
        data = self.client.socket.recv(1 << 20)
        if self._left:
            self._left -= len(data)
            if not self._left:
                self._end()
            return len(data)
        self._head += data
        head, found, body = self._head.partition(b"\r\n\r\n")
        if not found:
            return 0
        self._head = head.lower()
        self._left = int(self._field(b"content-length")) - len(body)
        if not self._left:
            self._end()
        return len(body)

    def _field(self, name: bytes) -> bytes:
        return self._head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()

    def _end(self) -> None:
        is_last = b"\r\nstream-up-to-date:" in self._head
        offset = "-1" if is_last else self._field(b"stream-next-offset").decode()
        self._head = b""
        self._ask(offset)


def main(url: str, name: str) -> None:
    """Reads until the standard input ends; prints MB/s."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    poll, total, began = selectors.DefaultSelector(), 0, time.monotonic()
    for _ in range(READERS):
        reader = _Reader(url, name)
        poll.register(reader.client.socket, selectors.EVENT_READ, reader)
    poll.register(sys.stdin, selectors.EVENT_READ)
    print("reading", flush=True)
    while True:
        for key, _ in poll.select():
            if key.data is not None:
                total += key.data.receive()
                continue
            print(total / 1e6 / (time.monotonic() - began))
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
