"""The socket next to the pid file, by which `fastsse reload` asks and gets the result.

A client sends one packet (`reload`) and receives one or none: what was done, or why not. Only the
user of the server may write to the socket.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from fastsse.errors import FastsseError
from fastsse.supervisor.pidfile import PidFile

__all__ = ["Outcome", "ReloadError", "ReloadSocket", "ask_to_reload"]

_RELOAD: Final = b"reload"
_DONE: Final = b"done "
_REFUSED: Final = b"refused "
_PACKET_MAX: Final = 64 * 1024
_ASKERS_MAX: Final = 16


class ReloadError(FastsseError):
    """A reload was refused, or no supervisor could be asked. `str()` is one line."""


class Outcome(NamedTuple):
    """How a reload ended, in one line."""

    is_done: bool
    text: str


# Starts or stops to call a callable when a socket is readable.
Watch = Callable[[socket.socket, Callable[[], None]], None]
Unwatch = Callable[[socket.socket], object]


class ReloadSocket:
    """Accepts reload requests on `<pidfile>.sock`. For one thread, with or without a loop.

    Arguments:
        pidfile: locked by this process, so a file at the socket's path belongs to a dead server.
        watch, unwatch: the loop's.
        reload:

    starts a reload; `answer` sends its result to all clients. Raises ReloadError if the path can't
    be used.
    """

    def __init__(
        self, pidfile: PidFile, watch: Watch, unwatch: Unwatch, reload: Callable[[], None]
    ) -> None:
        self._path = socket_path(pidfile.path)
        self._watch = watch
        self._unwatch = unwatch
        self._reload = reload
        self._asking: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.setblocking(False)
            _remove_dead(self._path)
            before = os.umask(0o177)
            try:
                self._socket.bind(self._path)
            finally:
                os.umask(before)
            self._socket.listen(_ASKERS_MAX)
        except OSError as error:
            self._socket.close()
            raise ReloadError(
                f"{self._path}: {error.strerror}. Choose another --pidfile."
            ) from None
        watch(self._socket, self._accept)

    def answer(self, outcome: Outcome) -> None:
        """Sends the result to all clients."""
        asking, self._asking = self._asking, []
        for sock in asking:
            with contextlib.suppress(OSError):
                sock.send((_DONE if outcome.is_done else _REFUSED) + outcome.text.encode())
            sock.close()

    def close(self) -> None:
        """Removes the socket. Idempotent. In a forked child only the descriptors are closed: see
        `descriptors`."""
        if self._socket.fileno() >= 0:
            self._unwatch(self._socket)
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        for sock in self.descriptors:
            sock.close()

    @property
    def descriptors(self) -> tuple[socket.socket, ...]:
        """All open descriptors, for a child to close."""
        return (self._socket, *self._asking)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        sock.setblocking(False)
        if len(self._asking) >= _ASKERS_MAX:
            sock.close()
            return
        self._asking.append(sock)
        self._watch(sock, lambda: self._read(sock))

    def _read(self, sock: socket.socket) -> None:
        try:
            wish = sock.recv(64)
        except BlockingIOError:
            return
        except OSError:
            wish = b""
        self._unwatch(sock)
        if wish == _RELOAD:
            self._reload()
        elif sock in self._asking:
            self._asking.remove(sock)
            sock.close()


def ask_to_reload(pidfile: str, timeout_s: float) -> str:
    """Requests a reload from the server of a pid file, waits, and returns what it did.

    Raises ReloadError for a refusal, with its reason, and when no server answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(socket_path(pidfile))
            sock.send(_RELOAD)
            answer = sock.recv(_PACKET_MAX)
        except TimeoutError:
            raise ReloadError(f"No outcome within {timeout_s:g} s; see the server's log.") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise ReloadError(f"No server answers for the pid file {pidfile} ({reason}).") from None
    if answer.startswith(_DONE):
        return answer.removeprefix(_DONE).decode(errors="replace")
    if answer.startswith(_REFUSED):
        raise ReloadError(answer.removeprefix(_REFUSED).decode(errors="replace"))
    raise ReloadError("The server ended before the reload did.")


def _remove_dead(path: str) -> None:
    """Removes a socket that a killed server left. Any other file stays, and bind fails."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def socket_path(pidfile: str) -> str:
    """The path of the socket of a pid file."""
    return pidfile + ".sock"
