"""The record of commits: how many there were, kept outside of the database and its log.

SQLite reads a log up to its first damaged frame, and accepts a missing log. So a file whose log was
cut, damaged, deleted or not copied opens without an error, in the state of some commits ago.
`PATH-commits` says how many commits were made. It is written after each commit and before any
acknowledgement, without a sync, so it is exact after a killed process. It is synced with each lease
of positions, and with `synced` at most SYNC_EVERY_S after a commit. So after a loss of power it may
be older by that much.

The file has two slots of one disk sector each, which are written alternately. An interrupted write
leaves the other slot intact.
"""

import os
import struct
from typing import Final, NamedTuple
from zlib import crc32

from fastsse.backbone.sqlite.errors import HistoryError
from fastsse.backbone.sqlite.lock import sibling

__all__ = ["SYNC_EVERY_S", "CommitRecord", "Left", "Promise", "log_is_empty", "missing"]

SYNC_EVERY_S: Final = 1.0
# A shorter log contains nothing (SQLite file format 4.1).
LOG_HEADER_BYTES: Final = 32

_SLOT_BYTES: Final = 512
_MAGIC: Final = b"fastsse1"
# Magic, the file's identity, number of commits, the place leased through.
_BODY: Final = struct.Struct("<8s32sQQ")
_CHECKSUM: Final = struct.Struct("<I")


class Promise(NamedTuple):
    """The number of commits of the file with this identity, and the place up to which positions are
    leased."""

    identity: str
    commits: int
    leased_through: int


class CommitRecord:
    """The record of one database, for its only writer.

    Arguments:
        path: the database.

    Attributes:
        found: the valid slots when it was opened.
        is_synced: whether everything written has reached the disk.

    Raises HistoryError.
    """

    def __init__(self, path: str) -> None:
        name = sibling(path, "-commits")
        try:
            self._fd: Final = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise HistoryError(path, f"can't be used: {name}: {reason}") from None
        self._name: Final = name
        self.found: Final = _parse(os.pread(self._fd, 2 * _SLOT_BYTES, 0))
        self.is_synced = True

    def of(self, identity: str) -> Promise | None:
        """The promise for the database with this identity, from when the record was opened. None
        also if a slot is damaged, because the newest promise may have been in it."""
        if len(self.found) < 2:
            return None
        mine = [one for one in self.found if one.identity == identity]
        return max(mine, key=lambda one: one.commits, default=None)

    def fill(self, promise: Promise) -> None:
        """Writes the other slot too. From then on a slot that can't be read is damaged. Raises
        OSError."""
        self._write(promise, promise.commits + 1)

    def note(self, promise: Promise) -> None:
        """Writes a new promise. Raises OSError. One system call, no wait for the disk."""
        self._write(promise, promise.commits)

    def _write(self, promise: Promise, number: int) -> None:
        body = _BODY.pack(
            _MAGIC, promise.identity.encode(), promise.commits, promise.leased_through
        )
        slot = body + _CHECKSUM.pack(crc32(body))
        self.is_synced = False
        os.pwrite(self._fd, slot.ljust(_SLOT_BYTES, b"\0"), number % 2 * _SLOT_BYTES)

    def sync(self) -> None:
        """Waits until the disk has it. Raises OSError."""
        os.fsync(self._fd)
        self.is_synced = True

    def sync_name(self) -> None:
        """Waits until the disk has the name of the record, too. Raises OSError."""
        folder = os.open(os.path.dirname(self._name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Gives the descriptor back. Once."""
        os.close(self._fd)


class Left(NamedTuple):
    """The state in which the last writer left a database.

    `was_in_use`: not closed. `log_is_empty`: it had no log when it was opened. `has_rebooted`:
    the machine was started since its last writer began.
    """

    commits: int
    was_in_use: bool
    log_is_empty: bool
    has_rebooted: bool


def missing(left: Left, promise: Promise | None) -> str | None:
    """What is wrong with a database, in a few words; None: it has everything that was promised."""
    if promise is not None and left.commits < promise.commits:
        return f"{promise.commits - left.commits} commits are gone"
    if not left.was_in_use:
        return None  # Its last writer moved the whole log into it.
    if promise is None:
        return "it was in use, and the record of its commits is gone"
    # Another program that closes the file of a killed server moves the log into it. A process may
    # have been killed between a commit and its record, so one commit more than recorded proves
    # nothing.
    if left.log_is_empty and (left.has_rebooted or left.commits > promise.commits + 1):
        return "it was in use, and its log is gone"
    return None


def log_is_empty(path: str) -> bool:
    """Whether a database has no log, or one without a complete header. Call it before SQLite opens
    the database."""
    try:
        return os.stat(sibling(path, "-wal")).st_size < LOG_HEADER_BYTES
    except OSError:
        return True


def _parse(raw: bytes) -> list[Promise]:
    slots = [raw[at : at + _SLOT_BYTES] for at in (0, _SLOT_BYTES)]
    return [promise for slot in slots if (promise := _parse_slot(slot)) is not None]


def _parse_slot(slot: bytes) -> Promise | None:
    if len(slot) < _BODY.size + _CHECKSUM.size:
        return None
    body = slot[: _BODY.size]
    magic, identity, commits, leased_through = _BODY.unpack(body)
    (checksum,) = _CHECKSUM.unpack_from(slot, _BODY.size)
    if magic != _MAGIC or checksum != crc32(body) or leased_through >= 1 << 63:
        return None
    return Promise(identity.decode("ascii", "replace"), commits, leased_through)
