"""Finds the address of the client behind proxies.

Only trusted proxies are believed. They use the PROXY protocol v2 header at the start of a
connection, and `X-Forwarded-For` in a request. The client is the last address of that list that is
not a trusted proxy, because the client itself may have written every address before it.
"""

import ipaddress
from asyncio import BaseTransport
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

__all__ = ["UNIX", "ClientAddresses", "account_name", "host_of", "name_of", "peer_of"]

#: The name of a peer on a Unix socket.
UNIX: Final = "unix"
# Number of hops that are read. No real chain of proxies is longer.
_HOPS_MAX: Final = 32
_REMEMBERED: Final = 4_096

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ClientAddresses:
    """Finds the address of a client. Immutable.

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
        #: Whether any proxy is trusted.
        self.active = bool(listed)
        #: Whether a host (an address's text, or `unix`) is a trusted proxy.
        self.trusts = lru_cache(_REMEMBERED)(self._trusts)

    def expects_header(self, host: str) -> bool:
        """Whether a connection from this peer must begin with a PROXY protocol header."""
        return self._by_header and self.trusts(host)

    def address(self, host: str, forwarded: bytes | None) -> str:
        """The address of the client: that of the peer, or the one that trusted proxies name.

        Arguments:
            host: the peer, or the client named by a PROXY protocol header.
            forwarded: `X-Forwarded-For`; several headers are joined with commas.

        O(length of `forwarded`). The header is ignored when the peer is not a trusted proxy.
        """
        if forwarded is None or not self.active or not self.trusts(host):
            return host
        for hop in reversed(forwarded.split(b",")[-_HOPS_MAX:]):
            named = _hop(hop.strip(b" \t"))
            if named is None:
                break  # Not an address: the hop that sent this is the last known one.
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
    """The host of a socket address, `unix` for a Unix socket. An IPv4 client of an IPv6 socket is
    named as IPv4."""
    if not isinstance(address, tuple):
        return UNIX
    host = str(address[0])
    if ":" not in host:
        return host
    parsed = _parse(host.partition("%")[0])
    return host if parsed is None else str(parsed)


def peer_of(transport: BaseTransport) -> str:
    """The other side's address, for logs; `unix` for a Unix socket."""
    return name_of(transport.get_extra_info("peername"))


def name_of(address: object) -> str:
    """A socket address as logs show it."""
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"


def account_name(host: str) -> str:
    """The name under which rate limits count a host: for IPv6 its /64, because one client owns all
    of that."""
    if ":" not in host:
        return host
    return str(ipaddress.ip_network((host, 64), strict=False))


def network_of(host: str) -> str:
    """The address prefix that identifies a returning client: a /24 of IPv4, a /64 of IPv6."""
    if ":" in host:
        return account_name(host)
    return f"{host.rpartition('.')[0]}.0/24" if "." in host else host


def _hop(text: bytes) -> str | None:
    """The address of one hop; some proxies append a port."""
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
