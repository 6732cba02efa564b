"""A sender with sockets of its own at the other end."""

import itertools
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from fastsse import _core

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
DEADLINE_S = 60.0
#: Faults of a sender: each makes the kernel take less than it was given.
CUTS: Final[list[dict[str, int]]] = [
    {"write_limit_bytes": 1},
    {"write_limit_bytes": 7},
    {"refuse_every": 2},
    {"refuse_every": 3, "write_limit_bytes": 1},
    {},
]


def wait_until(condition: Callable[[], bool]) -> None:
    """Looks again and again; what is waited for happens on the sender's thread."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.0005)


def page(text: bytes) -> _core.Frame:
    """A page of a replay."""
    return _core.encode_frame(text, None, None, 0, 0)


def expected(frames: list[_core.Frame], chunked: bool) -> bytes:
    """What a stream gets of these frames."""
    return b"".join(frame.wire if chunked else frame.body for frame in frames)


class Client:
    """One stream: the handle that the loop side has, and the peer's socket."""

    def __init__(self, handle: int, peer: socket.socket, chunked: bool) -> None:
        self.handle = handle
        self.peer = peer
        self.chunked = chunked
        self.got = b""
        peer.settimeout(DEADLINE_S)

    def read_until(self, ending: bytes) -> bytes:
        """Everything received so far, once it ends so."""
        while not self.got.endswith(ending):
            data = self.peer.recv(1 << 16)
            assert data, f"closed after {self.got[-200:]!r}"
            self.got += data
        return self.got

    def wire(self, *frames: _core.Frame) -> bytes:
        """The frames as this client gets them."""
        return b"".join(frame.wire if self.chunked else frame.body for frame in frames)

    def gets(self, *frames: _core.Frame) -> None:
        """Asserts that exactly these arrive next."""
        want = self.wire(*frames)
        got = b""
        while len(got) < len(want) and (data := self.peer.recv(len(want) - len(got))):
            got += data
        assert got == want

    def read_to_end(self) -> bytes:
        try:
            while data := self.peer.recv(1 << 20):
                self.got += data
        except ConnectionResetError:
            pass
        return self.got

    def is_silent(self) -> bool:
        return not select.select([self.peer], [], [], 0.02)[0]


class Hub:
    """Commands a sender as the loop thread does, and keeps the notices."""

    def __init__(self, **options: Any) -> None:
        self.sender = _core.Sender(**{"max_connections": 64, "tick_ms": 5, **options})
        self.sender.start()
        self.clients: list[Client] = []
        self.notices: list[Any] = []
        self.numbers = itertools.count(1)

    def connect(
        self,
        channel: int,
        *,
        chunked: bool = False,
        live: bool = True,
        first: tuple[_core.Frame, ...] = (),
        send_buffer: int = 0,
        kind: str = "unix",
        claims: tuple[int, int, int, int] | None = None,
        pings: bool = False,
        **options: int,
    ) -> Client:
        ours, peer = tcp_pair() if kind == "tcp" else socket.socketpair()
        if send_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        handle = self.sender.allocate()
        assert handle
        self.sender.attach(
            handle, ours.detach(), channel, chunked, live, first, claims, pings, **options
        )
        self.sender.wake()
        client = Client(handle, peer, chunked)
        self.clients.append(client)
        return client

    def event(self, data: bytes, n: int | None = None, private: bool = False) -> _core.Frame:
        number = next(self.numbers) if n is None else n
        return _core.encode_frame(data, None, b"1-%d" % number, 0, (1 << 64) | number, private)

    def publish(
        self,
        data: bytes,
        *topics: int,
        policy: int = _core.POLICY_DISCONNECT,
        private: bool = False,
    ) -> _core.Frame:
        frame = self.event(data, private=private)
        self.sender.publish(frame, topics or (1,), policy)
        self.sender.wake()
        return frame

    def count(self, name: str) -> int:
        return self.sender.counters()[name]

    def wait_count(self, name: str, value: int) -> None:
        wait_until(lambda: self.count(name) == value)

    def settle(self) -> None:
        """Until every command was taken."""
        wait_until(lambda: self.sender.pending_commands == 0)

    def take(self) -> list[Any]:
        self.notices += self.sender.take_notices()
        return self.notices

    def wait_closed(self, client: Client) -> Any:
        """The stream's closed notice."""
        found: list[Any] = []

        def closed() -> bool:
            found[:] = [n for n in self.take() if n[0] == "closed" and n[1] == client.handle]
            return bool(found)

        wait_until(closed)
        return found[0]

    def stop(self) -> None:
        self.sender.stop()
        for client in self.clients:
            client.peer.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    return ours, peer


MakeHub = Callable[..., Hub]


@pytest.fixture
def make_hub() -> Iterator[Callable[..., Hub]]:
    made: list[Hub] = []

    def make(**options: Any) -> Hub:
        made.append(Hub(**options))
        return made[-1]

    yield make
    for hub in made:
        hub.stop()


@pytest.fixture
def hub(make_hub: Callable[..., Hub]) -> Hub:
    """A sender with channel 1 on topic 1."""
    one = make_hub()
    one.sender.add_channel(1, [1])
    return one
