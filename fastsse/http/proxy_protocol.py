"""Reads the header that a proxy sends at the start of a connection: PROXY protocol, version 2
(HAProxy's `proxy-protocol.txt`, §2.2). The older text form is refused."""

import ipaddress
from typing import Final, NamedTuple

from fastsse.http.client_address import UNIX
from fastsse.http.problems import Problem

__all__ = ["ProxyHeader", "read_proxy_header"]

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_BYTES: Final = 16
# The fields after the addresses (TLS details, names) are skipped.
_BYTES_MAX: Final = 4096
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport, with the size in bytes of both addresses and ports.
_TCP4, _TCP6, _UNIX_STREAM = 0x11, 0x21, 0x31
_ADDRESS_BYTES: Final = {_TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}


class ProxyHeader(NamedTuple):
    """A parsed header: the host of the client, None for the proxy itself (its health checks), and
    the length of the header."""

    host: str | None
    size: int


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the front of `data`; None while it is incomplete. Raises Problem (400)."""
    if not data.startswith(SIGNATURE[: len(data)]):
        raise _refused()
    if len(data) < _FIXED_BYTES:
        return None
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY) or length > _BYTES_MAX:
        raise _refused()
    if len(data) < _FIXED_BYTES + length:
        return None
    size = _FIXED_BYTES + length
    if command == _LOCAL:
        return ProxyHeader(None, size)
    if length < _ADDRESS_BYTES.get(family, _BYTES_MAX + 1):
        raise _refused()
    return ProxyHeader(_host(family, data[_FIXED_BYTES:size]), size)


def _host(family: int, addresses: bytes) -> str:
    if family == _TCP4:
        return str(ipaddress.IPv4Address(addresses[:4]))
    if family == _TCP6:
        address = ipaddress.IPv6Address(addresses[:16])
        return str(address.ipv4_mapped or address)
    return UNIX


def _refused() -> Problem:
    detail = "A connection from this proxy must start with a PROXY v2 header of a TCP client."
    return Problem(400, detail, field="proxy_protocol")
