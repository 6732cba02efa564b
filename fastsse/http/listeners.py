"""Listening sockets. The server makes them itself, so every stream inherits their options."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Final

from fastsse.config import ListenOptions, StreamOptions
from fastsse.errors import FastsseError
from fastsse.limits import BACKLOG
from fastsse.log import get_logger

__all__ = [
    "ACCEPT_PAUSE_S",
    "ListenError",
    "Listener",
    "SocketFiles",
    "addresses_of",
    "open_sockets",
    "open_tcp",
    "open_unix",
]

log = get_logger("http")
# Seconds of TCP_DEFER_ACCEPT: a connection is accepted when its request has arrived, so a
# subscriber needs no transport. The transports of a thousand clients that connected first and sent
# later took 2.6 MB, which the heap kept. A client that sends nothing is accepted after one repeated
# SYN-ACK (tcp(7)), and then the deadline for requests applies.
DEFER_ACCEPT_S: Final = 1
# Connections accepted in one turn of the loop.
ACCEPTS_A_TURN: Final = 64
ACCEPT_PAUSE_S: Final = 1.0
# Attempts to find a port that is free on several addresses.
_PORT_TRIES: Final = 16
# The mode that uvicorn uses. The proxy in front often runs as another user.
_UNIX_MODE: Final = 0o666
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListenError(FastsseError):
    """The server can't listen on an address. `str()` is one line that says what to change."""


def open_sockets(listen: ListenOptions, streams: StreamOptions) -> list[socket.socket]:
    """The sockets of the main listener, bound but not listening yet. Raises ListenError."""
    if listen.fd is not None:
        return [_adopt(listen.fd, streams)]
    if listen.uds is not None:
        return [open_unix(listen.uds)]
    return open_tcp(listen.host, listen.port, "port", streams)


def open_tcp(
    hosts: Sequence[str], port: int, option: str, streams: StreamOptions
) -> list[socket.socket]:
    """One socket for each address of the hosts, all on the same port; 0 uses a free one.

    `option` is the name of the port in errors. Raises ListenError.
    """
    addresses = _resolve(hosts, port)
    for tries_left in reversed(range(_PORT_TRIES if port == 0 else 1)):
        opened: list[socket.socket] = []
        try:
            chosen = port
            for family, host, named in addresses:
                sock = _open_address(family, host, chosen, named and len(addresses) > 1)
                if sock is not None:
                    _set_options(sock, streams)
                    opened.append(sock)
                    chosen = sock.getsockname()[1]
            if opened:
                return opened
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        except OSError as error:
            for sock in opened:
                sock.close()
            if error.errno != errno.EADDRINUSE or not tries_left:
                raise _explained(error, hosts, port, option) from None
    raise AssertionError("unreachable")


def _resolve(hosts: Sequence[str], port: int) -> list[tuple[int, str, bool]]:
    """(family, address, whether it came from a name) of every host, without duplicates."""
    found: dict[tuple[int, str], bool] = {}
    for host in hosts:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            text = f"The host {host} can't be resolved ({error.strerror}). Choose another with"
            raise ListenError(f"{text} --host.") from None
        for family, _, _, _, address in infos:
            found.setdefault((family, str(address[0])), address[0] != host)
    return [(family, address, named) for (family, address), named in found.items()]


def _open_address(family: int, host: str, port: int, may_be_missing: bool) -> socket.socket | None:
    """A bound socket; None for an address that came from a name and is not on this machine."""
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has its own socket, so 0.0.0.0 and :: can be used together.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        # Some conflicts show only at listen(); report them now.
        sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        if may_be_missing and error.errno in _NOT_HERE:
            return None
        raise
    return sock


def _set_options(sock: socket.socket, streams: StreamOptions) -> None:
    """Sets the options that Linux copies from a listener to each accepted socket."""
    tcp = socket.IPPROTO_TCP
    sock.setblocking(False)
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(tcp, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT_S)
    sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, round(streams.user_timeout * 1000))
    sock.setsockopt(tcp, socket.TCP_NOTSENT_LOWAT, streams.notsent_lowat)


def _explained(error: OSError, hosts: Sequence[str], port: int, option: str) -> ListenError:
    flag = "--" + option.replace("_", "-")
    match error.errno:
        case errno.EADDRINUSE if port == 0:
            text = "No port is free."
        case errno.EADDRINUSE:
            text = f"Port {port} is in use. Choose another with {flag}."
        case errno.EACCES | errno.EPERM:
            text = f"Port {port} needs more rights. Choose one above 1023 with {flag}."
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            names = " and ".join(hosts)
            text = f"{names}: not an address of this machine. Choose another with --host."
        case _:
            text = f"{' and '.join(hosts)} port {port}: {error.strerror}."
    return ListenError(text)


def open_unix(path: str, option: str = "--uds", mode: int = _UNIX_MODE) -> socket.socket:
    """A Unix socket that listens; the file of a killed server is replaced. `option` is the flag
    that errors name, `mode` that of the file. Raises ListenError."""
    _remove_stale(path, option)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"{path}: {error.strerror}. Choose another with {option}.") from None
    return sock


def _remove_stale(path: str, option: str) -> None:
    """Removes the socket file of a killed server; raises ListenError for anything else."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"{path}: {error.strerror}. Choose another with {option}.") from None
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path} exists and is not a socket. Choose another with {option}.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.setblocking(False)
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass  # A full backlog: a process is listening.
    raise ListenError(f"{path} is in use. Choose another with {option}.")


def _adopt(fd: int, streams: StreamOptions) -> socket.socket:
    """The socket inherited as `fd`."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        raise ListenError(
            f"Descriptor {fd} is not a socket. Give the right one with --fd."
        ) from None
    if sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise ListenError(f"Descriptor {fd} is not a stream socket. Give the right one with --fd.")
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        _set_options(sock, streams)
    sock.listen(BACKLOG)
    return sock


class Listener:
    """Accepts connections on some sockets. Loop thread.

    It does not use the servers of the loop, for three reasons. It accepts a burst in one turn. It
    sees the error when descriptors run out, where libuv would close new connections without notice.
    It hands sockets to the sender without making a transport.

    `welcome` is called with each accepted socket, which it owns from then on, and the address of
    the peer. `is_owner`: whether `close` removes the files of Unix sockets.
    """

    scheme = "http"

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        welcome: Callable[[socket.socket, object], None],
        *,
        is_owner: bool = True,
    ) -> None:
        self._sockets = tuple(sockets)
        self._watched: tuple[socket.socket, ...] = ()
        self._welcome = welcome
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        #: Addresses it listens on: `http://127.0.0.1:8080`, `http://[::1]:8080`, `unix:/path`.
        self.addresses: Final = addresses_of(sockets, self.scheme)
        #: The TCP port, 0 if there is none.
        self.port: Final = next(map(_port, sockets), 0)
        self._files = SocketFiles(sockets if is_owner else ())

    def serve(self) -> None:
        """Starts to accept."""
        self.watch(self._sockets)

    def watch(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts only from these sockets from now on: its own, some shared with another process,
        or none. New connections wait in the kernel until a process accepts from their socket."""
        if self._paused is None:
            for sock in self._watched:
                if sock not in sockets:
                    self._loop.remove_reader(sock.fileno())
            for sock in sockets:
                if sock not in self._watched:
                    self._loop.add_reader(sock.fileno(), self._accept, sock)
        self._watched = tuple(sockets)

    def pause(self, duration_s: float, reason: str) -> None:
        """Stops accepting for `duration_s` seconds; new connections wait in the kernel."""
        if self._paused is None:
            log.warning("Accepting is paused.", reason=reason, for_s=duration_s)
            for sock in self._watched:
                self._loop.remove_reader(sock.fileno())
            self._paused = self._loop.call_later(duration_s, self._resume)

    def close(self) -> None:
        """Stops accepting permanently and removes its files. Idempotent."""
        if self._paused is not None:
            self._paused.cancel()
            self._watched = ()
        self.watch(())
        for sock in self._sockets:
            sock.close()
        self._sockets = ()
        self._files.remove()

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                accepted, address = sock.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # Closed by the client before accept (accept(2)).
            except OSError as error:
                self.pause(ACCEPT_PAUSE_S, error.strerror or str(error))
                return
            self._welcome(accepted, address)
            if self._paused is not None or sock not in self._watched:
                return

    def _resume(self) -> None:
        self._paused = None
        watched, self._watched = self._watched, ()
        self.watch(watched)


class SocketFiles:
    """The files of Unix sockets. The process that made them removes them, unless another process
    has replaced them."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        names = [sock.getsockname() for sock in sockets if sock.family == socket.AF_UNIX]
        self._files = [(name, _file_identity(name)) for name in names if name]

    def remove(self) -> None:
        """Removes them. Idempotent."""
        for path, identity in self._files:
            if identity is not None and _file_identity(path) == identity:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        self._files = []


def addresses_of(sockets: Sequence[socket.socket], scheme: str = "http") -> list[str]:
    """The addresses that sockets listen on: `http://127.0.0.1:8080`, `http://[::1]:8080`,
    `unix:/path`."""
    return [_address(sock, scheme) for sock in sockets]


def _file_identity(path: str | bytes) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _address(sock: socket.socket, scheme: str) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name if isinstance(name, str) else name.decode(errors='replace')}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{scheme}://{host}:{name[1]}"


def _port(sock: socket.socket) -> int:
    return 0 if sock.family == socket.AF_UNIX else int(sock.getsockname()[1])
