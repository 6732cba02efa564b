"""The file that names the process to signal, and that keeps a second server away from it."""

import contextlib
import fcntl
import os
from typing import Final

from fastsse.errors import FastsseError

__all__ = ["PidFile", "PidFileError"]

_MODE: Final = 0o644


class PidFileError(FastsseError):
    """The pid file can't be used. `str()` is one line that says what to change."""


class PidFile:
    """The process id in a file that is locked while the process runs.

    The lock belongs to the process (fcntl), so children don't inherit it. A killed server leaves a
    file that the next one takes over. Raises PidFileError.
    """

    def __init__(self, path: str) -> None:
        self.path: Final = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            os.close(self._fd)
            text = f"{path} belongs to a server that runs. Choose another with --pidfile."
            raise PidFileError(text) from None
        except OSError as error:
            os.close(self._fd)
            raise _unusable(path, error) from None

    def close(self) -> None:
        """Removes the file. Idempotent."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._fd), os.stat(self.path)):
                    os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1


def _unusable(path: str, error: OSError) -> PidFileError:
    return PidFileError(f"{path}: {error.strerror}. Choose another with --pidfile.")
