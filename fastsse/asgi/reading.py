"""Streams that the program itself reads, without HTTP: from one end of a socket pair."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

from fastsse.asgi.relaying import relay_pair
from fastsse.asgi.responses import ResponseReader
from fastsse.auth.rights import Rights
from fastsse.eventstream import EventStreamParser
from fastsse.http.listener_context import ListenerContext
from fastsse.http.router import StreamRequest
from fastsse.subscriptions import EVENTS, Cursor, Subscription, View

__all__ = ["StreamEvent", "read_topics"]

_READ_BYTES: Final = 64 * 1024
_EVENT_BYTES_MAX: Final = 1 << 30
_WHO: Final = "in process"


class StreamEvent(NamedTuple):
    """One event as a stream receives it; a gap or an end is one too, of a type `fastsse.…`.

    Attributes:
        id: the last event id; empty before the first.
        event: its type; `message` if it has none.
        data: the lines of data, joined with LF.
    """

    id: str
    event: str
    data: str


async def read_topics(
    context: ListenerContext,
    topics: tuple[str, ...],
    last_event_id: str,
    until_data: str | None,
) -> AsyncGenerator[StreamEvent, None]:
    """The events of topics, private ones too. Raises InvalidSubscription, StreamRefused."""
    view = View(until_data=until_data.encode()) if until_data is not None else None
    cursor = Cursor("after", last_event_id)
    subscription = Subscription(topics, cursor, len(topics), EVENTS, 0, view)
    theirs, ours = relay_pair()
    try:
        rights = Rights((), topics)
        context.streams.take(theirs, StreamRequest(subscription, rights, True, b"", _WHO, _WHO))
    except BaseException:
        theirs.close()
        ours.close()
        raise
    with ours:
        async for event in _events(ours):
            yield event


async def _events(sock: socket.socket) -> AsyncGenerator[StreamEvent, None]:
    loop = asyncio.get_running_loop()
    reader, parser, last_id = ResponseReader(), EventStreamParser(_EVENT_BYTES_MAX), ""
    try:
        while data := await loop.sock_recv(sock, _READ_BYTES):
            for message in reader.feed(data):
                for block in parser.feed(message.get("body", b"")):
                    last_id = last_id if block.id is None else block.id.decode()
                    if block.data is not None:
                        kind = block.event.decode() or "message"
                        yield StreamEvent(last_id, kind, block.data.decode())
            if reader.is_complete:
                return
    finally:
        reader.close()
