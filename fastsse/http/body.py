"""A request's body on its way in."""

import re
from collections.abc import Callable
from typing import Final

from httptools import HttpParserError

__all__ = ["BLANK_LINE", "RequestBody"]

BLANK_LINE: Final = b"\r\n\r\n"
# What a chunk may cost beside its data: size, two line ends, and some room for an extension.
CHUNK_OVERHEAD_BYTES: Final = 64

# A chunk's size, and an extension that is of no interest (RFC 9112 §7.1).
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:;[^\r\n]*)?\r\n")

Feed = Callable[[bytes], None]


class RequestBody:
    """Collects one body from what llhttp reports, and finds where it ends.

    `size_bytes` is the Content-Length, None for a chunked body.
    """

    __slots__ = (
        "_fed_bytes",
        "_in_trailers",
        "_next",
        "_tail",
        "announced_bytes",
        "chunks",
        "complete",
        "counted_bytes",
        "data",
        "size_bytes",
    )

    def __init__(self, size_bytes: int | None) -> None:
        self.size_bytes = size_bytes
        self.data: bytes | bytearray = b""
        self.complete = False
        self.chunks = 0
        #: What the chunks' sizes promise so far; data of the last one may still be on its way.
        self.announced_bytes = 0
        #: As part of a site's `upload_bytes`.
        self.counted_bytes = 0
        self._fed_bytes = 0
        # The end of what llhttp has, as far as it is needed again: a part of a size line or of
        # what may be the blank line. `_next` counts from its front to the next size line.
        self._tail = b""
        self._next = 0
        self._in_trailers = False

    def add(self, piece: bytes) -> None:
        """A piece of the body. Linear in all: many tiny chunks are appended in place."""
        if not self.data:
            self.data = piece
        elif isinstance(self.data, bytearray):
            self.data += piece
        else:
            self.data = bytearray(self.data) + piece

    def read(self, data: bytes, feed: Feed) -> bytes:
        """Feeds llhttp with what in `data` is this body's; returns what is left."""
        if self.size_bytes is None:
            return self._read_chunks(data, feed)
        left_bytes = self.size_bytes - len(self.data)
        if len(data) <= left_bytes:
            feed(data)
            return b""
        feed(data[:left_bytes])
        return data[left_bytes:]

    def _read_chunks(self, data: bytes, feed: Feed) -> bytes:
        """Feeds llhttp up to the body's end and not beyond, so that it never reads into the next
        request. It checks everything; should it see the end elsewhere, the body is refused."""
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
        """Behind the blank line that ends the body, None while that is not here. Goes from size
        to size, so that data costs nothing, whatever it looks like."""
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
                # The line's own end may be the blank line's first half.
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
        """Bytes that were neither data nor due to chunks: extensions and trailers."""
        return self._fed_bytes - len(self.data) - self.chunks * CHUNK_OVERHEAD_BYTES
