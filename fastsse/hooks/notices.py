"""Notices: the messages of hooks, as values and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

__all__ = [
    "CLOSED",
    "FIRST",
    "LAST",
    "OPENED",
    "SUBJECT",
    "Opening",
    "StreamHook",
    "closed_notice",
    "opened_notice",
    "plain_notice",
    "topic_notice",
]

SUBJECT: Final = "hooks"
# What a worker reports: a stream ended or opened, and its first and last stream of a topic.
CLOSED, OPENED, FIRST, LAST = range(4)

#: An open stream as a worker reports it: name, topics, subject, payload, client, unix ms.
Opening = tuple[str, Sequence[str], str | None, Any, str, int]


@dataclass(frozen=True, slots=True)
class StreamHook:
    """The argument of a handler of `Server.on_stream`.

    Attributes:
        hook: `connect`, `disconnect`, `first` or `last`.
        time_ms: when it happened, in unix milliseconds.
        topic: `first`, `last`: the topic or template, as subscribers asked for it.
        stream: `connect`, `disconnect`: the name of the stream, `urn:uuid:…`.
        topics: `connect`, `disconnect`: the topics and templates that the stream asked for.
        subject, payload: `connect`, `disconnect`: from the stream's token.
        client: `connect`, `disconnect`: the client's address.
        reason, duration_ms: `disconnect`: why it ended, and how long it was open.
        events_sent, bytes_sent: `disconnect`: what the stream was sent.
    """

    hook: str
    time_ms: int
    topic: str | None = None
    stream: str | None = None
    topics: tuple[str, ...] = ()
    subject: str | None = None
    payload: Any = None
    client: str | None = None
    reason: str | None = None
    duration_ms: int | None = None
    events_sent: int | None = None
    bytes_sent: int | None = None

    @classmethod
    def of(cls, notice: bytes) -> "StreamHook":
        """A notice from its JSON."""
        members: dict[str, Any] = orjson.loads(notice)
        members["time_ms"] = members.pop("time")
        members["topics"] = tuple(members.get("topics", ()))
        return cls(**members)


def opened_notice(opening: Opening) -> bytes:
    """`connect`."""
    return orjson.dumps({"hook": "connect", **_stream(opening), "time": opening[5]})


def closed_notice(
    opening: Opening, reason: str, duration_ms: int | None, figures: Sequence[int], time_ms: int
) -> bytes:
    """`disconnect`. `figures` are the events and bytes that were sent, or empty if unknown."""
    sent = dict(zip(("events_sent", "bytes_sent"), figures, strict=False))
    ended = {"reason": reason, "duration_ms": duration_ms, **sent, "time": time_ms}
    return orjson.dumps({"hook": "disconnect", **_stream(opening), **ended})


def topic_notice(topic: str, *, is_active: bool, time_ms: int) -> bytes:
    """`first` or `last`."""
    return orjson.dumps({"hook": "first" if is_active else "last", "topic": topic, "time": time_ms})


def plain_notice(hook: str, time_ms: int) -> bytes:
    """`start` or `stop` of the node."""
    return orjson.dumps({"hook": hook, "time": time_ms})


def _stream(opening: Opening) -> dict[str, Any]:
    name, topics, subject, payload, client, _ = opening
    return {
        "stream": name,
        "topics": topics,
        "subject": subject,
        "payload": payload,
        "client": client,
    }
