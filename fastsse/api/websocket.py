"""`GET /ws`: the stream of `GET /events` over WebSocket."""

from typing import Final

from fastsse.api.subscribe import Subscribe
from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, InvalidSubscription, StreamRefused
from fastsse.http.cors import Cors
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import Response
from fastsse.http.router import Exchange
from fastsse.http.websocket import WebSocketMissing, accept_websocket, new_framing
from fastsse.subscriptions import Subscription

__all__ = ["SubscribeByWebSocket"]

_MISSING: Final = "WebSocket needs the package wsproto: pip install 'fastsse[websocket]'."


class SubscribeByWebSocket:
    """Opens streams over WebSocket: the same parameters, rights, resume and limits.

    Arguments:
        subscribe: reads and admits the subscription.
        cors: the pages of other origins that may read. A browser opens a WebSocket from any page,
            with cookies, and does not check; so the server checks the origin.
    """

    def __init__(self, subscribe: Subscribe, cors: Cors) -> None:
        self._subscribe = subscribe
        self._cors = cors

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles GET. Raises Problem: 403 for a page of another origin, 426, 400, and 501 without
        wsproto; InvalidSubscription."""
        if request.method == b"HEAD":
            raise Problem(405, "HEAD is not allowed here.", header_lines=b"Allow: GET\r\n")
        self._cors.check_read(request.headers)
        if any(name == "wait" for name, _ in request.target.pairs):
            raise InvalidSubscription("wait", "is for GET /events; a WebSocket is a stream")
        request.websocket = accept_websocket(request)
        try:
            new_framing()
        except WebSocketMissing:
            raise Problem(501, _MISSING) from None
        self._subscribe(request, _Refusing(exchange))


class _Refusing:
    """An exchange (`router.Exchange`) that refuses a subscriber with an error status: a WebSocket
    can't open with a stream that ends at once."""

    __slots__ = ("_exchange", "may_wait")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.may_wait = exchange.may_wait

    def respond(self, response: Response) -> None:
        self._exchange.respond(response)

    def fail(self, error: FastsseError) -> None:
        self._exchange.fail(error)

    def stream(self, subscription: Subscription, rights: Rights | None = None) -> None:
        self._exchange.stream(subscription.refusing(), rights)

    def turn_away(self, subscription: Subscription, why: StreamRefused) -> None:
        self._exchange.turn_away(subscription.refusing(), why)

    def peer(self) -> str:
        return self._exchange.peer()
