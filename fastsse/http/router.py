"""The route table: finds the handler of a path and method."""

from asyncio import Transport
from collections.abc import Callable, Mapping
from contextlib import suppress
from socket import socket
from typing import Final, NamedTuple, Protocol

from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, StreamRefused
from fastsse.http.cors import Cors
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import STATUS_LINES, Response
from fastsse.reserved import HUB_PATH
from fastsse.subscriptions import Subscription
from fastsse.trails import NO_TRAIL, Trail

__all__ = [
    "BELOW",
    "MERCURE_SPOKEN",
    "BodyExchange",
    "BodyReader",
    "Exchange",
    "Handler",
    "Handoff",
    "Paths",
    "Route",
    "Router",
    "StreamRequest",
    "admit_length",
]


class Exchange(Protocol):
    """Takes the answer of a handler: exactly one call, now or later, on the loop thread.

    A call does nothing if the client has disconnected.
    """

    @property
    def may_wait(self) -> bool:
        """False for an exchange that only asks whether the immediate answer is a stream."""

    def respond(self, response: Response) -> None:
        """Answers."""

    def fail(self, error: FastsseError) -> None:
        """Answers with the problem for an error."""

    def stream(self, subscription: Subscription, rights: Rights | None = None) -> None:
        """Hands the socket over to the sender as this stream. `rights` say which private events it
        may read."""

    def turn_away(self, subscription: Subscription, why: StreamRefused) -> None:
        """Answers a subscriber that can't be accepted now, with a retry time."""

    def peer(self) -> str:
        """The address of the client, for logs."""


class StreamRequest(NamedTuple):
    """A stream that is to be opened.

    Attributes:
        subscription: what is sent.
        rights: the token's; None without one.
        chunked: false for HTTP/1.0.
        lines: more header lines, of which there are few distinct ones.
        client: the client's address, for logs.
        host: the address that limits are counted for.
        opened: called with the stream's handle.
        agent: the header `User-Agent`.
        trail: identifies the request in other systems: trace and request id.
        door_number: the TLS door's number of the connection, if the sender may take over its
            records; else 0.
    """

    subscription: Subscription
    rights: Rights | None
    chunked: bool
    lines: bytes
    client: str
    host: str
    opened: Callable[[int], None] | None = None
    agent: bytes = b""
    trail: Trail = NO_TRAIL
    door_number: int = 0


class Handoff(Protocol):
    """Takes sockets that become streams. Loop thread only."""

    def take(self, sock: socket, stream_request: StreamRequest) -> None:
        """Takes a socket that has no transport, and detaches it.

        Raises StreamRefused; then nothing has changed. After any error the caller owns `sock`.
        """

    def take_copy(self, transport: Transport, stream_request: StreamRequest) -> None:
        """As `take`, with a duplicate of the transport's socket; the transport is to be aborted."""

    def take_duplicate(self, descriptor: int, stream_request: StreamRequest) -> None:
        """As `take`, for a descriptor that stays the caller's."""

    def turn_away(
        self, subscription: Subscription, why: StreamRefused, *, chunked: bool
    ) -> Response:
        """The answer to a subscriber that was refused: the reason, and a retry time."""


class BodyReader(Protocol):
    """Takes a request body piece by piece. Loop thread only."""

    @property
    def held_bytes(self) -> int:
        """Bytes of earlier pieces that it still holds."""

    def feed(self, piece: bytes | bytearray) -> bool:
        """Takes the next piece. False: no more until it calls `BodyExchange.go_on`."""

    def end(self) -> None:
        """The body is complete: the request is to be answered, now or later."""

    def cut(self) -> None:
        """The connection was lost. No answer can be sent."""

    def leave(self, error: FastsseError) -> None:
        """The rest of the body is not read. Answers the request with this error after the pieces
        that were taken."""


class BodyExchange(Exchange, Protocol):
    """An exchange whose body is read piece by piece. An answer before the end of the body closes
    the connection, because the rest of the body is not read."""

    @property
    def is_open(self) -> bool:
        """Whether an answer can still be sent."""

    @property
    def event_bytes_max(self) -> int:
        """Bytes that one event of the body may take: the limit of a whole body."""

    def go_on(self) -> None:
        """The reader takes more pieces."""

    def start(self, head: bytes) -> None:
        """Begins an answer in chunks; only for a client that understands them. `head` as in
        Response."""

    def send(self, piece: bytes) -> None:
        """Sends a piece of an answer that was started."""

    def finish(self) -> None:
        """Ends an answer that was started."""


Handler = Callable[[Request, Exchange], None]
# Checks a request before its body is read, so that a refused body is not read.
Admission = Callable[[Request], None]


def admit_length(request: Request, most_bytes: int, detail: str) -> None:
    """Accepts a body of a known length, at most `most_bytes`. Raises Problem: 411 for another one,
    413 with `detail` for a longer one."""
    headers = request.headers
    if b"transfer-encoding" in headers:
        raise Problem(411, "The body must have a Content-Length.", field="Transfer-Encoding")
    if int(headers.get(b"content-length", b"0")) > most_bytes:
        raise Problem(413, detail, field="Content-Length")


# Reads the body of an admitted request piece by piece; None: the request is handled as a whole.
Reading = Callable[[Request, BodyExchange], BodyReader | None]


class Route(NamedTuple):
    """The handler of one method of one path. Without `admit` the request must not have a body.

    `streams` says that the handler opens streams and has no other effect. So it may be called
    before a connection exists, and again by the connection. `read` is asked after `admit`; a body
    that it reads may have any size.
    """

    handle: Handler
    admit: Admission | None = None
    streams: bool = False
    read: Reading | None = None


Paths = Mapping[bytes, Mapping[bytes, Route]]


BELOW: Final = b"/*"

# Paths that an option enables. A 404 names the option.
_ABSENT: Final = {
    path: f"This path is not enabled; the option {option} enables it."
    for option, paths in {
        "jwt_key": (b"/tickets", b"/renew", b"/revoke"),
        "subscriptions": (b"/presence", b"/.well-known/mercure/subscriptions"),
        "ping": (b"/pong",),
    }.items()
    for path in paths
}


MERCURE_SPOKEN: Final = (
    "this hub speaks Mercure 0.x: GET with topic=… (exact, a URI template, or *)"
)
# Methods that clients of other protocol versions send.
_FOREIGN: Final = {(b"QUERY", HUB_PATH.encode()): f"QUERY is Mercure 1.0; {MERCURE_SPOKEN}."}


class _Methods(NamedTuple):
    """The methods of one path, and the `Allow` header line."""

    table: dict[bytes, Route]
    allow: bytes
    label: str


class Router:
    """The paths of one listener; a path that ends with `/*` matches all paths below it.

    HEAD is handled as GET, and the connection omits the body. This class answers OPTIONS, for every
    path.
    """

    def __init__(self, paths: Paths, cors: Cors) -> None:
        self._cors = cors
        self._paths: dict[bytes, _Methods] = {}
        for path, methods in paths.items():
            table = dict(methods)
            if b"GET" in table:
                table[b"HEAD"] = table[b"GET"]
            allow = b"Allow: %s\r\n" % b", ".join([*table, b"OPTIONS"])
            table[b"OPTIONS"] = Route(self._options)
            self._paths[path] = _Methods(table, allow, path.decode())
        # RFC 9110 §9.3.7: the server as a whole.
        whole = b"Allow: GET, HEAD, POST, OPTIONS\r\n"
        self._paths[b"*"] = _Methods({b"OPTIONS": Route(self._options)}, whole, "*")
        self._folders = [path[:-1] for path in self._paths if path.endswith(BELOW)]

    def find(self, request: Request) -> Route:
        """The route of a request; sets `request.route` to its path. O(1). Raises Problem (404,
        405)."""
        methods = self._methods(request)
        request.route = methods.label
        route = methods.table.get(request.method)
        if route is None:
            method = request.method
            detail = f"{method.decode()} is not allowed here."
            detail = _FOREIGN.get((method, request.target.path), detail)
            raise Problem(405, detail, header_lines=methods.allow)
        return route

    def name(self, request: Request) -> None:
        """Sets the route path of a request that is refused before its route is looked up."""
        with suppress(Problem):
            request.route = self._methods(request).label

    def _methods(self, request: Request) -> _Methods:
        methods = self._paths.get(request.target.path)
        if methods is not None:
            return methods
        raw_path = request.target.raw_path
        for folder in self._folders:
            if raw_path.startswith(folder):
                return self._paths[folder + b"*"]
        raise Problem(404, self._why_absent(request.target.path))

    def _why_absent(self, path: bytes) -> str:
        if path in _ABSENT:
            return _ABSENT[path]
        near = path.rstrip(b"/").lower()
        hint = f" Did you mean {near.decode()}?" if near in self._paths else ""
        return f"Nothing is served under this path.{hint}"

    def _options(self, request: Request, exchange: Exchange) -> None:
        allow = self._methods(request).allow
        lines = allow + self._cors.preflight_lines(request.headers)
        exchange.respond(Response(STATUS_LINES[204] + lines))
