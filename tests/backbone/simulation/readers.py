"""Clients that stay over all lives of a server, and the oracle that judges what they got."""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from fastsse.positions import parse_position
from tests.eventstream import EventStream, Message

GAP = "fastsse.gap"
MARK = "mark"


class Violation(AssertionError):
    """A promise that was not kept."""


@dataclass
class Published:
    """What is known of one publish. `position` is None until it was seen or acknowledged."""

    data: str
    topics: tuple[str, ...]
    own_id: str | None
    position: int | None = None
    is_acknowledged: bool = False


@dataclass
class Ledger:
    """Everything that was ever published, by its data."""

    events: dict[str, Published] = field(default_factory=dict)
    at: dict[int, Published] = field(default_factory=dict)

    def publish(self, topics: tuple[str, ...], own_id: str | None, size: int) -> Published:
        data = f"{len(self.events)} ".ljust(size, "x")
        event = self.events[data] = Published(data, topics, own_id)
        return event

    def acknowledge(self, events: Iterable[Published], positions: Iterable[int]) -> None:
        for event, position in zip(events, positions, strict=True):
            self.place(event, position)
            event.is_acknowledged = True

    def place(self, event: Published, position: int) -> None:
        """An event has one position for ever, and no other has it."""
        if self.at.setdefault(position, event) is not event:
            raise Violation(f"position {position} was given twice")
        if event.position is None:
            event.position = position
        elif event.position != position:
            raise Violation(f"{event.data.strip('x')} moved")


class Reader:
    """One client: it resumes with its last id in every life of the server.

    Arguments:
        topics: what it wants; MARK comes with it.
    """

    def __init__(self, topics: tuple[str, ...]) -> None:
        self.topics = (*topics, MARK)
        self.last_id = ""
        self.through = 0
        self.gaps = 0
        self._stream = EventStream()
        self._sock: socket.socket | None = None
        self._head = b""
        self._judged = 0
        self._is_told = False
        self._seen: set[str] = set()

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    @property
    def messages(self) -> list[Message]:
        return self._stream.events

    def open(self) -> socket.socket:
        """A new connection; returns the server's end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._sock, self._stream, self._head, self._judged = ours, EventStream(), b"", 0
        self._is_told = False
        return theirs

    def read(self) -> None:
        """Takes what has come."""
        while self._sock is not None:
            try:
                got = self._sock.recv(1 << 20)
            except BlockingIOError:
                return
            if not got:
                self.close()
                return
            if b"\r\n\r\n" not in self._head:
                self._head += got
                got = self._head.partition(b"\r\n\r\n")[2]
            self._stream.feed(got)

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def has_mark(self, data: str) -> bool:
        return any(message.data == data for message in reversed(self.messages))

    def judge(self, ledger: Ledger) -> None:
        """Holds what came since the last time against what was published."""
        self.last_id = self._stream.last_event_id or self.last_id
        new, self._judged = self.messages[self._judged :], len(self.messages)
        for message in new:
            if message.type == GAP:
                self._take_gap(message, ledger)
            else:
                self._take(message, ledger)
        # What is missing from here on is reported again.
        self._is_told = False

    def _take_gap(self, message: Message, ledger: Ledger) -> None:
        self.gaps += 1
        self._is_told = True
        place = parse_position(json.loads(message.data)["from"])
        if place is None:
            raise Violation(f"a gap to nowhere: {message.data}")
        self.through = max(self.through, place)

    def _take(self, message: Message, ledger: Ledger) -> None:
        event = ledger.events.get(message.data)
        if event is None or not self._wants(event):
            raise Violation(f"a false event: {message.data[:40]!r} {message.last_event_id}")
        if event.data in self._seen:
            raise Violation(f"a repeat: {message.data.strip('x')}")
        self._seen.add(event.data)
        if event.own_id is None:
            position = parse_position(message.last_event_id)
            if position is None:
                raise Violation(f"a false id: {message.last_event_id}")
            ledger.place(event, position)
        elif message.last_event_id != event.own_id:
            raise Violation(f"a false id: {message.last_event_id}")
        if event.position is None:
            return  # With an id of its publisher's, and never acknowledged.
        if event.position <= self.through:
            raise Violation(f"out of order: {message.data.strip('x')}")
        if not self._is_told:
            self._miss_nothing(ledger, self.through, event.position)
        self.through = event.position

    def _wants(self, event: Published) -> bool:
        """By words of its own: `*`, one template, and names."""
        return any(
            "*" in self.topics
            or topic in self.topics
            or ("c/{n}" in self.topics and topic.startswith("c/"))
            for topic in event.topics
        )

    def _miss_nothing(self, ledger: Ledger, after: int, before: int) -> None:
        for event in ledger.events.values():
            if (
                event.is_acknowledged
                and event.position is not None
                and after < event.position < before
                and self._wants(event)
            ):
                raise Violation(f"lost without a gap: {event.data.strip('x')}of {event.topics}")
