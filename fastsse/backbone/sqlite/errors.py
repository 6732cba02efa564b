"""Errors of the file, in few words, and what must follow."""

import errno
import os
import sqlite3
from typing import Final, NamedTuple

from fastsse.errors import FastsseError

__all__ = ["HistoryError", "WriteTrouble", "is_malformed", "trouble_of"]


class HistoryError(FastsseError):
    """A history file that can't be used. `str()` is one line that names it."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"History {path} {why}.")
        self.path = path
        self.why = why


class WriteTrouble(NamedTuple):
    """Why a transaction failed.

    `words` are for `/readyz`, publishers and the log. After some failures this process can't rely
    on anything that it knows of the file: it `must_reopen` it and read it again. An unknown error
    is probably a fault of fastsse.
    """

    words: str
    must_reopen: bool
    is_unknown: bool = False


_OF_PRIMARY_CODE: Final = {
    sqlite3.SQLITE_FULL: WriteTrouble("the disk is full", False),
    sqlite3.SQLITE_BUSY: WriteTrouble("another program has locked the file", False),
    sqlite3.SQLITE_LOCKED: WriteTrouble("another program has locked the file", False),
    sqlite3.SQLITE_NOMEM: WriteTrouble("there is no memory left", False),
    sqlite3.SQLITE_IOERR: WriteTrouble("the disk fails: input/output error", True),
    sqlite3.SQLITE_READONLY: WriteTrouble("the file can't be written", True),
    sqlite3.SQLITE_PERM: WriteTrouble("the file can't be written", True),
    sqlite3.SQLITE_CANTOPEN: WriteTrouble("the file can't be opened", True),
    sqlite3.SQLITE_CORRUPT: WriteTrouble("the file is damaged", True),
    sqlite3.SQLITE_NOTADB: WriteTrouble("the file is no database", True),
}
_SYNC_FAILED: Final = WriteTrouble("the disk fails: what was written may not have reached it", True)
_SYNC_CODES: Final = {
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_CLOSE,
}
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}


def trouble_of(error: Exception) -> WriteTrouble:
    """The meaning of an error from SQLite or from the system."""
    if isinstance(error, HistoryError):
        return WriteTrouble(f"the file {error.why}", True)
    if isinstance(error, OSError) and error.errno:
        if error.errno in _NO_ROOM:
            return WriteTrouble(_OF_PRIMARY_CODE[sqlite3.SQLITE_FULL].words, True)
        return WriteTrouble(os.strerror(error.errno).lower(), True)
    if isinstance(error, UnicodeDecodeError):
        return _OF_PRIMARY_CODE[sqlite3.SQLITE_CORRUPT]
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        if code in _SYNC_CODES:
            return _SYNC_FAILED
        known = _OF_PRIMARY_CODE.get(code & 0xFF)
        if known is not None:
            return known
    return WriteTrouble(f"{type(error).__name__}: {error}", True, is_unknown=True)


def is_malformed(error: sqlite3.DatabaseError) -> bool:
    """Whether an error means that the file is damaged, and not that it can't be read now."""
    code = getattr(error, "sqlite_errorcode", None)
    # An error without a code comes from Python: text that is not UTF-8, for one.
    return code is None or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
