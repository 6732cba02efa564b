"""One HTTP/1.1 connection, from its first byte until it closes or becomes a stream.

A connection is in one state; `_NEXT` lists the allowed transitions:

    HEAD       reads a request head, or waits for one
    BODY       reads a request body: as a whole, or in pieces for the `BodyReader` of its route
    ANSWERING  the route handles the request
    HANDOVER   becomes a stream when earlier answers are sent; ANSWERING again if it is refused
    REFUSING   the input is not a valid request: it is answered, and nothing more is read
    CLOSING    the last answer is written
    LINGERING  this side is closed, after a refusal or while idle; further input is read and
               discarded, because a reset could reach the peer before it has read the answer
    GONE       closed, or owned by the sender

It handles one request at a time. While an answer is pending, or the peer does not read, received
bytes wait in `_kept` and reading pauses. Then TCP flow control stops the peer.

What arrives is first offered to the intake of its listener, which takes usual publishes; they are
ANSWERING then, several of a pipeline at once. Every other request is read here.

Over 400 lines: a connection is one state machine.
"""

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, cast

from fastsse._intake import KnownTarget, Lane, RunHeaders
from fastsse.auth.rights import Rights
from fastsse.errors import FastsseError, StreamRefused, Unavailable
from fastsse.http.client_address import host_of, peer_of
from fastsse.http.deadlines import Deadline
from fastsse.http.listener_context import ListenerContext
from fastsse.http.parser import RequestParser
from fastsse.http.problems import Problem, problem_of, problem_response
from fastsse.http.request import Request
from fastsse.http.responses import CONTINUE, Response, json_response
from fastsse.http.router import BodyReader, Route, StreamRequest
from fastsse.http.websocket import (
    WebSocketBridge,
    ended_websocket,
    new_framing,
    open_pair,
)
from fastsse.subscriptions import Subscription
from fastsse.trails import REQUEST_ID, request_id_line

__all__ = ["Connection"]


class ConnectionState(IntEnum):
    """The state of a connection; see the module."""

    HEAD = 0
    BODY = 1
    ANSWERING = 2
    HANDOVER = 3
    REFUSING = 4
    CLOSING = 5
    LINGERING = 6
    GONE = 7


HEAD, BODY, ANSWERING, HANDOVER, REFUSING, CLOSING, LINGERING, GONE = ConnectionState
# Allowed next states; `_become` raises for any other pair.
_NEXT: Final[dict[int, frozenset[ConnectionState]]] = {
    HEAD: frozenset({BODY, ANSWERING, REFUSING, CLOSING, LINGERING, GONE}),
    BODY: frozenset({ANSWERING, REFUSING, GONE}),
    ANSWERING: frozenset({HEAD, HANDOVER, REFUSING, CLOSING, GONE}),
    HANDOVER: frozenset({ANSWERING, REFUSING, GONE}),
    REFUSING: frozenset({LINGERING, GONE}),
    CLOSING: frozenset({GONE}),
    LINGERING: frozenset({GONE}),
    GONE: frozenset({GONE}),
}
# Requests of one connection that are handled in one turn of the loop.
REQUESTS_A_TURN: Final = 64
# Larger bodies are sent from where they are.
_COPIED_BYTES_MAX: Final = 32 * 1024
_Wish = tuple[Subscription, Rights | None]


class Connection(Lane, asyncio.Protocol):
    """The protocol of every accepted socket. Loop thread only."""

    __slots__ = (
        "_context",
        "_door_number",
        "_is_given_back",
        "_is_held",
        "_name",
        "_parser",
        "_persists",
        "_proceeding",
        "_reader",
        "_request",
        "_route",
        "_wanted",
    )

    def __init__(
        self,
        context: ListenerContext,
        early: bytes = b"",
        peer: str = "",
        name: str = "",
        door_number: int = 0,
    ) -> None:
        """`early` are the bytes read before the transport existed; `peer` is the host of the client
        if a proxy has announced it already, or if the socket is the end of a pair; then `name` is
        its address for logs. `door_number` as in `StreamRequest`."""
        self._context = context
        self._door_number = door_number
        self._state = HEAD
        self._parser = RequestParser(context.limits, context.targets, context.hosts)
        self._parser.peer = peer
        self._name = name
        self._transport = cast(asyncio.Transport, None)
        self._wait = context.deadlines.head
        self._request: Request | None = None
        self._route: Route | None = None  # The route that admitted the current body.
        self._reader: BodyReader | None = None  # It takes the current body piece by piece.
        self._is_held = False  # It takes no more pieces for now.
        self._is_given_back = False  # The next request was taken, and given back.
        self._wanted: _Wish | None = None  # The stream to become.
        self._kept = early  # Bytes not parsed yet.
        self._persists = True
        self._proceeding = False
        self._join_intake(context.intake)

    #: As an exchange: a route may answer later.
    may_wait: Final = True

    # ── Events of the transport ──────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        parser, clients = self._parser, self._context.clients
        if not parser.peer:
            parser.peer = host_of(transport.get_extra_info("peername"))
            parser.is_announced = self._is_within = clients.expects_header(parser.peer)
        deadlines = self._context.deadlines
        deadlines.head.since[self] = deadlines.time()
        self._context.arrived(self)
        if self._kept and self._state == HEAD:
            early, self._kept = self._kept, b""
            self._proceed(early)

    def connection_lost(self, exc: Exception | None) -> None:
        self._become(GONE)
        self._context.deadlines.leave(self, self._wait)
        self._context.unsent.drop(self)
        self._context.uncount_upload(self._parser.incoming_body)
        self._parser.close()
        reader, self._reader = self._reader, None
        request, self._request = self._request, None
        self._wanted = None
        self._kept = b""
        if reader is not None:
            reader.cut()
        elif request is not None and request.on_gone is not None:
            request.on_gone()

    def on_data(self, data: bytes) -> None:
        """Received bytes that the intake did not take."""
        state = self._state
        if state <= BODY and not self._kept and not self._is_held:
            self._proceed(data)
        elif state == HANDOVER:
            self._transport.abort()
        elif state <= ANSWERING:
            self._kept += data
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        has_more = bool(self._kept) or self._is_held
        if self._state in (ANSWERING, HANDOVER) or (self._state <= BODY and has_more):
            # A client may shut down its side and still wait for its answer.
            self._at_eof = True
            return True
        return False

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._context.unsent.drop(self)
        self._context.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Continues after the peer reads again, in a later turn of the loop. A transport must not
        be closed while it calls `resume_writing`: asyncio's transport uses itself after that call
        and would report the end twice."""
        if self._state == HANDOVER:
            self._hand_over()
        elif self._kept:
            self._resume()

    # ── Called by the listener ───────────────────────────────────────────────────────────────

    @property
    def is_answering(self) -> bool:
        """Whether it has a request without an answer."""
        return self._state == ANSWERING

    def on_overdue(self, wait: Deadline) -> None:
        """Its deadline `wait` has passed."""
        deadlines = self._context.deadlines
        if wait is deadlines.head and self._parser.is_within_head:
            self._refuse(Problem(408, "The request head did not arrive in time.", field="head"))
        elif wait is deadlines.body and self._state == BODY:
            self._refuse(Problem(408, "The request body did not arrive in time.", field="body"))
        elif wait is deadlines.piece and self._state == BODY:
            self._refuse(Problem(408, "The body did not go on in time.", field="body"))
        elif wait is deadlines.idle:
            if self._state == ANSWERING:  # For the intake, which leaves it where it waits.
                self._await(deadlines.answer)
            else:
                self.close()
        else:
            self._transport.abort()

    def close(self) -> None:
        """Closes now if the connection is idle, else after the answer. The client may have sent a
        request that has not arrived yet. So only the sending side is closed at first, and further
        input is discarded. After a reset the client could not know whether its request was
        handled."""
        if self._state == HEAD and not self._parser.is_within_head and not self._kept:
            self._end(LINGERING)
        elif self._reader is not None:
            self._reader.leave(Unavailable("draining", 1))

    def abort(self) -> None:
        """Closes at once in any state."""
        self._transport.abort()

    def evict(self) -> None:
        """As `abort`; the connection is no longer counted."""
        self._context.deadlines.leave(self, self._wait)
        self._transport.abort()

    # ── Reading ──────────────────────────────────────────────────────────────────────────────

    def _proceed(self, data: bytes) -> None:
        """Handles the requests in `data` until one is incomplete, an answer is pending, the peer
        does not read, or this turn has handled enough."""
        self._proceeding = True
        turns = REQUESTS_A_TURN
        try:
            while data and turns and not self._choked and not self._is_held:
                if self._state == HEAD:
                    taken = self._offer(data)
                    data = data[taken:] if taken else self._read_head(data)
                    turns -= 1
                elif self._state == BODY:
                    data = self._read_body(data) if self._reader is None else self._read_piece(data)
                else:
                    break
        except FastsseError as error:
            self._refuse(problem_of(error))
            data = b""
        except Exception:
            self._context.failed(self._request)
            self._refuse(Problem(500, "The server failed to handle this request."))
            data = b""
        self._proceeding = False
        state = self._state
        if state == HANDOVER:
            self._settle(data)
        elif self._reader is not None:
            self._await_piece(data)
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
        """Handles the bytes in `kept` and resumes reading."""
        if self._proceeding or self._choked or self._is_held or self._state > BODY:
            return
        data, self._kept = self._kept, b""
        if data:
            self._transport.resume_reading()
            self._proceed(data)

    def _offer(self, data: bytes) -> int:
        """Lets the intake take publishes from the front of `data`; returns their bytes."""
        intake = self._context.intake
        if intake is None or self._is_within or self._is_given_back:
            return 0
        return intake.offer(self, data)

    def _read_head(self, data: bytes) -> bytes:
        """Takes a head from the front of `data`; returns the rest."""
        parser = self._parser
        request, data = parser.read_head(data)
        self._is_within = request is None
        if request is None:
            if self._wait is not self._context.deadlines.head:
                self._await(self._context.deadlines.head)
            return data
        self._request = request
        self._persists = parser.persists
        request.is_counted, self._is_given_back = self._is_given_back, False
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
        """The route of a request without a body, admitted; else answers with a problem and returns
        None."""
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
        """Refuses an unwanted body before it is read."""
        route = self._context.routes.find(request)
        if route.read is None:
            self._parser.check_size()
        if route.admit is None:
            raise Problem(400, "This request must not have a body.", field="Content-Length")
        route.admit(request)
        expected = request.headers.get(b"expect") if request.chunked else None
        if expected is not None and expected.strip().lower() != b"100-continue":
            raise Problem(417, "The only supported expectation is 100-continue.", field="Expect")
        if route.read is not None:
            self._reader = route.read(request, self)
            if self._reader is None:
                self._parser.check_size()
        if expected is not None:
            self._transport.write(CONTINUE)
        self._route = route
        self._become(BODY)

    def _read_body(self, data: bytes) -> bytes:
        """Takes a body, or a part of one, from the front of `data`; returns the rest."""
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

    def _read_piece(self, data: bytes) -> bytes:
        """Gives the reader what `data` has of its body; returns the rest."""
        reader, incoming_body = self._reader, self._parser.incoming_body
        assert reader is not None
        assert incoming_body is not None
        try:
            piece, is_last, data = self._parser.read_piece(data)
        except Problem:
            reader.feed(incoming_body.take())  # What came before the malformed part.
            raise
        if piece and not reader.feed(piece):
            self._is_held = True
        if self._state != BODY:  # The reader has refused it.
            self._context.uncount_upload(incoming_body)
            return b""
        incoming_body.held_bytes = reader.held_bytes
        if is_last:
            self._context.uncount_upload(incoming_body)
            self._is_held = False
            self._reader = None
            self._become(ANSWERING)
            self._await(self._context.deadlines.answer)
            reader.end()
        else:
            self._context.count_upload(incoming_body)
        return data

    def _await_piece(self, data: bytes) -> None:
        """Waits for the next piece of a body, or for its reader; `data` is for later."""
        deadlines = self._context.deadlines
        if data or self._is_held:
            self._kept = data
            self._transport.pause_reading()
            self._await(deadlines.answer)
            if not self._is_held and not self._choked:
                self._context.loop.call_soon(self._resume)
        elif self._at_eof:
            self._transport.abort()
        else:
            self._await(deadlines.piece)

    def _await_body(self) -> None:
        """Waits for the rest of a body."""
        if self._wait is not self._context.deadlines.body:
            self._await(self._context.deadlines.body)
        try:
            self._context.count_upload(self._parser.incoming_body)
        except Problem as problem:
            self._refuse(problem)

    # ── Answering (router.Exchange) ──────────────────────────────────────────────────────────

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
        head, body, shared = response
        lines = context.lines
        if context.draining:
            self._persists = False
        if request is not None:
            if context.cors.active:
                lines += context.cors.lines(request.headers)
            if request.terms is not None:
                lines += request.terms.lines
            if REQUEST_ID in request.headers:
                lines += request_id_line(request.headers)
            if self._persists and not request.chunked:
                lines += b"Connection: keep-alive\r\n"
            if request.method == b"HEAD":
                body, shared = b"", ()
        if not self._persists:
            lines += b"Connection: close\r\n"
        if shared or len(body) > _COPIED_BYTES_MAX:
            self._transport.writelines((head + lines + b"\r\n", body, *shared))
        else:
            self._transport.write(b"".join((head, lines, b"\r\n", body)))
        if self._choked:
            context.unsent.add(self, self._transport.get_write_buffer_size(), shared)
        context.requests.answered(request, head)
        self._request = None
        if self._persists:
            self._become(HEAD)
            self._await_next()
        else:
            self._end(LINGERING if self._state == REFUSING else CLOSING)

    def fail(self, error: FastsseError) -> None:
        """Answers with the problem for an error, and logs it."""
        if self._state == BODY and self._reader is not None:
            self._reader = None
            self._refuse(problem_of(error))
        elif self._state in (ANSWERING, REFUSING):
            problem = problem_of(error)
            self._context.requests.refused(self._request, problem, self.peer())
            self.respond(problem_response(problem))

    def stream(self, subscription: Subscription, rights: Rights | None = None) -> None:
        """Hands the socket over to the sender when earlier answers are sent."""
        if self._state == ANSWERING:
            self._become(HANDOVER)
            self._wanted = subscription, rights
            if not self._proceeding:
                self._settle(b"")

    def turn_away(self, subscription: Subscription, why: StreamRefused) -> None:
        """Answers a subscriber with a retry time, logs the reason, and closes."""
        request, context = self._request, self._context
        if self._state != ANSWERING or request is None:
            return
        if why.reason == "over" and request.websocket is not None:
            # A page sees no status of a refused WebSocket, and would try again for ever.
            self.respond(ended_websocket(request.websocket))
            if self._state == HEAD:
                self._end(CLOSING)
            return
        answer = context.streams.turn_away(subscription, why, chunked=request.chunked)
        context.requests.turned_away(request, why, answer.head, self.peer())
        self._persists = False
        self.respond(answer)

    @property
    def host(self) -> str:
        """The host that connected, or that its PROXY header names; empty for a Unix socket."""
        return self._parser.peer

    def peer(self) -> str:
        """The address of the client, for logs."""
        request, context = self._request, self._context
        if request is not None and context.clients.active:
            return context.client(request)
        return self._peer_name()

    def _peer_name(self) -> str:
        # Kept here: a cache by transport would keep the transports of closed connections.
        if not self._name:
            self._name = peer_of(self._transport)
        return self._name

    def _refuse(self, problem: Problem) -> None:
        """Answers input that is not a valid request, and closes, because the start of the next
        request is unknown. The peer may be sending still, so its bytes are discarded for a
        while."""
        if self._reader is not None:
            self._is_held, self._kept = True, b""
            self._reader.leave(problem)
            return
        self._context.uncount_upload(self._parser.incoming_body)
        self._is_held = False
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

    # ── What the intake took (Lane) ─────────────────────────────────────────────────────────

    def on_waiting(self) -> None:
        """Its publishes are not answered within this turn of the loop."""
        if self._state == ANSWERING:
            self._await(self._context.deadlines.answer)

    def on_answered(self) -> None:
        """Its publishes are answered."""
        if self._context.draining:
            self._end(CLOSING)
        else:
            self._become(HEAD)
            self._await_next()

    def refuse_taken(
        self, error: FastsseError, targets: Sequence[KnownTarget], headers: RunHeaders | None
    ) -> None:
        """Answers each of its publishes with the problem for an error."""
        self.answer_taken([error] * len(targets), targets, headers)

    def answer_taken(
        self,
        outcomes: Sequence[bytes | FastsseError],
        targets: Sequence[KnownTarget],
        headers: RunHeaders | None,
    ) -> None:
        """Answers each of its publishes with its id, or with the problem for its error."""
        was_proceeding, self._proceeding = self._proceeding, True
        for outcome, target in zip(outcomes, targets, strict=True):
            if self._state == HEAD:
                self._become(ANSWERING)
            if self._state == ANSWERING:
                self._request = self._taken(target, headers)
                if isinstance(outcome, FastsseError):
                    self.fail(outcome)
                else:
                    # An id that the intake takes needs no escaping.
                    self.respond(json_response(b'{"id":"%b"}\n' % outcome))
        self._proceeding = was_proceeding
        if self._state == HEAD:
            self._await_next()

    def break_taken(self, targets: Sequence[KnownTarget], headers: RunHeaders | None) -> None:
        """The server failed to publish them."""
        if self._state == ANSWERING:
            self._request = self._taken(targets[0], headers)
            self._refuse(Problem(500, "The server failed to handle this request."))

    def give_back(self, data: bytes) -> None:
        """Reads a request that the intake gave back as any other, in a later turn of the loop,
        because the connection may be within `_proceed`."""
        self._context.loop.call_soon(self._read_back, data)

    def _read_back(self, data: bytes) -> None:
        if self._state == ANSWERING:
            self._become(HEAD)
            self._is_given_back = True
            if self._kept:
                data, self._kept = data + self._kept, b""
                self._transport.resume_reading()
            self._proceed(data)

    def _taken(self, target: KnownTarget, headers: RunHeaders | None) -> Request:
        """A request that the intake took, as far as answers and logs need it."""
        kept = {} if headers is None else headers.headers
        request = self._parser.request(b"POST", target.target, kept)
        self._persists = True
        self._context.routes.name(request)
        return request

    # ── Becoming a stream ────────────────────────────────────────────────────────────────────

    def _settle(self, data: bytes) -> None:
        """After an accepted subscription: hands over when no byte follows it and all answers are
        written."""
        if data or self._kept:
            self._transport.abort()
        elif self._transport.get_write_buffer_size():
            self._await(self._context.deadlines.body)
            self._transport.set_write_buffer_limits(0)
        else:
            self._context.loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Gives the sender a duplicate of the socket and closes the original, if the connection is
        still in HANDOVER. Never called from a callback of the transport; see `_go_on`.

        The loop removes only its own registration and closes only its own descriptor. The
        `connection_lost` that follows is not a disconnect.
        """
        if self._state != HANDOVER or self._transport.get_write_buffer_size():
            return
        context, request, wanted = self._context, self._request, self._wanted
        assert request is not None
        assert wanted is not None
        try:
            stream_request = context.stream_request(
                *wanted, request, self._peer_name(), self._door_number
            )
            if request.websocket is not None:
                self._open_websocket(request.websocket, stream_request)
                return
            context.streams.take_copy(self._transport, stream_request)
        except StreamRefused as why:
            self._become(ANSWERING)
            self.turn_away(wanted[0], why)
        except Exception:
            context.failed(request)
            self._transport.abort()
        else:
            self._become(GONE)
            context.deadlines.leave(self, self._wait)
            self._transport.abort()
            context.requests.opened(request)

    def _open_websocket(self, head: bytes, stream_request: StreamRequest) -> None:
        """Gives the sender one end of a pair, and the transport a protocol that copies the other.
        Raises StreamRefused; then nothing has changed."""
        context, request, transport = self._context, self._request, self._transport
        assert request is not None
        lines = stream_request.lines
        theirs, ours = open_pair()
        try:
            # Its messages are framed here, so the records stay OpenSSL's.
            inner = stream_request._replace(chunked=True, lines=b"", door_number=0)
            context.streams.take(theirs, inner)
        except BaseException:
            theirs.close()
            ours.close()
            raise
        bridge = WebSocketBridge(ours, new_framing(), transport, context.websockets.discard)
        context.websockets.add(bridge)
        self._become(GONE)
        context.deadlines.leave(self, self._wait)
        self._parser.close()
        transport.set_protocol(bridge)
        transport.write(b"".join((head, lines, b"\r\n")))
        context.requests.opened(request)
        bridge.start()

    # ── Reading piece by piece (router.BodyExchange) ─────────────────────────────────────────

    @property
    def is_open(self) -> bool:
        """Whether an answer can still be sent."""
        return self._state in (BODY, ANSWERING)

    @property
    def event_bytes_max(self) -> int:
        """Bytes that one event of the body may take."""
        return self._context.limits.body_bytes

    def go_on(self) -> None:
        """The reader takes more pieces."""
        reader = self._reader
        if self._state != BODY or reader is None or not self._is_held:
            return
        if self._context.draining:
            reader.leave(Unavailable("draining", 1))
            return
        self._is_held = False
        if self._kept:
            self._resume()
        else:
            self._transport.resume_reading()
            self._await_piece(b"")

    def start(self, head: bytes) -> None:
        """Begins an answer in chunks."""
        request, context = self._request, self._context
        assert request is not None
        lines = context.lines
        if context.cors.active:
            lines += context.cors.lines(request.headers)
        self._transport.write(b"".join((head, lines, b"Transfer-Encoding: chunked\r\n\r\n")))
        context.requests.answered(request, head)

    def send(self, piece: bytes) -> None:
        """Sends a chunk."""
        if self.is_open:
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def finish(self) -> None:
        """Sends the last chunk."""
        if not self.is_open:
            return
        self._transport.write(b"0\r\n\r\n")
        self._request = self._reader = None
        if self._state == BODY:
            self._context.uncount_upload(self._parser.incoming_body)
            self._become(REFUSING)
            self._end(LINGERING)
        elif self._persists and not self._context.draining:
            self._become(HEAD)
            self._await_next()
        else:
            self._end(CLOSING)

    # ── States and waiting ───────────────────────────────────────────────────────────────────

    def _become(self, state: ConnectionState) -> None:
        """Goes to another state. Raises RuntimeError for a pair that the table does not have."""
        if state not in _NEXT[self._state]:
            now = ConnectionState(self._state)
            raise RuntimeError(f"a connection in {now.name} can't become {state.name}")
        self._state = state

    def _await(self, wait: Deadline) -> None:
        self._wait.since.pop(self, None)
        self._wait = wait
        wait.since[self] = self._context.deadlines.time()

    def _await_next(self) -> None:
        """Waits for the next request, or handles it if its bytes have arrived."""
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
