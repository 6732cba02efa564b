"""The lock of a file: only one server uses it. The lock ends when its holder ends.

The lock is flock(2) on the database's own inode. So it holds under every name of the file: a hard
link, a symbolic link, another mount, a new name. SQLite locks bytes of the same inode by fcntl(2),
which is another kind of lock. A process that closes any descriptor of an inode loses its fcntl
locks on it, so the descriptor here stays open until all connections are closed.

`PATH-lock` is locked too: a server of an earlier version knows only that name.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from fastsse.backbone.sqlite.errors import HistoryError

__all__ = ["FileLock", "Identity", "sibling"]

Identity = tuple[int, int]
"""Device and inode."""

_LOCKS: Final = Path("/proc/locks")
# Files that this process holds. A second descriptor of one must not even be opened: closing it
# would take SQLite's locks away.
_held: Final[set[Identity]] = set()


def sibling(path: str, ending: str) -> str:
    """The name of a file that belongs to a database. SQLite follows links before it makes names."""
    return os.path.realpath(path) + ending


class FileLock:
    """Holds a database file for this process until it is released or the process ends.

    Arguments:
        path: the file, made empty when it is not there.
        must_exist: raise instead of making it.

    Attributes:
        identity: device and inode of the file that is locked.

    Raises HistoryError when another server holds it, or it can't be opened.
    """

    def __init__(self, path: str, must_exist: bool = False) -> None:
        with contextlib.suppress(OSError):
            if _identity_of(os.stat(path)) in _held:
                raise _in_use(path, f"process {os.getpid()}")
        fd = _open(path, 0 if must_exist else os.O_CREAT)
        try:
            self.identity: Final = _identity_of(os.fstat(fd))
            _lock(fd, path)
            self._name_fd: Final = _lock_name(path)
        except BaseException:
            os.close(fd)
            raise
        self._fd: Final = fd
        _held.add(self.identity)

    def release(self) -> None:
        """Releases the file. Once, after every connection to it was closed."""
        _held.discard(self.identity)
        os.close(self._fd)
        os.close(self._name_fd)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, 0o644)
    except OSError as error:
        raise HistoryError(path, f"can't be opened: {_reason(error)}") from None


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path, _holder(os.fstat(fd))) from None
    except OSError as error:
        raise HistoryError(path, f"can't be locked: {_reason(error)}") from None


def _lock_name(path: str) -> int:
    try:
        fd = os.open(sibling(path, "-lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HistoryError(path, f"can't be locked: {_reason(error)}") from None
    try:
        _lock(fd, path)
        # The number is for the error message of an earlier version, so a full disk is ignored.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _in_use(path: str, holder: str) -> HistoryError:
    whose = f" ({holder})" if holder else ""
    advice = "end that first, or name another file"
    return HistoryError(path, f"is in use by another server{whose}; {advice}")


def _holder(file: os.stat_result) -> str:
    """The process that locked a file, as far as the kernel shows it (proc_locks(5))."""
    wanted = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    same_inode: list[str] = []
    with contextlib.suppress(OSError):
        for line in _LOCKS.read_text().splitlines():
            _, kind, _, _, pid, where, *_ = [*line.replace("->", "").split(), "", "", "", ""]
            if kind != "FLOCK" or not pid.isdigit() or pid == "0":
                continue
            if where == wanted:
                return f"process {pid}"
            if where.endswith(f":{file.st_ino}"):
                same_inode.append(pid)
    # Some file systems show another device here than stat(2) does.
    return f"process {same_inode[0]}" if len(same_inode) == 1 else ""


def _identity_of(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
