"""One node without HTTP: a real sender and hub, a clock that tests move, subscribers on socket
pairs that read what the sender wrote."""

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastsse._core import Sender
from fastsse.auth.rights import Rights
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.hub import Hub, Published
from fastsse.hub.history import PAGE_BYTES
from fastsse.hub.resume.options import ReplayBounds
from fastsse.hub.streams import ClosedStream, Head
from fastsse.subscriptions import EVENTS, HEAD, Cursor, Dialect, Subscription, View
from tests.eventstream import EventStream, Message
from tests.hub.storednode import Disk, StoredBackbone

START_MS = 1_700_000_000_000
RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
DEADLINE_S = 60


class Client:
    """A subscriber's end of a socket pair, and what a browser would make of its bytes."""

    def __init__(self, sock: socket.socket, handle: int) -> None:
        self.sock = sock
        self.handle = handle
        self.received = b""
        self.stream = EventStream()
        self.is_ended = False

    @property
    def body(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[2]

    @property
    def events(self) -> list[Message]:
        return [message for message in self.stream.events if message.type != "fastsse.gap"]

    @property
    def data(self) -> list[str]:
        return [message.data for message in self.events]

    @property
    def gaps(self) -> list[Message]:
        return [message for message in self.stream.events if message.type == "fastsse.gap"]

    def read(self) -> None:
        """Takes what has come in."""
        while not self.is_ended:
            try:
                got = self.sock.recv(1 << 20)
            except BlockingIOError:
                return
            self.is_ended = not got
            before = len(self.body)
            self.received += got
            self.stream.feed(self.body[before:])


class Node:
    """A hub with its sender. `now_ms` is what the hub's clock says."""

    def __init__(
        self,
        history: HistoryOptions | None = None,
        streams: StreamOptions | None = None,
        *,
        max_connections: int = 100,
        now_ms: int = START_MS,
        page_bytes: int = PAGE_BYTES,
        disk: Disk | None = None,
        max_replays: int = 64,
        sender: Sender | None = None,
    ) -> None:
        self.now_ms = now_ms
        self.sender = sender or Sender(max_connections=max_connections)
        self.sender.start()
        # On a disk that another node may have written before, else in memory.
        self.store = StoredBackbone(disk or Disk(), lambda: self.now_ms)
        self.hub = Hub(
            self.sender,
            MemoryBackbone(lambda: self.now_ms) if disk is None else self.store,
            history or HistoryOptions(),
            streams or StreamOptions(),
            ReplayBounds(page_bytes, max_replays),
            lambda: self.now_ms,
        )
        self.clients: list[Client] = []
        self.closed: list[ClosedStream] = []
        self.hub.streams.on_closed = self.closed.append
        self.is_unready = False
        self.hub.channels.on_unready = lambda: setattr(self, "is_unready", True)

    def publish(
        self,
        topic: str | Sequence[str],
        data: str = "",
        *,
        id: str | None = None,
        private: bool = False,
    ) -> str:
        """Publishes one event and returns its id."""
        return self.publish_all([Event(topic, data, id=id, private=private)]).first.decode()

    def publish_all(self, events: Sequence[Event]) -> Published:
        """Publishes a batch; raises what it was refused with."""
        outcomes: list[Published | FastsseError] = []
        self.hub.publish(events, outcomes.append)
        (outcome,) = outcomes
        if isinstance(outcome, FastsseError):
            raise outcome
        return outcome

    def subscribe(
        self,
        *topics: str,
        cursor: Cursor = HEAD,
        chunked: bool = False,
        receive_bytes: int = 0,
        head: Head = RESPONSE_HEAD,
        rights: Rights | None = None,
        dialect: Dialect = EVENTS,
        view: View | None = None,
        last_each: int = 0,
    ) -> Client:
        """Opens a stream. `receive_bytes` bounds what waits in the pair unread."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        if receive_bytes:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, receive_bytes)
        theirs.setblocking(False)
        subscription = Subscription(topics, cursor, dialect=dialect, last_each=last_each, view=view)
        try:
            handle = self.hub.streams.open(subscription, head, chunked, theirs.fileno(), rights)
            self.hub.streams.wake()
        except BaseException:
            ours.close()
            theirs.close()
            raise
        theirs.detach()
        client = Client(ours, handle)
        self.clients.append(client)
        return client

    def resume(self, *topics: str, after: str, **options: Any) -> Client:
        return self.subscribe(*topics, cursor=Cursor("after", after), **options)

    def run_until(self, done: Callable[[], bool], *, reading: bool = True) -> None:
        """Lets the node work until something holds: notices are taken, clients read."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < deadline_s, "this never came about"
            waiting = [client.sock for client in self.clients if reading and not client.is_ended]
            fds = [self.sender.notice_fd, *(sock.fileno() for sock in waiting)]
            is_busy = self.store.answer()
            if self.is_unready:
                self.is_unready = self.hub.sweep(self.now_ms)
            is_busy |= self.is_unready
            ready, _, _ = select.select(fds, [], [], 0 if is_busy else 0.05)
            if self.sender.notice_fd in ready:
                self.hub.streams.read_notices()
            if reading:
                for client in self.clients:
                    client.read()

    def run_until_received(self, client: Client, count: int) -> list[str]:
        """Waits until a client has `count` events; returns their data."""
        self.run_until(lambda: len(client.events) >= count)
        return client.data

    def hang_up(self, client: Client) -> None:
        """Closes a client's end and waits until the node has noticed."""
        client.sock.close()
        self.clients.remove(client)
        self.run_until(lambda: any(stream.handle == client.handle for stream in self.closed))

    def hang_up_unanswered(self, client: Client) -> None:
        """As `hang_up`, while the store does not answer."""
        answer, self.store.answer = self.store.answer, lambda count=0: False  # type: ignore[method-assign]
        self.hang_up(client)
        self.store.answer = answer  # type: ignore[method-assign]

    def close(self) -> None:
        self.hub.streams.abandon()
        self.sender.stop()
        self.hub.channels.on_unready = lambda: None
        for client in self.clients:
            client.sock.close()
        # pytest holds fixtures for longer than the frames may live.
        del self.hub, self.sender, self.store


MakeNode = Callable[..., Node]
