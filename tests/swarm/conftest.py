"""A scripted server, a swarm in a thread, and the bare uvloop peer as a process of its own."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fastsse import stamp
from fastsse.swarm import SwarmResults, _swarm
from fastsse.swarm.addresses import Address
from fastsse.swarm.request_template import request_head, split_at_numbers
from fastsse.swarm.results import read_block

ROOT = Path(__file__).parents[2]
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED_HEAD = PLAIN_HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
TIMEOUT_S = 60

Script = Callable[[socket.socket, bytes, int], None]
"""Called with the connection, the request's head and the connection's number; it then closes."""


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def stamped(count: int, source: int = 1, due_us: int | None = None) -> bytes:
    data = stamp.encode(stamp.Stamp(due_us or stamp.now_us(), source, count), 128)
    return b"data: %s\n\n" % data


def numbered(number: int) -> bytes:
    return b"id: 1700000000000-%d\n" % number + stamped(number)


def hold(connection: socket.socket) -> None:
    """Waits until the client goes away."""
    while connection.recv(4096):
        pass


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


class ScriptedServer:
    """Answers each connection with `script`, in a thread of its own."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.peers: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            thread = threading.Thread(target=self._serve, args=[connection, len(self.peers) - 1])
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(TIMEOUT_S)
            head = b""
            while b"\r\n\r\n" not in head:
                more = connection.recv(65536)
                if not more:
                    return
                head += more
            self.requests.append(head)
            try:
                self.script(connection, head, number)
            except OSError:
                return

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(TIMEOUT_S)


class RunningSwarm:
    """A native swarm in a thread of this process."""

    def __init__(self, port: int, connections: int, topics: tuple[str, ...], **more: Any) -> None:
        url = urlsplit(f"http://127.0.0.1:{port}")
        self.block = bytearray(_swarm.BLOCK_BYTES)
        self._swarm = _swarm.Swarm(
            self.block,
            connections=connections,
            target=Address(socket.AF_INET, "127.0.0.1", port).packed,
            family=socket.AF_INET,
            request=split_at_numbers(request_head(url, topics, ())),
            **more,
        )
        self._thread = threading.Thread(target=self._swarm.run)
        self._thread.start()

    @property
    def figures(self) -> SwarmResults:
        return read_block(memoryview(self.block).cast("Q"))

    def order(self, name: str, value: int) -> None:
        memoryview(self.block).cast("Q")[_swarm.ORDER_NAMES.index(name)] = value

    def until(self, **counters: int) -> SwarmResults:
        """Waits until each counter is at least this high."""
        wait_for(lambda: all(self.figures[name] >= value for name, value in counters.items()))
        return self.figures

    def stop(self) -> SwarmResults:
        self.order("stop", 1)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        return self.figures


@pytest.fixture
def serve() -> Iterator[Callable[[Script], ScriptedServer]]:
    """Starts scripted servers."""
    servers: list[ScriptedServer] = []

    def start(script: Script) -> ScriptedServer:
        servers.append(ScriptedServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def swarm() -> Iterator[Callable[..., RunningSwarm]]:
    """Starts swarms: `swarm(server, connections=3, …)`; they end before the servers do."""
    swarms: list[RunningSwarm] = []

    def start(
        server: ScriptedServer, connections: int = 1, topics: tuple[str, ...] = ("t",), **more: Any
    ) -> RunningSwarm:
        swarms.append(RunningSwarm(server.port, connections, topics, **more))
        return swarms[-1]

    yield start
    for running in swarms:
        running.stop()


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    """The URL of a bare uvloop server in its own process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.peers.bare_uvloop"], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    with process.stdout:
        address = process.stdout.readline().decode().split()[-1]
        yield f"http://{address}"
        process.terminate()
        process.wait()
