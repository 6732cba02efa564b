"""`/streams/…`: the Durable Streams protocol. Routes and headers; `streams/` does the work."""

from collections.abc import Callable, Sequence
from typing import Final

from fastsse.api.access import Access
from fastsse.api.publish import PublishGate
from fastsse.api.stream_answers import (
    CLOSED,
    NOT_STORED,
    answer,
    append_problem,
    appended_answer,
    location_line,
    offset_line,
    problem_of_stream,
    type_line,
)
from fastsse.api.stream_intake import OpenStreams
from fastsse.api.stream_reads import Reader, StreamRead
from fastsse.auth.rights import Rights
from fastsse.errors import BadRequest, FastsseError, Forbidden, Unauthorised
from fastsse.events import Event, check_topic
from fastsse.http.problems import Problem
from fastsse.http.request import Request
from fastsse.http.responses import Response
from fastsse.http.router import BELOW, Exchange, Route
from fastsse.hub import Published
from fastsse.streamoffsets import NOW
from fastsse.streams.fields import (
    ReadRequest,
    content_type_of,
    expiry_of,
    fork_of,
    is_true,
    producer_of,
    read_request,
    seq_of,
)
from fastsse.streams.requests import Appended, AppendRequest, Created, CreateRequest
from fastsse.streams.service import DurableStreams
from fastsse.streamstate import StreamRow

__all__ = ["StreamRoutes", "stream_routes"]

_RESERVED: Final = "__ds"


def stream_routes(routes: "StreamRoutes", path: str) -> dict[bytes, dict[bytes, Route]]:
    """The routes below a path."""
    return {
        path.encode() + BELOW: {
            b"GET": Route(routes.read, streams=True),
            b"PUT": Route(routes.create, routes.admit),
            b"POST": Route(routes.append, routes.admit),
            b"DELETE": Route(routes.delete),
        }
    }


class StreamRoutes:
    """The handlers. Loop thread only.

    Arguments:
        streams: creates, appends, reads and deletes.
        gate: publishes appends.
        access: decides who may read.
        is_private: whether the rule of a topic says that reading needs a grant.
        path: of the streams, without a slash at its end.
        open_streams: receives the appends that were stored.
    """

    def __init__(
        self,
        streams: DurableStreams,
        gate: PublishGate,
        access: Access,
        is_private: Callable[[str], bool],
        path: str,
        open_streams: OpenStreams,
    ) -> None:
        self._open: Final = open_streams
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
                exchange.fail(problem_of_stream(outcome, status=409))
            else:
                exchange.respond(self._created(request, outcome))

        self._as_publisher(
            request, exchange, lambda publish: self._streams.create(wanted, publish, done)
        )

    def _created(self, request: Request, created: Created) -> Response:
        row = created.row
        lines = [type_line(row), offset_line(row.tail), NOT_STORED]
        if created.is_new:
            lines.append(location_line(request))
        if row.closed:
            lines.append(CLOSED)
        return answer(201 if created.is_new else 200, lines)

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
                exchange.fail(append_problem(outcome, wanted))
            else:
                if body and not (outcome.is_closed or outcome.is_repeat):
                    self._open.note(request, topic, outcome.row)
                exchange.respond(appended_answer(outcome, wanted))

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
                exchange.fail(problem_of_stream(error))
            else:
                exchange.respond(answer(204, [NOT_STORED]))

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
            publish = _Publish(self._gate, request, topic)
            self._gate.when_authorized(
                (topic,), rights, request, lambda: then(publish), exchange.fail
            )

        self._gate.enter(request, exchange, entered, exchange.fail)

    # -- GET and HEAD -----------------------------------------------------------------------------

    def read(self, request: Request, exchange: Exchange) -> None:
        """Handles GET and HEAD. Raises BadRequest."""
        topic = self._topic(request)
        asked = ReadRequest(0, "", None)
        if request.method != b"HEAD":
            asked = read_request(request.target.pairs)
        if not exchange.may_wait and not self._opens_now(asked):
            return
        is_within = True

        def allowed(rights: Rights | None) -> None:
            def found(row: StreamRow | FastsseError) -> None:
                if not is_within and not exchange.may_wait:
                    return  # The connection has called this again meanwhile.
                if isinstance(row, FastsseError):
                    exchange.fail(problem_of_stream(row))
                    return
                try:
                    self._check_rights(topic, row, rights)
                except FastsseError as error:
                    exchange.fail(error)
                    return
                reader = Reader(rights, self._access)
                StreamRead(self._streams, request, exchange, reader, topic, asked).start(row)

            self._streams.find_readable(topic, found)

        then = self._gate.authorization.subscriber((topic,), request, exchange, allowed)
        self._access.subscriber(request, exchange, then)
        is_within = False

    def _opens_now(self, asked: ReadRequest) -> bool:
        """Whether a read is likely to become an event stream within the call."""
        is_tail = asked.live == "sse" and asked.offset == NOW
        return is_tail and self._streams.finder.answers_at_once

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
    """Publishes for the sender of a request, and deletes the parts of a stream."""

    def __init__(self, gate: PublishGate, request: Request, topic: str) -> None:
        self._gate = gate
        self._request = request
        self._topic = topic

    def __call__(
        self, events: Sequence[Event], done: Callable[[Published | FastsseError], None]
    ) -> None:
        self._gate.publish_checked(events, self._request, done)
