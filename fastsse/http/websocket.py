"""Streams over WebSocket (RFC 6455), for networks that break streaming.

The sender writes the stream into one end of a socket pair, as into any client's socket. A
`WebSocketBridge` reads the other end and sends each block of the stream as one text message. So
rights, resume, lag and heartbeats are those of every stream. wsproto does the framing.
"""

import asyncio
import base64
import binascii
import hashlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastsse.errors import FastsseError, StreamRefused
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import STATUS_LINES, Response

if TYPE_CHECKING:
    from wsproto.connection import Connection as Framing

__all__ = [
    "WebSocketBridge",
    "WebSocketMissing",
    "accept_websocket",
    "ended_websocket",
    "open_pair",
]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
_VERSION_LINE: Final = b"Sec-WebSocket-Version: 13\r\n"
_UPGRADED: Final = STATUS_LINES[101] + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
# Unread bytes of a client wait in the pair and count as lag; the kernel doubles this number.
SEND_BUFFER_BYTES: Final = 16 * 1024
_READ_BYTES: Final = 64 * 1024
# How long a client may take to answer a close frame.
_CLOSE_S: Final = 2.0
# Status codes of RFC 6455 §7.4.1, and 1012 of IANA's list ("service restart": reconnect).
_OVER, _NOT_TAKEN, _RESTART = 1000, 1003, 1012


class WebSocketMissing(FastsseError):
    """wsproto is not installed."""


def accept_websocket(request: Request) -> bytes:
    """The head of the answer that opens the WebSocket, up to its last header line.

    Raises Problem: 426 for a request without an upgrade or for another version, 400 for an invalid
    key.
    """
    headers = request.headers
    if headers.get(b"upgrade", b"").strip().lower() != b"websocket":
        lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        detail = "This path speaks WebSocket; a stream over HTTP is at /events."
        raise Problem(426, detail, field="Upgrade", header_lines=lines)
    if headers.get(b"sec-websocket-version", b"").strip() != b"13":
        detail = "The version of WebSocket must be 13."
        raise Problem(426, detail, field="Sec-WebSocket-Version", header_lines=_VERSION_LINE)
    key = headers.get(b"sec-websocket-key", b"").strip()
    if not _is_key(key):
        raise Problem(400, "Must be 16 bytes as base64.", field="Sec-WebSocket-Key")
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return _UPGRADED + b"Sec-WebSocket-Accept: %b\r\n" % accept


def ended_websocket(head: bytes) -> Response:
    """The answer that opens a WebSocket and closes it at once, because its stream is over.

    Arguments:
        head: from `accept_websocket`.
    """
    return Response(head, b"\x88\x02" + _OVER.to_bytes(2))


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def open_pair() -> tuple[socket.socket, socket.socket]:
    """The sender's end and ours. Raises StreamRefused without descriptors."""
    try:
        theirs, ours = socket.socketpair()
    except OSError:
        raise StreamRefused("full") from None
    for end in (theirs, ours):
        end.setblocking(False)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return theirs, ours


def new_framing() -> "Framing":
    """The server's side of an open WebSocket. Raises WebSocketMissing."""
    try:
        from wsproto.connection import Connection, ConnectionType
    except ImportError:
        raise WebSocketMissing from None
    return Connection(ConnectionType.SERVER)


class _Blocks:
    """Extracts the blocks of events from the stream's response: after its head, from its chunks."""

    def __init__(self) -> None:
        self._raw = b""  # Of the response, not read yet.
        self._text = bytearray()  # Of a block that is not complete.
        self._left = 0  # Bytes of the present chunk.
        self._has_head = False
        self.is_over = False  # The last chunk has come.

    def feed(self, data: bytes) -> list[bytes]:
        """The complete blocks, each without the empty line."""
        self._raw += data
        if not self._has_head:
            _, mark, rest = self._raw.partition(b"\r\n\r\n")
            if not mark:
                return []
            self._has_head, self._raw = True, rest
        while self._take_chunk():
            pass
        *blocks, rest = bytes(self._text).split(b"\n\n")
        if rest.endswith(b"\n") and _is_comment(rest):  # A heartbeat has no empty line.
            blocks, rest = [*blocks, rest], b""
        self._text = bytearray(rest)
        return blocks

    def _take_chunk(self) -> bool:
        """Moves the received part of a chunk to the text; False if more is needed."""
        if not self._left:
            line, mark, rest = self._raw.partition(b"\r\n")
            if not mark:
                return False
            if line:  # Else it is the end of the chunk before.
                self._left = int(line, 16)
                self.is_over = self._left == 0
            self._raw = rest
            return not self.is_over
        part, self._raw = self._raw[: self._left], self._raw[self._left :]
        self._left -= len(part)
        self._text += part
        return bool(self._raw)


def _is_comment(block: bytes) -> bool:
    return all(line.startswith(b":") for line in block.split(b"\n") if line)


class WebSocketBridge(asyncio.Protocol):
    """The protocol of a client's transport after the upgrade. Loop thread only.

    It holds one read of the pair at most: while the client takes no more, nothing is read, and the
    sender's socket fills.

    Arguments:
        ours: our end of the pair, which it owns from now on.
        framing: from `new_framing`.
        on_closed: called once, when the client's socket is closed.
    """

    def __init__(
        self,
        ours: socket.socket,
        framing: "Framing",
        transport: asyncio.Transport,
        on_closed: "Callable[[WebSocketBridge], None]",
    ) -> None:
        from wsproto import events

        self._events = events
        self._ours = ours
        self._framing = framing
        self._transport = transport
        self._on_closed = on_closed
        self._blocks = _Blocks()
        self._loop = asyncio.get_running_loop()
        self._is_reading = False
        self._is_closing = False
        self._limit: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to copy; the answer that opens the WebSocket is written."""
        self._read_on()

    def abort(self) -> None:
        """Closes at once."""
        self._transport.abort()

    # ── from the sender ──────────────────────────────────────────────────────────────────────

    def _on_readable(self) -> None:
        try:
            data = self._ours.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._close(_OVER if self._blocks.is_over else _RESTART)
            return
        frames = [self._framed(block) for block in self._blocks.feed(data)]
        if frames:
            self._transport.write(b"".join(frames))

    def _framed(self, block: bytes) -> bytes:
        """A comment is a heartbeat, which is a ping here."""
        if _is_comment(block):
            return self._framing.send(self._events.Ping())
        return self._framing.send(self._events.TextMessage(data=block.decode()))

    def pause_writing(self) -> None:
        self._stop_reading()
        self._transport.pause_reading()  # Each ping is answered.

    def resume_writing(self) -> None:
        self._transport.resume_reading()
        if not self._is_closing:
            self._read_on()

    def _read_on(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._loop.add_reader(self._ours.fileno(), self._on_readable)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._ours.fileno())

    # ── from the client ──────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        from wsproto.utilities import LocalProtocolError

        try:
            self._framing.receive_data(data)
            for event in self._framing.events():
                self._on_event(event)
                if self._transport.is_closing():
                    return
        except LocalProtocolError:
            self._transport.abort()  # Bytes after its close frame.

    def _on_event(self, event: object) -> None:
        events = self._events
        if isinstance(event, events.Ping):
            if not self._is_closing:
                self._transport.write(self._framing.send(event.response()))
        elif isinstance(event, events.CloseConnection):
            if not self._is_closing:  # Its own close, or bytes that are no frames.
                self._transport.write(self._framing.send(event.response()))
            self._end()
            self._transport.close()
        elif not isinstance(event, events.Pong):
            self._close(_NOT_TAKEN)  # A subscriber sends nothing, and nothing of it is kept.

    def _close(self, code: int) -> None:
        if self._is_closing:
            return
        self._transport.write(self._framing.send(self._events.CloseConnection(code=code)))
        self._end()
        self._limit = self._loop.call_later(_CLOSE_S, self._transport.abort)

    def _end(self) -> None:
        """Ends the stream."""
        self._is_closing = True
        self._stop_reading()
        self._ours.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        if not self._is_closing:
            self._end()
        self._on_closed(self)
