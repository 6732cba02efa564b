"""Which addresses may be reached: public ones, and networks that the options allow.

A name is resolved once, each of its addresses is checked, and the connection goes to a checked one.
So a name server that answers differently a moment later (DNS rebinding) has no effect.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

__all__ = ["AddressGuard", "AddressRefused", "Network"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# IPv4 addresses inside IPv6 ones, which a translator of the network unpacks (RFC 6052, RFC 8215).
_NAT64: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))


class AddressRefused(Exception):
    """A host whose address may not be reached. The text names the host, not the address, because
    it may be shown to those who chose the host."""


class AddressGuard:
    """Decides which addresses may be reached.

    Arguments:
        allowed: networks that may be reached although they are not public, such as 10.0.0.0/8.
    """

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed: Final = tuple(allowed)

    def allows(self, address: str) -> bool:
        """Whether an IP address may be reached. O(allowed networks)."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(parsed in network for network in self._allowed) or all(
            _is_public(one) for one in (parsed, *_inside(parsed))
        )

    async def resolve(self, host: str, port: int) -> str:
        """An address of a host that may be reached. Raises AddressRefused; OSError for a name that
        can't be resolved."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(info[4][0]) for info in found]
        # All of them: the next connection may use another one.
        if not addresses or not all(map(self.allows, addresses)):
            raise AddressRefused(f"{host} is not a public address, and it is not allowed")
        return addresses[0]


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast


def _inside(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        found += address.teredo
    if any(address in network for network in _NAT64):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    # ::a.b.c.d, which is deprecated; ::1 is not public itself.
    if int(address) >> 32 == 0:
        found.append(ipaddress.IPv4Address(int(address)))
    return [one for one in found if one is not None]
