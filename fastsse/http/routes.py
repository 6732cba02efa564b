"""The route table: path and method to what answers them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError
from fastsse.http.cors import Cors
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import STATUS_LINES, Response
from fastsse.subscriptions import Subscription

__all__ = ["Exchange", "Handler", "Paths", "Route", "Routes"]


class Exchange(Protocol):
    """Where a handler gives its answer: exactly one call, now or later, on the loop thread.

    A call for a client that is gone does nothing.
    """

    @property
    def may_wait(self) -> bool:
        """False for one that is only asked whether the answer is a stream, here and now."""

    def respond(self, response: Response) -> None:
        """Answers."""

    def fail(self, error: FastsseError) -> None:
        """Answers with the problem that an error is."""

    def stream(self, subscription: Subscription, rights: Rights | None = None) -> None:
        """Hands the socket over to the sender as this stream, which may read private events as
        far as `rights` say."""

    def peer(self) -> str:
        """The client's address, for logs."""


Handler = Callable[[Request, Exchange], None]
# Looks at a request whose body is still to come, so that a hopeless one is not read.
Admission = Callable[[Request], None]


class Route(NamedTuple):
    """What answers one method of one path. Without `admit` the request may have no body.

    `streams` says that it opens streams and does nothing else of note, so that it may be asked
    before there is a connection, and asked again by that.
    """

    handle: Handler
    admit: Admission | None = None
    streams: bool = False


Paths = Mapping[bytes, Mapping[bytes, Route]]


class Routes:
    """The paths of one listener. HEAD is answered as GET; the connection leaves the body out.

    OPTIONS is answered here, for every path.
    """

    def __init__(self, paths: Paths, cors: Cors) -> None:
        self._cors = cors
        self._paths: dict[bytes, dict[bytes, Route]] = {}
        self._allow: dict[bytes, bytes] = {}
        for path, methods in paths.items():
            table = dict(methods)
            if b"GET" in table:
                table[b"HEAD"] = table[b"GET"]
            allow = b"Allow: %s\r\n" % b", ".join([*table, b"OPTIONS"])
            table[b"OPTIONS"] = Route(self._options)
            self._paths[path] = table
            self._allow[path] = allow
        # RFC 9110 §9.3.7: the server as a whole.
        self._paths[b"*"] = {b"OPTIONS": Route(self._options)}
        self._allow[b"*"] = b"Allow: GET, HEAD, POST, OPTIONS\r\n"

    def find(self, request: Request) -> Route:
        """The route of a request. O(1). Raises Problem (404, 405)."""
        path = request.target.path
        methods = self._paths.get(path)
        if methods is None:
            raise Problem(404, "Nothing is served under this path.")
        route = methods.get(request.method)
        if route is None:
            method = request.method.decode()
            allow = self._allow[path]
            raise Problem(405, f"{method} is not allowed here.", header_lines=allow)
        return route

    def _options(self, request: Request, exchange: Exchange) -> None:
        lines = self._allow[request.target.path] + self._cors.preflight_lines(request.headers)
        exchange.respond(Response(STATUS_LINES[204] + lines))
