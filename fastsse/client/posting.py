"""Short requests to one HTTP/1.1 server over keep-alive connections, for publishing.

httpx takes about forty times the CPU of the bytes of a publish, and aiohttp seven times, so single
publishes to an address without TLS and proxies are sent from here. httpx does streams, TLS, proxies
and redirects.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, cast

__all__ = ["Answer", "AnswerLost", "NotConnected", "Poster", "Unusual"]

_HEAD_BYTES_MAX: Final = 64 * 1024
_BODY_BYTES_MAX: Final = 256 * 1024
# Of the line with a chunk's size (RFC 9112 §7.1), with its extensions.
_SIZE_LINE_BYTES_MAX: Final = 4 * 1024
_IDLE_MAX: Final = 32


class NotConnected(OSError):
    """No connection could be made; nothing was sent."""


class AnswerLost(OSError):
    """The connection ended, or took too long, after the request was sent."""


class Unusual(Exception):
    """A redirect, which is left to httpx. Nothing was published."""


class Answer(NamedTuple):
    """An answer; names of headers in lower case."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def reason_phrase(self) -> str:
        """The usual phrase of the status."""
        try:
            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return ""


class Poster:
    """Sends requests to one server; several at once have a connection each. One event loop.

    Arguments:
        host, port: the server.
        uds: a Unix socket in place of them.
        connect_s, answer_s: timeouts.
        keep_s: seconds for which an idle connection is used again.
    """

    def __init__(
        self,
        host: str,
        port: int,
        uds: str | None,
        *,
        timeouts_s: tuple[float, float],
        keep_s: float,
    ) -> None:
        self._host = host
        self._port = port
        self._uds = uds
        self._connect_s, self._answer_s = timeouts_s
        self._keep_s = keep_s
        self._idle: list[_Connection] = []

    async def send(self, head: bytes, body: bytes) -> Answer:
        """Sends a request, whose `head` is whole, and returns its answer. Raises NotConnected,
        AnswerLost or Unusual."""
        connection = self._kept() or await self._connect()
        try:
            async with asyncio.timeout(self._answer_s):
                answer = await connection.ask(head + body)
        except TimeoutError:
            raise AnswerLost("no data was received in time") from None
        finally:
            if connection.is_reusable and len(self._idle) < _IDLE_MAX:
                connection.idle_since_s = time.monotonic()
                self._idle.append(connection)
            else:
                connection.close()
        if 300 <= answer.status_code < 400:
            raise Unusual
        return answer

    def close(self) -> None:
        """Closes the idle connections. Idempotent."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _kept(self) -> "_Connection | None":
        oldest_s = time.monotonic() - self._keep_s
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.idle_since_s >= oldest_s:
                return connection
            connection.close()
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                if self._uds is not None:
                    _, connection = await loop.create_unix_connection(_Connection, self._uds)
                else:
                    _, connection = await loop.create_connection(
                        _Connection, self._host, self._port
                    )
        except TimeoutError:
            raise NotConnected("the connection attempt timed out") from None
        except OSError as error:
            raise NotConnected(error.errno or 0, (error.strerror or str(error)).lower()) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self.idle_since_s = 0.0
        self.is_reusable = False
        self._buffer = bytearray()
        self._parse: Callable[[], Answer | None] = self._head
        self._asked: asyncio.Future[Answer] | None = None

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        """Sends a request; the future has its answer, AnswerLost or Unusual."""
        self._asked = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            self._fail(AnswerLost("the connection was closed"))
        self.is_reusable = False
        self._parse = self._head
        self._transport.write(request)
        return self._asked

    def close(self) -> None:
        """Closes it now."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # With uvloop it is not an instance of asyncio's class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._asked is None or self._asked.done():
            self.is_reusable = False  # Bytes without a request.
            self._transport.abort()
            return
        try:
            answer = self._parse()
        except ValueError:
            # It may have been published.
            self._fail(AnswerLost("the answer is not HTTP"))
            return
        if answer is not None and not self._asked.done():
            self.is_reusable = not self._buffer and not self._closes
            self._asked.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_reusable = False
        if self._parse == self._rest and exc is None and self._asked and not self._asked.done():
            self._asked.set_result(Answer(self._status, self._headers, bytes(self._buffer)))
        reason = getattr(exc, "strerror", None) or "the connection was closed"
        self._fail(AnswerLost(getattr(exc, "errno", None) or 0, reason.lower()))

    def _fail(self, error: Exception) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(error)

    def _head(self) -> Answer | None:
        """Reads the head when it is whole. Raises ValueError."""
        self._status = 0
        while self._status < 200:  # Interim answers come before the answer.
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0 or end > _HEAD_BYTES_MAX:
                if len(self._buffer) > _HEAD_BYTES_MAX:
                    raise ValueError
                return None
            first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            del self._buffer[: end + 4]
            version, _, rest = first.partition(" ")
            if version not in ("HTTP/1.1", "HTTP/1.0"):
                raise ValueError
            self._status = int(rest[:3])
        self._headers = headers = _headers_of(lines)
        self._closes = version == "HTTP/1.0" or "close" in headers.get("connection", "").lower()
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked":
                raise ValueError
            self._unchunked = bytearray()
            self._parse = self._chunked
        elif self._status == 204 or length is not None:
            self._length = 0 if self._status == 204 else int(length or "")
            if not 0 <= self._length <= _BODY_BYTES_MAX:
                raise ValueError
            self._parse = self._body
        else:
            self._closes = True
            self._parse = self._rest
        return self._parse()

    def _body(self) -> Answer | None:
        if len(self._buffer) < self._length:
            return None
        body = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        return Answer(self._status, self._headers, body)

    def _chunked(self) -> Answer | None:
        """Reads whole chunks (RFC 9112 §7.1). Raises ValueError."""
        while (end := self._buffer.find(b"\r\n", 0, _SIZE_LINE_BYTES_MAX)) >= 0:
            size = int(bytes(self._buffer[:end]).partition(b";")[0], 16)
            after = end + 2 + size + 2
            if size < 0 or len(self._unchunked) + size > _BODY_BYTES_MAX:
                raise ValueError
            if len(self._buffer) < after:
                return None
            self._unchunked += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[:after]
            if size == 0:
                return Answer(self._status, self._headers, bytes(self._unchunked))
        if len(self._buffer) >= _SIZE_LINE_BYTES_MAX:
            raise ValueError
        return None

    def _rest(self) -> Answer | None:
        """A body up to the end of the connection."""
        if len(self._buffer) > _BODY_BYTES_MAX:
            raise ValueError
        return None


def _headers_of(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers
