"""Which pages of other origins may read and publish (Fetch standard, "CORS protocol")."""

from collections.abc import Mapping, Sequence
from typing import Final

from fastsse.http.problems import Problem

__all__ = ["Cors"]

ANY: Final = "*"
_PREFLIGHT: Final = (
    b"Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n"
    b"Access-Control-Allow-Headers: Last-Event-ID, Authorization, Content-Type\r\n"
    b"Access-Control-Max-Age: 7200\r\n"
)
_VARY: Final = b"Vary: Origin\r\n"


class Cors:
    """The header lines for an origin: exact matches only, so no suffix can fool it.

    Arguments:
        origins: allowed ones in lower case, or `*` alone for any. Credentials are never allowed.
        cross_publish: whether pages of any other origin may send publishes that need no
            preflight. True when a token is asked for, which such a request can't carry.
    """

    __slots__ = ("_cross_publish", "_lines", "_vary", "active")

    def __init__(self, origins: Sequence[str], *, cross_publish: bool) -> None:
        self.active = bool(origins)
        self._cross_publish = cross_publish or ANY in origins
        self._vary = _VARY if origins else b""
        self._lines = {
            origin.encode(): b"Access-Control-Allow-Origin: %s\r\n" % origin.encode() + _VARY
            for origin in origins
        }

    def lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """The header lines for any answer to a request with these headers. O(1)."""
        if not self.active:
            return b""
        origin = headers.get(b"origin")
        any_line = self._lines.get(b"*")
        if any_line is not None:
            return any_line
        if origin is None:
            return self._vary
        return self._lines.get(origin.strip().lower(), self._vary)

    def preflight_lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """What a preflight is told beside `lines`: nothing when its origin is not allowed."""
        allowed = self.lines(headers) not in (b"", _VARY)
        return _PREFLIGHT if allowed and b"access-control-request-method" in headers else b""

    def check_publish(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises Problem (403) for a publish by a page of another origin that is not allowed.

        A browser sends such a request unasked, so without a token any web page could publish to
        a server on its reader's own machine.
        """
        origin = headers.get(b"origin")
        if origin is None or self._cross_publish:
            return
        origin = origin.strip().lower()
        if origin in self._lines or _authority(origin) == headers.get(b"host", b"").lower():
            return
        detail = "Pages of this origin may not publish here; cors_origins allows them."
        raise Problem(403, detail, field="Origin")


def _authority(origin: bytes) -> bytes:
    return origin.partition(b"://")[2]
