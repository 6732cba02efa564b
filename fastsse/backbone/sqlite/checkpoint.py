"""Checkpoints: moving what was committed from the log into the file.

Most of it is moved by a thread of its own while the writer goes on; only what came meanwhile is
left to the writer, for the log starts again when nothing is left in it. Both say when it failed:
SQLite's own checkpoints would try again in silence, and a sync that failed once may succeed
falsely the second time.
"""

import sqlite3
import threading
from typing import Final

from fastsse.backbone.sqlite.errors import HistoryError
from fastsse.backbone.sqlite.schema import Connect, open_writing

__all__ = ["Checkpointer", "checkpoint"]

# Bytes written since the last one at which the next begins.
CHECKPOINT_BYTES: Final = 16 * 1024 * 1024


def checkpoint(connection: sqlite3.Connection) -> None:
    """Moves what no reader keeps back. Raises sqlite3.Error. O(what was written since)."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class Checkpointer:
    """Does it in a thread of its own; the writer looks in.

    Arguments:
        path: the file.
        connect: opens the connection.
        wake: called when it is done, from its thread.
    """

    def __init__(self, path: str, connect: Connect, wake: threading.Event) -> None:
        self._path: Final = path
        self._connect: Final = connect
        self._wake: Final = wake
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._is_done = False
        self._written_bytes = 0
        self.checkpoints = 0

    def wrote(self, size_bytes: int) -> None:
        """The writer wrote about so much."""
        self._written_bytes += size_bytes
        if self._written_bytes >= CHECKPOINT_BYTES and self._thread is None:
            self._written_bytes = 0
            self._is_done = False
            self._thread = threading.Thread(
                target=self._run, name="fastsse-history-checkpoint", daemon=True
            )
            self._thread.start()

    def finished(self) -> bool:
        """Whether one has ended since it was asked last: the writer moves the rest.

        Raises sqlite3.Error or HistoryError when it failed.
        """
        if self._thread is None or not self._is_done:
            return False
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        self.checkpoints += 1
        return True

    def drop(self) -> None:
        """Waits for the one under way, and closes the connection."""
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
