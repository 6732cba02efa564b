"""HTTP/1.1 over a plain socket: what goes out is what a check says, and nothing is hidden."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

#: How long an answer or an event may take before it counts as missing, in seconds.
WAIT_S = 5.0
#: How long a check waits for the last of many events that keep coming.
WAIT_MAX_S = 30.0


class ProtocolError(Exception):
    """The bytes are not HTTP, or they ended too early."""


class Timeout(ProtocolError):
    """Nothing came in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response. `headers` has lower-case names; of repeated ones the last."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_accepted(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_refused(self) -> bool:
        """A status that says that the request was at fault."""
        return 400 <= self.status < 500


class Connection:
    """A connection to the hub.

    Args:
        receive_buffer: SO_RCVBUF in bytes, for clients that are to be slow; 0 is the system's.
    """

    def __init__(self, host: str, port: int, *, receive_buffer: int = 0) -> None:
        self._socket = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM
        )
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(WAIT_S)
        try:
            self._socket.connect((host, port))
        except BaseException:
            self._socket.close()
            raise
        self._kept = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, *, reset: bool = False) -> None:
        """Ends the connection; with `reset` by RST, as a crash or a firewall does."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Each piece in a segment of its own; stops when the server has closed."""
        try:
            for piece in pieces:
                self._socket.sendall(piece)
        except ConnectionError:
            return

    def receive(self, timeout_s: float = WAIT_S) -> bytes:
        """The next bytes; empty at the end."""
        if self._kept:
            kept, self._kept = self._kept, b""
            return kept
        if timeout_s <= 0:
            raise Timeout("nothing came in time")
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(1 << 16)
        except TimeoutError:
            raise Timeout("nothing came in time") from None

    def head(self, timeout_s: float = WAIT_S) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        deadline = time.monotonic() + timeout_s
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.receive(deadline - time.monotonic())
            if not more:
                raise ProtocolError(f"the connection ended before a response head: {data[:80]!r}")
            data += more
        head, _, self._kept = data.partition(b"\r\n\r\n")
        return parse_head(head)

    def answer(self, timeout_s: float = WAIT_S, *, to_head: bool = False) -> Answer:
        """The next final response, whole."""
        status, headers = self.head(timeout_s)
        while status == 100:
            status, headers = self.head(timeout_s)
        if to_head or status in (204, 304):
            return Answer(status, headers, b"")
        return Answer(status, headers, self._body(headers, time.monotonic() + timeout_s))

    def _body(self, headers: dict[str, str], deadline: float) -> bytes:
        decoder = Body(headers)
        if decoder.is_complete:  # What follows is the next response.
            return b""
        parts = []
        while not decoder.is_complete:
            data = self.receive(deadline - time.monotonic())
            if not data:
                decoder.end()
                break
            parts.append(decoder.feed(data))
        self._kept = decoder.rest
        return b"".join(parts)

    def is_ended(self, timeout_s: float = WAIT_S) -> bool:
        """Reads to the end of the connection; False when it does not come in time."""
        deadline = time.monotonic() + timeout_s
        try:
            while self.receive(deadline - time.monotonic()):
                pass
        except Timeout:
            return False
        except ConnectionError:
            return True
        return True


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """A response head without its last empty line."""
    line, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = line.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise ProtocolError(f"not a status line: {line[:80]!r}")
    pairs = (header.partition(":") for header in lines)
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}


class Body:
    """Decodes a response body, strictly.

    Attributes:
        is_chunked: it has chunks.
        is_complete: its end has come: the last chunk, or the whole length.
        rest: bytes of the connection behind its end.
    """

    def __init__(self, headers: dict[str, str]) -> None:
        self.is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left = int(length) if length is not None and not self.is_chunked else None
        self.is_complete = self._left == 0
        self.rest = b""
        self._raw = b""
        self._chunk = -1  # Bytes of the open chunk that are still to come; -1: a size comes next.

    def feed(self, data: bytes) -> bytes:
        if self.is_chunked:
            return self._feed_chunks(data)
        if self._left is None:
            return data
        taken, self.rest = data[: self._left], data[self._left :]
        self._left -= len(taken)
        self.is_complete = self._left == 0
        return taken

    def end(self) -> None:
        """The connection ended; without chunks and length that is the body's end."""
        self.is_complete = not self.is_chunked and self._left in (None, 0)

    def _feed_chunks(self, data: bytes) -> bytes:
        self._raw += data
        found = []
        while not self.is_complete:
            if self._chunk < 0:
                line, end, rest = self._raw.partition(b"\r\n")
                if not end:
                    break
                self._chunk, self._raw = _size(line), rest
            # A chunk is followed by CRLF; the last one has no bytes, and no trailers here.
            if self._chunk == 0:
                if len(self._raw) < 2:
                    break
                self.is_complete, self.rest = True, self._raw[2:]
            elif len(self._raw) >= self._chunk + 2:
                if self._raw[self._chunk : self._chunk + 2] != b"\r\n":
                    raise ProtocolError("a chunk is longer than its size says")
                found.append(self._raw[: self._chunk])
                self._raw, self._chunk = self._raw[self._chunk + 2 :], -1
            else:
                break
        return b"".join(found)


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or not all(char in b"0123456789abcdefABCDEF" for char in digits):
        raise ProtocolError(f"not a chunk size: {line[:40]!r}")
    return int(digits, 16)


def request_bytes(
    method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes | None = None
) -> bytes:
    """A request; a Content-Length is added when there is a body."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
