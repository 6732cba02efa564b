"""A door with a listener, and its clients. Without OpenSSL 3 the tests that import this are
skipped."""

import contextlib
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastsse import _door
from tests.certificates import issue
from tests.core.conftest import DEADLINE_S, wait_until

try:
    _door.library_version()
except _door.TlsError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)

NAME = "localhost"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key."""
    return issue(tmp_path_factory.mktemp("tls"), NAME)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Another one, for other names."""
    return issue(tmp_path_factory.mktemp("tls"), "*.example.com", "example.net")


def certificates(*pairs: tuple[str, str], **options: Any) -> _door.Certificates:
    return _door.Certificates([(path.encode(), key.encode()) for path, key in pairs], **options)


class Harness:
    """A door with a listener."""

    def __init__(self, *pairs: tuple[str, str], only_1_3: bool = False, **options: Any) -> None:
        self.keys = options.pop("keys", None) or os.urandom(_door.TICKET_BYTES)
        self.pairs = pairs
        self.door = _door.Door(certificates(*pairs, only_1_3=only_1_3), self.keys, **options)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.door.listen(3, [self.listener.fileno()])
        self.door.start()
        self.notices: list[Any] = []
        self.number = 0  # The door's number of the newest connection.
        self.open: list[socket.socket] = []

    def tcp(self) -> socket.socket:
        """A connection without TLS."""
        sock = socket.create_connection(self.listener.getsockname(), timeout=DEADLINE_S)
        self.open.append(sock)
        return sock

    def context(self, **options: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.pairs[0][0])  # None of the system's.
        for certificate, _ in self.pairs[1:]:
            context.load_verify_locations(certificate)
        for name, value in options.items():
            setattr(context, name, value)
        return context

    def tls(
        self, name: str | None = NAME, context: ssl.SSLContext | None = None, **more: Any
    ) -> ssl.SSLSocket:
        context = context or self.context()
        sock = context.wrap_socket(self.tcp(), server_hostname=name, **more)
        self.open.append(sock)
        return sock

    def notice(self) -> Any:
        """The next notice."""
        while not self.notices:
            assert select.select([self.door.notice_fd], [], [], DEADLINE_S)[0]
            self.notices += self.door.take()
        return self.notices.pop(0)

    def server(self) -> socket.socket:
        """The server's end of the next connection."""
        kind, fd, source, address, _, number = self.notice()
        while kind == _door.KIND_FAILED:
            kind, fd, source, address, _, number = self.notice()
        assert (kind, source) == (_door.KIND_ACCEPTED, 3)
        assert address[0] == "127.0.0.1"
        sock = socket.socket(fileno=fd)
        sock.settimeout(DEADLINE_S)
        self.open.append(sock)
        self.number = number
        return sock

    def connected(self, **more: Any) -> tuple[ssl.SSLSocket, socket.socket]:
        client = self.tls(**more)
        client.sendall(b"?")
        server = self.server()
        assert server.recv(1) == b"?"
        return client, server

    def counts(self, **wanted: int) -> None:
        """Waits until the counters are so."""
        wait_until(lambda: wanted.items() <= self.door.counters().items())

    def close(self) -> None:
        for sock in self.open:
            with contextlib.suppress(OSError):
                sock.close()
        self.listener.close()
        with contextlib.suppress(RuntimeError):  # It was stopped before.
            self.notices += self.door.take()
        for _, fd, *_ in self.notices:
            if fd >= 0:
                os.close(fd)
        self.door.stop()


Make = Callable[..., Harness]


@pytest.fixture
def make(pair: tuple[str, str]) -> Iterator[Make]:
    made: list[Harness] = []

    def make_harness(*pairs: tuple[str, str], **options: Any) -> Harness:
        made.append(Harness(*(pairs or (pair,)), **options))
        return made[-1]

    yield make_harness
    for harness in made:
        harness.close()
    assert _door.native_bytes_held() == 0


def read(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := sock.recv(size - len(got))):
        got += data
    return got
