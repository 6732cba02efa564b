"""A client of the protocol that costs little: blocking sockets, kept open."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

TEXT = "Content-Type: text/plain"
BYTES = "Content-Type: application/octet-stream"


class Answer(NamedTuple):
    """Status, header lines by lower-case name, and how many bytes the body had."""

    status: int
    headers: dict[str, str]
    body_bytes: int


class Client:
    """One connection to a server.

    Arguments:
        url: under which the streams are.
        buffer_bytes: what `answer` reads at once.
    """

    def __init__(self, url: str, buffer_bytes: int = 1 << 20) -> None:
        parts = urlsplit(url)
        self.path = parts.path
        self.host = parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(buffer_bytes)

    def head(
        self, method: str, name: str, lines: Sequence[str] = (), body_bytes: int | None = None
    ) -> bytes:
        """The head of a request for a stream."""
        length = [] if body_bytes is None else [f"Content-Length: {body_bytes}"]
        line = f"{method} {self.path}/{name} HTTP/1.1"
        return "\r\n".join([line, f"Host: {self.host}", *lines, *length, "", ""]).encode()

    def ask(
        self, method: str, name: str, lines: Sequence[str] = (), body: bytes | None = None
    ) -> Answer:
        """Sends a request and reads the whole answer; the body is dropped."""
        body_bytes = None if body is None else len(body)
        self.socket.sendall(self.head(method, name, lines, body_bytes) + (body or b""))
        return self.answer()

    def answer(self) -> Answer:
        """Reads one answer."""
        view, filled, end = memoryview(self._buffer), 0, -1
        while end < 0:
            count = self.socket.recv_into(view[filled:])
            if count == 0:
                raise ConnectionError("the server has closed the connection")
            filled += count
            end = self._buffer.find(b"\r\n\r\n", 0, filled)
        first, *rest = bytes(view[:end]).decode("latin-1").split("\r\n")
        headers = {}
        for line in rest:
            field, _, value = line.partition(":")
            headers[field.lower()] = value.strip()
        status, got = int(first.split()[1]), filled - end - 4
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self._chunks(bytes(view[end + 4 : filled])))
        total = int(headers.get("content-length", "0"))
        while got < total:
            count = self.socket.recv_into(view)
            if count == 0:
                raise ConnectionError("the server has closed the connection")
            got += count
        return Answer(status, headers, total)

    def _chunks(self, data: bytes) -> int:
        total = 0
        while True:
            while b"\r\n" not in data:
                data += self.socket.recv(1 << 20)
            line, _, data = data.partition(b"\r\n")
            size = int(line, 16)
            left = size + 2 - len(data)
            while left > 0:
                count = self.socket.recv_into(memoryview(self._buffer)[: min(left, 1 << 20)])
                left, data = left - count, b""
            data = data[size + 2 :] if left == 0 and data else b""
            if size == 0:
                return total
            total += size

    def close(self) -> None:
        """Ends it."""
        self.socket.close()
