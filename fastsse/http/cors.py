"""CORS: which pages of other origins may read and publish (Fetch standard, "CORS protocol").

Pages of listed origins may send credentials (cookies). With `*` no page may send them, so no page
can read with the cookie of its visitor.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from fastsse.http.origins import Origins
from fastsse.http.problems import Problem

__all__ = ["Cors"]

_METHODS: Final = b"Access-Control-Allow-Methods: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n"
_AGE_MAX: Final = b"Access-Control-Max-Age: 7200\r\n"
# Request headers that the server reads. They are always allowed.
_OWN_HEADERS: Final = (
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "Last-Event-ID",
    "If-None-Match",
    "Producer-Epoch",
    "Producer-Id",
    "Producer-Seq",
    "Stream-Closed",
    "Stream-Expires-At",
    "Stream-Fork-Offset",
    "Stream-Fork-Sub-Offset",
    "Stream-Forked-From",
    "Stream-Private",
    "Stream-Seq",
    "Stream-TTL",
)
# Response headers that a script may read, in addition to those of the Fetch standard.
_EXPOSED: Final = (
    b"Access-Control-Expose-Headers: Last-Event-ID, Link, ETag, Location, Retry-After,"
    b" Fastsse-Warning, Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed,"
    b" Stream-TTL, Stream-Expires-At, Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq,"
    b" Producer-Expected-Seq, Producer-Received-Seq\r\n"
)
_VARY: Final = b"Vary: Origin\r\n"
_ANY_LINES: Final = b"Access-Control-Allow-Origin: *\r\n" + _EXPOSED
# Cache of origins that a pattern allowed recently. Origins listed in full are always in it.
_REMEMBERED: Final = 1_000


class Cors:
    """Gives the CORS header lines for an origin.

    Arguments:
        origins: allowed ones, as the option `cors_origins` holds them.
        headers: more request headers that such pages may send, in any letter case.
        cross_publish: whether pages of any other origin may send publishes that need no preflight.
            True when a publish needs a token, because such a request can't carry one.
    """

    __slots__ = ("_cross_publish", "_lines", "_origins", "_preflight", "_vary", "active")

    def __init__(
        self, origins: Sequence[str], headers: Sequence[str] = (), *, cross_publish: bool
    ) -> None:
        names = {name.lower(): name for name in (*headers, *_OWN_HEADERS)}
        allowed = b"Access-Control-Allow-Headers: %b\r\n" % ", ".join(names.values()).encode()
        self._preflight = _METHODS + allowed + _AGE_MAX
        self._origins = Origins(origins)
        self.active = bool(self._origins)
        self._cross_publish = cross_publish or self._origins.is_any
        self._vary = _VARY if self.active else b""
        self._lines: dict[bytes, bytes] = {}

    def lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """The header lines for any answer to a request with these headers. O(1)."""
        if not self.active:
            return b""
        if self._origins.is_any:
            return _ANY_LINES
        origin = headers.get(b"origin")
        if origin is None:
            return self._vary
        return self._lines.get(origin) or self._judged(origin)

    def known_lines(self, origin: bytes) -> bytes | None:
        """As `lines`, for an origin that was allowed lately; else None. O(1)."""
        return _ANY_LINES if self._origins.is_any else self._lines.get(origin)

    def _judged(self, origin: bytes) -> bytes:
        if origin not in self._origins:
            return self._vary
        if len(self._lines) >= _REMEMBERED:
            self._lines.clear()
        # In the spelling of the browser, which compares bytes.
        line = b"Access-Control-Allow-Origin: %b\r\n" % origin.strip()
        credentials = b"Access-Control-Allow-Credentials: true\r\n"
        lines = self._lines[origin] = line + credentials + _EXPOSED + _VARY
        return lines

    def preflight_lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """The lines that answer a preflight in addition to `lines`; empty if the origin is not
        allowed."""
        allowed = self.lines(headers) not in (b"", _VARY)
        return self._preflight if allowed and b"access-control-request-method" in headers else b""

    def check_read(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises Problem (403) for a page of another origin that may not read, where the browser
        does not check it: for a WebSocket."""
        origin = headers.get(b"origin")
        if origin is None or origin in self._origins or self._origins.is_any:
            return
        if _authority(origin) != headers.get(b"host", b"").lower():
            detail = "Pages of this origin may not read here; to allow it, add it to cors_origins."
            raise Problem(403, detail, field="Origin")

    def check_publish(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises Problem (403) for a publish by a page of another origin that is not allowed.

        A browser sends such a request without a preflight. Without this check and without a token,
        any web page could publish to a server on the machine of its visitor.
        """
        origin = headers.get(b"origin")
        if origin is None or self._cross_publish:
            return
        if origin in self._origins or _authority(origin) == headers.get(b"host", b"").lower():
            return
        detail = "Pages of this origin may not publish here; to allow it, add it to cors_origins."
        raise Problem(403, detail, field="Origin")


def _authority(origin: bytes) -> bytes:
    return origin.strip().lower().partition(b"://")[2]
