"""Reads requests from bytes: llhttp parses strictly, this module finds the boundaries.

It finds the blank line that ends a head, and feeds llhttp one request at a time. So requests are
read in order, and it is known exactly whether a byte follows one. llhttp refuses bare CR or LF,
obsolete folding, blanks before a colon, NUL, two lengths, a length together with a coding, and
malformed chunks. This module refuses the other invalid input that llhttp accepts.
"""

import re
from typing import Final, NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from fastsse.http.body import BLANK_LINE, RequestBody
from fastsse.http.hosts import Hosts
from fastsse.http.problems import Problem
from fastsse.http.proxy_protocol import read_proxy_header
from fastsse.http.request import Memory, Request, Target, Targets, authority_of

__all__ = ["KEPT_NAMES", "HeadLimits", "RequestParser"]

# The method, the target and the minor version. llhttp accepts more protocols, more versions, and
# several spaces. One empty line may come before it (RFC 9112 §2.2).
_REQUEST_LINE: Final = re.compile(rb"(?:\r\n)?([A-Z-]+) ([^ \r\n]+) HTTP/1\.([01])\r\n")
_UPGRADE_LINE: Final = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
# The field of the problem for those llhttp errors that name one.
_FIELD: Final = re.compile(r"Content-Length|Transfer-Encoding|method|url|version|chunk")
_KEPT_HEADERS: Final = (
    b"Accept",
    b"Accept-Encoding",
    b"Access-Control-Request-Method",
    b"Authorization",
    b"Cache-Control",
    b"Content-Encoding",
    b"Content-Length",
    b"Content-Type",
    b"Cookie",
    b"Expect",
    b"Host",
    b"If-None-Match",
    b"Idempotency-Key",
    b"If-Match",
    b"Last-Event-ID",
    b"Origin",
    b"Referer",
    b"Producer-Epoch",
    b"Producer-Id",
    b"Producer-Seq",
    b"Sec-Fetch-Mode",
    b"Sec-WebSocket-Key",
    b"Sec-WebSocket-Version",
    b"Stream-Closed",
    b"Stream-Expires-At",
    b"Stream-Fork-Offset",
    b"Stream-Fork-Sub-Offset",
    b"Stream-Forked-From",
    b"Stream-Private",
    b"Stream-Seq",
    b"Stream-TTL",
    b"Traceparent",
    b"Tracestate",
    b"Transfer-Encoding",
    b"Upgrade",
    b"User-Agent",
    b"Webhook-Id",
    b"Webhook-Signature",
    b"Webhook-Timestamp",
    b"X-Forwarded-For",
    b"X-Forwarded-Proto",
    b"X-Request-Id",
)
# Headers that may appear several times, as one list (RFC 9110 §5.2). Repeated credentials are
# joined too: the result is not valid, even if each one was.
_LISTS: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"authorization",
        b"cache-control",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"sec-fetch-mode",
        b"x-forwarded-for",
    }
)
_SPELLING: Final = {name.lower(): name.decode() for name in _KEPT_HEADERS}
# Sent by almost every client, and ignored here.
_IGNORED_HEADERS: Final = (
    b"Accept-Language",
    b"Connection",
    b"Pragma",
    b"Sec-Fetch-Dest",
    b"Sec-Fetch-Site",
)
# Both common spellings, so most names need no lower(). Empty for ignored headers.
_KNOWN: Final = {
    **dict.fromkeys((*_IGNORED_HEADERS, *map(bytes.lower, _IGNORED_HEADERS)), b""),
    **{spelt: name.lower() for name in _KEPT_HEADERS for spelt in (name, name.lower())},
}


#: The headers that a request keeps, in lower case.
KEPT_NAMES: Final = tuple(map(bytes.lower, _KEPT_HEADERS))


class HeadLimits(NamedTuple):
    """Bounds on a request, in bytes and number of headers."""

    head_bytes: int
    headers: int
    body_bytes: int


class RequestParser:
    """Reads the requests of one connection, one after another.

    Call `read_head` until it returns a request. If that has a body, call `expect_body`, and
    `read_body` until it returns the body. All raise Problem for invalid input; after that nothing
    more can be read.
    """

    __slots__ = (
        "_headers",
        "_host",
        "_hosts",
        "_limits",
        "_memory",
        "_parser",
        "_partial",
        "_repeated",
        "_targets",
        "incoming_body",
        "is_announced",
        "peer",
        "persists",
    )

    def __init__(self, limits: HeadLimits, targets: Targets, hosts: Hosts) -> None:
        self._limits = limits
        self._targets = targets
        self._hosts = hosts
        self._memory = Memory()
        self._parser = HttpRequestParser(self)
        self._partial = b""  # The part of a head that llhttp has read.
        self._headers: dict[bytes, bytes] = {}
        self._host = b""  # The last accepted Host; usually all are equal.
        self._repeated = b""
        self.incoming_body: RequestBody | None = None
        #: Whether the connection may carry another request (RFC 9112 §9.3).
        self.persists = True
        #: The host of the peer; copied to each request.
        self.peer = ""
        #: Whether a PROXY protocol header is required and has not arrived yet.
        self.is_announced = False

    @property
    def is_within_head(self) -> bool:
        """Whether a part of a head has been read."""
        return bool(self._partial)

    def request(self, method: bytes, target: Target, headers: dict[bytes, bytes]) -> Request:
        """A request of HTTP/1.1 that something else has read from this connection."""
        return Request(method, target, headers, True, self.peer, self._memory)

    def close(self) -> None:
        """Drops the reference to llhttp's parser. It refers to our methods, so otherwise only the
        garbage collector would free both."""
        self._parser = cast(HttpRequestParser, None)

    def read_head(self, data: bytes) -> tuple[Request | None, bytes]:
        """Takes a head from the front of `data`; returns its request, if it is complete, and the
        rest."""
        known = len(self._partial)
        if known:
            data = self._partial + data
        if self.is_announced:
            data, known = self._read_announcement(data), 0
            if not data:
                return None, b""
        found = data.find(BLANK_LINE, known - 3 if known > 3 else 0)
        end = found + 4 if found >= 0 else len(data)
        if end > self._limits.head_bytes:
            raise Problem(431, "The request head is too long.", field="head")
        try:
            self._parser.feed_data(data[known:end])
        except HttpParserUpgrade:
            self._do_not_upgrade(data[:end])
        except HttpParserError as error:
            if data[:1] == _TLS_HANDSHAKE:
                raise Problem(400, _NO_TLS, field="scheme") from None
            raise _malformed(error, "head") from None
        if found < 0:
            self._partial = data
            return None, b""
        if known:
            self._partial = b""
        return self._request(data, end), data[end:]

    def _read_announcement(self, data: bytes) -> bytes:
        """The bytes after the PROXY protocol header; empty while that is incomplete."""
        announced = read_proxy_header(data)
        self._partial = b"" if announced else data
        if announced is None:
            return b""
        self.is_announced = False
        self.peer = announced.host or self.peer
        return data[announced.size :]

    def expect_body(self, request: Request) -> bool:
        """Prepares for the body; False if the request has none."""
        headers = request.headers
        coding = headers.get(b"transfer-encoding")
        size_bytes: int | None = None
        if coding is None:
            size_bytes = int(headers.get(b"content-length", b"0"))
            if size_bytes == 0:
                return False
        elif coding.strip().lower() != b"chunked" or not request.chunked:
            raise Problem(
                400, "The only supported transfer coding is chunked.", field="Transfer-Encoding"
            )
        self.incoming_body = RequestBody(size_bytes)
        return True

    def check_size(self) -> None:
        """Raises Problem (413) when the length of the body is announced and too large."""
        incoming_body = self.incoming_body
        assert incoming_body is not None
        if (incoming_body.size_bytes or 0) > self._limits.body_bytes:
            raise self._too_large()

    def read_piece(self, data: bytes) -> tuple[bytes | bytearray, bool, bytes]:
        """Takes a part of a body of any size from the front of `data`; returns it, whether it was
        the last, and the rest."""
        incoming_body, data = self._fed(data)
        if incoming_body.size_bytes is None:
            self._check_overhead(incoming_body)
        if incoming_body.complete:
            self.incoming_body = None
        return incoming_body.take(), incoming_body.complete, data

    def read_body(self, data: bytes) -> tuple[bytes | bytearray | None, bytes]:
        """Takes a body from the front of `data`; returns the body, if it is complete, and the
        rest."""
        incoming_body, data = self._fed(data)
        if incoming_body.size_bytes is None:
            self._check_chunks(incoming_body)
        if not incoming_body.complete:
            return None, data
        self.incoming_body = None
        return incoming_body.data, data

    def _fed(self, data: bytes) -> tuple[RequestBody, bytes]:
        """The body that arrives, after it took what belongs to it; and the rest of `data`."""
        incoming_body = self.incoming_body
        assert incoming_body is not None
        try:
            return incoming_body, incoming_body.read(data, self._parser.feed_data)
        except HttpParserError as error:
            raise _malformed(error, "body") from None

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp: one header, or one trailer."""
        known = _KNOWN.get(name)
        if known is None:
            known = _KNOWN.get(name.lower())
        if known and self.incoming_body is None:
            if known in self._headers:
                if known in _LISTS:
                    value = self._headers[known] + b", " + value
                else:
                    self._repeated = known
            self._headers[known] = value

    def on_headers_complete(self) -> None:
        """llhttp: the end of a head. Reads what llhttp forgets at the end of the request."""
        self.persists = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """llhttp: a piece of a body."""
        if self.incoming_body is not None:
            self.incoming_body.add(data)

    def on_chunk_header(self) -> None:
        """llhttp: the size of a chunk."""
        if self.incoming_body is not None:
            self.incoming_body.chunks += 1

    def on_message_complete(self) -> None:
        """llhttp: the end of a request."""
        if self.incoming_body is not None:
            self.incoming_body.complete = True

    def _request(self, head: bytes, end: int) -> Request:
        """The request that was read."""
        line = _REQUEST_LINE.match(head)
        if line is None:
            detail = "The request line must be a method, a path and HTTP/1.1."
            raise Problem(400, detail, field="request line")
        if head.count(b"\r\n", 0, end) - 2 > self._limits.headers:
            raise Problem(431, "The request has too many headers.", field="headers")
        if self._repeated:
            raise Problem(400, "This header must appear once.", field=_SPELLING[self._repeated])
        method, target, minor = line.groups()
        headers, self._headers = self._headers, {}
        host = headers.get(b"host")
        if host is None:
            if minor == b"1":
                raise Problem(400, "HTTP/1.1 needs a Host header.", field="Host")
        elif host != self._host:
            self._hosts.check(host)
            self._host = host
        if target[:1] != b"/" and (authority := authority_of(target)) is not None:
            self._hosts.check(authority)
        parsed = self._targets.parse(target)
        return Request(method, parsed, headers, minor == b"1", self.peer, self._memory)

    def _do_not_upgrade(self, head: bytes) -> None:
        """Reads a request to upgrade, which a route may ignore, as RFC 9110 §7.8 allows. llhttp
        would treat the following bytes as another protocol, so the head is read again without it.
        """
        if head.startswith(b"CONNECT "):
            raise Problem(400, "The request target must be a path.", field="target") from None
        wanted = self._headers.get(b"upgrade")
        self._parser = HttpRequestParser(self)
        self._headers, self._repeated = {}, b""
        try:
            self._parser.feed_data(_UPGRADE_LINE.sub(b"", head))
        except HttpParserError as error:
            raise _malformed(error, "head") from None
        if wanted is not None:
            self._headers[b"upgrade"] = wanted

    def _check_chunks(self, incoming_body: RequestBody) -> None:
        # If there is more data than the sizes say, llhttp would have refused it.
        if max(len(incoming_body.data), incoming_body.announced_bytes) > self._limits.body_bytes:
            raise self._too_large()
        self._check_overhead(incoming_body)

    def _check_overhead(self, incoming_body: RequestBody) -> None:
        if incoming_body.overhead_bytes() > self._limits.head_bytes:
            raise Problem(431, "The trailers or chunk extensions are too long.", field="body")

    def _too_large(self) -> Problem:
        detail = f"The body may have at most {self._limits.body_bytes} bytes (max_body)."
        return Problem(413, detail, field="body")


# The first byte of a TLS client, a handshake record.
_TLS_HANDSHAKE: Final = b"\x16"
_NO_TLS: Final = (
    "This port speaks plain HTTP: use http:// instead of https://, or turn TLS on with --tls-cert."
)


def _malformed(error: HttpParserError, part: str) -> Problem:
    what = str(error)
    field = _FIELD.search(what)
    return Problem(400, f"{what}.", field=field[0] if field else part)
