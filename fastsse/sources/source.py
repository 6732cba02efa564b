"""The interface of a source: messages of another system, read in batches and acknowledged.

A source only reads. The driver (`driver.py`) publishes what it read, acknowledges it when the log
has it, and opens the source again after a failure. So every source has the same back-pressure: the
next batch is read when the last one is in the log.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fastsse.directives import Producer

__all__ = ["Batch", "Message", "PlainMessage", "Source", "SourceAway", "Words"]

Words = Mapping[str, str]
"""What the placeholders of templates stand for."""


class SourceAway(Exception):
    """The other system can't be reached, or refuses. The text is for the log and `/readyz`."""


class Message(Protocol):
    """A message of another system."""

    @property
    def payload(self) -> bytes:
        """Its content; empty for a message without any."""

    @property
    def origin(self) -> str:
        """Its place in the source, for people and dead letters."""

    @property
    def producer(self) -> Producer | None:
        """Its number in its source, by which a log knows it when it comes again; None for a source
        whose messages have no such numbers, or do not come in their order."""

    def words(self) -> Words:
        """Raises ValueError for a message whose words can't be used."""


class PlainMessage:
    """A message in memory.

    Arguments:
        origin, payload: as of `Message`.
        words: called when a template needs them.
    """

    __slots__ = ("origin", "payload", "words")

    producer: Producer | None = None

    def __init__(self, origin: str, payload: bytes, words: Callable[[], Words]) -> None:
        self.origin = origin
        self.payload = payload
        self.words = words


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in their order.

    Attributes:
        messages: may be empty: no message came within the time of a read.
        places: for the source alone, which acknowledges by them.
        age_ms: of the oldest message; 0 if it is not known.
        is_last: no later message was there when it was read.
        missed: messages before these that the other system has deleted unread.
    """

    messages: Sequence[Message] = ()
    places: object = None
    age_ms: int = 0
    is_last: bool = False
    missed: int = 0


class Source(Protocol):
    """Reads messages of another system. All methods are called one after the other, on the loop
    thread; they raise SourceAway.

    Attributes:
        trouble: why no message can come now although no method raises, as of a client library that
            reconnects by itself; None: all is well.
        backlog: messages that the other system has and this source has not read; None: unknown.
    """

    @property
    def trouble(self) -> str | None: ...

    @property
    def backlog(self) -> int | None: ...

    async def open(self) -> None:
        """Connects, and continues after the last acknowledged message. Called again after a
        failure, following `close`."""

    async def read(self) -> Batch:
        """The next messages. Returns within about half a second, also without any. It is not
        cancelled, except when the end of the server takes too long."""

    async def acknowledge(self, batch: Batch) -> None:
        """Everything of a batch is in the log, or is set aside. Called before the next `read`."""

    async def idle(self) -> None:
        """Called about once a second while the source must not read, because it is paused or a
        batch is not in the log yet."""

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """The next messages, at most `count`, as far as they come within a time. Nothing is
        acknowledged or taken from another reader. Called on a source that is not open."""

    async def close(self, *, is_end: bool) -> None:
        """Disconnects. `is_end`: the source was stopped, so what it did not acknowledge can be
        given to another reader at once. Raises nothing."""
