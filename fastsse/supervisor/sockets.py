"""Listening sockets of all workers, opened before any of them exists.

Each worker has its own socket on every address (SO_REUSEPORT), and the kernel spreads connections
over them. The supervisor keeps all of them open while it runs, because closing the last descriptor
of such a socket resets the connections that wait on it. A Unix socket or an inherited socket exists
once, and all workers accept from it.
"""

import os
import socket
from collections.abc import MutableMapping, Sequence
from typing import Final, NamedTuple

from fastsse.api.bound_sockets import Sockets
from fastsse.config import Config
from fastsse.errors import FastsseError
from fastsse.http.listeners import ListenError, open_sockets
from fastsse.http.tls import SECRET_BYTES
from fastsse.limits import BACKLOG

__all__ = ["Activation", "open_for_workers"]

# sd_listen_fds(3).
FIRST_FD: Final = 3
ADMIN_NAME: Final = "admin"


class Activation(NamedTuple):
    """Descriptors of the sockets that the service manager opened: `admin` those with that name
    (FileDescriptorName=), `main` all others."""

    main: tuple[int, ...] = ()
    admin: tuple[int, ...] = ()

    @classmethod
    def take(cls, environment: MutableMapping[str, str] = os.environ) -> "Activation":
        """Reads and removes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES. Sockets for another process
        are left unchanged."""
        process = environment.pop("LISTEN_PID", "")
        count = environment.pop("LISTEN_FDS", "")
        names = environment.pop("LISTEN_FDNAMES", "").split(":")
        if process != str(os.getpid()) or not count.isdecimal():
            return cls()
        fds = range(FIRST_FD, FIRST_FD + int(count))
        admin = tuple(fd for fd, name in zip(fds, names, strict=False) if name == ADMIN_NAME)
        return cls(tuple(fd for fd in fds if fd not in admin), admin)


NO_SOCKETS: Final = Activation()


def open_for_workers(
    config: Config, count: int, activation: Activation = NO_SOCKETS
) -> list[Sockets]:
    """The sockets of each of `count` workers. An address with only one socket is shared by all.

    Raises ListenError, or ConfigError as `Sockets.bind`; then nothing stays open.
    """
    if (config.fd is not None or config.uds is not None) and activation.main:
        raise ListenError("The service manager gave sockets; leave out --uds and --fd.")
    first = _activated(config, activation) if activation.main else Sockets.bind(config)
    try:
        main = _spread(first.main, count, may_add=not activation.main)
        admin = _spread(first.admin, count, may_add=not activation.admin)
        redirect = _spread(first.redirect, count, may_add=True)
    except BaseException:
        first.close()
        raise
    is_lent = bool(activation.main)
    return [
        first._replace(main=one[0], admin=one[1], redirect=one[2], is_lent=is_lent)
        for one in zip(main, admin, redirect, strict=True)
    ]


def _activated(config: Config, activation: Activation) -> Sockets:
    """The sockets that the service manager opened, and new ones for the other listeners."""
    main = _adopt(config, activation.main)
    admin: list[socket.socket] = []
    if activation.admin:
        admin = _adopt(config, activation.admin)
    elif config.admin_port is not None:
        raise ListenError(
            f'admin_port is set, so one of the sockets must be called "{ADMIN_NAME}" '
            "(FileDescriptorName=)."
        )
    return Sockets(main, admin, ticket_secret=os.urandom(SECRET_BYTES)).completed(config)


def _adopt(config: Config, fds: Sequence[int]) -> list[socket.socket]:
    adopted: list[socket.socket] = []
    try:
        for fd in fds:
            named = config.model_copy(update={"fd": fd, "uds": None})
            adopted.extend(open_sockets(named, named))
            os.set_inheritable(fd, False)
    except (OSError, FastsseError):
        for sock in adopted:
            sock.close()
        raise
    return adopted


def _spread(
    first: Sequence[socket.socket], count: int, *, may_add: bool
) -> list[Sequence[socket.socket]]:
    """Sockets for each worker: `first` for the first worker, and more sockets on the same addresses
    for the others."""
    reusable = [sock for sock in first if may_add and sock.family != socket.AF_UNIX]
    if count == 1 or len(reusable) < len(first):
        return _dealt(first, count)
    opened: list[socket.socket] = []
    try:
        for sock in first:
            # Only set now, so that the first bind fails if another program has the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            opened.extend(_sharing_port(sock) for sock in first)
    except OSError as error:
        for sock in opened:
            sock.close()
        raise ListenError(f"No socket for each worker: {error.strerror}.") from None
    each = len(first)
    return [first, *(opened[n * each : (n + 1) * each] for n in range(count - 1))]


def _dealt(first: Sequence[socket.socket], count: int) -> list[Sequence[socket.socket]]:
    """Distributes a fixed number of sockets: each worker has at least one, and each socket has a
    worker."""
    if len(first) <= 1 or count > len(first):
        return [first] * count
    return [first[number::count] for number in range(count)]


def _sharing_port(sock: socket.socket) -> socket.socket:
    """Another socket on the same address, with the same options."""
    other = socket.socket(sock.family, sock.type)
    try:
        other.setblocking(False)
        for level, name in _COPIED:
            if (value := _option(sock, level, name)) is not None:
                other.setsockopt(level, name, value)
        other.bind(sock.getsockname())
        other.listen(BACKLOG)
    except BaseException:
        other.close()
        raise
    return other


def _option(sock: socket.socket, level: int, name: int) -> int | None:
    if level == socket.IPPROTO_IPV6 and sock.family != socket.AF_INET6:
        return None
    return sock.getsockopt(level, name)


_COPIED: Final = (
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.SOL_SOCKET, socket.SO_REUSEPORT),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
)
