"""Which client a request comes from, with proxies in between.

Only what a trusted proxy says is believed: the header PROXY protocol v2 in front of a connection,
and `X-Forwarded-For` in a request. Of that list the last address that is no trusted proxy's is
the client, because whatever stands before it may have been written by the client itself.
"""

import ipaddress
from asyncio import BaseTransport
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

__all__ = ["UNIX", "ClientAddresses", "account_name", "host_of", "name_of", "peer_of"]

#: How a peer that came by a Unix socket is called.
UNIX: Final = "unix"
# Hops that are looked at; more proxies stand behind each other nowhere.
_HOPS_MAX: Final = 32
_REMEMBERED: Final = 4_096

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ClientAddresses:
    """Finds the client's address. Immutable.

    Arguments:
        trusted: addresses and networks of proxies, and `unix`, as the option holds them.
        by_header: whether trusted proxies send a PROXY protocol header first.
    """

    __slots__ = ("_by_header", "_networks", "_trusts_unix", "active", "trusts")

    def __init__(self, trusted: Iterable[str], *, by_header: bool = False) -> None:
        listed = set(trusted)
        self._trusts_unix = UNIX in listed
        self._networks = tuple(map(ipaddress.ip_network, sorted(listed - {UNIX})))
        self._by_header = by_header
        #: Whether there is any proxy to believe.
        self.active = bool(listed)
        #: Whether a host (an address's text, or `unix`) is a trusted proxy.
        self.trusts = lru_cache(_REMEMBERED)(self._trusts)

    def expects_header(self, host: str) -> bool:
        """Whether this peer's connection begins with a PROXY protocol header, and must."""
        return self._by_header and self.trusts(host)

    def address(self, host: str, forwarded: bytes | None) -> str:
        """The client's address: the peer's own, or what its proxies say.

        Arguments:
            host: the peer, or whom a PROXY protocol header named.
            forwarded: `X-Forwarded-For`, several of them joined with commas.

        O(length of `forwarded`), which nobody looks at who comes from elsewhere.
        """
        if forwarded is None or not self.active or not self.trusts(host):
            return host
        for hop in reversed(forwarded.split(b",")[-_HOPS_MAX:]):
            named = _hop(hop.strip(b" \t"))
            if named is None:
                break  # Not an address: whoever passed this on is all that is known.
            host = named
            if not self.trusts(host):
                break
        return host

    def _trusts(self, host: str) -> bool:
        if host == UNIX:
            return self._trusts_unix
        address = _parse(host)
        return address is not None and any(address in network for network in self._networks)


def host_of(address: object) -> str:
    """A socket address's host, `unix` for a Unix socket; an IPv4 client of an IPv6 socket is
    named as IPv4."""
    if not isinstance(address, tuple):
        return UNIX
    host = str(address[0])
    if ":" not in host:
        return host
    parsed = _parse(host.partition("%")[0])
    return host if parsed is None else str(parsed)


@lru_cache(_REMEMBERED)
def peer_of(transport: BaseTransport) -> str:
    """The other side's address, for logs; `unix` for a Unix socket."""
    return name_of(transport.get_extra_info("peername"))


def name_of(address: object) -> str:
    """A socket address as logs show it."""
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"


def account_name(host: str) -> str:
    """Whom limits count a host as: an IPv6 address by its /64, which one client owns whole."""
    if ":" not in host:
        return host
    return str(ipaddress.ip_network((host, 64), strict=False))


def network_of(host: str) -> str:
    """The prefix by which a client is known again: a /24 of IPv4, a /64 of IPv6."""
    if ":" in host:
        return account_name(host)
    return f"{host.rpartition('.')[0]}.0/24" if "." in host else host


def _hop(text: bytes) -> str | None:
    """One hop's address; some proxies write a port behind it."""
    if not text.isascii():
        return None
    name = text.decode()
    if name.startswith("["):
        name, closing, port = name[1:].partition("]")
        if not closing or not (port == "" or _is_port(port)) or ":" not in name:
            return None
    elif name.count(":") == 1:
        name, _, port = name.partition(":")
        if not _is_port(":" + port):
            return None
    parsed = _parse(name)
    return None if parsed is None else str(parsed)


def _is_port(text: str) -> bool:
    return text[0] == ":" and text[1:].isdigit() and len(text) <= 6


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address
