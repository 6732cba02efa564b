"""The bound sockets of a worker: which there are, and from where they can be reached."""

import os
import socket
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from fastsse.config import Config, ConfigError, OptionProblem, is_loopback
from fastsse.http.listeners import open_sockets, open_tcp
from fastsse.http.tls import SECRET_BYTES

__all__ = ["Sockets", "are_local", "are_unix"]


class Sockets(NamedTuple):
    """Bound sockets; `admin` is empty when `main` serves all paths.

    With several workers, `all` are the main sockets of every slot, and `main` are those of `slot`.
    `is_lent`: another process removes the files of Unix sockets. `redirect` answers HTTP with a
    redirect to https. `ticket_secret` makes the keys of TLS session tickets; workers share it.
    """

    main: Sequence[socket.socket]
    admin: Sequence[socket.socket]
    all: Sequence[Sequence[socket.socket]] = ()
    slot: int = 0
    is_lent: bool = False
    redirect: Sequence[socket.socket] = ()
    ticket_secret: bytes = b""

    @classmethod
    def bind(cls, config: Config) -> "Sockets":
        """Binds the addresses in the options. Raises ListenError, or ConfigError for an inherited
        socket that other machines can reach while publishing needs no token."""
        sockets = cls(open_sockets(config, config), (), ticket_secret=os.urandom(SECRET_BYTES))
        return sockets.completed(config)

    def completed(self, config: Config) -> "Sockets":
        """These, with new ones for an admin and a redirect listener where the options name them and
        there are none yet. Raises as `bind`; then all are closed."""
        sockets = self
        try:
            if config.admin_port is not None and not self.admin:
                admin = open_tcp(config.host, config.admin_port, "admin_port", config)
                sockets = sockets._replace(admin=admin)
            if config.redirect_port is not None:
                redirect = open_tcp(config.host, config.redirect_port, "redirect_port", config)
                sockets = sockets._replace(redirect=redirect)
            sockets.check(config)
        except BaseException:
            sockets.close()
            raise
        return sockets

    def check(self, config: Config) -> None:
        """Raises ConfigError if other machines can reach an inherited socket while publishing needs
        no token. The options can't show that; the socket's address does."""
        is_decided = config.publishing_needs_token or config.allow_anonymous_publish
        if are_local(self.main) or is_decided:
            return
        allowed = (
            "a socket on a loopback address, because publishing needs no token; set publish_token "
            "or jwt_key, or allow_anonymous_publish to allow this"
        )
        option = "host" if config.fd is None else "fd"
        value = str(getattr(config, option))
        raise ConfigError([OptionProblem(option, value, "an argument", allowed)])

    @property
    def are_local(self) -> bool:
        """Whether only this machine can reach them."""
        return are_local((*self.main, *self.admin, *chain.from_iterable(self.all)))

    def has_page(self, config: Config) -> bool:
        """Whether the page is served. `auto` serves it if only this machine reaches the server."""
        return config.page == "on" or (
            config.page == "auto" and are_local((*self.main, *self.admin))
        )

    def close(self) -> None:
        """Closes them."""
        for sock in (*self.main, *self.admin, *self.redirect):
            sock.close()


def are_unix(sockets: Sequence[socket.socket]) -> bool:
    return all(sock.family == socket.AF_UNIX for sock in sockets)


def are_local(sockets: Sequence[socket.socket]) -> bool:
    """Whether only this machine can reach the sockets."""
    return all(
        sock.family == socket.AF_UNIX or is_loopback(sock.getsockname()[0]) for sock in sockets
    )
