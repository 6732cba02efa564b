"""One request of a mounted application: from its ASGI scope to the answer of its route."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple

from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, StreamRefused
from fastsse.http.client_address import UNIX
from fastsse.http.listener_context import ListenerContext
from fastsse.http.parser import KEPT_NAMES
from fastsse.http.problems import Problem, problem_of, problem_response
from fastsse.http.request import Memory, Request
from fastsse.http.responses import Response
from fastsse.subscriptions import Subscription

__all__ = [
    "AsgiExchange",
    "Call",
    "Scope",
    "Wanted",
    "client_gone",
    "client_of",
    "read_body",
    "read_request",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Call(NamedTuple):
    """What an ASGI server calls an application with."""

    scope: Scope
    receive: Receive
    send: Send


EVENTS_PATH: Final = b"/events"
_KEPT: Final = frozenset(KEPT_NAMES)


class Wanted(NamedTuple):
    """The stream that a request is to become."""

    subscription: Subscription
    rights: Rights | None


def read_request(scope: Scope, context: ListenerContext) -> Request:
    """The request of an ASGI scope, as a request for `/events`. Raises Problem (400)."""
    query: bytes = scope.get("query_string", b"")
    target = context.targets.parse(EVENTS_PATH + b"?" + query if query else EVENTS_PATH)
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _KEPT:
            headers[name] = headers[name] + b", " + value if name in headers else value
    client = scope.get("client")
    host = str(client[0]) if client else UNIX
    method: str = scope["method"]
    return Request(method.encode(), target, headers, True, host, Memory())


def client_of(scope: Scope) -> str:
    """The address of the client, for logs."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else UNIX


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """The whole body of a request. Raises Problem (413), or ConnectionError if the client is
    gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client closed the connection")
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            detail = f"The body must be at most {limit_bytes} bytes (max_body)."
            raise Problem(413, detail, field="Content-Length")
        if not message.get("more_body", False):
            return bytes(body)


async def client_gone(receive: Receive) -> None:
    """Returns when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless_gone(
    answered: "asyncio.Future[None]", receive: Receive, on_gone: Callable[[], None]
) -> None:
    """Waits for an answer. Raises ConnectionError when the client leaves before."""

    def leave(_: object) -> None:
        if not answered.done():
            answered.set_exception(ConnectionError("the client closed the connection"))

    gone = asyncio.get_running_loop().create_task(client_gone(receive))
    gone.add_done_callback(leave)
    try:
        await answered
    except BaseException:
        on_gone()
        raise
    finally:
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await gone


class AsgiExchange:
    """An exchange (`router.Exchange`) whose answer the mount awaits. Loop thread only.

    Arguments:
        context: the listener's.
        request: what was asked.
        client: the address of the client, for logs.
    """

    __slots__ = ("_answered", "_client", "_context", "_request", "outcome")

    may_wait: Final = True

    def __init__(self, context: ListenerContext, request: Request, client: str) -> None:
        self._context = context
        self._request = request
        self._client = client
        self.outcome: Response | Wanted | None = None
        self._answered: asyncio.Future[None] | None = None

    async def wait(self, receive: Receive) -> Response | Wanted:
        """Returns the answer when it is known. Raises ConnectionError when the client of a poll
        leaves before, and then the poll waits no longer."""
        if self.outcome is None:
            self._answered = asyncio.get_running_loop().create_future()
            on_gone = self._request.on_gone
            if on_gone is None:
                await self._answered
            else:
                await _unless_gone(self._answered, receive, on_gone)
        assert self.outcome is not None
        return self.outcome

    def respond(self, response: Response) -> None:
        """Answers."""
        request, context = self._request, self._context
        lines = context.cors.lines(request.headers) if context.cors.active else b""
        if request.terms is not None:
            lines += request.terms.lines
        context.requests.answered(request, response.head)
        body = b"".join((response.body, *response.shared))
        self._settle(Response(response.head + lines, body))

    def fail(self, error: FastsseError) -> None:
        """Answers with the problem for an error."""
        problem = problem_of(error)
        self._context.requests.refused(self._request, problem, self.peer())
        self.respond(problem_response(problem))

    def stream(self, subscription: Subscription, rights: Rights | None = None) -> None:
        """The request is to become this stream."""
        self._settle(Wanted(subscription, rights))

    def turn_away(self, subscription: Subscription, why: StreamRefused) -> None:
        """Answers a subscriber that cannot be taken now."""
        request, context = self._request, self._context
        answer = context.streams.turn_away(subscription, why, chunked=request.chunked)
        context.requests.turned_away(request, why, answer.head, self.peer())
        self.respond(answer)

    def peer(self) -> str:
        """The address of the client, for logs."""
        return self._client

    def _settle(self, outcome: Response | Wanted) -> None:
        self.outcome = outcome
        answered = self._answered
        if answered is not None and not answered.done():
            answered.set_result(None)
