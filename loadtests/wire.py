"""HTTP/1.1 over one blocking socket: what both readers and publishers are made of.

Locust makes sockets cooperative, so that a thread's code here is a greenlet's there. Parsing is
httptools', chunked coding included; client libraries that hide the socket would not let a slow
reader read slowly.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterable
from urllib.parse import SplitResult

import httptools

CONNECT_TIMEOUT_S = 10.0
READ_BYTES = 64 * 1024
_ESTABLISHED = 1  # TCP_ESTABLISHED, the first byte of struct tcp_info


class BadAnswer(Exception):
    """What came is no HTTP answer."""


class Wire:
    """A connection. One thread or greenlet at a time.

    Args:
        url: scheme, host and port count.
        receive_buffer_bytes: SO_RCVBUF; 0: the kernel's choice.

    Raises (here and in every method): OSError, BadAnswer.
    """

    def __init__(self, url: SplitResult, *, receive_buffer_bytes: int = 0) -> None:
        self._socket = _connect(url, receive_buffer_bytes)
        self._host = url.netloc.rpartition("@")[2].encode()
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._has_head = False
        self.whole = False
        """The answer's end came (else it ended with the connection)."""

    # Called by the parser.
    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self.whole = True

    def send(
        self, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        """Sends a whole request; the answer to the one before was read."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
        if body or method == "POST":
            lines += b"Content-Length: %d\r\n" % len(body)
        self._has_head = self.whole = False
        self._pieces.clear()
        self._socket.sendall(
            b"%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s"
            % (method.encode(), target.encode(), self._host, lines, body)
        )

    def status(self) -> int:
        """Waits for the answer's head."""
        while not self._has_head:
            if not self._receive(READ_BYTES):
                raise ConnectionResetError("the server closed the connection without an answer")
        return self._parser.get_status_code()

    def read(self, limit_bytes: int = READ_BYTES) -> bytes:
        """The next bytes of the answer's body, b"" at its end."""
        while not self._pieces:
            if self.whole or not self._receive(limit_bytes):
                return b""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body

    def timeout_after(self, seconds: float | None) -> None:
        """Reads that wait longer raise TimeoutError."""
        self._socket.settimeout(seconds)

    @property
    def established(self) -> bool:
        """False once the other side has closed or reset, even when nothing was read since."""
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED

    def close(self, *, reset: bool = False) -> None:
        """Idempotent. `reset`: as a network that fails, or a process that is killed."""
        if reset and self._socket.fileno() >= 0:
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def _receive(self, limit_bytes: int) -> int:
        data = self._socket.recv(limit_bytes)
        try:
            if data:
                self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise BadAnswer(f"the answer is not HTTP: {error}") from error
        return len(data)


def plain(error: Exception) -> Exception:
    """Without addresses and numbers of its own in it, so that equal failures count together."""
    if isinstance(error, OSError) and error.strerror:
        return OSError(error.strerror.lower())
    return error


def _connect(url: SplitResult, receive_buffer_bytes: int) -> socket.socket:
    port = url.port or (443 if url.scheme == "https" else 80)
    host = url.hostname or ""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    connection = socket.socket(family, kind, protocol)
    try:
        if receive_buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.scheme == "https":
            return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise
    return connection
