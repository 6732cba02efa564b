"""Opens the file again after a disk failure.

After a failed write or sync, pages in the system's cache may be marked as written although the disk
never got them. A second sync of the same file then succeeds falsely. So:

- Nothing of the failed transaction is acknowledged.
- Every connection is closed, in an order in which none of them moves the log into the file.
- The log is copied to a new file, which is synced and replaces it. So earlier transactions are
  really written. Frames of the log have checksums: if the cache has lost a part, the log ends
  there, and nothing after it is used.
- The file is opened and read again, and unacknowledged batches are removed from it.

Pages of the file itself need no such care: everything that was moved there since the last sync is
still in the log and is moved again.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager

from fastsse.backbone.sqlite.errors import HistoryError
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.lock import sibling
from fastsse.backbone.sqlite.schema import open_reading

__all__ = ["reopen"]


def reopen(file: HistoryFile, others_closed: AbstractContextManager[None]) -> bool:
    """Closes everything, renews the log, and opens the file again. Returns whether it has
    everything that was committed.

    Arguments:
        others_closed:

    a context in which this process has no other connection. Raises OSError, sqlite3.Error or
    HistoryError; then repeat the whole call later.
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
    log, new = sibling(path, "-wal"), sibling(path, "-wal-new")
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
