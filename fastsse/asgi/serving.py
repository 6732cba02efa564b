"""The requests of a mounted application: answered by the routes of the server, or made streams."""

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from fastsse.asgi.engine import Engine
from fastsse.asgi.exchange import AsgiExchange, Call, Wanted, client_of, read_body, read_request
from fastsse.asgi.grants import Authorize, rights_of
from fastsse.asgi.relaying import StreamCut, relay, relay_pair
from fastsse.asgi.responses import LAST, ResponseReader
from fastsse.asgi.servers import ServerConnection, Unreached, reach
from fastsse.asgi.viewers import Viewers
from fastsse.errors import FastsseError, StreamRefused
from fastsse.http.descriptors import out_of_descriptors
from fastsse.http.listener_context import ListenerContext
from fastsse.http.problems import Problem
from fastsse.http.request import Memory, Request, Target
from fastsse.http.responses import Response
from fastsse.http.router import StreamRequest
from fastsse.log import get_logger

__all__ = ["Serving", "serve_request"]

log = get_logger("asgi")
NATIVE: Final = "native"


class Serving:
    """What the requests of a mount share. Loop thread only.

    Arguments:
        authorize: as of `mount`.
        on_relays: called with the number of copied streams when it has changed.

    `ways` counts streams by how they are sent: `native`, or why a task copies them.
    """

    def __init__(self, authorize: Authorize | None, on_relays: Callable[[int], None]) -> None:
        self.authorize: Final = authorize
        self.ways: Final = Counter({NATIVE: 0})
        self.viewers: Final = Viewers()
        self._on_relays = on_relays
        self._relays = 0
        self._warned: set[str] = set()

    def counters(self) -> dict[str, int]:
        """Streams by how they are sent, under the names of the metrics."""
        return {f"mounted_{way}": count for way, count in self.ways.items()}

    def count_relay(self, change: int) -> None:
        """A copied stream begins (1) or has ended (-1)."""
        self._relays += change
        self._on_relays(self._relays)

    def find(self, call: Call) -> tuple[ServerConnection | None, str | None]:
        """The connection of a request, if it can be reached, and why its socket can't be taken."""
        try:
            connection = reach(call.send)
        except Unreached as unreached:
            self._warn(unreached)
            return None, unreached.way
        is_other = call.scope["http_version"] != "1.1"
        return connection, "http" if is_other else connection.objection

    def _warn(self, unreached: Unreached) -> None:
        if unreached.server in self._warned:
            return
        self._warned.add(unreached.server)
        log.warning(
            "Sockets of this ASGI server can't be taken; a task copies each stream.",
            server=unreached.server,
            reason=unreached.way,
        )


async def serve_request(engine: Engine, serving: Serving, call: Call) -> None:
    """Answers one request, or makes it a stream."""
    context, client = engine.context, client_of(call.scope)
    try:
        request = read_request(call.scope, context)
    except FastsseError as error:
        unread = Request(b"GET", Target(b"/events", ()), {}, True, client, Memory())
        exchange = AsgiExchange(context, unread, client)
        exchange.fail(error)
        await _respond(exchange, call)
        return
    exchange = AsgiExchange(context, request, client)
    try:
        await _route(engine, serving, call, request, exchange)
        answer = await exchange.wait(call.receive)
    except ConnectionError:
        return  # The client is gone.
    if isinstance(answer, Wanted):
        try:
            await _open(context, serving, answer, request, call)
            return
        except StreamRefused as why:
            exchange.turn_away(answer.subscription, why)
    await _respond(exchange, call)


async def _route(
    engine: Engine,
    serving: Serving,
    call: Call,
    request: Request,
    exchange: AsgiExchange,
) -> None:
    """Has the route of a request answer. Raises ConnectionError."""
    try:
        route = engine.context.routes.find(request)
        if serving.authorize is not None and request.method != b"OPTIONS":
            request.rights = await rights_of(serving.authorize, call.scope)
        if route.admit is not None:
            route.admit(request)
            request.body = await read_body(call.receive, engine.config.max_body)
        route.handle(request, exchange)
    except FastsseError as error:
        exchange.fail(error)
    except ConnectionError:
        raise
    except Exception:
        engine.context.failed(request)
        exchange.fail(Problem(500, "The application failed to handle this request."))


async def _open(
    context: ListenerContext,
    serving: Serving,
    wanted: Wanted,
    request: Request,
    call: Call,
) -> None:
    """Opens a stream, and copies it where its socket can't be taken. Raises StreamRefused, and then
    nothing was sent."""
    stream_request = context.stream_request(*wanted, request, client_of(call.scope))
    connection, way = serving.find(call)
    if way is None:
        assert connection is not None
        context.streams.take_duplicate(connection.fileno(), stream_request)
        serving.viewers.opened(wanted.subscription.selectors)
        context.requests.opened(request)
        serving.ways[NATIVE] += 1
        await connection.leave()
        return
    ours = _open_pair(context, stream_request)
    serving.viewers.opened(wanted.subscription.selectors)
    context.requests.opened(request)
    serving.ways[way] += 1
    serving.count_relay(1)
    try:
        is_complete = await relay(ours, call.receive, call.send)
    finally:
        serving.count_relay(-1)
    if not is_complete and (connection is None or not connection.cut()):
        raise StreamCut("The stream ends here; the client continues with a new request.")


def _open_pair(context: ListenerContext, stream_request: StreamRequest) -> socket.socket:
    """Gives the sender one end of a pair; returns the other. Raises StreamRefused."""
    try:
        theirs, ours = relay_pair()
    except OSError as error:
        if not out_of_descriptors(error):
            raise
        raise StreamRefused("full") from None
    try:
        context.streams.take(theirs, stream_request)
    except BaseException:
        theirs.close()
        ours.close()
        raise
    return ours


async def _respond(exchange: AsgiExchange, call: Call) -> None:
    """Sends the answer of a route."""
    answer = exchange.outcome
    assert isinstance(answer, Response)
    has_body, send = call.scope["method"] != "HEAD", call.send
    reader = ResponseReader(has_body=has_body)
    body = answer.body if has_body else b""
    for message in reader.feed(b"".join((answer.head, b"\r\n", body))):
        await send(message)
    is_complete = reader.is_complete
    reader.close()
    if is_complete:
        await send(LAST)
        return
    with contextlib.suppress(Unreached):
        if reach(send).cut():
            return
    raise StreamCut("The stream was not opened; the client tries again.")
