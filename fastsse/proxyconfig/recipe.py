"""What a proxy must know: addresses, certificate, and the server's limits."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self

from fastsse.errors import FastsseError

__all__ = ["Address", "Recipe", "RecipeError"]

# A client that asks for a heartbeat of its own gets at most 30 s.
_SILENCE_MIN_S: Final = 60
_SILENCE_HEARTBEATS: Final = 4
_REUSE_MAX_S: Final = 60
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
# Characters that no proxy gives a meaning to.
_PATH: Final = re.compile(r"/[\w./~+,=@:-]{0,1023}", re.ASCII)


class RecipeError(FastsseError):
    """Values that make no file. The text is one sentence that names the flag."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address (an empty `host` is any; IPv6 without brackets), or a Unix socket (`path`)."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def read(cls, text: str, *, needs_host: bool = True) -> Self:
        """`host:port`, `[::1]:port` or `unix:/path`; `:port` and `port` too unless a host is
        needed. Raises ValueError with a sentence."""
        if text.startswith("unix:"):
            return cls(path=check_path(text.removeprefix("unix:")))
        host, colon, digits = text.rpartition(":")
        if not colon and needs_host:
            raise ValueError("must be host:port or unix:/path")
        if not re.fullmatch(r"[0-9]{1,5}", digits, re.ASCII) or not 1 <= int(digits) <= 65535:
            raise ValueError("must end with a port from 1 to 65535")
        if not host and needs_host:
            raise ValueError("must begin with a host")
        return cls(_check_host(host) if host else "", int(digits))

    @classmethod
    def to_reach(cls, host: str, port: int) -> Self:
        """The address that reaches a listener from the same machine."""
        return cls(_LOOPBACK.get(host, host), port)

    def __str__(self) -> str:
        """`host:port`, with brackets around IPv6; a Unix socket as its path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a file is made of.

    Attributes:
        domains: public names; empty only if `plain`.
        nodes: where the server's nodes listen; at least one.
        listen: where the proxy listens; empty: the proxy's usual port on all addresses.
        cert, key: PEM files; empty: the proxy's usual place, which for Caddy is its own CA client.
        plain: HTTP/1.1 without TLS.
        prefix: path below which the server is found, without a slash at the end; removed from
            requests.
        resolver: DNS server that HAProxy asks for names of nodes again.
        run_folder: for a try without root: the proxy's own files, and its log on standard error.
        heartbeat_s, idle_timeout_s, max_body_bytes, max_head_bytes, max_connections: options of
            the server.
        health_port: where nodes answer `/healthz`; 0: on their own port.
        proxy_protocol: nodes expect a PROXY protocol header.
        command: the command that made it, for the first comment.
    """

    domains: tuple[str, ...]
    nodes: tuple[Address, ...]
    listen: tuple[Address, ...] = ()
    cert: str = ""
    key: str = ""
    plain: bool = False
    prefix: str = ""
    resolver: Address | None = None
    run_folder: str = ""
    heartbeat_s: float = 15.0
    idle_timeout_s: float = 90.0
    max_body_bytes: int = 1 << 20
    max_head_bytes: int = 1 << 14
    max_connections: int = 0
    health_port: int = 0
    proxy_protocol: bool = False
    command: str = "fastsse proxy-config"

    @property
    def silence_s(self) -> int:
        """How long the proxy waits for the next byte: several heartbeats."""
        return max(_SILENCE_MIN_S, round(_SILENCE_HEARTBEATS * self.heartbeat_s))

    @property
    def reuse_s(self) -> int:
        """How long an idle connection to the server is kept: less than the server keeps it."""
        return max(1, min(_REUSE_MAX_S, int(self.idle_timeout_s * 2 / 3)))

    @property
    def is_on_443(self) -> bool:
        """Whether clients need no port in the URL, so that port 80 can redirect to it."""
        return not self.plain and not self.listen

    def stream_paths(self) -> tuple[str, ...]:
        """Public paths whose GET is a stream, with a slash at the end too."""
        paths = ("/events", "/.well-known/mercure")
        return tuple(f"{self.prefix}{path}{end}" for path in paths for end in ("", "/"))


def check_path(path: str) -> str:
    """An absolute path that needs no quotes in any of the files. Raises ValueError."""
    if not _PATH.fullmatch(path):
        raise ValueError("must be an absolute path of letters, digits and . _ - / ~ + , = @ :")
    return path


def check_prefix(prefix: str) -> str:
    """A path without a slash at the end; `/` is empty. Raises ValueError."""
    bare = prefix.rstrip("/")
    if bare and not re.fullmatch(r"(?:/[A-Za-z0-9_~.-]+)+", bare, re.ASCII):
        raise ValueError("must be a path such as /sse, of letters, digits and _ ~ . -")
    if {".", ".."} & set(bare.split("/")):
        raise ValueError("must not contain the segments . or ..")
    return bare


def check_domain(name: str) -> str:
    """A host name in lower case. Raises ValueError."""
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise ValueError("must be a host name without a port, such as sse.example.com")
    return name.lower()


def _check_host(host: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in host and bare == host:
        raise ValueError("an IPv6 address stands in brackets, such as [::1]:8080")
    if not _NAME.fullmatch(bare) and not _is_ip(bare):
        raise ValueError("must begin with an IP address or a host name")
    return bare


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
