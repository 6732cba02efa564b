"""Checks the Host header against DNS rebinding.

A page of `evil.example` can point its own name to 127.0.0.1 and then send requests to a server
there as its own origin. Neither rules about origins nor a firewall stop that. But the browser sends
the name in `Host`. So a server that is reachable only from its own machine accepts only names that
an attacker can't point elsewhere: IP addresses, `localhost`, and the names in its options.
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
# Number of valid hosts that are cached, and the longest that is cached.
_REMEMBERED: Final = 1_000
_REMEMBERED_BYTES: Final = 300
# Characters of a refused Host that are shown; a DNS name has at most 253.
_SHOWN: Final = 261


class Hosts:
    """Checks the Host header. Loop thread only.

    Arguments:
        names: allowed names in addition to IP addresses, `localhost` and names below it; any letter
            case.
        enforced: False accepts every valid name.
    """

    __slots__ = ("_enforced", "_names", "_right")

    def __init__(self, names: Iterable[str], *, enforced: bool) -> None:
        self._names = frozenset(map(_plain, names))
        self._enforced = enforced
        self._right: set[bytes] = set()

    def check(self, host: bytes) -> None:
        """O(1) for a Host that was accepted recently. Raises Problem: 400 for an invalid host, 421
        for a name that this server does not serve (RFC 9110 §15.5.20)."""
        if host in self._right:
            return
        if _HOST.fullmatch(host) is None:
            raise Problem(400, "The Host header is not a valid host.", field="Host")
        if self._enforced and not self._is_ours(host.decode()):
            raise Problem(421, _not_ours(host.decode()), field="Host")
        if len(host) <= _REMEMBERED_BYTES:
            if len(self._right) >= _REMEMBERED:
                self._right.clear()
            self._right.add(host)

    def _is_ours(self, host: str) -> bool:
        # RFC 9110 §7.2 allows an empty one, and no page can send it.
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
    """The text of the 421 problem. `_HOST` has checked the characters of the Host that it names."""
    shown = host if len(host) <= _SHOWN else host[:_SHOWN] + "…"
    return (
        f"The Host of the request is {shown}. This server accepts IP addresses, localhost and "
        "the names in its option allowed_hosts (--allowed-hosts, FASTSSE_ALLOWED_HOSTS)."
    )


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
