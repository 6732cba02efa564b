"""Addresses of a Redis, as URLs: checked whole before anything connects."""

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

__all__ = ["check_redis_url"]


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
# What a URL's query may hold, by its scheme: the rest of what the client library takes there would
# change how answers are read, or is not known to every kind of connection.
_QUERIES: Final = {"redis": _LOGIN, "rediss": {**_LOGIN, **_TLS}, "unix": _LOGIN}


def check_redis_url(url: str) -> str:
    """A URL that Redis clients know. Raises ValueError, whose text holds nothing of the URL that
    may be secret."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Its own text would show what stands where the port should: perhaps a password.
        raise ValueError("no host and port; is a password percent-encoded?") from None
    if parts.scheme not in _QUERIES or not re.fullmatch(r"[\x21-\x7e]+", url, re.ASCII):
        raise ValueError("not such a URL")
    if not (parts.path.strip("/") if parts.scheme == "unix" else parts.hostname):
        raise ValueError("it names no server")
    if parts.scheme == "unix" and parts.hostname:
        raise ValueError("a path begins with a third slash: unix:///run/redis.sock")
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,5}/?", parts.path, re.ASCII):
        raise ValueError("a path is the number of a database")
    if parts.fragment:
        raise ValueError("it ends with a fragment; is a password percent-encoded?")
    _check_query(parts)
    return url


def _check_query(parts: SplitResult) -> None:
    known = _QUERIES[parts.scheme]
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"its query may hold {', '.join(known)}")
        if not known[name](value):
            raise ValueError(f"{name} in its query can't be that")
