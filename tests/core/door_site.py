"""A door and a sender, connected as the loop does, whose streams get the keys of their records."""

import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from fastsse import _core
from tests.core.conftest import DEADLINE_S, HEAD, Hub, MakeHub
from tests.core.door import Harness, Make, read


class Site:
    """A door and a sender, connected as the loop does."""

    def __init__(self, harness: Harness, hub: Hub) -> None:
        self.harness, self.hub = harness, hub
        self.fits: list[str] = []
        hub.sender.on_waiting = harness.door.release
        hub.sender.add_channel(1, [1])

    def answer(self, count: int = 1) -> list[str]:
        """Waits for answers of the door and passes them on; why each connection fits or not."""
        wanted = len(self.fits) + count
        while len(self.fits) < wanted:
            assert select.select([self.harness.door.notice_fd], [], [], DEADLINE_S)[0]
            self.pass_on()
        return self.fits[wanted - count :]

    def pass_on(self) -> None:
        self.harness.notices += self.harness.door.take()
        for handle, sealed, fit in self.harness.door.take_released():
            self.fits.append(fit)
            if sealed is None:
                self.hub.sender.go_on_plain(handle)
            else:
                self.hub.sender.seal(handle, sealed)

    def stream(self, server: socket.socket, number: int | None = None) -> int:
        """Attaches the server's end as a stream; its handle."""
        handle = self.hub.sender.allocate()
        head = (_core.wire_frame(HEAD),)
        number = self.harness.number if number is None else number
        fd = server.detach()
        self.hub.sender.attach(handle, fd, 1, False, True, head, door_number=number)
        self.hub.sender.wake()
        return handle

    def connected(self, **more: Any) -> tuple[ssl.SSLSocket, int]:
        """A client whose stream is attached."""
        client, server = self.harness.connected(**more)
        return client, self.stream(server)


@pytest.fixture
def make_site(make: Make, make_hub: MakeHub) -> Callable[..., Site]:
    def make_one(**options: Any) -> Site:
        sender = options.pop("sender", {})
        return Site(make(releases=True, **options), make_hub(seals=True, **sender))

    return make_one


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def reads(site: Site, client: ssl.SSLSocket, first: bytes = HEAD) -> None:
    """The client reads on, event by event."""
    assert read(client, len(first)) == first
    for n in range(20):
        event = site.hub.publish(b"event %d" % n)
        assert read(client, len(event.body)) == event.body


def ends(site: Site, client: ssl.SSLSocket, handle: int) -> None:
    """The stream ends behind close_notify."""
    site.hub.sender.close(handle, _core.REASON_ENDED, _core.raw_frame(b"retry: 9\n\n"))
    assert read(client, 10) == b"retry: 9\n\n"
    assert client.recv(1) == b""  # close_notify; else it is an SSLEOFError
    client.close()
