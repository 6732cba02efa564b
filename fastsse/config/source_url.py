"""Checks the URLs of sources before anything connects."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from fastsse.config.redis_url import check_redis_url

__all__ = ["SYSTEMS", "Server", "check_source_url", "read_server_url"]

#: The system of a source, by the scheme of its URL.
SYSTEMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"), "redis"),
    **dict.fromkeys(("kafka", "kafkas"), "kafka"),
    **dict.fromkeys(("nats", "natss"), "nats"),
    **dict.fromkeys(("postgresql", "postgres"), "postgres"),
    **dict.fromkeys(("mqtt", "mqtts"), "mqtt"),
}
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?", re.ASCII)
_TLS: Final = ("ca", "cert", "key")
# Allowed query parameters by scheme.
_QUERIES: Final[Mapping[str, tuple[str, ...]]] = {
    "kafka": ("mechanism",),
    "kafkas": ("mechanism", *_TLS),
    **dict.fromkeys(("nats", "natss", "mqtt", "mqtts"), ()),
    # As libpq names them.
    **dict.fromkeys(
        ("postgresql", "postgres"),
        ("sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "user"),
    ),
}
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


class Server:
    """The parts of a URL.

    Attributes:
        scheme: such as `kafkas`.
        hosts: each with its port, if the URL has one.
        user, password: decoded; None without.
        options: the query.
    """

    def __init__(self, scheme: str, hosts: tuple[str, ...], parts: SplitResult) -> None:
        self.scheme: Final = scheme
        self.hosts: Final = hosts
        user, has_password, password = parts.netloc.rpartition("@")[0].partition(":")
        self.user: Final = unquote(user) if user else None
        self.password: Final = unquote(password) if has_password else None
        self.options: Final = dict(parse_qsl(parts.query))


def check_source_url(url: str) -> str:
    """A valid URL of a source. Raises ValueError; its text contains no secret part of the URL."""
    scheme = url.partition(":")[0]
    if SYSTEMS.get(scheme) == "redis":
        return check_redis_url(url)
    if scheme not in SYSTEMS:
        raise ValueError(f"its scheme must be one of {', '.join(SYSTEMS)}")
    read_server_url(url)
    return url


def read_server_url(url: str) -> Server:
    """The parts of the URL of a system other than Redis. Raises ValueError."""
    if not re.fullmatch(r"[\x21-\x7e]+", url, re.ASCII):
        raise ValueError("not a URL")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("no hosts and ports; is a password percent-encoded?") from None
    hosts = tuple(parts.netloc.rpartition("@")[2].split(","))
    # The host of PostgreSQL may be the folder of a Unix socket, given in the query.
    is_local = parts.scheme in ("postgresql", "postgres") and not parts.hostname
    if not is_local and not all(map(_HOST.fullmatch, hosts)):
        raise ValueError("no hosts and ports; is a password percent-encoded?")
    if parts.scheme in ("postgresql", "postgres"):
        has_path = "/" in parts.path[1:]
    else:
        has_path = bool(parts.path.strip("/"))
    if parts.fragment or has_path:
        raise ValueError("only hosts and a query may follow the scheme")
    _check_query(parts)
    return Server(parts.scheme, hosts, parts)


def _check_query(parts: SplitResult) -> None:
    known = _QUERIES[parts.scheme]
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"its query may have {', '.join(known) or 'nothing'}")
        if not value or (name == "mechanism" and value not in _MECHANISMS):
            raise ValueError(f"{name} in its query has an invalid value")
