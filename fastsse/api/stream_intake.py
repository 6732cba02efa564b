"""Which appends to durable streams the native intake may take.

An append that was answered shows that its stream is open, and how its content is kept. The next
one with the same target and content type is published with the same generation. If the stream has
changed meanwhile, the process that orders events refuses it, and the request is read as any other.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from fastsse._intake import Intake, OpenStream
from fastsse.api.stream_answers import NOT_STORED, OFFSET_NAME, SHIELD
from fastsse.directives import Directives, producer_key
from fastsse.errors import InvalidEvent
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event
from fastsse.http.request import Request
from fastsse.http.responses import STATUS_LINES
from fastsse.hub import Hub
from fastsse.streams.content import messages_of
from fastsse.streamstate import ContentKind, StreamAsk, StreamRow

__all__ = ["OpenStreams"]

# Of 1 KiB at most each. A full table is emptied.
_STREAMS_MAX: Final = 131_072
_TARGET_BYTES_MAX: Final = 512


class OpenStreams:
    """Streams with recent appends. Loop thread only.

    Arguments:
        hub: its rules decide whether events need a closer look.
        path: of all streams, with a slash at its end.
    """

    def __init__(self, hub: Hub, path: str) -> None:
        self.path: Final = path.encode()
        #: The name of the route, for counts.
        self.route: Final = f"{path}*"
        self._hub: Final = hub
        self._by_target: Final[dict[bytes, OpenStream]] = {}

    def join(self, intake: Intake) -> None:
        """Has an intake take their appends."""
        offset = b"%b: " % OFFSET_NAME
        intake.take_appends(
            self.path,
            self._by_target,
            (STATUS_LINES[204] + offset, STATUS_LINES[200] + offset),
            b"\r\n" + NOT_STORED,
            (SHIELD, SHIELD + b"Content-Length: 0\r\n"),
        )

    def forget(self) -> None:
        """Reads the next append to each stream as any request, because rules have changed."""
        self._by_target.clear()

    def note(self, request: Request, topic: str, row: StreamRow) -> None:
        """Call it when an append was stored, with the row after it."""
        target = request.target
        content_type = request.headers.get(b"content-type", b"")
        known = self._by_target.get(target.raw_path)
        if row.closed or target.query or len(target.raw_path) > _TARGET_BYTES_MAX:
            return
        seen = (row.generation, content_type)
        if known is not None and (known.generation, known.content_type) == seen:
            return
        kind = row.config.kind
        live = self._hub.topics.by_name.get(topic)
        if live is not None:
            topic = live.name  # One text for all tables that each append looks into.
        event = Event(
            topic,
            private=row.config.private,
            data_kind=_DATA_KINDS[kind],
            directives=Directives(stream=StreamAsk("append", row.generation)),
        )
        if not self._hub.allows(event):
            return
        if len(self._by_target) >= _STREAMS_MAX:
            self._by_target.clear()
        scope = producer_key(topic, b"")
        raw = target.raw_path
        shared = _one_text(content_type)
        self._by_target[raw] = OpenStream(raw, event, shared, scope, _ENCODERS[kind])


@lru_cache(maxsize=1024)
def _one_text(content_type: bytes) -> bytes:
    """The same object for equal content types: most streams have one of a few."""
    return content_type


def _single_message(body: bytes) -> bytes | None:
    """The data of a body with one message that is no array."""
    if body[:1] not in b'{"-0123456789tfn':
        return None
    try:
        (message,) = messages_of(body)
    except (InvalidEvent, ValueError):
        return None
    return message


_DATA_KINDS: Final[dict[ContentKind, int]] = {
    "json": DATA_JSON,
    "text": DATA_TEXT,
    "bytes": DATA_BYTES,
}
_ENCODERS: Final[dict[ContentKind, Callable[[bytes], bytes | None] | None]] = {
    "json": _single_message,
    "text": None,
    "bytes": None,
}
