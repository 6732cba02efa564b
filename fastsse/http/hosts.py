"""Which names a server answers to: the guard against DNS rebinding.

A page of `evil.example` may have its own name point to 127.0.0.1 and then talk to a server there
as its own origin: no rule about origins helps, and no firewall. But the browser says that name in
`Host`. So a server that only its own machine reaches answers to names that nobody else can point
somewhere: IP addresses, `localhost`, and those that its owner lists.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from fastsse.http.problems import Problem

__all__ = ["Hosts"]

_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_NAME_AND_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
_LOCAL: Final = "localhost"
# Hosts that were found right lately, and the longest that is worth remembering.
_REMEMBERED: Final = 1_000
_REMEMBERED_BYTES: Final = 300
# What is shown of a Host that is refused; a DNS name has at most 253 characters.
_SHOWN: Final = 261


class Hosts:
    """Checks the Host header. Loop thread only.

    Arguments:
        names: allowed beside IP addresses, `localhost` and names below that; any letter case.
        enforced: False lets every name pass that is one.
    """

    __slots__ = ("_enforced", "_names", "_right")

    def __init__(self, names: Iterable[str], *, enforced: bool) -> None:
        self._names = frozenset(map(_plain, names))
        self._enforced = enforced
        self._right: set[bytes] = set()

    def check(self, host: bytes) -> None:
        """O(1) for a Host that was right lately. Raises Problem: 400 for what is no host, 421 for
        one that is not answered to (RFC 9110 §15.5.20: a name that the server is not for)."""
        if host in self._right:
            return
        if _HOST.fullmatch(host) is None:
            raise Problem(400, "This is not a host.", field="Host")
        if self._enforced and not self._is_ours(host.decode()):
            raise Problem(421, _not_ours(host.decode()), field="Host")
        if len(host) <= _REMEMBERED_BYTES:
            if len(self._right) >= _REMEMBERED:
                self._right.clear()
            self._right.add(host)

    def _is_ours(self, host: str) -> bool:
        # An empty one is allowed by RFC 9110 §7.2, and no page can send it.
        parts = _NAME_AND_PORT.fullmatch(host)
        if parts is None:
            return False
        name = parts[1]
        if name.startswith("["):
            return _is_address(name[1:-1], 6)
        name = _plain(name)
        is_local = name in ("", _LOCAL) or name.endswith("." + _LOCAL)
        return is_local or name in self._names or _is_address(name, 4)


def _not_ours(host: str) -> str:
    """Names the Host that came; its letters are those of `_HOST`."""
    shown = host if len(host) <= _SHOWN else host[:_SHOWN] + "…"
    return (
        f"The Host of the request is {shown}. This server answers to IP addresses, localhost and "
        "the names in its option allowed_hosts (--allowed-hosts, FASTSSE_ALLOWED_HOSTS)."
    )


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
