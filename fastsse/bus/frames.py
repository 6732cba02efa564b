"""Frames: length, kind, body; their content is parsed strictly.

A frame is `<u32 length of the body> <u8 kind> <body>`, little-endian. The connection is closed when
a frame is longer than agreed, has an unknown kind, or has a body that ends too early or too late:
its sender can't be trusted any more.
"""

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct, error
from typing import Final

from fastsse.evicted import STEPS_MAX, Evicted

__all__ = [
    "BEAT_S",
    "CLOSE_S",
    "COUNT",
    "HELLO_BYTES_MAX",
    "OF_STREAM",
    "SEEK_AFTER",
    "SEEK_LAST",
    "SEEK_SINCE",
    "VERSION",
    "Fields",
    "FrameError",
    "FrameKind",
    "Incoming",
    "blob",
    "frame",
    "pack_evicted",
    "pack_position",
    "read_evicted",
    "text",
    "texts",
]

VERSION: Final = 3
HEADER: Final = Struct("<IB")
# The number of items that follow.
COUNT: Final = Struct("<I")
# Of the bound in a READ: it is of the one topic as a durable stream.
OF_STREAM: Final = 1 << 31
# How often both ends report that they are alive.
BEAT_S: Final = 0.5
# How long a closing end waits for its last bytes to be sent. After that it aborts.
CLOSE_S: Final = 1.0
POSITION_BYTES: Final = 16
# The kinds of SEEK: an id, the newest N, a time.
SEEK_AFTER: Final = 0
SEEK_LAST: Final = 1
SEEK_SINCE: Final = 2
# The longest frame of the handshake.
HELLO_BYTES_MAX: Final = 1024
# Bytes of one read, and of the buffer kept between frames.
BUFFER_BYTES: Final = 256 * 1024

_STEP: Final = Struct("<Q16s")
_U8, _U16, _U32, _U64 = (Struct(code) for code in ("<B", "<H", "<I", "<Q"))


class FrameKind(IntEnum):
    """The kinds of frames. "up" is from a worker to the hub."""

    HELLO = 1  # up: which worker this is, and where it is in the log
    WELCOME = 2  # down: where the log is
    BYE = 3  # down: the worker was given up, and why
    BEAT = 4  # both: still here
    BATCH = 10  # up: drafts to publish
    LOG = 11  # down: the next entries, and which batches they were
    TAKEN = 12  # down: batches that were in the log already, with their positions
    HELD = 13  # down: batches up to this one will be answered by this hub
    REFUSED = 14  # down: a batch that was not taken, and why
    EVICTED = 15  # both: what was evicted, by topic
    CAUGHT_UP = 16  # down: the log is live from here
    TROUBLE = 17  # down: why appends are refused now
    LOST = 18  # down: up to a place something may be missing; sent before what follows it
    DENIED = 19  # down: a batch that can't be taken, and why
    READ = 20  # up
    STRETCH = 21  # down: the answer to READ and NEWEST
    SEEK = 22  # up
    PLACE = 23  # down
    FAILED = 24  # down: a READ, SEEK or NEWEST that can't be answered
    NEWEST = 25  # up
    ANSWERED = 27  # down: a batch of which some was known: the positions of all
    ENDS = 28  # up: asks which topics have ended
    ENDED_TOPICS = 29  # down: those, and whether there may be any
    STREAMS = 45  # up: asks which topics are durable streams
    FOUND_STREAMS = 46  # down: the rows of those
    TOUCHED = 47  # up: a durable stream was read
    ASK = 30  # up
    ANSWER = 31  # down
    UNANSWERED = 32  # down: an ASK that can't be answered
    NOTIFY = 33  # up
    BROADCAST = 34  # down: a broadcast of a control service
    DUMP = 40  # both: asks for what the other keeps up to a place
    KEPT = 41  # both: entries that it keeps
    DUMPED = 42  # both: that was all that it keeps
    LAST = 43  # down: asks for the end of the worker's log, after a place
    ENDED = 44  # up: that was it, and which batches it was


class FrameError(ValueError):
    """The other end violated the protocol."""


def frame(kind: FrameKind, *parts: bytes) -> bytes:
    """A whole frame, ready to be sent."""
    body = b"".join(parts)
    return HEADER.pack(len(body), kind) + body


def blob(data: bytes) -> bytes:
    """Bytes behind their length (u32)."""
    return _U32.pack(len(data)) + data


def text(value: str) -> bytes:
    """UTF-8 behind its length (u16); what is longer is cut short."""
    data = value.encode()
    if len(data) > 0xFFFF:
        data = data[:0xFFFF].decode(errors="ignore").encode()
    return _U16.pack(len(data)) + data


def texts(values: Sequence[str]) -> bytes:
    """Texts behind their number (u16)."""
    return _U16.pack(len(values)) + b"".join(map(text, values))


def pack_position(position: int) -> bytes:
    """A position in 16 bytes."""
    return position.to_bytes(POSITION_BYTES, "little")


def pack_evicted(evicted: Evicted) -> bytes:
    """The evictions of some topics: the clock, where the source begins, and the steps."""
    steps = [_STEP.pack(clock, pack_position(position)) for clock, position in evicted.steps]
    begins = pack_position(evicted.begins)
    return b"".join((_U64.pack(evicted.clock), begins, _U16.pack(len(steps)), *steps))


class Fields:
    """Parses a body from start to end. Raises FrameError for invalid content."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def u8(self) -> int:
        """One byte."""
        return self._number(_U8)

    def u16(self) -> int:
        """Two bytes."""
        return self._number(_U16)

    def u32(self) -> int:
        """Four bytes."""
        return self._number(_U32)

    def u64(self) -> int:
        """Eight bytes."""
        return self._number(_U64)

    def position(self) -> int:
        """A position or a place."""
        return int.from_bytes(self.raw(POSITION_BYTES), "little")

    def raw(self, size: int) -> bytes:
        """That many bytes."""
        start = self._at
        self._at = end = start + size
        if end > len(self._body):
            raise FrameError("a frame ends too early")
        return self._body[start:end]

    def blob(self, limit_bytes: int) -> bytes:
        """Bytes behind their length, at most so many."""
        size = self.u32()
        if size > limit_bytes:
            raise FrameError(f"{size} bytes where {limit_bytes} are allowed")
        return self.raw(size)

    def text(self, limit_bytes: int = 0xFFFF) -> str:
        """UTF-8 behind its length, at most so many bytes."""
        size = self.u16()
        if size > limit_bytes:
            raise FrameError(f"{size} bytes of text where {limit_bytes} are allowed")
        try:
            return self.raw(size).decode()
        except UnicodeDecodeError:
            raise FrameError("text that is not UTF-8") from None

    def texts(self, most: int) -> tuple[str, ...]:
        """1 to `most` texts after their number (u16). They must end the body."""
        count = self.u16()
        if not 0 < count <= most:
            raise FrameError(f"{count} texts where 1 to {most} are allowed")
        values = tuple([self.text() for _ in range(count)])
        self.end()
        return values

    def rest(self) -> bytes:
        """The rest of the body."""
        start, self._at = self._at, len(self._body)
        return self._body[start:]

    @property
    def is_more(self) -> bool:
        """Whether something is left."""
        return self._at < len(self._body)

    def end(self) -> None:
        """Raises FrameError if something is left."""
        if self._at != len(self._body):
            raise FrameError("a frame ends too late")

    def _number(self, code: Struct) -> int:
        try:
            (number,) = code.unpack_from(self._body, self._at)
        except error:
            raise FrameError("a frame ends too early") from None
        self._at += code.size
        assert isinstance(number, int)
        return number


def read_evicted(fields: Fields) -> Evicted:
    """What `pack_evicted` wrote."""
    clock, begins, count = fields.u64(), fields.position(), fields.u16()
    if count > STEPS_MAX:
        raise FrameError(f"{count} steps where {STEPS_MAX} are allowed")
    steps = tuple([(fields.u64(), fields.position()) for _ in range(count)])
    return Evicted(clock, steps, begins)


class Incoming:
    """Bytes as they arrive, cut into frames.

    `limit_bytes` bounds a frame's body; it may be raised between frames.
    """

    __slots__ = ("_buffer", "_end", "_start", "limit_bytes")

    def __init__(self, limit_bytes: int = HELLO_BYTES_MAX) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray(BUFFER_BYTES)
        self._start = 0
        self._end = 0

    def room(self) -> memoryview:
        """The buffer for the next bytes; never empty."""
        return memoryview(self._buffer)[self._end :]

    def filled(self, size: int) -> None:
        """This many bytes were written into `room()`. Call `take` until it returns None before the
        next read."""
        self._end += size

    def take(self) -> tuple[int, bytes] | None:
        """The kind and body of the next frame;

        None if more bytes must arrive first. Raises FrameError if it is longer than allowed.
        O(size).
        """
        start, end = self._start, self._end
        body_start = start + HEADER.size
        if body_start > end:
            self._make_room(BUFFER_BYTES)
            return None
        size, kind = HEADER.unpack_from(self._buffer, start)
        if size > self.limit_bytes:
            raise FrameError(f"a frame of {size} bytes where {self.limit_bytes} are allowed")
        stop = body_start + size
        if stop > end:
            self._make_room(max(BUFFER_BYTES, HEADER.size + size))
            return None
        self._start = stop
        with memoryview(self._buffer) as view:
            return kind, bytes(view[body_start:stop])

    def _make_room(self, size: int) -> None:
        """Moves the received part of a frame to the start of a buffer of this size."""
        start, end = self._start, self._end
        if start == end and len(self._buffer) == size:
            self._start = self._end = 0
        elif len(self._buffer) != size or start > 0:
            # A new buffer, because the code that fills the old one may still hold a view of it.
            fresh = bytearray(size) if len(self._buffer) != size else self._buffer
            part = self._buffer[start:end]
            fresh[: len(part)] = part
            self._buffer = fresh
            self._start, self._end = 0, len(part)
