"""One open file that is followed: whole lines with their offsets."""

import hashlib
import os
import time
from typing import Final, Self, TypeAlias

from fastsse.sources.file_places import SavedPlace

__all__ = ["LINE_BYTES_MAX", "FollowedFile", "Piece", "head_of"]

# Of a longer line, the rest is not read. It is set aside in any case.
LINE_BYTES_MAX: Final = 8 * 1024 * 1024
HEAD_BYTES: Final = 256
_LOOK_BACK_BYTES: Final = 64 * 1024

Piece: TypeAlias = tuple[int, int, bytes]
"""A line: its offset, the offset behind it, and its text."""


class FollowedFile:
    """Reads a file from a place on. One thread.

    Attributes:
        place: up to where its lines are acknowledged.
        key: device and inode.
        wildcards: the texts of its pattern's wildcards.
        has_moved: it has another name than when it was found, or none.
        is_new: its generation was not kept yet.
    """

    def __init__(self, file: int, place: SavedPlace) -> None:
        self._file = file
        self.place = place
        self.key: Final = (place.device, place.inode)
        self.wildcards: tuple[str, ...] = ()
        self.has_moved = False
        self.is_new = True
        # Bytes that are read and not taken, and the offset of the first.
        self._bytes = bytearray()
        self._begin = place.offset
        # There is no end of a line in so many of them.
        self._searched = 0
        # Of a line that is too long, bytes that were read and not kept; None: there is none.
        self._unkept: int | None = None
        # A line that is whole and no longer in `_bytes`.
        self._ready: Piece | None = None
        self._is_emptied = False
        self._grown_s = time.monotonic()

    @classmethod
    def open(cls, name: str, path: str, generation: str) -> Self:
        """Opens a file at its beginning. Raises OSError."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        stat = os.fstat(file)
        return cls(file, SavedPlace(name, stat.st_dev, stat.st_ino, generation))

    @classmethod
    def reopen(cls, place: SavedPlace, path: str) -> Self | None:
        """Opens a file where it was left; None if it is another one. Raises OSError."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        stat = os.fstat(file)
        head = _head(file, place.head_bytes)
        if stat.st_size < place.offset or (place.head_bytes and head != place.head):
            os.close(file)
            return None
        kept = SavedPlace(
            place.path, stat.st_dev, stat.st_ino, place.generation, place.offset,
            place.head_bytes, place.head,
        )  # fmt: skip
        opened = cls(file, kept)
        opened.is_new = False
        if path != place.path:
            opened.moves()
        return opened

    @property
    def modified_ns(self) -> int:
        """When it was changed last."""
        return os.fstat(self._file).st_mtime_ns

    @property
    def held_bytes(self) -> int:
        """Bytes that are read and not taken."""
        return len(self._bytes)

    @property
    def has_lines(self) -> bool:
        """Whether a whole line is read and not taken."""
        return self._ready is not None or self._bytes.find(b"\n", self._searched) >= 0

    def fill(self, room_bytes: int, line_bytes_max: int = LINE_BYTES_MAX) -> int:
        """Reads on if no whole line is left, and returns how many bytes. Of a line above
        `line_bytes_max` the rest is not kept."""
        if room_bytes <= 0 or self.has_lines or self._is_emptied:
            return 0
        read = os.pread(self._file, room_bytes, self._read_offset)
        if not read:
            return 0
        if not self._knows_head():
            # It was emptied and written again since it was looked at.
            self._is_emptied = True
            return 0
        self._grown_s = time.monotonic()
        if self._unkept is None:
            self._searched = len(self._bytes)
            self._bytes += read
            if len(self._bytes) > line_bytes_max and not self.has_lines:
                self._unkept = 0
        else:
            self._pass_over(read, self._unkept)
        return len(read)

    def take(self, count: int) -> list[Piece]:
        """At most so many whole lines."""
        pieces: list[Piece] = []
        if self._ready is not None and count:
            pieces.append(self._ready)
            self._ready = None
        begin = 0
        while len(pieces) < count:
            end = self._bytes.find(b"\n", max(begin, self._searched))
            if end < 0:
                self._searched = len(self._bytes)
                break
            offset = self._begin + begin
            text = bytes(self._bytes[begin:end])
            pieces.append((offset, self._begin + end + 1, text.removesuffix(b"\r")))
            begin = end + 1
        del self._bytes[:begin]
        self._begin += begin
        self._searched = max(0, self._searched - begin)
        return pieces

    def moves(self) -> None:
        """It was renamed or removed."""
        if not self.has_moved:
            self.has_moved = True
            self._grown_s = time.monotonic()

    def returns(self) -> None:
        """It has a name of the pattern again."""
        self.has_moved = False

    @property
    def is_deleted(self) -> bool:
        """Whether it has no name at all."""
        return os.fstat(self._file).st_nlink == 0

    def is_finished(self, before_s: float) -> bool:
        """Whether it was renamed or removed, all was acknowledged, and it did not grow since a
        moment. A last line without an end is ended here, so the next read takes it."""
        if not self.has_moved or self._grown_s > before_s or self.has_lines:
            return False
        if self._bytes:
            self._end_line(self._read_offset)
            return False
        return self.place.offset >= self._begin

    def was_emptied(self) -> bool:
        """Whether its content is another one than that which was read."""
        if not self._is_emptied:
            is_short = os.fstat(self._file).st_size < self._read_offset
            self._is_emptied = is_short or not self._knows_head()
        return self._is_emptied

    def begin(self, generation: str) -> None:
        """Reads it from its beginning, as another file."""
        place = self.place
        self.place = SavedPlace(place.path, place.device, place.inode, generation)
        self._bytes.clear()
        self._begin = self._searched = 0
        self._unkept = self._ready = None
        self._is_emptied = False
        self.is_new = True

    def skip_to_end(self) -> None:
        """Begins with the line that is written now."""
        size = os.fstat(self._file).st_size
        last = os.pread(self._file, _LOOK_BACK_BYTES, max(0, size - _LOOK_BACK_BYTES))
        self._begin = self.place.offset = size - (len(last) - last.rfind(b"\n") - 1)
        self._remember_head()

    def close(self) -> None:
        """Closes it."""
        os.close(self._file)

    @property
    def _read_offset(self) -> int:
        """The offset of the first byte that was not read."""
        return self._begin + len(self._bytes) + (self._unkept or 0)

    def _pass_over(self, read: bytes, unkept: int) -> None:
        """Reads on within a line that is too long."""
        end = read.find(b"\n")
        if end < 0:
            self._unkept = unkept + len(read)
            return
        self._end_line(self._read_offset + end + 1)
        self._bytes += read[end + 1 :]

    def _end_line(self, end: int) -> None:
        """What is held is a line that ends here."""
        self._ready = (self._begin, end, bytes(self._bytes))
        self._bytes.clear()
        self._begin, self._searched, self._unkept = end, 0, None

    def _knows_head(self) -> bool:
        """Whether it begins as before; remembers more of its beginning."""
        known = self.place.head_bytes
        if known and _head(self._file, known) != self.place.head:
            return False
        if known < HEAD_BYTES:
            self._remember_head()
        return True

    def _remember_head(self) -> None:
        size = min(os.fstat(self._file).st_size, HEAD_BYTES)
        self.place.head_bytes, self.place.head = size, _head(self._file, size)


def head_of(path: str, size: int) -> str:
    """The digest of the beginning of a file. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _head(file, size)
    finally:
        os.close(file)


def _head(file: int, size: int) -> str:
    return hashlib.blake2b(os.pread(file, size, 0), digest_size=16).hexdigest()
