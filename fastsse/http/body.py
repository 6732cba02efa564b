"""A request body while it arrives."""

import re
from collections.abc import Callable
from typing import Final

from httptools import HttpParserError

__all__ = ["BLANK_LINE", "RequestBody"]

BLANK_LINE: Final = b"\r\n\r\n"
# Overhead allowed for a chunk: its size, two line ends, and some room for an extension.
CHUNK_OVERHEAD_BYTES: Final = 64

# The size of a chunk, and an extension, which is ignored (RFC 9112 §7.1).
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:;[^\r\n]*)?\r\n")

Feed = Callable[[bytes], None]


class RequestBody:
    """Collects one body from llhttp's callbacks and finds its end.

    `size_bytes` is the Content-Length, None for a chunked body.
    """

    __slots__ = (
        "_fed_bytes",
        "_in_trailers",
        "_next",
        "_tail",
        "_taken_bytes",
        "announced_bytes",
        "chunks",
        "complete",
        "counted_bytes",
        "data",
        "held_bytes",
        "size_bytes",
    )

    def __init__(self, size_bytes: int | None) -> None:
        self.size_bytes = size_bytes
        self.data: bytes | bytearray = b""
        self.complete = False
        self.chunks = 0
        #: Sum of the chunk sizes read so far; data of the last chunk may be missing still.
        self.announced_bytes = 0
        #: Bytes counted in the `upload_bytes` of the listener context.
        self.counted_bytes = 0
        #: Bytes that the reader of a streamed body holds.
        self.held_bytes = 0
        self._taken_bytes = 0
        self._fed_bytes = 0
        # The last bytes given to llhttp that are needed again: a part of a size line, or of a
        # possible blank line. `_next` is the offset from its start to the next size line.
        self._tail = b""
        self._next = 0
        self._in_trailers = False

    def add(self, piece: bytes) -> None:
        """Appends a piece of the body, in place. The total cost is linear, also for many tiny
        chunks."""
        if not self.data:
            self.data = piece
        elif isinstance(self.data, bytearray):
            self.data += piece
        else:
            self.data = bytearray(self.data) + piece

    @property
    def received_bytes(self) -> int:
        """Bytes of the body so far, with those that were taken."""
        return self._taken_bytes + len(self.data)

    def take(self) -> bytes | bytearray:
        """Removes and returns what has arrived since the last call."""
        data, self.data = self.data, b""
        self._taken_bytes += len(data)
        return data

    def read(self, data: bytes, feed: Feed) -> bytes:
        """Feeds llhttp with the part of `data` that belongs to this body; returns the rest."""
        if self.size_bytes is None:
            return self._read_chunks(data, feed)
        left_bytes = self.size_bytes - self.received_bytes
        if len(data) <= left_bytes:
            feed(data)
            return b""
        feed(data[:left_bytes])
        return data[left_bytes:]

    def _read_chunks(self, data: bytes, feed: Feed) -> bytes:
        """Feeds llhttp up to the end of the body, so that it never reads into the next request.
        llhttp checks every byte. If it sees the end at another place, the body is refused."""
        known = len(self._tail)
        data = self._tail + data
        end = self._find_end(data)
        stop = len(data) if end is None else end
        feed(data[known:stop])
        self._fed_bytes += stop - known
        if self.complete != (end is not None):
            raise HttpParserError("Invalid chunk")
        return data[stop:]

    def _find_end(self, data: bytes) -> int | None:
        """The offset after the blank line that ends the body; None while that line has not arrived.
        Moves from size line to size line, so the content of the data has no effect on the cost."""
        at = self._next
        while not self._in_trailers and at < len(data):
            line = _SIZE_LINE.match(data, at)
            if line is None:
                break
            size = int(line[1], 16)
            self.announced_bytes += size
            at = line.end() + size + 2
            if size == 0:
                self._in_trailers = True
                # The end of this line may be the first half of the blank line.
                at = line.end() - 2
        if self._in_trailers:
            found = data.find(BLANK_LINE, at)
            if found >= 0:
                return found + len(BLANK_LINE)
            at = max(at, len(data) - 3)
        kept = min(at, len(data))
        self._tail, self._next = data[kept:], at - kept
        return None

    def overhead_bytes(self) -> int:
        """Bytes of extensions and trailers: neither data nor regular chunk framing."""
        return self._fed_bytes - self.received_bytes - self.chunks * CHUNK_OVERHEAD_BYTES
