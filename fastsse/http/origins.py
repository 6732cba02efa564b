"""Sets of web origins: exact ones, all names below a domain, or any.

A pattern is `https://*.example.com`. The star matches one or more whole labels, so it matches
`https://a.example.com` and `https://b.a.example.com`, and neither `https://example.com` nor
`https://evil-example.com` nor `https://a.example.com.evil.net`. Scheme and port must be equal.
`null` is the origin of sandboxed pages and files, so any page can have it. It is only in the set
`*`.
"""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["ANY", "Origins"]

ANY: Final = "*"
_STAR: Final = "://*."
# One label of a host name and its dot, in lower case as browsers send it.
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\."
_ORIGIN_CHARS_MAX: Final = 300


class Origins:
    """A set of allowed origins. Immutable.

    Arguments:
        origins: as the options hold them: exact, patterns, or `*` alone; lower case.
    """

    __slots__ = ("_exact", "_patterns", "is_any")

    def __init__(self, origins: Iterable[str]) -> None:
        listed = tuple(origins)
        #: Whether every origin is allowed, which excludes credentials (Fetch, "CORS protocol").
        self.is_any = ANY in listed
        self._exact = frozenset(o.encode() for o in listed if _STAR not in o and o != ANY)
        patterns = "|".join(map(_pattern, filter(lambda o: _STAR in o, listed)))
        self._patterns = re.compile(patterns.encode()) if patterns else None

    def __bool__(self) -> bool:
        return self.is_any or bool(self._exact) or self._patterns is not None

    def __contains__(self, origin: object) -> bool:
        """Whether `origin`, the value of an `Origin` header, is allowed. O(its length)."""
        if self.is_any:
            return True
        if not isinstance(origin, bytes):
            return False
        origin = origin.strip().lower()
        if origin in self._exact:
            return True
        if self._patterns is None or len(origin) > _ORIGIN_CHARS_MAX:
            return False
        return self._patterns.fullmatch(origin) is not None


def origin_of(url: bytes) -> bytes | None:
    """Scheme and authority of a `Referer`; None if it is not such a URL (RFC 9110 §10.1.3)."""
    match = _URL.match(url.strip())
    return match[0].lower() if match else None


_URL: Final = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#\\@\x00-\x20]+(?=[/?#]|$)")


def _pattern(origin: str) -> str:
    scheme, rest = origin.split(_STAR)
    return f"{re.escape(scheme)}://(?:{_LABEL})+{re.escape(rest)}"
