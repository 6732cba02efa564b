"""After a disk failed: what is known of the file, and how it is taken up again.

What a failed write or sync leaves in the system's cache may be marked as written though the disk
never got it (a second sync of the same file then succeeds falsely). So:

- Nothing of the transaction that failed is acknowledged.
- Every connection is closed, in an order in which none of them moves the log into the file.
- The log is copied to a new file, synced, and put in its place: what earlier transactions wrote is
  written once more, truly. Its frames carry checksums, so a part that the cache has lost ends the
  log there and nothing after it is believed.
- The file is opened and read again; what was not acknowledged is taken out of it.

Pages of the file itself need no such care: all that was moved there since it was last synced is
still in the log and is moved once more.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager

from fastsse.backbone.sqlite.errors import HistoryError
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.lock import beside
from fastsse.backbone.sqlite.schema import open_reading

__all__ = ["reopen"]


def reopen(file: HistoryFile, others_closed: AbstractContextManager[None]) -> bool:
    """Closes everything, renews the log, opens the file again; returns whether it has all that was
    committed.

    Arguments:
        others_closed: within it, this process has no other connection.

    Raises OSError, sqlite3.Error or HistoryError; to be tried again then, whole.
    """
    with contextlib.ExitStack() as stack:
        with _log_is_left(file.path):
            file.close_connection()
            stack.enter_context(others_closed)
        _renew_log(file.path)
        return file.reopen()


@contextlib.contextmanager
def _log_is_left(path: str) -> Iterator[None]:
    """The last connection that is closed moves the log into the file, unless it can only read."""
    last: sqlite3.Connection | None = None
    with contextlib.suppress(sqlite3.Error, HistoryError):
        last = open_reading(path)
        last.execute("SELECT 1 FROM state").fetchone()
    try:
        yield
    finally:
        if last is not None:
            last.close()


def _renew_log(path: str) -> None:
    log, new = beside(path, "-wal"), beside(path, "-wal-new")
    if not os.path.exists(log):
        return
    try:
        with open(log, "rb") as source, open(new, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        os.rename(new, log)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    folder = os.open(os.path.dirname(log), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
