"""Streams whose TLS records the sender seals, and a client that opens them. Without OpenSSL 3 the
tests that import this are skipped."""

import os
import socket
from typing import Any

import pytest

from fastsse import _seal
from tests.core.conftest import Client, Hub, MakeHub, tcp_pair
from tests.tls_records import CLOSE_NOTIFY, DATA, Opener

try:
    _seal.check()
except _seal.SealError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)


class SealedClient(Client):
    """A stream whose records are opened here, each under the number that it must have."""

    def __init__(self, handle: int, peer: socket.socket, chunked: bool, opener: Opener) -> None:
        super().__init__(handle, peer, chunked)
        self.opener = opener
        self.records: list[tuple[int, bytes]] = []

    def read_some(self) -> bool:
        """Reads and opens what has come; False at the end."""
        try:
            data = self.peer.recv(1 << 16)
        except ConnectionResetError:
            return False
        for kind, plain in self.opener.feed(data):
            self.records.append((kind, plain))
            self.got += plain if kind == DATA else b""
        return bool(data)

    def read_until(self, ending: bytes) -> bytes:
        while not self.got.endswith(ending):
            assert self.read_some(), f"closed after {self.got[-200:]!r}"
        return self.got

    def read_to_end(self) -> bytes:
        while self.read_some():
            pass
        return self.got

    def ends_with_close_notify(self) -> bytes:
        """All plain bytes, of a stream whose last record is close_notify."""
        got = self.read_to_end()
        assert self.records[-1] == CLOSE_NOTIFY
        assert CLOSE_NOTIFY not in self.records[:-1]
        assert self.opener.is_between
        return got


class Ends:
    """A row that waits for the door: the door's end of its pair, the client's socket, its keys."""

    def __init__(self, hub: Hub, channel: int, secret: bytes, number: int, **options: Any) -> None:
        self.hub = hub
        send_buffer = options.pop("send_buffer", 0)
        kind = options.pop("kind", "unix")
        first = options.pop("first", ())
        chunked, live = options.pop("chunked", False), options.pop("live", True)
        asked: list[tuple[int, int]] = []
        hub.sender.on_waiting = lambda number, handle: asked.append((number, handle))
        row, self.door = socket.socketpair()
        self.net, peer = tcp_pair() if kind == "tcp" else socket.socketpair()
        self.net.setblocking(False)
        if send_buffer:
            self.net.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        handle = hub.sender.allocate()
        hub.sender.attach(
            handle, row.detach(), channel, chunked, live, first, **options, door_number=99
        )
        hub.sender.wake()
        assert asked == [(99, handle)]
        self.secret, self.number = secret, number
        self.client = SealedClient(handle, peer, chunked, Opener(secret, number))
        hub.clients.append(self.client)

    def sealed(self) -> _seal.SealedSocket:
        return _seal.SealedSocket(self.net.detach(), self.secret, self.number, self.door.detach())

    def release(self) -> SealedClient:
        """Lets the row seal its records."""
        assert self.hub.sender.seal(self.client.handle, self.sealed())
        return self.client


@pytest.fixture(params=[32, 48], ids=["aes128", "aes256"])
def secret(request: pytest.FixtureRequest) -> bytes:
    return os.urandom(request.param)


def connect(hub: Hub, channel: int, secret: bytes, number: int = 1, **options: Any) -> SealedClient:
    return Ends(hub, channel, secret, number, **options).release()


@pytest.fixture
def make_sealed(make_hub: MakeHub) -> MakeHub:
    """Makes a sender that seals, with channel 1 on topic 1."""

    def make(**options: Any) -> Hub:
        hub = make_hub(seals=True, **options)
        hub.sender.add_channel(1, [1])
        return hub

    return make


@pytest.fixture
def hub(make_sealed: MakeHub) -> Hub:
    return make_sealed()
