"""A request's body on its way in."""

from collections.abc import Callable
from typing import Final

__all__ = ["BLANK_LINE", "Upload"]

BLANK_LINE: Final = b"\r\n\r\n"
# What a chunk may cost beside its data: size, two line ends, and some room for an extension.
CHUNK_OVERHEAD_BYTES: Final = 64

Feed = Callable[[bytes], None]


class Upload:
    """Collects one body from what llhttp reports, and finds where it ends.

    `size_bytes` is the Content-Length, None for a chunked body.
    """

    __slots__ = ("_fed_bytes", "_tail", "chunks", "complete", "counted_bytes", "data", "size_bytes")

    def __init__(self, size_bytes: int | None) -> None:
        self.size_bytes = size_bytes
        self.data: bytes | bytearray = b""
        self.complete = False
        self.chunks = 0
        #: As part of a site's `upload_bytes`.
        self.counted_bytes = 0
        self._fed_bytes = 0
        self._tail = b""

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
        """A chunked body ends with a blank line, as a head does: llhttp is fed up to each one and
        asked whether the request is complete, so that it never reads into the next."""
        start = len(self._tail)
        data = self._tail + data
        while start < len(data) and not self.complete:
            found = data.find(BLANK_LINE, max(0, start - 3))
            end = found + 4 if found >= 0 else len(data)
            feed(data[start:end])
            self._fed_bytes += end - start
            start = end
        self._tail = data[max(0, start - 3) : start]
        return data[start:]

    def overhead_bytes(self) -> int:
        """Bytes that were neither data nor due to chunks: extensions and trailers."""
        return self._fed_bytes - len(self.data) - self.chunks * CHUNK_OVERHEAD_BYTES
