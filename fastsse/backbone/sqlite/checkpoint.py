"""Checkpoints: move committed transactions from the log (WAL) into the file.

A separate thread moves most of them while the writer continues. The writer moves the rest, because
the log starts again only when it is empty. Both report failures. SQLite's own checkpoints would
retry silently, and a failed sync may falsely succeed the second time.
"""

import sqlite3
import threading
from typing import Final

from fastsse.backbone.sqlite.errors import HistoryError
from fastsse.backbone.sqlite.schema import Connect, open_writing
from fastsse.backbone.sqlite.wake import Wake

__all__ = ["Checkpointer", "checkpoint"]

# A checkpoint begins after this many bytes were written.
CHECKPOINT_BYTES: Final = 16 * 1024 * 1024


def checkpoint(connection: sqlite3.Connection) -> None:
    """Moves everything that no reader still needs in the log. Raises sqlite3.Error. O(bytes in the
    log)."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class Checkpointer:
    """Runs checkpoints in a thread; the writer polls for their end.

    Arguments:
        path: the file.
        connect: opens the connection.
        wake: set by its thread when a checkpoint ended.
    """

    def __init__(self, path: str, connect: Connect, wake: Wake) -> None:
        self._path: Final = path
        self._connect: Final = connect
        self._wake: Final = wake
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._is_done = False
        self._written_bytes = 0

    def wrote(self, size_bytes: int) -> None:
        """Reports about how much the writer wrote."""
        self._written_bytes += size_bytes
        if self._written_bytes >= CHECKPOINT_BYTES and self._thread is None:
            self._written_bytes = 0
            self._is_done = False
            self._thread = threading.Thread(
                target=self._run, name="fastsse-history-checkpoint", daemon=True
            )
            self._thread.start()

    def finished(self) -> bool:
        """Whether a checkpoint has ended since the last call;

        then the writer moves the rest. Raises sqlite3.Error or HistoryError if it failed.
        """
        if self._thread is None or not self._is_done:
            return False
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    def drop(self) -> None:
        """Waits for the running checkpoint, and closes the connection."""
        if self._thread is not None:
            self._thread.join()
            self._thread = self._error = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self) -> None:
        try:
            if self._connection is None:
                self._connection = open_writing(self._path, 0, self._connect, must_exist=True)
            checkpoint(self._connection)
        except (sqlite3.Error, HistoryError) as error:
            self._error = error
        self._is_done = True
        self._wake.set()
