"""What readers of `crossing.py` receive, and what they must have received."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson

from fastsse.client import ReceivedEvent, StreamView, listen
from fastsse.selectors import compile_selector
from tests.auth.minting import grants, mint
from tests.eventstream import EventStream

#: A token with all rights.
TOKEN: Final = mint(grants(subscribe=["*"], publish=["*"])).decode()
FEW: Final = "few/1"  # Keeps 8 events; all others keep all.
#: Topics with a policy each, which only slow readers select.
LAGGED: Final = ("lag/skip", "lag/latest", "lag/disconnect")
_AGAIN_S: Final = 0.02
_RECEIVE_BYTES: Final = 4_096

Place = tuple[int, int]


@dataclass
class Told:
    """An event that a publisher sent, by its number."""

    topics: tuple[str, ...]
    type: str
    has_ttl: bool = False
    is_private: bool = False
    is_deleted: bool = False


@dataclass
class Reader:
    """A stream over all of its connections. `began` is the place from which it was promised all.

    Attributes:
        gaps: for each gap event the newest place before it.
    """

    topics: tuple[str, ...] | str
    view: StreamView | None
    is_granted: bool = True
    events: list[tuple[Place, int]] = field(default_factory=list)
    began: Place = (0, 0)
    place: str = ""
    gaps: list[Place] = field(default_factory=list)
    last: int = -1
    task: asyncio.Task[None] | None = None

    @property
    def token(self) -> str | None:
        """Its token; without one it reads public events only."""
        return TOKEN if self.is_granted else None

    def selects(self, topic: str) -> bool:
        """Whether it follows a topic."""
        if self.topics == "*":
            return topic not in LAGGED  # It gets them, but may lag with them.
        return any(compile_selector(text).matches(topic) for text in self.topics)

    def passes(self, number: int, one: Told) -> bool:
        """Whether an event belongs to the stream."""
        if one.is_private and not self.is_granted:
            return False
        if not any(map(self.selects, one.topics)):
            return False
        if self.view is not None and self.view.event and one.type not in self.view.event:
            return False
        has_filter = self.view is not None and self.view.filter is not None
        return not has_filter or number % 2 == 0 or one.type == "mark"

    async def read(self, url: str) -> None:
        """Reads until it is cancelled; goes on after the last event that it had."""
        start: dict[str, Any] = {"last_event_id": self.place} if self.place else {"last_each": 0}
        stream = listen(url, self.topics, view=self.view, token=self.token, **start)
        async with stream:
            async for event in stream:
                self.take(event)

    def take(self, event: ReceivedEvent) -> None:
        """One event as it came."""
        if event.gap is not None:
            self.take_gap()
        elif not event.is_control:
            found = event.envelope.data if event.envelope is not None else event.json()
            self.take_number(event.id, found["n"])
        self.place = event.id or self.place

    def take_gap(self) -> None:
        """A gap event as it came."""
        self.gaps.append(self.events[-1][0] if self.events else self.began)

    def take_number(self, event_id: str, number: int) -> None:
        """The event with this number, if it is for a reader of these topics."""
        self.events.append((place_of(event_id), number))
        self.last = number

    def check(self, told: Mapping[int, Told], places: Mapping[int, Place]) -> None:
        """Compares what came with what was published, and where that is. Raises AssertionError."""
        got = [place for place, _ in self.events]
        assert got == sorted(set(got)), f"{self.topics}: out of order, or twice"
        numbers = {number for _, number in self.events}
        assert len(numbers) == len(got), f"{self.topics}: twice"
        strange = [n for n in numbers if not (self.passes(n, told[n]) or self.may_skip(told[n]))]
        assert not strange, f"{self.topics}: {strange} are not of this stream"
        assert self.may_have_gaps() or not self.gaps, f"{self.topics}: {len(self.gaps)} gaps"
        missing = [
            number
            for number, place in places.items()
            if place > self.began
            and number not in numbers
            and self.passes(number, told[number])
            and not told[number].has_ttl
            and not self.is_excused(told[number], place, told)
        ]
        assert not missing, f"{self.topics}: {missing} are missing"

    def may_have_gaps(self) -> bool:
        """Whether something that it follows is evicted, or left out."""
        return self.topics == "*" or FEW in self.topics

    def may_skip(self, one: Told) -> bool:
        """Whether it is an event that this reader is sent, but perhaps not always."""
        return self.topics == "*" and one.topics[0] in LAGGED

    def is_excused(self, one: Told, place: Place, told: Mapping[int, Told]) -> bool:
        """Whether an event may be missing."""
        return False


@dataclass
class SlowReader(Reader):
    """A reader that takes little at once, and nothing while it is stopped.

    Attributes:
        cuts: number of connections that ended.
    """

    cuts: int = 0
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def policy(self) -> str:
        """The policy of its topic."""
        return self.topics[0].removeprefix("lag/")

    async def read(self, url: str) -> None:
        """As that of the others."""
        while True:
            with contextlib.suppress(OSError):  # Its worker was killed.
                await self._read_once(url)
            self.cuts += 1
            await asyncio.sleep(_AGAIN_S)

    async def _read_once(self, url: str) -> None:
        address = urlsplit(url)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        sock.setblocking(False)
        try:
            where = address.hostname, address.port
            await asyncio.get_running_loop().sock_connect(sock, where)
        except BaseException:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock, limit=_RECEIVE_BYTES)
        try:
            query = "&".join(f"topic={quote(topic)}" for topic in self.topics)
            lines = [f"GET /events?{query} HTTP/1.0", f"Authorization: Bearer {TOKEN}"]
            lines += [f"Last-Event-ID: {self.place}"] if self.place else []
            writer.write("\r\n".join((*lines, "", "")).encode())
            await reader.readuntil(b"\r\n\r\n")
            stream = EventStream(last_event_id=self.place)
            while await self.goes_on.wait() and (chunk := await reader.read(_RECEIVE_BYTES)):
                for message in stream.feed(chunk):
                    if message.type == "fastsse.gap":
                        self.take_gap()
                    elif message.data and not message.type.startswith("fastsse."):
                        self.take_number(message.last_event_id, orjson.loads(message.data)["n"])
                self.place = stream.last_event_id
        except asyncio.IncompleteReadError:
            pass  # It ended before its head.
        finally:
            writer.close()

    def may_have_gaps(self) -> bool:
        """Only those that skip receive gap events."""
        return self.policy != "disconnect"

    def is_excused(self, one: Told, place: Place, told: Mapping[int, Told]) -> bool:
        """With `skip` a gap must stand where the event is missing; with `latest` a newer event of
        the topic is enough."""
        before = max((at for at, _ in self.events if at < place), default=self.began)
        if self.policy != "disconnect" and any(before <= gap < place for gap in self.gaps):
            return True
        return self.policy == "latest" and any(
            at > place and told[number].topics == one.topics for at, number in self.events
        )


def place_of(text: str) -> Place:
    """A position as numbers that sort as positions do."""
    ms, _, n = text.partition("-")
    return int(ms), int(n)
