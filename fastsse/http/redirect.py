"""Answers to HTTP without TLS: a redirect to https on the redirect port, a refusal on a port that
speaks TLS."""

from fastsse.http.cors import Cors
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import NOT_STORED, Response
from fastsse.http.router import Exchange, Route, Router

__all__ = ["PlainRefusal", "Redirect"]

_REDIRECTED = (b"GET", b"HEAD")


class PlainRefusal(Router):
    """The routes of connections that speak HTTP where TLS is expected: each request gets 400."""

    def __init__(self) -> None:
        super().__init__({}, Cors((), (), cross_publish=False))

    def find(self, request: Request) -> Route:
        """Raises Problem (400)."""
        raise Problem(400, "This port speaks TLS: use https:// instead of http://.", field="scheme")

    def name(self, request: Request) -> None:
        """Has no routes."""


class Redirect(Router):
    """The routes of the redirect port: GET of any path is sent to https on the same host.

    Other methods are refused, because their body and token have crossed the network in clear
    already, and a redirect would hide that.

    Arguments:
        port: of https; left out of the location if it is 443.
    """

    def __init__(self, port: int) -> None:
        super().__init__({}, Cors((), (), cross_publish=False))
        self._port = b"" if port == 443 else b":%d" % port

    def find(self, request: Request) -> Route:
        """The one route. Raises Problem (400) for a method that is not redirected."""
        request.route = "redirect"
        if request.method not in _REDIRECTED:
            raise Problem(400, "This port only redirects: send this to https://.", field="scheme")
        return Route(self._send_on)

    def name(self, request: Request) -> None:
        """Sets the route path of a request that is refused."""
        request.route = "redirect"

    def _send_on(self, request: Request, exchange: Exchange) -> None:
        host = _bare(request.headers.get(b"host", b""))
        if not host:
            raise Problem(400, "A redirect needs the Host header.", field="Host")
        target = request.target
        query = b"?" + target.query if target.query else b""
        place = b"https://%b%b%b%b" % (host, self._port, target.raw_path, query)
        location = b"Location: %b\r\n" % place
        exchange.respond(Response.of(308, b"", location + NOT_STORED))


def _bare(host: bytes) -> bytes:
    """A Host without its port."""
    if host.startswith(b"["):
        return host.partition(b"]")[0] + b"]"
    return host.partition(b":")[0]
