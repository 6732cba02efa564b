"""Live tails of one stream, more than a process has descriptors for: several workers and readers.

`python -m bench.streams.held URL COUNT NUMBER` is the program of readers: it opens so many tails
from an address of its own, because a pair of addresses has no more than 28,000 ports.
"""

from __future__ import annotations

import json
import math
import resource
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from bench.server import Server
from bench.streams.appends import rest
from bench.streams.servers import Running
from bench.streams.tails import Tailed, late_ms, stamped
from bench.streams.wire import TEXT, Client

# A process's own descriptors, and how far above the mean a worker's share may lie when the kernel
# spreads connects by chance.
RESERVE = 300
UNEVEN = 850
OPEN_TIMEOUT_S = 240
START_TIMEOUT_S = 60
# Readers end when nothing came for so long.
QUIET_S = 1.5
NAME = "held"
# Of <linux/in.h>: the port is chosen by `connect`, which knows the other end.
IP_BIND_ADDRESS_NO_PORT = 24


def hold(tails: int, appends: int, every_s: float) -> str:
    """Opens the tails and appends at times; the figures. The server has as many workers as the
    tails need."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - RESERVE
    workers = max(1, math.ceil(tails / (room - UNEVEN)))
    options = ["--access-lines", "0", "--drain", "1s", "--workers", str(workers)]
    with Server(options=options) as service:
        _wait_for_workers(service, workers)
        server = Running(f"{service.url}/streams", service.pids())
        writer = Client(server.url)
        writer.ask("PUT", NAME, (TEXT,), b"")
        rest(server)
        before, began = server.pss_bytes(), time.monotonic()
        with _reading(server.url, tails, math.ceil(tails / room)) as readers:
            opened_s = time.monotonic() - began
            rest(server)
            tail_bytes = (server.pss_bytes() - before) / tails
            cpu_us = server.cpu_us()
            for _ in range(appends):
                writer.ask("POST", NAME, (TEXT,), stamped())
                time.sleep(every_s)
            used_us = rest(server) - cpu_us
            late = _late_ms(readers)
        writer.close()
    found = Tailed(late, tails * appends, used_us / max(1, len(late)), tail_bytes)
    return (
        f"{tails} tails, {workers} workers, opened in {opened_s:.0f} s: {found.delivered} of "
        f"{found.expected}, p50 {found.at(0.5):.0f} ms, p99 {found.at(0.99):.0f} ms, "
        f"{found.cpu_us:.2f} µs CPU a delivery, {found.tail_bytes:.0f} B an idle tail"
    )


def _wait_for_workers(service: Server, workers: int) -> None:
    until_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until_s:
        try:
            with urlopen(f"{service.url}/stats", timeout=5) as answer:
                if len(json.load(answer)["processes"]) == workers:
                    return
        except HTTPError:  # Not all workers are there.
            pass
        time.sleep(0.1)
    raise RuntimeError("the workers did not start")


@contextmanager
def _reading(url: str, tails: int, count: int) -> Iterator[Sequence[subprocess.Popen[str]]]:
    """A context in which processes hold the tails."""
    with ExitStack() as stack:
        readers = []
        for number in range(count):
            share = tails // count + (number < tails % count)
            command = [sys.executable, "-m", "bench.streams.held", url, str(share), str(number)]
            readers.append(
                stack.enter_context(
                    subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                    )
                )
            )
        for reader in readers:
            assert reader.stdout is not None
            if reader.stdout.readline() != "open\n":
                raise RuntimeError("readers could not open their tails")
        yield readers


def _late_ms(readers: Sequence[subprocess.Popen[str]]) -> list[float]:
    """Has the readers end; how late each delivery was."""
    late: list[float] = []
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.close()
    for reader in readers:
        assert reader.stdout is not None
        late += json.loads(reader.stdout.read())
    if not late:
        raise RuntimeError("nothing was delivered")
    return sorted(late)


class _Tails:
    """Tails of this process.

    Arguments:
        url: of all streams.
        count: how many.
        number: of this process.
    """

    def __init__(self, url: str, count: int, number: int) -> None:
        parts = urlsplit(url)
        target, source = (parts.hostname, parts.port), (f"127.0.{number + 1}.1", 0)
        request = (
            f"GET {parts.path}/{NAME}?offset=now&live=sse HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
        ).encode()
        self.late = array("f")
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._waiting: set[int] = set()
        for _ in range(count):
            one = socket.socket()
            one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            one.bind(source)
            one.connect(target)
            one.sendall(request)
            self._open[one.fileno()] = one
            self._waiting.add(one.fileno())
            self._poll.register(one, select.EPOLLIN)

    def wait_until_open(self) -> None:
        """Waits until each tail has the begin of its response. Raises RuntimeError."""
        until_s = time.monotonic() + OPEN_TIMEOUT_S
        while self._waiting:
            if time.monotonic() > until_s:
                raise RuntimeError(f"{len(self._waiting)} tails are not open")
            self.read(1)

    def read(self, seconds: float) -> bool:
        """Takes what comes within some time; whether anything did."""
        events = self._poll.poll(seconds, 256)
        for fd, _ in events:
            data = self._open[fd].recv(1 << 16)
            if fd in self._waiting and data:
                if not data.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"refused: {data[:200]!r}")
                self._waiting.remove(fd)
            elif not data:
                self._poll.unregister(fd)
                self._open.pop(fd).close()
            self.late.extend(late_ms(data))
        return bool(events)


def main(url: str, count: int, number: int) -> None:
    """Reads until the standard input ends and nothing comes any more; prints how late each delivery
    was, in ms."""
    tails = _Tails(url, count, number)
    tails.wait_until_open()
    print("open", flush=True)
    is_over = False
    while tails.read(QUIET_S) or not is_over:
        is_over = is_over or bool(select.select([sys.stdin], [], [], 0)[0])
    json.dump([round(one, 3) for one in tails.late], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
