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
# IPv4 addresses inside IPv6 ones, which a translator of the network unpacks (RFC 6052). The
# prefixes that a network chooses itself (RFC 8215) are not public.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
# The only space that has public addresses (RFC 4291 §2.4), and its part for documentation
# (RFC 9637), which Python does not know yet.
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_DOCUMENTATION: Final = ipaddress.IPv6Network("3fff::/20")


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
    if isinstance(address, ipaddress.IPv6Address):
        spaces = (_GLOBAL_UNICAST, _NAT64, _IPV4_MAPPED)
        if address in _DOCUMENTATION or not any(address in space for space in spaces):
            return False
        if address in _IPV4_MAPPED:
            return True  # Its IPv4 address is looked at.
    return address.is_global and not address.is_multicast


def _inside(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        found += address.teredo
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
