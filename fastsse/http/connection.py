"""One HTTP/1.1 connection: from its first byte until it closes or becomes a stream.

Theory of operation. A connection is in one state; `_NEXT` has the pairs that may follow:

    HEAD       reads a request's head, or waits for one
    BODY       reads a request's body
    ANSWERING  the request is with its route
    HANDOVER   is a stream as soon as earlier answers left; ANSWERING again when it is refused
    REFUSING   what came is no request: it is answered, and nothing is read any more
    CLOSING    the last answer is written
    LINGERING  this side is closed, after a refusal or while idle; what still comes is read and
               dropped, because a reset could reach the peer before it has read the answer
    GONE       closed, or the sender's

It handles one request at a time. While an answer is pending, or the peer does not read, bytes
wait in `kept` and reading pauses; the kernel's window then holds the peer back.
"""

import asyncio
from enum import IntEnum
from typing import Final, cast

from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, StreamRefused
from fastsse.http.client_address import host_of, peer_of
from fastsse.http.deadlines import Deadline
from fastsse.http.listener_context import ListenerContext
from fastsse.http.parser import RequestParser
from fastsse.http.problems import Problem, problem_of, problem_response
from fastsse.http.request import Request
from fastsse.http.responses import CONTINUE, Response
from fastsse.http.router import Route
from fastsse.subscriptions import Subscription

__all__ = ["Connection"]


class ConnectionState(IntEnum):
    """What a connection does; see above."""

    HEAD = 0
    BODY = 1
    ANSWERING = 2
    HANDOVER = 3
    REFUSING = 4
    CLOSING = 5
    LINGERING = 6
    GONE = 7


HEAD, BODY, ANSWERING, HANDOVER, REFUSING, CLOSING, LINGERING, GONE = ConnectionState
# What may follow a state; `_become` raises for any other pair.
_NEXT: Final[dict[ConnectionState, frozenset[ConnectionState]]] = {
    HEAD: frozenset({BODY, ANSWERING, REFUSING, CLOSING, LINGERING, GONE}),
    BODY: frozenset({ANSWERING, REFUSING, GONE}),
    ANSWERING: frozenset({HEAD, HANDOVER, REFUSING, CLOSING, GONE}),
    HANDOVER: frozenset({ANSWERING, REFUSING, GONE}),
    REFUSING: frozenset({LINGERING, GONE}),
    CLOSING: frozenset({GONE}),
    LINGERING: frozenset({GONE}),
    GONE: frozenset({GONE}),
}
# Requests of one connection that are handled before others have their turn.
REQUESTS_A_TURN: Final = 64
_Wish = tuple[Subscription, Rights | None, bool]


class Connection(asyncio.Protocol):
    """The protocol of every accepted socket. Loop thread only."""

    __slots__ = (
        "_at_eof",
        "_choked",
        "_context",
        "_kept",
        "_parser",
        "_persists",
        "_proceeding",
        "_request",
        "_route",
        "_state",
        "_transport",
        "_wait",
        "_wanted",
    )

    def __init__(self, context: ListenerContext, early: bytes = b"", peer: str = "") -> None:
        """`early` are bytes that were read before there was a transport; `peer` is the other
        side's host when a proxy has announced it already."""
        self._context = context
        self._state: ConnectionState = HEAD
        self._parser = RequestParser(context.limits, context.targets, context.hosts)
        self._parser.peer = peer
        self._transport = cast(asyncio.Transport, None)
        self._wait = context.deadlines.head
        self._request: Request | None = None
        self._route: Route | None = None  # That admitted the body under way.
        self._wanted: _Wish | None = None  # What it is to become.
        self._kept = early  # Bytes that nobody has looked at.
        self._persists = True
        self._at_eof = False
        self._choked = self._proceeding = False

    #: Of a route's answer, as an exchange: it may come later.
    may_wait: Final = True

    # ── Events of the transport ──────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        parser, clients = self._parser, self._context.clients
        if not parser.peer:
            parser.peer = host_of(transport.get_extra_info("peername"))
            parser.is_announced = clients.expects_header(parser.peer)
        deadlines = self._context.deadlines
        deadlines.head.since[self] = deadlines.time()
        self._context.arrived(self)
        if self._kept and self._state == HEAD:
            early, self._kept = self._kept, b""
            self._proceed(early)

    def connection_lost(self, exc: Exception | None) -> None:
        self._become(GONE)
        self._context.deadlines.leave(self, self._wait)
        self._context.uncount_upload(self._parser.incoming_body)
        self._parser.close()
        self._request = self._wanted = None
        self._kept = b""

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state <= BODY and not self._kept:
            self._proceed(data)
        elif state == HANDOVER:
            self._transport.abort()
        elif state <= ANSWERING:
            self._kept += data
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        if self._state in (ANSWERING, HANDOVER) or (self._state <= BODY and self._kept):
            # A client may shut its side down and still wait for what it asked before.
            self._at_eof = True
            return True
        return False

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._context.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """The peer reads again, so what waited for that goes on, in a turn of its own: a transport
        may not be closed while it calls `resume_writing`. asyncio's goes on with itself behind
        that call, and would report the end twice."""
        if self._state == HANDOVER:
            self._hand_over()
        elif self._kept:
            self._resume()

    # ── Orders of the site ───────────────────────────────────────────────────────────────────

    def on_overdue(self, wait: Deadline) -> None:
        """Its time in `wait` is over."""
        deadlines = self._context.deadlines
        if wait is deadlines.head and self._parser.is_within_head:
            self._refuse(Problem(408, "The request's head took too long.", field="head"))
        elif wait is deadlines.body and self._state == BODY:
            self._refuse(Problem(408, "The request's body took too long.", field="body"))
        elif wait is deadlines.idle:
            self.close()
        else:
            self._transport.abort()

    def close(self) -> None:
        """Closes when nothing is under way, else after the answer. A request may be on its way all
        the same: so only this side is closed at first, and what comes is read away. A reset would
        look to the client as if its request had been lost in the middle."""
        if self._state == HEAD and not self._parser.is_within_head and not self._kept:
            self._end(LINGERING)

    def abort(self) -> None:
        """Closes at once, whatever is under way."""
        self._transport.abort()

    def evict(self) -> None:
        """As `abort`, and is counted no more from here on."""
        self._context.deadlines.leave(self, self._wait)
        self._transport.abort()

    # ── Reading ──────────────────────────────────────────────────────────────────────────────

    def _proceed(self, data: bytes) -> None:
        """Handles the requests in `data` until one is incomplete, its answer is pending, the peer
        does not read, or others shall have their turn."""
        self._proceeding = True
        turns = REQUESTS_A_TURN
        try:
            while data and turns and not self._choked:
                if self._state == HEAD:
                    data = self._read_head(data)
                    turns -= 1
                elif self._state == BODY:
                    data = self._read_body(data)
                else:
                    break
        except FastsseError as error:
            self._refuse(problem_of(error))
        except Exception:
            self._context.failed(self._request)
            self._refuse(Problem(500, "The server could not do this."))
        self._proceeding = False
        state = self._state
        if state == HANDOVER:
            self._settle(data)
        elif data and state <= ANSWERING:
            self._kept = data
            self._transport.pause_reading()
            if state != ANSWERING and not self._choked:
                self._context.loop.call_soon(self._resume)
        elif state == BODY:
            self._await_body()
        elif self._at_eof and state == HEAD:
            self._end(CLOSING)

    def _resume(self) -> None:
        """Goes on with the bytes that were kept, and reads again."""
        if self._proceeding or self._choked or self._state > BODY:
            return
        data, self._kept = self._kept, b""
        if data:
            self._transport.resume_reading()
            self._proceed(data)

    def _read_head(self, data: bytes) -> bytes:
        """Takes a head from the front of `data`; returns what is left."""
        parser = self._parser
        request, data = parser.read_head(data)
        if request is None:
            if self._wait is not self._context.deadlines.head:
                self._await(self._context.deadlines.head)
            return data
        self._request = request
        self._persists = parser.persists
        try:
            has_body = parser.expect_body(request)
        except Problem:
            self._context.routes.name(request)
            raise
        if has_body:
            self._admit_body(request)
        else:
            route = self._find_route(request)
            if route is not None:
                self._answer(request, route)
        return data

    def _find_route(self, request: Request) -> Route | None:
        """The route of a request without a body, admitted; else the client is told."""
        try:
            route = self._context.routes.find(request)
            if route.admit is not None:
                route.admit(request)
        except FastsseError as error:
            self._become(ANSWERING)
            self.fail(error)
            return None
        return route

    def _admit_body(self, request: Request) -> None:
        """Refuses a body that nobody wants before it is read."""
        route = self._context.routes.find(request)
        if route.admit is None:
            raise Problem(400, "This request takes no body.", field="Content-Length")
        route.admit(request)
        expected = request.headers.get(b"expect")
        if expected is not None and request.chunked:
            if expected.strip().lower() != b"100-continue":
                raise Problem(417, "Only 100-continue can be expected.", field="Expect")
            self._transport.write(CONTINUE)
        self._route = route
        self._become(BODY)

    def _read_body(self, data: bytes) -> bytes:
        """Takes a body, or a part of one, from the front of `data`; returns what is left."""
        incoming_body = self._parser.incoming_body
        body, data = self._parser.read_body(data)
        if body is not None:
            request, route = self._request, self._route
            assert request is not None
            assert route is not None
            self._context.uncount_upload(incoming_body)
            request.body = body
            self._answer(request, route)
        return data

    def _await_body(self) -> None:
        """The rest of a body is still to come."""
        if self._wait is not self._context.deadlines.body:
            self._await(self._context.deadlines.body)
        try:
            self._context.count_upload(self._parser.incoming_body)
        except Problem as problem:
            self._refuse(problem)

    # ── Answering (routes.Exchange) ──────────────────────────────────────────────────────────

    def _answer(self, request: Request, route: Route) -> None:
        self._become(ANSWERING)
        try:
            route.handle(request, self)
        except FastsseError as error:
            self.fail(error)
        if self._state == ANSWERING:
            self._await(self._context.deadlines.answer)

    def respond(self, response: Response) -> None:
        """Answers the request. Does nothing when the client is gone."""
        if self._state not in (ANSWERING, REFUSING):
            return
        request, context = self._request, self._context
        head, body = response
        lines = b""
        if context.draining:
            self._persists = False
        if request is not None:
            if context.cors.active:
                lines = context.cors.lines(request.headers)
            if request.terms is not None:
                lines += request.terms.lines
            if self._persists and not request.chunked:
                lines += b"Connection: keep-alive\r\n"
            if request.method == b"HEAD":
                body = b""
        if not self._persists:
            lines += b"Connection: close\r\n"
        self._transport.write(b"".join((head, lines, b"\r\n", body)))
        context.requests.answered(request, head)
        self._request = None
        if self._persists:
            self._become(HEAD)
            self._await_next()
        else:
            self._end(LINGERING if self._state == REFUSING else CLOSING)

    def fail(self, error: FastsseError) -> None:
        """Answers with the problem that an error is, and notes it."""
        if self._state in (ANSWERING, REFUSING):
            problem = problem_of(error)
            self._context.requests.refused(self._request, problem, self.peer())
            self.respond(problem_response(problem))

    def stream(
        self, subscription: Subscription, rights: Rights | None = None, *, pings: bool = False
    ) -> None:
        """Hands the socket over to the sender, as soon as earlier answers have left."""
        if self._state == ANSWERING:
            self._become(HANDOVER)
            self._wanted = subscription, rights, pings
            if not self._proceeding:
                self._settle(b"")

    def peer(self) -> str:
        """The client's address, for logs."""
        request, context = self._request, self._context
        if request is not None and context.clients.active:
            return context.client(request)
        return peer_of(self._transport)

    def _refuse(self, problem: Problem) -> None:
        """Answers what could not be read as a request, and closes: where the next one begins is
        unknown. The peer may still be sending, so its bytes are read away for a while."""
        self._context.uncount_upload(self._parser.incoming_body)
        self._kept = b""
        self._persists = False
        if self._state < REFUSING:
            self._become(REFUSING)
        self.fail(problem)

    def _end(self, state: ConnectionState) -> None:
        """Closes, CLOSING or LINGERING, once what was written is sent."""
        self._become(state)
        if state == LINGERING:
            self._await(self._context.deadlines.linger)
            self._transport.resume_reading()
            self._transport.write_eof()
        else:
            self._await(self._context.deadlines.answer)
            self._transport.close()

    # ── Becoming a stream ────────────────────────────────────────────────────────────────────

    def _settle(self, data: bytes) -> None:
        """A subscription was accepted: go on when nothing follows it and all is written."""
        if data or self._kept:
            self._transport.abort()
        elif self._transport.get_write_buffer_size():
            self._await(self._context.deadlines.body)
            self._transport.set_write_buffer_limits(0)
        else:
            self._context.loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Gives the sender a duplicate of the socket and closes the original, if the connection
        still waits for that. Never called by a transport's own callback; see `_go_on`.

        The loop only takes back its own registration and closes its own descriptor; the
        `connection_lost` that follows is no disconnect.
        """
        if self._state != HANDOVER or self._transport.get_write_buffer_size():
            return
        context, request, wanted = self._context, self._request, self._wanted
        assert request is not None
        assert wanted is not None
        try:
            stream_request = context.stream_request(*wanted, request, peer_of(self._transport))
            context.streams.take_copy(self._transport, stream_request)
        except StreamRefused as why:
            answer = context.streams.turn_away(wanted[0], why, chunked=request.chunked)
            context.requests.turned_away(request, why, answer.head, self.peer())
            self._become(ANSWERING)
            self._persists = False
            self.respond(answer)
        except Exception:
            context.failed(request)
            self._transport.abort()
        else:
            self._become(GONE)
            context.deadlines.leave(self, self._wait)
            self._transport.abort()
            context.requests.opened(request)

    # ── States and waiting ───────────────────────────────────────────────────────────────────

    def _become(self, state: ConnectionState) -> None:
        """Goes to another state. Raises RuntimeError for a pair that the table does not have."""
        if state not in _NEXT[self._state]:
            raise RuntimeError(f"a connection in {self._state.name} can't become {state.name}")
        self._state = state

    def _await(self, wait: Deadline) -> None:
        self._wait.since.pop(self, None)
        self._wait = wait
        wait.since[self] = self._context.deadlines.time()

    def _await_next(self) -> None:
        """Waits for the next request, or goes on with it when its bytes are here."""
        deadlines = self._context.deadlines
        if self._wait is not deadlines.idle or deadlines.idle.since[self] != deadlines.lately_s:
            self._wait.since.pop(self, None)
            self._wait = deadlines.idle
            deadlines.idle.since[self] = deadlines.lately_s
        if not self._proceeding:
            if self._kept:
                self._resume()
            elif self._at_eof:
                self._end(CLOSING)
