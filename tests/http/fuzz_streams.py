"""Durable streams for `fuzz_intake.py`: they are always open, and the route appends to them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, cast

from fastsse.api.access import Access
from fastsse.api.publish import PublishGate
from fastsse.api.stream_intake import OpenStreams
from fastsse.api.streams import StreamRoutes, stream_routes
from fastsse.errors import FastsseError
from fastsse.http.request import Request, Targets
from fastsse.http.router import Route
from fastsse.streams.appending import StreamAppender
from fastsse.streams.finding import StreamFinder
from fastsse.streams.requests import StreamMissing
from fastsse.streams.service import DurableStreams
from fastsse.streamstate import StreamConfig, StreamRow

PATH: Final = "/streams"
# By topic: the type, and what the intake has seen an append with.
_STREAMS: Final = {
    "log": ("text/plain", b"text/plain"),
    "json": ("application/json", b"application/json"),
    "private/bytes": ("application/octet-stream", b"application/octet-stream"),
}


def rows() -> dict[str, StreamRow]:
    """The streams."""
    return {
        topic: StreamRow(n << 64, StreamConfig(kind, private=topic.startswith("private")), n << 64)
        for n, (topic, (kind, _)) in enumerate(_STREAMS.items(), 7)
    }


class _Finder:
    def __init__(self) -> None:
        self._rows: Final = rows()

    def find(self, topic: str, done: Callable[[StreamRow | FastsseError], None]) -> None:
        done(self._rows.get(topic, StreamMissing()))


def routes_of(
    gate: PublishGate, access: Access, open_streams: OpenStreams
) -> dict[bytes, dict[bytes, Route]]:
    """The routes to the streams, as every request that the intake leaves takes them."""
    appender = StreamAppender(cast(StreamFinder, _Finder()))
    streams = cast(DurableStreams, SimpleNamespace(append=appender.append))
    routes = StreamRoutes(streams, gate, access, lambda topic: False, PATH, open_streams)
    return stream_routes(routes, PATH)


def known_streams(hub: Any, targets: Targets) -> OpenStreams:
    """The streams, as appends to them have shown them to the intake."""
    open_streams = OpenStreams(hub, PATH + "/")
    for topic, row in rows().items():
        target = targets.parse(f"{PATH}/{topic}".encode())
        request = SimpleNamespace(target=target, headers={b"content-type": _STREAMS[topic][1]})
        open_streams.note(cast(Request, request), topic, row)
    return open_streams
