"""Checks Redis URLs before anything connects."""

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
# Allowed query parameters by scheme. Other parameters of the client library change how answers are
# read, or are unknown to some kinds of connection.
_QUERIES: Final = {"redis": _LOGIN, "rediss": {**_LOGIN, **_TLS}, "unix": _LOGIN}


def check_redis_url(url: str) -> str:
    """A valid Redis URL. Raises ValueError; its text contains no secret part of the URL."""
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
