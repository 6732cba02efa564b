"""One server on one file: a lock beside it that the kernel takes back from whoever ends."""

import fcntl
import os

from fastsse.backbone.sqlite.errors import HistoryError

__all__ = ["FileLock"]


class FileLock:
    """Holds `PATH-lock` for this process until it is released or the process ends.

    A file of its own: a process that closes any descriptor of the database itself would lose
    SQLite's locks on it (POSIX, fcntl(2)). It is left there: taking it away would be a race.

    Raises HistoryError when another process holds it, or it can't be made.
    """

    def __init__(self, path: str) -> None:
        target = os.path.realpath(path)
        try:
            self._fd = os.open(f"{target}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise HistoryError(path, f"can't be locked: {reason}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            whose = f" (process {holder})" if holder.isdigit() else ""
            advice = "end that first, or name another file"
            raise HistoryError(path, f"is in use by another server{whose}; {advice}") from None
        self._sign()

    def _sign(self) -> None:
        """Says who holds it, for the message to whoever comes second. A full disk is no matter."""
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass

    def release(self) -> None:
        """Lets the next one have it. Once."""
        os.close(self._fd)
