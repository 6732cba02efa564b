"""Takes event streams apart (WHATWG HTML §9.2.6), in bounded memory.

The maintained parser libraries either emit an event for a block with only an id, or accept lines of
any length. The first would show a resumed reader events that were never published.
"""

import re
from typing import Final, NamedTuple

__all__ = ["Block", "EventStreamParser", "StreamEventTooLong"]

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# A whole block as nearly all servers write it: at most an id and a type, and one line of data.
_USUAL: Final = re.compile(rb"(?:id: ?([^\n\0]*)\n)?(?:event: ?([^\n]*)\n)?data: ?([^\n]*)\n\n")
# Nine digits of milliseconds are eleven days; a longer time is not realistic.
_RETRY: Final = re.compile(rb"[0-9]{1,9}")


class StreamEventTooLong(ValueError):
    """An event of a stream is longer than the bound."""


class Block(NamedTuple):
    """What stands before a blank line.

    Attributes:
        data: the data; None when the block has none, and is no event.
        event: the type; empty when none was given.
        id: the id that the block sets, which may be empty; None when it sets none.
    """

    data: bytes | None
    event: bytes
    id: bytes | None


class EventStreamParser:
    """The blocks of one stream. It buffers at most about `max_event_bytes` of an incomplete one.

    Attributes:
        retry_ms: the last `retry:` of the stream; None before one came.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self.retry_ms: int | None = None
        self._max_event_bytes = max_event_bytes
        self.restart()

    def restart(self) -> None:
        """Begins a new stream: drops an incomplete block."""
        self._rest = bytearray()
        self._after_cr = False
        self._at_start = True
        self._id: bytes | None = None
        self._type = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    @property
    def is_between(self) -> bool:
        """Whether the last block is complete, and the next one begins."""
        return not (self._is_within or self._after_cr or self._at_start)

    @property
    def held_bytes(self) -> int:
        """Bytes of the incomplete block."""
        return len(self._rest) + self._data_bytes

    def feed(self, chunk: bytes) -> list[Block]:
        """The blocks that `chunk` completes. O(bytes). Raises StreamEventTooLong."""
        if self._hold(chunk):
            return []
        if b"\r" in chunk or self._after_cr:
            return self._feed_any(chunk)
        blocks: list[Block] = []
        at = 0
        if self._is_within:
            # To the next place where a block begins.
            end = chunk.find(b"\n\n") + 2
            if end < 2:
                return self._feed_any(chunk)
            blocks += self._feed_any(chunk[:end])
            at = end
        while at < len(chunk):
            while (found := _USUAL.match(chunk, at)) is not None:
                if found.end() - at > self._max_event_bytes:
                    break
                id, event, data = found.groups()
                blocks.append(Block(data, event or b"", id))
                at = found.end()
                self._at_start = False
            end = chunk.find(b"\n\n", at) + 2
            end = len(chunk) if end < 2 else end
            if at < end:
                blocks += self._feed_any(chunk[at:end])
            at = end
        return blocks

    def _hold(self, chunk: bytes) -> bool:
        """Keeps a part of a line; False if a line ends in it. A piece may be one byte: those of a
        line cost an append each."""
        if b"\n" in chunk or b"\r" in chunk:
            return False
        if chunk:
            self._after_cr = False
            self._rest += chunk
            self._check_size()
        return True

    @property
    def _is_within(self) -> bool:
        """Whether a block has begun."""
        return bool(self._rest or self._data or self._type) or self._id is not None

    def _feed_any(self, chunk: bytes) -> list[Block]:
        """As `feed`, line by line."""
        if self._after_cr:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        blocks: list[Block] = []
        *lines, rest = _LINE_END.split(chunk)
        for line in lines:
            if self._rest:
                self._rest += line
                line = bytes(self._rest)
                self._rest.clear()
            self._take_line(line, blocks)
        if rest:
            self._rest += rest
            self._check_size()
        self._after_cr = chunk.endswith(b"\r")
        return blocks

    def _take_line(self, line: bytes, blocks: list[Block]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line:
            self._take_field(line)
        else:
            self._dispatch(blocks)

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check_size()
        elif name == b"event":
            self._type = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"retry" and _RETRY.fullmatch(value):
            self.retry_ms = int(value)

    def _dispatch(self, blocks: list[Block]) -> None:
        data = b"\n".join(self._data) if self._data else None
        if data is not None or self._id is not None:
            blocks.append(Block(data, self._type, self._id))
        self._id = None
        self._type = b""
        self._data = []
        self._data_bytes = 0

    def _check_size(self) -> None:
        if self.held_bytes > self._max_event_bytes:
            raise StreamEventTooLong
