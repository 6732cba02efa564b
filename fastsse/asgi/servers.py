"""ASGI servers whose sockets can be taken: what is reached through the `send` of a request.

Each class relies on attributes of one server that its documentation does not promise. They are read
before anything is changed; when one is missing, the stream is copied instead (`Unreached`). Tests
run with the oldest and the newest version that is supported.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

__all__ = ["ServerConnection", "Unreached", "reach"]

_NO_LINGER: Final = struct.pack("ii", 0, 0)
# Turns of the loop after which Twisted has closed a socket.
_TURNS_MAX: Final = 10


class Unreached(Exception):
    """The socket can't be taken. `way` is a word for the metric; `server` names the server when it
    is not known, or not as expected."""

    def __init__(self, way: str, server: str = "") -> None:
        super().__init__(way)
        self.way = way
        self.server = server


class ServerConnection(Protocol):
    """A connection of an ASGI server with a request that has no answer yet."""

    @property
    def objection(self) -> str | None:
        """Why the socket must not be taken now, in a word; None: it can be."""

    def fileno(self) -> int:
        """The descriptor of the socket, which stays the server's."""

    async def leave(self) -> None:
        """Has the server close its own descriptor without a sign to the client."""

    def cut(self) -> bool:
        """Sends what was written and closes, without the last chunk of the response. False: it
        can't."""


def reach(send: Any) -> ServerConnection:
    """The connection to which an ASGI `send` writes. O(1). Raises Unreached."""
    owner = send.args[0] if isinstance(send, partial) else getattr(send, "__self__", None)
    server = type(owner).__module__.partition(".")[0]
    kind = _KINDS.get(server)
    if kind is None:
        known = "" if server == "builtins" else server
        raise Unreached("server", known or getattr(send, "__module__", "") or type(send).__name__)
    try:
        return kind(owner)
    except (AttributeError, TypeError, IndexError):
        raise Unreached("shape", server) from None


class _Uvicorn:
    """uvicorn: the request is a `RequestResponseCycle` of httptools or h11."""

    def __init__(self, cycle: Any) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        protocol = self._transport.get_protocol()
        if hasattr(protocol, "pipeline"):
            self._is_followed = bool(protocol.pipeline)
        else:
            self._is_followed = bool(protocol.conn.trailing_data[0])
        self._is_gone = bool(cycle.disconnected)
        self._is_answered = bool(cycle.response_started)

    @property
    def objection(self) -> str | None:
        followed = self._is_followed or self._is_gone or self._is_answered
        return "busy" if followed else _objection(self._transport)

    def fileno(self) -> int:
        return _fileno(self._transport)

    async def leave(self) -> None:
        # Otherwise it would log that there was no answer.
        self._cycle.disconnected = True
        self._transport.abort()

    def cut(self) -> bool:
        self._cycle.disconnected = True
        self._transport.close()
        return True


class _Hypercorn:
    """hypercorn on asyncio: an `HTTPStream` of a protocol of a `TCPServer`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        protocol = stream.send.__self__
        self._is_single = type(protocol).__name__ == "H11Protocol"
        self._transport = protocol.send.__self__.writer.transport
        self._is_followed = self._is_single and bool(protocol.connection.trailing_data[0])
        self._is_gone = bool(stream.closed)

    @property
    def objection(self) -> str | None:
        if not self._is_single:
            return "http"
        return "busy" if self._is_followed or self._is_gone else _objection(self._transport)

    def fileno(self) -> int:
        return _fileno(self._transport)

    async def leave(self) -> None:
        self._stream.closed = True
        self._transport.abort()

    def cut(self) -> bool:
        if self._is_single:
            self._stream.closed = True
            self._transport.close()
        return self._is_single


class _Daphne:
    """daphne: a `WebRequest` of Twisted, on a reactor that runs on asyncio."""

    def __init__(self, request: Any) -> None:
        channel = request.channel
        self._transport = channel.transport
        self._is_secure = bool(request.isSecure())
        if self._is_secure:
            return
        self._handle: socket.socket = self._transport.getHandle()
        self._is_busy = bool(
            self._transport.dataBuffer
            or self._transport._tempDataBuffer
            or channel._dataBuffer
            or len(channel.requests) != 1
            or not self._transport.connected
        )

    @property
    def objection(self) -> str | None:
        if self._is_secure:
            return "tls"
        return "busy" if self._is_busy else None

    def fileno(self) -> int:
        return self._handle.fileno()

    async def leave(self) -> None:
        """Twisted closes in a later turn, and sets SO_LINGER to 0 on the socket, with which the end
        of the stream would be a reset. So another descriptor of it stays open until that is
        undone."""
        with self._handle.dup() as sock:
            self._transport.abortConnection()
            for _ in range(_TURNS_MAX):
                await asyncio.sleep(0)
                if self._handle.fileno() < 0:
                    break
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)

    def cut(self) -> bool:
        self._transport.loseConnection()
        return True


def _objection(transport: Any) -> str | None:
    """As of a `ServerConnection`, for a transport of asyncio or uvloop."""
    if transport.get_extra_info("ssl_object") is not None:
        return "tls"
    return "busy" if transport.is_closing() or transport.get_write_buffer_size() else None


def _fileno(transport: Any) -> int:
    fd: int = transport.get_extra_info("socket").fileno()
    return fd


_KINDS: Final[dict[str, Callable[[Any], ServerConnection]]] = {
    "uvicorn": _Uvicorn,
    "hypercorn": _Hypercorn,
    "daphne": _Daphne,
}
