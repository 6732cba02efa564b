"""A request as its route sees it, and its target, decoded strictly."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from fastsse.auth.rights import Rights
from fastsse.http.problems import Problem

#: Values of a switch in a query, in lower case.
SWITCHES = {"true": True, "1": True, "false": False, "0": False}
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]+)", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CACHED_TARGET_BYTES = 512
_CACHED_TARGETS = 4096


class Target:
    """A request target: a path, and the query as decoded pairs.

    All requests with the same target share one object. So routes cache their results here, in
    `subscription` and `publication`.
    """

    __slots__ = ("pairs", "path", "publication", "query", "raw_path", "subscription")

    def __init__(
        self,
        path: bytes,
        pairs: tuple[tuple[str, str], ...],
        raw_path: bytes | None = None,
        query: bytes = b"",
    ) -> None:
        self.path = path
        #: The path as it was sent, for routes that decode a part of it.
        self.raw_path = path if raw_path is None else raw_path
        self.pairs = pairs
        #: The query as it was sent.
        self.query = query
        self.subscription: Any = None
        self.publication: Any = None


class Targets:
    """A cache of parsed targets: at most 4,096 of at most 512 bytes each."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[bytes, Target] = {}

    def parse(self, raw: bytes) -> Target:
        """The target of a request line. O(1) if it is in the cache. Raises Problem (400)."""
        target = self._kept.get(raw)
        if target is None:
            target = parse_target(raw)
            if len(raw) <= _CACHED_TARGET_BYTES:
                if len(self._kept) >= _CACHED_TARGETS:
                    self._kept.clear()
                self._kept[raw] = target
        return target


def authority_of(raw: bytes) -> bytes | None:
    """The host and port in a target of the absolute form, which replace the Host header (RFC 9112
    §3.2.2); None for other targets."""
    absolute = None if raw[:1] == b"/" else _ABSOLUTE_FORM.match(raw)
    return None if absolute is None else absolute[1]


def parse_target(raw: bytes) -> Target:
    """Reads the origin form, the absolute form and `*` (RFC 9112 §3.2). Raises Problem (400)."""
    if raw == b"*":
        return Target(b"*", ())
    if raw[:1] != b"/":
        absolute = _ABSOLUTE_FORM.match(raw)
        if absolute is None:
            raise Problem(400, "The request target must be a path.", field="target")
        raw = raw[absolute.end() :]
        if raw[:1] != b"/":
            raw = b"/" + raw
    if b"#" in raw:
        raise Problem(400, "The request target must not contain a fragment.", field="target")
    path, _, query = raw.partition(b"?")
    decoded = decode(path, "target", plus=False).encode() if b"%" in path else path
    return Target(decoded, tuple(pairs_of(query)), path, query)


def pairs_of(query: bytes) -> list[tuple[str, str]]:
    """A query, or the body of a form, as decoded pairs (WHATWG URL §5.1). Raises Problem (400)."""
    pairs = []
    for part in query.split(b"&"):
        if part:
            raw_name, _, raw_value = part.partition(b"=")
            name = decode(raw_name, "query")
            pairs.append((name, decode(raw_value, name)))
    return pairs


def decode(raw: bytes, field: str, *, plus: bool = True) -> str:
    """Percent-decodes; in a query `+` is a space (WHATWG URL §5.1).

    Raises Problem (400) that names `field` for an invalid escape or invalid UTF-8.
    """
    if plus:
        raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise Problem(400, "% must be followed by two hexadecimal digits.", field=field)
        raw = unquote_to_bytes(raw)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Problem(400, "Must be UTF-8.", field=field) from None


class Memory:
    """What a connection keeps from request to request; `shown` belongs to its access."""

    __slots__ = ("shown",)

    def __init__(self) -> None:
        self.shown: Any = None


class Request:
    """One request whose body, if any, is complete. `headers` holds the few headers that routes
    read, by lower-case name; values are not stripped."""

    __slots__ = (
        "body",
        "chunked",
        "headers",
        "is_counted",
        "memory",
        "method",
        "on_gone",
        "peer",
        "pending",
        "rights",
        "route",
        "target",
        "terms",
        "websocket",
    )

    def __init__(
        self,
        method: bytes,
        target: Target,
        headers: dict[bytes, bytes],
        chunked: bool,
        peer: str,
        memory: Memory,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        #: Whether the client understands chunked coding: HTTP/1.1.
        self.chunked = chunked
        #: The host of the peer, `unix`, or the client that a trusted proxy announced.
        self.peer = peer
        #: Whether the limits of its client have counted it already.
        self.is_counted = False
        #: The memory of its connection.
        self.memory = memory
        #: The path of its route in the route table, after the lookup.
        self.route = "other"
        #: `ticket_streams.Terms` of a request whose ticket was accepted.
        self.terms: Any = None
        #: The head that answers a request for a WebSocket, after its route has accepted it.
        self.websocket: bytes | None = None
        #: What its sender may publish, after the check; `pending` while it is being fetched.
        self.rights: Rights | None = None
        self.pending: Any = None
        #: Called when the client has disconnected before its answer. Set by a route that keeps
        #: something until it answers.
        self.on_gone: Callable[[], None] | None = None
        self.body: bytes | bytearray = b""
