"""Requests and results of durable streams, independent of HTTP."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from fastsse.directives import Producer
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.hub import Published
from fastsse.streams.forks import ForkRequest
from fastsse.streamstate import StreamRow

__all__ = [
    "TRIES_MAX",
    "AppendRequest",
    "Appended",
    "CreateRequest",
    "Created",
    "PublishEvents",
    "StreamGone",
    "StreamMissing",
    "StreamOtherwise",
    "publish_safely",
]

#: Retries of a change whose stream has changed meanwhile.
TRIES_MAX: Final = 8

PublishEvents: TypeAlias = Callable[
    [Sequence[Event], Callable[[Published | FastsseError], None]], None
]
"""Publishes events with the rights of the request, all or none; calls back once. May raise a
FastsseError."""


class StreamMissing(FastsseError):
    """There is no such stream."""


class StreamGone(FastsseError):
    """The stream was deleted, and is kept for its forks."""


class StreamOtherwise(FastsseError):
    """The stream exists with another configuration."""


class CreateRequest(NamedTuple):
    """The stream to create.

    Attributes:
        topic: the stream's name.
        content_type: None takes that of the source, or bytes.
        ttl_s, expires_ms, private: as in StreamConfig.
        is_closed: it is closed at once.
        body: its first content.
        fork: the fork to make; None: a stream of its own.
    """

    topic: str
    content_type: str | None
    ttl_s: int | None
    expires_ms: int | None
    private: bool
    is_closed: bool
    body: bytes
    fork: ForkRequest | None = None


class AppendRequest(NamedTuple):
    """The content to append to a stream. An empty body only closes it.

    Attributes:
        content_type: of the body; None when there is none.
        seq: `Stream-Seq`.
        producer: who appends, and its number.
    """

    topic: str
    content_type: str | None
    body: bytes
    closes: bool
    seq: bytes | None = None
    producer: Producer | None = None


class Created(NamedTuple):
    """The stream is there. `is_new`: it was not before."""

    row: StreamRow
    is_new: bool


class Appended(NamedTuple):
    """The result of an append.

    Attributes:
        row: as it is now.
        is_closed: the stream is closed, and the append was refused for that.
        is_repeat: it was appended before.
        sequence: the newest of the producer.
    """

    row: StreamRow
    is_closed: bool = False
    is_repeat: bool = False
    sequence: int = -1


def publish_safely(
    publish: PublishEvents,
    events: Sequence[Event],
    done: Callable[[Published | FastsseError], None],
) -> None:
    """Publishes, and gives a raised error to `done`."""
    try:
        publish(events, done)
    except FastsseError as error:
        done(error)
