"""Checks Redis URLs before anything connects."""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

__all__ = ["SentinelUrl", "check_redis_url", "read_sentinel_url"]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) is not None


def _is_switch(text: str) -> bool:
    return text in ("true", "false")


_LOGIN: Final[Mapping[str, Callable[[str], bool]]] = {
    "db": _is_number,
    "username": bool,
    "password": bool,
}
_TLS: Final[Mapping[str, Callable[[str], bool]]] = {
    "ssl_ca_certs": bool,
    "ssl_ca_path": bool,
    "ssl_certfile": bool,
    "ssl_keyfile": bool,
    "ssl_password": bool,
    "ssl_cert_reqs": lambda text: text in ("none", "required"),
    "ssl_check_hostname": _is_switch,
}
# Allowed query parameters by scheme. Other parameters of the client library change how answers are
# read, or are unknown to some kinds of connection.
_QUERIES: Final = {"redis": _LOGIN, "rediss": {**_LOGIN, **_TLS}, "unix": _LOGIN}
# The login of the sentinels, where it is not that of the servers.
_SENTINEL: Final[Mapping[str, Callable[[str], bool]]] = {
    "sentinel_username": bool,
    "sentinel_password": bool,
}
#: With Sentinel: the hosts are sentinels, and the path names the master.
SENTINEL_SCHEMES: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_SENTINEL_PORT: Final = 26379
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?", re.ASCII)
_NAME: Final = re.compile(r"/([A-Za-z0-9._-]{1,128})(/[0-9]{0,5})?", re.ASCII)


class SentinelUrl(NamedTuple):
    """The parts of a URL with sentinels.

    Attributes:
        hosts: host and port of each sentinel.
        name: of the master.
        user, password: of the sentinels; None: no login.
        server: the URL of the master, with a host that stands for it.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    user: str | None
    password: str | None
    server: str


def read_sentinel_url(url: str) -> SentinelUrl | None:
    """The parts; None for a URL without sentinels. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme not in SENTINEL_SCHEMES:
        return None
    place, _, query = rest.partition("?")
    hosts_text, slash, path = place.partition("/")
    login, at, hosts_text = hosts_text.rpartition("@")
    hosts = [_HOST.fullmatch(text) for text in hosts_text.split(",")]
    named = _NAME.fullmatch(slash + path)
    if not all(hosts) or named is None:
        raise ValueError("needs sentinels and a master: redis+sentinel://host:26379,host/NAME")
    pairs = parse_qsl(query, keep_blank_values=True)
    own = dict(pair for pair in pairs if pair[0] in _SENTINEL)
    others = urlencode([pair for pair in pairs if pair[0] not in _SENTINEL])
    server = f"{SENTINEL_SCHEMES[scheme]}://{login}{at}master{named[2] or ''}"
    return SentinelUrl(
        tuple((host[1].strip("[]"), int(host[2] or _SENTINEL_PORT)) for host in hosts if host),
        named[1],
        own.get("sentinel_username"),
        own.get("sentinel_password"),
        server + (f"?{others}" if others else ""),
    )


def check_redis_url(url: str) -> str:
    """A valid Redis URL. Raises ValueError; its text contains no secret part of the URL."""
    sentinels = read_sentinel_url(url)
    if sentinels is not None:
        check_redis_url(sentinels.server)
        return url
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # The original text would show the invalid port, which may be a password.
        raise ValueError("no host and port; is a password percent-encoded?") from None
    if parts.scheme not in _QUERIES or not re.fullmatch(r"[\x21-\x7e]+", url, re.ASCII):
        raise ValueError("not a Redis URL")
    if not (parts.path.strip("/") if parts.scheme == "unix" else parts.hostname):
        raise ValueError("it has no host")
    if parts.scheme == "unix" and parts.hostname:
        raise ValueError("a path needs a third slash: unix:///run/redis.sock")
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,5}/?", parts.path, re.ASCII):
        raise ValueError("its path must be the number of a database")
    if parts.fragment:
        raise ValueError("it has a fragment; is a password percent-encoded?")
    _check_query(parts)
    return url


def _check_query(parts: SplitResult) -> None:
    known = _QUERIES[parts.scheme]
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"its query may have {', '.join(known)}")
        if not known[name](value):
            raise ValueError(f"{name} in its query has an invalid value")
