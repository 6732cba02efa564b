"""Where connections go to and come from: resolving, packing, spreading over source addresses."""

from __future__ import annotations

import ipaddress
import random
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult

from fastsse.swarm.refusal import Refusal

LOOPBACK_SOURCES = "127.1.0.0/16"
"""Every address of 127.0.0.0/8 can be bound without being set up; each has ports of its own."""

CONNECTIONS_A_SOURCE = 4000
"""Choosing a port gets slow when an address has few free ones left."""

SOURCES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Address:
    """A resolved TCP address."""

    family: int
    host: str
    port: int

    @property
    def packed(self) -> bytes:
        """As `struct sockaddr_in` or `sockaddr_in6`."""
        raw = socket.inet_pton(self.family, self.host)
        head = struct.pack("=H", self.family)
        if self.family == socket.AF_INET:
            return head + struct.pack("!H4s8x", self.port, raw)
        return head + struct.pack("!HI16sI", self.port, 0, raw, 0)

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback


def resolve(url: SplitResult) -> Address:
    """The first address of a URL's host.

    Raises:
        Refusal: the name is unknown, or the URL is not plain HTTP.
    """
    if url.scheme != "http" or not url.hostname:
        raise Refusal(
            f"{url.geturl()} is not an http:// URL. "
            "For a server behind TLS give the plain port behind the proxy."
        )
    try:
        port = url.port or 80
        found = socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise Refusal(f"{url.netloc} can't be resolved: {error}") from error
    family, _, _, _, address = found[0]
    return Address(family, str(address[0]), port)


def source_addresses(target: Address, ranges: Sequence[str], connections: int) -> list[Address]:
    """The addresses to connect from; none when the kernel is to choose.

    Given ranges are used whole, in their order. Without any a loopback IPv4 target gets as many of
    127.1.0.0/16 as spread the connections thinly, from a random place on, so that a run does not
    meet the closed connections of the one before it.

    Raises:
        Refusal: a range is malformed, of another family or too large.
    """
    if ranges:
        return [Address(target.family, host, 0) for host in _hosts(target, ranges)]
    if target.family != socket.AF_INET or not target.is_loopback:
        return []
    hosts = list(ipaddress.ip_network(LOOPBACK_SOURCES).hosts())
    count = min(len(hosts), -(-connections // CONNECTIONS_A_SOURCE))
    start = random.randrange(len(hosts))
    return [Address(target.family, str(hosts[(start + i) % len(hosts)]), 0) for i in range(count)]


def _hosts(target: Address, ranges: Sequence[str]) -> list[str]:
    hosts: list[str] = []
    for text in ranges:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise Refusal(f"--sources {text}: {error}") from error
        if (network.version == 4) != (target.family == socket.AF_INET):
            raise Refusal(f"--sources {text} is not of the same family as {target.host}.")
        if network.num_addresses + len(hosts) > SOURCES_MAX:
            raise Refusal(f"--sources {text}: at most {SOURCES_MAX:,} addresses are used.")
        hosts += map(str, network.hosts())
    return hosts
