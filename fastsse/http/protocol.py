"""One HTTP/1.1 connection: from its first byte until it closes or becomes a stream.

Theory of operation. A connection is in one state:

    HEAD       reads a request's head, or waits for one      -> BODY, ANSWERING, ENDING
    BODY       reads a request's body                        -> ANSWERING, ENDING
    ANSWERING  the request is with its route                 -> HEAD, ENDING, HANDOVER
    HANDOVER   is a stream as soon as earlier answers left   -> GONE, ANSWERING (turned away)
    ENDING     the last answer is written; what still comes is read away, or the peer would be
               reset before it has read the answer           -> GONE
    GONE       closed, or the sender's

llhttp parses, strictly; this file frames. It finds the blank line that ends a head and feeds
llhttp one request at a time, so requests are answered in order, and whether a byte follows a
subscription is known exactly. Where an answer is pending or the peer does not read, bytes wait in
`kept` and reading pauses; the kernel's window then holds the peer back.
"""

import asyncio
import re
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from fastsse.errors import FastsseError, TurnedAway
from fastsse.http.problems import Problem, problem_of, problem_response
from fastsse.http.request import REQUEST_LINE, Request
from fastsse.http.responses import CONTINUE, Response
from fastsse.http.routes import Route
from fastsse.http.site import Site
from fastsse.http.streams import peer_of
from fastsse.http.upload import BLANK_LINE, Upload
from fastsse.http.waits import Wait
from fastsse.subscriptions import Subscription

__all__ = ["Connection"]

HEAD, BODY, ANSWERING, HANDOVER, ENDING, GONE = range(6)
# Requests of one connection that are handled before others have their turn.
REQUESTS_A_TURN: Final = 64
_KEPT_HEADERS: Final = (
    b"Access-Control-Request-Method",
    b"Authorization",
    b"Content-Encoding",
    b"Content-Length",
    b"Content-Type",
    b"Expect",
    b"Host",
    b"Last-Event-ID",
    b"Origin",
    b"Transfer-Encoding",
)
# Both common spellings, so that most names need no lower().
_KNOWN: Final = {spelt: name.lower() for name in _KEPT_HEADERS for spelt in (name, name.lower())}
_SPELLING: Final = {name.lower(): name.decode() for name in _KEPT_HEADERS}
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_UPGRADE_LINE: Final = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
_LLHTTP_FIELD: Final = re.compile(r"Content-Length|Transfer-Encoding|method|url|version|chunk")


class Connection(asyncio.Protocol):
    """The protocol of every accepted socket. Loop thread only."""

    __slots__ = (
        "_choked",
        "_head",
        "_headers",
        "_kept",
        "_lingers",
        "_parser",
        "_persists",
        "_proceeding",
        "_repeated",
        "_request",
        "_site",
        "_state",
        "_subscription",
        "_transport",
        "_upload",
        "_wait",
    )

    def __init__(self, site: Site) -> None:
        self._site = site
        self._state = HEAD
        self._parser = HttpRequestParser(self)
        self._transport = cast(asyncio.Transport, None)
        self._wait = site.waits.head
        self._request: Request | None = None
        self._subscription: Subscription | None = None
        self._headers: dict[bytes, bytes] = {}
        self._repeated = b""
        self._head = b""  # The part of a head that llhttp has seen.
        self._kept = b""  # Bytes that nobody has looked at.
        self._upload: Upload | None = None
        self._persists = True
        self._choked = False
        self._lingers = False
        self._proceeding = False

    # ── Events of the transport ──────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        waits = self._site.waits
        waits.head.since[self] = waits.time()
        self._site.arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = GONE
        self._site.waits.leave(self, self._wait)
        self._drop_upload()
        # The parser holds our methods: without this only the garbage collector would free us.
        self._parser = cast(HttpRequestParser, None)
        self._request = self._subscription = None
        self._kept = b""

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state <= BODY and not self._kept:
            self._proceed(data)
        elif state == HANDOVER:
            self._transport.abort()
        elif state < ENDING:
            self._kept += data
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        if self._state == ANSWERING or (self._state <= BODY and self._kept):
            # A client may shut its side down and still wait for what it asked before.
            self._persists = False
            return True
        return False

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        if self._state == HANDOVER:
            self._hand_over()
        elif self._kept:
            self._resume()

    # ── Orders of the site ───────────────────────────────────────────────────────────────────

    def overdue(self, wait: Wait) -> None:
        """Its time in `wait` is over."""
        waits = self._site.waits
        if (wait is waits.head and self._head) or (wait is waits.body and self._state == BODY):
            part = "head" if wait is waits.head else "body"
            self._refuse(Problem(408, f"The request's {part} took too long.", field=part))
        else:
            self._transport.abort()

    def close(self) -> None:
        """Closes: at once when nothing is under way, else after the answer."""
        self._persists = False
        if self._state == HEAD and not self._head and not self._kept:
            self._end()

    def abort(self) -> None:
        """Closes at once, whatever is under way."""
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
        except Problem as problem:
            self._refuse(problem)
        self._proceeding = False
        if self._state == HANDOVER:
            self._settle(data)
        elif data and self._state <= ANSWERING:
            self._kept = data
            self._transport.pause_reading()
            if self._state != ANSWERING and not self._choked:
                self._site.loop.call_soon(self._resume)

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
        site = self._site
        known = len(self._head)
        head = self._head + data if known else data
        found = head.find(BLANK_LINE, known - 3 if known > 3 else 0)
        end = found + 4 if found >= 0 else len(head)
        if end > site.options.max_head:
            raise Problem(431, "The request's head is too long.", field="head")
        self._feed(head[known:end], head[:end])
        if found >= 0:
            self._head = b""
            self._begin(head, end)
            return head[end:]
        if not known:
            self._await(site.waits.head)
        self._head = head
        return b""

    def _feed(self, data: bytes, head: bytes | None = None) -> None:
        """Gives bytes to llhttp, which calls the `on_…` below. Raises Problem (400)."""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            if head is None or head.startswith(b"CONNECT "):
                raise Problem(400, "The request target must be a path.", field="target") from None
            # Nothing is upgraded here, and llhttp would take the body for another protocol.
            self._parser = HttpRequestParser(self)
            self._headers, self._repeated = {}, b""
            self._feed(_UPGRADE_LINE.sub(b"", head))
        except HttpParserError as error:
            what = str(error)
            field = _LLHTTP_FIELD.search(what)
            default = "head" if head is not None else "body"
            raise Problem(400, f"{what}.", field=field[0] if field else default) from None

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp: one header, or one trailer."""
        known = _KNOWN.get(name) or _KNOWN.get(name.lower())
        if known is None or self._state == BODY:
            return
        if known in self._headers:
            self._repeated = known
        self._headers[known] = value

    def on_body(self, data: bytes) -> None:
        """llhttp: a piece of a body."""
        if self._upload is not None:
            self._upload.add(data)

    def on_chunk_header(self) -> None:
        """llhttp: the size of a chunk."""
        if self._upload is not None:
            self._upload.chunks += 1

    def on_message_complete(self) -> None:
        """llhttp: the end of a request."""
        if self._upload is not None:
            self._upload.complete = True

    def _begin(self, head: bytes, end: int) -> None:
        """A head was read whole: answer, or go on to the body."""
        headers, self._headers = self._headers, {}
        site = self._site
        line = REQUEST_LINE.match(head)
        if line is None:
            detail = "The request line must be a method, a path and HTTP/1.1."
            raise Problem(400, detail, field="request line")
        if head.count(b"\r\n", 0, end) - 2 > site.options.max_headers:
            raise Problem(431, "The request has too many headers.", field="headers")
        if self._repeated:
            raise Problem(400, "This header must stand once.", field=_SPELLING[self._repeated])
        method, raw_target, minor = line.groups()
        chunked = minor == b"1"
        _check_host(headers.get(b"host"), required=chunked)
        request = Request(method, site.targets.parse(raw_target), headers, chunked)
        self._request = request
        self._persists = self._parser.should_keep_alive() and not site.draining
        if b"content-length" in headers or b"transfer-encoding" in headers:
            self._begin_body(request)
        if self._state == HEAD:
            self._answer(request)

    def _begin_body(self, request: Request) -> None:
        """Refuses a body that is not wanted before it is read, else makes ready for it."""
        headers = request.headers
        coding = headers.get(b"transfer-encoding")
        size_bytes = None
        if coding is None:
            size_bytes = int(headers[b"content-length"])
            if size_bytes == 0:
                return
            if size_bytes > self._site.options.max_body:
                raise self._site.too_large()
        elif coding.strip().lower() != b"chunked" or not request.chunked:
            raise Problem(400, "Only chunked is understood.", field="Transfer-Encoding")
        route = self._site.routes.find(request)
        if route.admit is None:
            raise Problem(400, "This request takes no body.", field="Content-Length")
        route.admit(request)
        self._expect(headers.get(b"expect"))
        self._state = BODY
        self._upload = Upload(size_bytes)
        self._await(self._site.waits.body)

    def _expect(self, expected: bytes | None) -> None:
        if expected is None:
            return
        if expected.strip().lower() != b"100-continue":
            raise Problem(417, "Only 100-continue can be expected.", field="Expect")
        self._transport.write(CONTINUE)

    def _read_body(self, data: bytes) -> bytes:
        """Takes a body, or a part of one, from the front of `data`; returns what is left."""
        upload, request, site = self._upload, self._request, self._site
        assert upload is not None
        assert request is not None
        data = upload.read(data, self._feed)
        if len(upload.data) > site.options.max_body:
            raise site.too_large()
        if upload.overhead_bytes() > site.options.max_head:
            raise Problem(431, "The trailers or chunk extensions are too long.", field="body")
        if upload.complete:
            self._drop_upload()
            request.body = upload.data
            self._answer(request, site.routes.find(request))
        else:
            site.count_upload(upload)
        return data

    def _drop_upload(self) -> None:
        if self._upload is not None:
            self._site.upload_bytes -= self._upload.counted_bytes
            self._upload = None

    # ── Answering (routes.Exchange) ──────────────────────────────────────────────────────────

    def _answer(self, request: Request, route: Route | None = None) -> None:
        """Has the request answered; `route` is the one that admitted its body."""
        self._state = ANSWERING
        try:
            if route is None:
                route = self._site.routes.find(request)
                if route.admit is not None:
                    route.admit(request)
            route.handle(request, self)
        except FastsseError as error:
            self.fail(error)
        except Exception:
            self._site.failed(request)
            self.fail(Problem(500, "The server could not do this."))
        if self._state == ANSWERING:
            self._await(self._site.waits.answer)

    def respond(self, response: Response) -> None:
        """Answers the request. Does nothing when the client is gone."""
        request = self._request
        if self._state != ANSWERING:
            return
        head, body = response
        cors = self._site.cors
        lines = cors.lines(request.headers) if cors.active and request is not None else b""
        if request is not None and request.method == b"HEAD":
            body = b""
        if not self._persists:
            lines += b"Connection: close\r\n"
        elif request is not None and not request.chunked:
            lines += b"Connection: keep-alive\r\n"
        self._transport.write(b"".join((head, lines, b"\r\n", body)))
        self._request = None
        if self._persists:
            self._state = HEAD
            self._await(self._site.waits.idle)
            if self._kept and not self._proceeding:
                self._resume()
        else:
            self._end()

    def fail(self, error: FastsseError) -> None:
        """Answers with the problem that an error is."""
        self.respond(problem_response(problem_of(error)))

    def stream(self, subscription: Subscription) -> None:
        """Hands the socket over to the sender, as soon as earlier answers have left."""
        if self._state == ANSWERING:
            self._state = HANDOVER
            self._subscription = subscription
            if not self._proceeding:
                self._settle(b"")

    def peer(self) -> str:
        """The client's address, for logs."""
        return peer_of(self._transport)

    def _refuse(self, problem: Problem) -> None:
        """Answers what could not be read as a request, and closes: where the next one begins is
        unknown. The peer may still be sending, so its bytes are read away for a while."""
        self._persists = False
        self._state = ANSWERING
        self._kept = b""
        self._lingers = True
        self.fail(problem)

    def _end(self) -> None:
        self._state = ENDING
        if self._lingers:
            self._await(self._site.waits.linger)
            self._transport.resume_reading()
            self._transport.write_eof()
        else:
            self._await(self._site.waits.answer)
            self._transport.close()

    # ── Becoming a stream ────────────────────────────────────────────────────────────────────

    def _settle(self, data: bytes) -> None:
        """A subscription was accepted: go on when nothing follows it and all is written."""
        if data or self._kept:
            self._transport.abort()
        elif self._transport.get_write_buffer_size():
            self._await(self._site.waits.body)
            self._transport.set_write_buffer_limits(0)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        """Gives the sender a duplicate of the socket and lets go of the original.

        The loop only takes back its own registration and closes its own descriptor; the
        `connection_lost` that follows is no disconnect.
        """
        request, subscription = self._request, self._subscription
        assert request is not None
        assert subscription is not None
        try:
            lines = self._site.cors.lines(request.headers)
            self._site.streams.open(self._transport, subscription, request.chunked, lines)
        except TurnedAway:
            self._state = ANSWERING
            self._persists = False
            self.respond(self._site.streams.turn_away())
        else:
            self._state = GONE
            self._site.waits.leave(self, self._wait)
            self._transport.abort()

    def _await(self, wait: Wait) -> None:
        self._wait.since.pop(self, None)
        self._wait = wait
        wait.since[self] = self._site.waits.time()


def _check_host(host: bytes | None, *, required: bool) -> None:
    """RFC 9112 §3.2. That it stands once was checked before."""
    if host is None and required:
        raise Problem(400, "HTTP/1.1 needs a Host header.", field="Host")
    if host is not None and _HOST.fullmatch(host) is None:
        raise Problem(400, "This is not a host.", field="Host")
