"""`/streams/…`: the Durable Streams protocol. Routes and headers; what is done is in `streams/`."""

from collections.abc import Callable, Sequence
from typing import Final

from fastsse.api.access import Access
from fastsse.api.publish import PublishGate
from fastsse.auth.rights import Rights
from fastsse.errors import (
    BadRequest,
    FastsseError,
    Forbidden,
    ProducerFenced,
    SequenceGap,
    StreamRefused,
    Unauthorised,
)
from fastsse.events import Event, check_topic
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import STATUS_LINES, Response
from fastsse.http.router import BELOW, Exchange, Route
from fastsse.hub import Published
from fastsse.hub.tails import TailSubscription
from fastsse.streams.content import control_block, data_block, rendered
from fastsse.streams.fields import (
    ReadRequest,
    content_type_of,
    expiry_of,
    fork_of,
    is_true,
    producer_of,
    read_request,
    rfc3339,
    seq_of,
)
from fastsse.streams.offsets import NOW, format_offset
from fastsse.streams.reading import Chunk, ContentGone
from fastsse.streams.service import (
    Appended,
    AppendRequest,
    Created,
    CreateRequest,
    DurableStreams,
    StreamGone,
    StreamMissing,
    StreamOtherwise,
)
from fastsse.streamstate import StreamRow

__all__ = ["StreamRoutes", "stream_routes"]

# Pages of other origins read streams, as the protocol recommends (12.7).
_SHIELD: Final = (
    b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: cross-origin\r\n"
)
_NOT_STORED: Final = b"Cache-Control: no-store\r\n"
# Of a page that more content follows: it never changes. The end of a stream does.
_SEALED: Final = b"max-age=3600, immutable"
_OPEN: Final = b"max-age=60, stale-while-revalidate=300"
_RESERVED: Final = "__ds"
_CLOSED: Final = b"Stream-Closed: true\r\n"


def stream_routes(routes: "StreamRoutes", path: str) -> dict[bytes, dict[bytes, Route]]:
    """The routes below a path."""
    return {
        path.encode() + BELOW: {
            b"GET": Route(routes.read),
            b"PUT": Route(routes.create, routes.admit),
            b"POST": Route(routes.append, routes.admit),
            b"DELETE": Route(routes.delete),
        }
    }


class StreamRoutes:
    """The handlers. Loop thread only.

    Arguments:
        streams: does what is asked.
        gate: the way of publishers to the hub.
        access: decides who may read.
        is_private: whether the rule of a topic says that reading needs a grant.
        path: of the streams, without a slash at its end.
    """

    def __init__(
        self,
        streams: DurableStreams,
        gate: PublishGate,
        access: Access,
        is_private: Callable[[str], bool],
        path: str,
    ) -> None:
        self._streams: Final = streams
        self._gate: Final = gate
        self._access: Final = access
        self._is_private: Final = is_private
        self._path: Final = path + "/"

    def admit(self, request: Request) -> None:
        """Checks the head of a change before its body is read. Raises BadRequest, Problem (401,
        403, 415, 429)."""
        self._topic(request)
        self._gate.admit(request)

    # -- PUT --------------------------------------------------------------------------------------

    def create(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted PUT. Raises BadRequest."""
        headers, topic = request.headers, self._topic(request)
        source = headers.get(b"stream-forked-from")
        fork = fork_of(headers, None if source is None else self._source(source))
        ttl_s, expires_ms = expiry_of(headers)
        wanted = CreateRequest(
            topic,
            content_type_of(headers),
            ttl_s,
            expires_ms,
            is_true(headers.get(b"stream-private")),
            is_true(headers.get(b"stream-closed")),
            bytes(request.body),
            fork,
        )

        def done(outcome: Created | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                exchange.fail(_problem(outcome, status=409))
            else:
                exchange.respond(self._created(request, outcome))

        self._as_publisher(
            request, exchange, lambda publish: self._streams.create(wanted, publish, done)
        )

    def _created(self, request: Request, created: Created) -> Response:
        row = created.row
        lines = [_content_type(row), _next(row.tail), _NOT_STORED]
        if created.is_new:
            lines.append(_location(request))
        if row.closed:
            lines.append(_CLOSED)
        return _response(201 if created.is_new else 200, lines)

    # -- POST -------------------------------------------------------------------------------------

    def append(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted POST. Raises BadRequest."""
        headers, topic = request.headers, self._topic(request)
        closes, body = is_true(headers.get(b"stream-closed")), bytes(request.body)
        if not body and not closes:
            raise BadRequest("body", "must not be empty without Stream-Closed: true")
        content_type = content_type_of(headers) if body else None
        producer = producer_of(headers, topic)
        wanted = AppendRequest(topic, content_type, body, closes, seq_of(headers), producer)

        def done(outcome: Appended | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                exchange.fail(_append_problem(outcome, wanted))
            else:
                exchange.respond(_appended(outcome, wanted))

        self._as_publisher(
            request, exchange, lambda publish: self._streams.append(wanted, publish, done)
        )

    # -- DELETE -----------------------------------------------------------------------------------

    def delete(self, request: Request, exchange: Exchange) -> None:
        """Handles a DELETE. Raises BadRequest, Problem (401, 403, 429)."""
        topic = self._topic(request)
        self._gate.admit(request)

        def done(error: FastsseError | None) -> None:
            if error is not None:
                exchange.fail(_problem(error))
            else:
                exchange.respond(_response(204, [_NOT_STORED]))

        self._as_publisher(
            request, exchange, lambda publish: self._streams.delete(topic, publish, done)
        )

    def _as_publisher(
        self, request: Request, exchange: Exchange, then: Callable[["_Publish"], None]
    ) -> None:
        def entered(rights: Rights | None) -> None:
            topic = self._topic(request)
            if rights is not None and not rights.covers_publish((topic,)):
                raise Forbidden(f"The token's mercure.publish does not cover the topic {topic}.")
            then(_Publish(self._gate, request, topic))

        self._gate.enter(request, exchange, entered, exchange.fail)

    # -- GET and HEAD -----------------------------------------------------------------------------

    def read(self, request: Request, exchange: Exchange) -> None:
        """Handles GET and HEAD. Raises BadRequest."""
        topic = self._topic(request)
        asked = ReadRequest(0, "", None)
        if request.method != b"HEAD":
            asked = read_request(request.target.pairs)

        def allowed(rights: Rights | None) -> None:
            def found(row: StreamRow | FastsseError) -> None:
                if isinstance(row, FastsseError):
                    exchange.fail(_problem(row))
                    return
                try:
                    self._check_rights(topic, row, rights)
                except FastsseError as error:
                    exchange.fail(error)
                    return
                _Read(self._streams, request, exchange, rights, topic, asked).start(row)

            self._streams.find(topic, found)

        self._access.subscriber(request, exchange, allowed)

    def _check_rights(self, topic: str, row: StreamRow, rights: Rights | None) -> None:
        is_private = row.config.private or self._is_private(topic)
        if is_private and rights is not None and not rights.covers_subscribe((topic,)):
            if rights.subject is None and not rights.subscribe:
                raise Unauthorised("This stream is private: reading it needs a token.")
            raise Forbidden(f"The token's mercure.subscribe does not cover the topic {topic}.")

    # -- names ------------------------------------------------------------------------------------

    def _topic(self, request: Request) -> str:
        """The topic that a path names. Raises BadRequest."""
        known = request.target.publication  # Shared by all requests with this target.
        if known is not None:
            return str(known)
        raw_path = request.target.raw_path
        if b"%2f" in raw_path.lower():
            raise BadRequest("path", "must not hold an escaped slash")
        topic = request.target.publication = self._named(request.target.path, "path")
        return topic

    def _source(self, value: bytes) -> str:
        if b"%" in value or not value.strip().startswith(self._path.encode()):
            raise BadRequest("Stream-Forked-From", f"must be the path of a stream ({self._path}…)")
        return self._named(value.strip(), "Stream-Forked-From")

    def _named(self, path: bytes, field: str) -> str:
        try:
            name = path[len(self._path) :].decode()
        except UnicodeDecodeError:
            raise BadRequest(field, "must be UTF-8") from None
        parts = name.split("/")
        if not name or "." in parts or ".." in parts or "" in parts[:-1]:
            raise BadRequest(field, "must name a stream, without empty segments, . and ..")
        if parts[0] == _RESERVED:
            raise Problem(404, "Nothing is served under this path.")
        try:
            return check_topic(name)
        except BadRequest as error:
            raise BadRequest(field, error.detail) from None


class _Publish:
    """Publishes for the sender of a request; deletes what goes with a stream besides."""

    def __init__(self, gate: PublishGate, request: Request, topic: str) -> None:
        self._gate = gate
        self._request = request
        self._topic = topic

    def __call__(
        self, events: Sequence[Event], done: Callable[[Published | FastsseError], None]
    ) -> None:
        self._gate.publish_checked(events, self._request, done)


class _Read:
    """One GET or HEAD."""

    def __init__(
        self,
        streams: DurableStreams,
        request: Request,
        exchange: Exchange,
        rights: Rights | None,
        topic: str,
        asked: ReadRequest,
    ) -> None:
        self._streams = streams
        self._request = request
        self._exchange = exchange
        self._rights = rights
        self._topic = topic
        self._asked = asked

    def start(self, row: StreamRow) -> None:
        """Answers, now or later."""
        if self._request.method == b"HEAD":
            self._exchange.respond(_metadata(row))
        elif self._asked.offset == NOW:
            self._streams.touch(self._topic, row)
            self._from_now(row)
        else:
            self._read(row, self._asked.offset)

    def _read(self, row: StreamRow, after: int) -> None:
        def read(chunk: Chunk | FastsseError) -> None:
            if isinstance(chunk, FastsseError):
                self._exchange.fail(_problem(chunk))
            elif self._asked.live == "sse":
                self._tail(row, chunk)
            elif self._asked.live == "long-poll" and not chunk.contents:
                self._poll(row, after)
            else:
                self._exchange.respond(self._page(row, after, chunk))

        self._streams.read(self._topic, row, after, read)

    def _from_now(self, row: StreamRow) -> None:
        chunk = Chunk((), row.tail, True)
        if self._asked.live == "sse":
            self._tail(row, chunk)
        elif self._asked.live == "long-poll":
            self._poll(row, row.tail)
        else:
            body = rendered(row.config, ())
            lines = [*self._lines(row, chunk), _NOT_STORED]
            self._exchange.respond(_response(200, lines, body))

    # -- pages ------------------------------------------------------------------------------------

    def _lines(self, row: StreamRow, chunk: Chunk) -> list[bytes]:
        lines = [_content_type(row), _next(chunk.next)]
        if chunk.is_up_to_date:
            lines.append(b"Stream-Up-To-Date: true\r\n")
        if self._asked.live and not row.closed:
            lines.append(self._cursor())
        if row.closed and chunk.is_up_to_date:
            lines.append(_CLOSED)
        return lines

    def _cursor(self) -> bytes:
        return b"Stream-Cursor: %b\r\n" % self._streams.cursors.after(self._asked.cursor).encode()

    def _page(self, row: StreamRow, after: int, chunk: Chunk) -> Response:
        closed = ":c" if row.closed and chunk.is_up_to_date else ""
        places = (row.generation, after, chunk.next)
        etag = f'"{":".join(map(format_offset, places))}{closed}"'.encode()
        lines = self._lines(row, chunk)
        lines += [b"ETag: %b\r\n" % etag, self._cache_line(row, chunk)]
        known = self._request.headers.get(b"if-none-match", b"")
        if not self._asked.live and etag in [one.strip() for one in known.split(b",")]:
            return Response(STATUS_LINES[304] + b"".join(lines[1:]) + _SHIELD)
        return _response(200, lines, rendered(row.config, chunk.contents))

    def _cache_line(self, row: StreamRow, chunk: Chunk) -> bytes:
        if row.config.private or self._rights is not None:
            return b"Cache-Control: private, no-store\r\n"
        if not chunk.contents:
            return b"Cache-Control: no-cache\r\n"
        age = _OPEN if chunk.is_up_to_date or self._asked.offset == 0 else _SEALED
        return b"Cache-Control: public, %b\r\n" % age

    # -- long-polls -------------------------------------------------------------------------------

    def _poll(self, row: StreamRow, after: int) -> None:
        if row.closed:
            self._nothing(row)
        else:
            self._streams.waiters.add(self._topic, lambda is_new: self._polled(is_new, row, after))

    def _polled(self, is_new: bool, row: StreamRow, after: int) -> None:
        if not is_new:
            self._nothing(row)
            return

        def found(now: StreamRow | FastsseError) -> None:
            if isinstance(now, FastsseError):
                self._exchange.fail(_problem(now))
            elif now.generation != row.generation:
                self._exchange.fail(_problem(StreamMissing("The stream was deleted.")))
            else:
                self._read(now, after)

        self._streams.find(self._topic, found)

    def _nothing(self, row: StreamRow) -> None:
        lines = self._lines(row, Chunk((), row.tail, True))
        self._exchange.respond(_response(204, [*lines[1:], _NOT_STORED]))

    # -- event streams ----------------------------------------------------------------------------

    def _tail(self, row: StreamRow, chunk: Chunk) -> None:
        """A page as an event stream; live from there on, if it is the last one."""
        head = _EVENT_STREAM
        if row.config.kind == "bytes":
            head += b"Stream-SSE-Data-Encoding: base64\r\n"
        is_over = bool(row.closed) and chunk.is_up_to_date
        if is_over or not chunk.is_up_to_date:
            self._exchange.respond(Response.of(200, self._blocks(row, chunk), head))
            return
        head = STATUS_LINES[200] + head
        self._streams.tailing(self._topic, row)

        def begin() -> tuple[bytes, bool]:
            return self._first_block(row, chunk)

        name = self._streams.tail_name(self._topic, row)
        self._exchange.stream(TailSubscription(name, begin, head), self._rights)

    def _first_block(self, row: StreamRow, chunk: Chunk) -> tuple[bytes, bool]:
        """What a stream begins with: the page, and what was appended while it was opened."""
        blocks: list[tuple[bytes, bool]] = []

        def found(now: StreamRow | FastsseError) -> None:
            if isinstance(now, FastsseError) or now.generation != row.generation:
                blocks.append((self._blocks(row, chunk), True))
                return
            more = self._streams.reader.newer(self._topic, now, chunk.next, now.tail)
            if more is None:
                blocks.append((self._blocks(row, chunk._replace(is_up_to_date=False)), True))
                return
            self._streams.tailing(self._topic, now)
            whole = Chunk([*chunk.contents, *more], max(chunk.next, now.tail), True)
            blocks.append((self._blocks(now, whole), bool(now.closed)))

        self._streams.find_here(self._topic, row, found)
        return blocks[0]

    def _blocks(self, row: StreamRow, chunk: Chunk) -> bytes:
        block = data_block(row.config, chunk.contents) if chunk.contents else b""
        cursor = self._streams.cursors.after(self._asked.cursor)
        return block + control_block(
            chunk.next,
            cursor,
            is_up_to_date=chunk.is_up_to_date,
            is_closed=bool(row.closed) and chunk.is_up_to_date,
        )


_EVENT_STREAM: Final = (
    b"Content-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache, no-transform\r\n"
    b"X-Accel-Buffering: no\r\n"
) + _SHIELD


def _content_type(row: StreamRow) -> bytes:
    return b"Content-Type: %b\r\n" % row.config.content_type.encode("latin-1")


def _location(request: Request) -> bytes:
    headers = request.headers
    scheme = headers.get(b"x-forwarded-proto", b"").strip().lower()
    scheme = scheme if scheme in (b"http", b"https") else b"http"
    host = headers.get(b"host", b"").strip()
    start = b"%b://%b" % (scheme, host) if host else b""
    return b"Location: %b%b\r\n" % (start, request.target.raw_path)


def _next(position: int) -> bytes:
    return b"Stream-Next-Offset: %b\r\n" % format_offset(position).encode()


def _response(status: int, lines: Sequence[bytes], body: bytes = b"") -> Response:
    if status == 204:
        return Response(STATUS_LINES[204] + b"".join(lines) + _SHIELD)
    return Response.of(status, body, b"".join(lines) + _SHIELD)


def _metadata(row: StreamRow) -> Response:
    config = row.config
    lines = [_content_type(row), _next(row.tail), _NOT_STORED]
    if config.ttl_s is not None:
        lines.append(b"Stream-TTL: %d\r\n" % config.ttl_s)
    if config.expires_ms is not None:
        lines.append(b"Stream-Expires-At: %b\r\n" % rfc3339(config.expires_ms).encode())
    if row.closed:
        lines.append(_CLOSED)
    return _response(200, lines)


def _appended(appended: Appended, wanted: AppendRequest) -> Response:
    row, producer = appended.row, wanted.producer
    lines = [_next(row.tail), _NOT_STORED]
    if row.closed:
        lines.append(_CLOSED)
    if appended.is_closed:
        return _response(409, lines)
    if producer is not None:
        sequence = appended.sequence if appended.sequence >= 0 else producer.sequence
        lines.append(b"Producer-Epoch: %d\r\nProducer-Seq: %d\r\n" % (producer.epoch, sequence))
    is_new = producer is not None and not appended.is_repeat and bool(wanted.body)
    return _response(200 if is_new else 204, lines)


def _append_problem(error: FastsseError, wanted: AppendRequest) -> FastsseError:
    if isinstance(error, ProducerFenced):
        line = b"Producer-Epoch: %d\r\n" % error.epoch
        return Problem(403, error.detail, header_lines=line, members={"reason": error.reason})
    if isinstance(error, SequenceGap):
        is_new_epoch = error.epoch is not None and wanted.producer is not None
        if is_new_epoch and wanted.producer is not None and wanted.producer.epoch != error.epoch:
            return BadRequest("Producer-Seq", "must be 0 in a new epoch")
        line = b"Producer-Expected-Seq: %d\r\nProducer-Received-Seq: %d\r\n" % (
            error.expected,
            error.received,
        )
        return Problem(409, error.detail, header_lines=line, members={"reason": error.reason})
    return _problem(error, status=409)


def _problem(error: FastsseError, status: int = 409) -> FastsseError:
    """The answer to an error of the streams."""
    for kind, code in (
        (StreamMissing, 404),
        (StreamGone, 410),
        (ContentGone, 410),
        (StreamOtherwise, status),
    ):
        if isinstance(error, kind):
            return Problem(code, f"{error}")
    if isinstance(error, StreamRefused):
        return Problem(503, "The stream can't be read now.", header_lines=b"Retry-After: 1\r\n")
    return error
