"""`POST /events`: publishes the body of a request as events; the hub orders them.

Over 400 lines: a publish is checked, read, published and answered by two objects.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import orjson

from fastsse.api.access import Access
from fastsse.api.authorization import Authorization
from fastsse.api.batch import event_of_json, events_of_lines
from fastsse.api.body_events import BodyEvents, EventStreamEvents, LineEvents, Template
from fastsse.api.delayed import DelayedPublish
from fastsse.api.publish_query import PublishQuery, check_relay, event_with, read_query
from fastsse.api.publish_stream import Ending, PublishStream, StreamCounts
from fastsse.api.rate_limits import RequestLimits
from fastsse.api.receipts import Reached, Receipts
from fastsse.api.request_directives import asked_of, check_streamed, scoped
from fastsse.api.warnings import warning_lines, warnings_on
from fastsse.auth.rights import Rights
from fastsse.directives import is_delayed
from fastsse.entries import kinds_of
from fastsse.errors import FastsseError, Forbidden, InvalidEvent, StreamRefused, Unauthorised
from fastsse.events import DATA_JSON, DATA_TEXT, Event
from fastsse.http.problems import Problem, problem_of
from fastsse.http.request import Request
from fastsse.http.responses import Response, json_response
from fastsse.http.router import BodyExchange, BodyReader, Exchange
from fastsse.hub import Hub, Published
from fastsse.log import AccessLog
from fastsse.reserved import check_not_reserved
from fastsse.subscriptions import Subscription
from fastsse.tracing import Tracer
from fastsse.trails import trail_of

__all__ = ["Publish", "PublishGate"]

_JSON: Final = b"application/json"
_NDJSON: Final = b"application/x-ndjson"
_ACCEPTED: Final = (
    "Without topic in the query the body must be application/json "
    '({"topic": …, "data": …}) or application/x-ndjson (one such object a line).'
)
_NOT_A_STREAM: Final = (
    "POST publishes its body and never opens a stream; nothing was published. "
    "Open a stream by GET with topic=… in the query."
)
_JSON_ONLY: Final = b"Accept-Post: application/json, application/x-ndjson\r\n"
_EVENT_STREAM: Final = b"text/event-stream"
_EMPTY: Final = (
    "The body is the data of the event, and it is empty; to publish an event without data, send "
    '{"topic": …, "data": ""} as application/json.'
)
_ONLY_LINES: Final = (
    "With stream=true the body must be application/x-ndjson (one object a line), or "
    "text/event-stream with topic in the query."
)


class PublishGate:
    """Publishes for both APIs: checks access and rate limits, and logs the publish.

    Arguments:
        hub: orders the events.
        access: decides who may publish.
        request_limits: limits the publishes of a client.
        log: logs each publish; None if nothing would be written.
        authorization: decides in addition to `access`.
        not_granted: the error for a topic that the token does not cover.
    """

    def __init__(
        self,
        hub: Hub,
        access: Access,
        request_limits: RequestLimits,
        log: AccessLog | None,
        authorization: Authorization,
        not_granted: type[Forbidden] | type[Unauthorised] = Forbidden,
    ) -> None:
        self._not_granted = not_granted
        self.authorization: Final = authorization
        self._hub = hub
        self._access = access
        self._request_limits = request_limits
        self._log = log
        #: Counts matching streams; None: this server can't.
        self.receipts: Receipts | None = None
        #: Waits for the other workers and nodes; None: there are none.
        self.reached: Reached | None = None
        #: Keeps delayed events; None: this server can't.
        self.schedule: DelayedPublish | None = None
        #: Makes spans; None: tracing is off.
        self.tracer: Tracer | None = None

    def admit(self, request: Request) -> None:
        """Checks the head before the body is read. Raises Problem (401, 403, 406, 415, 429)."""
        if b"text/event-stream" in request.headers.get(b"accept", b"").lower():
            # The body of a client that expects a stream is a query, not an event.
            raise Problem(406, _NOT_A_STREAM, field="Accept", header_lines=_JSON_ONLY)
        self._access.admit_publisher(request)
        coding = request.headers.get(b"content-encoding")
        if coding is not None and coding.strip().lower() not in (b"", b"identity"):
            accepted = b"Accept-Encoding: identity\r\n"
            detail = "Compressed bodies are not accepted."
            raise Problem(415, detail, field="Content-Encoding", header_lines=accepted)
        if self._request_limits.active and not request.is_counted:
            self._request_limits.take_publish(request)

    def publish(
        self,
        events: Sequence[Event],
        request: Request,
        exchange: Exchange,
        answer: "_Answer",
        *,
        receipt: bool = False,
    ) -> None:
        """Publishes all events or none for an admitted request, and answers it. With `receipt` the
        answer has the number of matching streams.

        Raises Forbidden when a topic is reserved, `not_granted` when the token does not cover one,
        and Problem (429) when the subject is over its limit and was not known at admission.
        """
        is_counted = request.pending is None

        def allowed(rights: Rights | None) -> None:
            if not is_counted and self._request_limits.active:
                request.rights = rights
                self._request_limits.take_publish_late(request)
            self._check(events, rights)
            if self.authorization.covers("publish"):
                topics = _topics_of(events)
                go_on = partial(authorized, rights)
                self.authorization.publisher(topics, rights, request, go_on, done)
            else:
                authorized(rights)

        def authorized(rights: Rights | None) -> None:
            directed = asked_of(request, events, rights)
            if self.schedule is not None and is_delayed(directed[0].directives):
                self.schedule.take(directed[0], exchange, noted, receipt=receipt)
                return
            if self._request_limits.active:
                self._request_limits.published_more(request, len(events) - 1)
            self._append(directed, request, done)

        def done(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                exchange.fail(outcome)
            elif receipt:
                self._count(events, lambda count: self._respond(exchange, answer, outcome, count))
            else:
                exchange.respond(answer(outcome))
            noted(problem_of(outcome).status if isinstance(outcome, FastsseError) else 200)

        def noted(status: int) -> None:
            if self._log is not None and self._log.logs_publishes:
                self._log.published(exchange.peer(), len(events), len(request.body), status)

        self._access.publisher(request, exchange, allowed)

    def _count(
        self, events: Sequence[Event], done: Callable[[Mapping[str, object] | None], None]
    ) -> None:
        if self.receipts is None:
            done(None)
            return
        topics = _topics_of(events)
        is_private = all(event.private for event in events)
        self.receipts.ask(
            topics, is_private, lambda count: done(None if count is None else count.members())
        )

    def _respond(
        self,
        exchange: Exchange,
        answer: "_Answer",
        published: Published,
        count: Mapping[str, object] | None,
    ) -> None:
        published.receipt = count or {}
        exchange.respond(answer(published))

    def change(
        self,
        request: Request,
        exchange: Exchange,
        topics: Sequence[str],
        act: Callable[
            [Callable[[Sequence[str]], None], Callable[[Published | FastsseError], None]], None
        ],
        answer: "_Answer",
    ) -> None:
        """Does something else that needs the right to publish to topics, and answers the request.

        Arguments:
            act: called with a function that raises as `publish` for topics without a right, and the
                one that takes the outcome.

        Raises as `publish`.
        """

        def allowed(rights: Rights | None) -> None:
            request.rights = rights
            check = partial(self._check_topics, rights=rights)
            check(topics)
            self.when_authorized(topics, rights, request, lambda: act(check, done), exchange.fail)

        def done(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                exchange.fail(outcome)
            elif self.reached is None:
                exchange.respond(answer(outcome))
            else:
                # A read that begins after the answer sees the change, at other workers too.
                self.reached.ask(outcome.positions[-1], partial(all_have, outcome))

        def all_have(published: Published, missing: Sequence[str]) -> None:
            if missing:
                published.receipt = {"missing": list(missing)}
            exchange.respond(answer(published))

        self._access.publisher(request, exchange, allowed)

    def _append(
        self,
        events: Sequence[Event],
        request: Request,
        done: Callable[[Published | FastsseError], None],
    ) -> None:
        """Publishes, with a span around it if the publisher records one."""
        if self.tracer is None:
            self._hub.publish(events, done)
            return
        span, traced = self.tracer.publish(trail_of(request.headers), events)

        def ended(outcome: Published | FastsseError) -> None:
            if span is not None:
                span.end(str(outcome) if isinstance(outcome, FastsseError) else None)
            done(outcome)

        self._hub.publish(traced, ended)

    # ── Streamed publishes (publish_stream.Gate) ─────────────────────────────────────────────

    def enter(
        self,
        request: Request,
        exchange: Exchange,
        then: Callable[[Rights | None], None],
        refused: Callable[[FastsseError], None],
    ) -> None:
        """Calls `then` with the publisher's rights, or `refused`; now or later."""

        def entered(rights: Rights | None) -> None:
            request.rights = rights
            then(rights)

        self._access.publisher(request, _Entering(exchange, refused), entered)

    def check_again(self, request: Request) -> None:
        """Raises when the publisher may not publish any more; to be followed by `enter`."""
        self._access.admit_publisher(request)

    def delay_s(self, request: Request) -> float:
        """Seconds until the publisher's rate limit allows more."""
        limits = self._request_limits
        return limits.publish_delay_s(request) if limits.active else 0.0

    def publish_more(
        self,
        events: Sequence[Event],
        request: Request,
        counted: int,
        done: Callable[[Published | FastsseError], None],
    ) -> None:
        """Publishes all events or none. Raises as `publish`. The publisher's rate limit has
        already counted `counted` of them."""
        self._check(events, request.rights)
        events = scoped(events, request.rights)
        if self._request_limits.active:
            self._request_limits.published_more(request, len(events) - counted)
        self.when_authorized(
            _topics_of(events),
            request.rights,
            request,
            lambda: self._append(events, request, done),
            done,
        )

    def when_authorized(
        self,
        topics: Sequence[str],
        rights: Rights | None,
        request: Request,
        then: Callable[[], None],
        refused: Callable[[FastsseError], None],
    ) -> None:
        """Calls `then` when the authorization callback lets the client publish to the topics, or
        if there is none; else `refused`. Now or later."""
        if self.authorization.covers("publish"):
            self.authorization.publisher(topics, rights, request, then, refused)
        else:
            then()

    def publish_checked(
        self,
        events: Sequence[Event],
        request: Request,
        done: Callable[[Published | FastsseError], None],
    ) -> None:
        """Publishes all events or none, to topics that the caller has checked."""
        if self._request_limits.active:
            self._request_limits.published_more(request, len(events) - 1)
        self._hub.publish(events, done)

    def log_cut(self, client: str, events: int, last: str, dropped_bytes: int) -> None:
        """Logs a streamed body that was cut."""
        if self._log is not None:
            self._log.cut(client, events, last, dropped_bytes)

    def log_skipped(self, client: str, skipped: dict[str, int]) -> None:
        """Logs events of a relay that were left out."""
        if self._log is not None:
            self._log.skipped(client, skipped)

    def _check(self, events: Sequence[Event], rights: Rights | None) -> None:
        for topics, _ in kinds_of(events):
            self._check_topics(topics, rights)

    def check_topics(self, topics: Sequence[str], rights: Rights | None) -> None:
        """Raises as `publish` for topics without a right."""
        self._check_topics(topics, rights)

    def _check_topics(self, topics: Sequence[str], rights: Rights | None) -> None:
        if rights is not None and not rights.covers_publish(topics):
            raise self._not_granted(_uncovered(rights, topics))
        check_not_reserved(topics)


def _topics_of(events: Sequence[Event]) -> Sequence[str]:
    return [topic for topics, _ in kinds_of(events) for topic in topics]


class _Entering:
    """The exchange while rights are checked: a refusal is not answered at once."""

    def __init__(self, exchange: Exchange, refused: Callable[[FastsseError], None]) -> None:
        self._exchange = exchange
        self.fail = refused

    may_wait: Final = True

    def respond(self, response: Response) -> None:
        """As `Exchange`."""
        self._exchange.respond(response)

    def stream(self, subscription: Subscription, rights: Rights | None = None) -> None:
        """As `Exchange`."""
        self._exchange.stream(subscription, rights)

    def turn_away(self, subscription: Subscription, why: StreamRefused) -> None:
        """As `Exchange`."""
        self._exchange.turn_away(subscription, why)

    def peer(self) -> str:
        """As `Exchange`."""
        return self._exchange.peer()


def _uncovered(rights: Rights, topics: Sequence[str]) -> str:
    """The detail of the problem: it names the topic that the token's grants do not cover."""
    first = next(topic for topic in topics if not rights.covers_publish((topic,)))
    return f"The token's mercure.publish does not cover the topic {first}."


class Publish:
    """Publishes events.

    Arguments:
        gate: the way to the hub.

    Attributes:
        streams: counts streamed publishes.
    """

    def __init__(self, gate: PublishGate) -> None:
        self._gate = gate
        self.streams: Final = StreamCounts()

    def admit(self, request: Request) -> None:
        """Checks the head before the body is read. Raises Problem (400, 401, 403, 415, 429)."""
        self._gate.admit(request)
        target = request.target
        query: PublishQuery | None = target.publication
        if query is None:
            query = target.publication = read_query(target)
        if query.stream or _media_type(request) == _EVENT_STREAM:
            check_streamed(request)
        if _media_type(request) == _EVENT_STREAM:
            check_relay(query)
        elif query.stream:
            if query.topics or _content_type(request) != _NDJSON:
                raise Problem(415, _ONLY_LINES, field="stream", header_lines=_JSON_ONLY)
        elif query.topics == ():
            _content_type(request)
        elif query.ends_on_close:
            raise InvalidEvent("end_on_close", "requires a body that is published as it arrives")
        elif query.own_ids is not None:
            raise InvalidEvent("ids", "requires a body of type text/event-stream")

    def read(self, request: Request, exchange: BodyExchange) -> BodyReader | None:
        """Publishes the events of an admitted request while its body arrives; None for a body that
        is published as a whole. Raises InvalidEvent."""
        query: PublishQuery = request.target.publication
        source: BodyEvents
        if _media_type(request) == _EVENT_STREAM:
            template = Template(
                query.topics,
                query.event,
                query.retry,
                query.private,
                query.meta,
                own_ids=bool(query.own_ids),
            )
            source = EventStreamEvents(template, exchange.event_bytes_max)
        elif query.stream:
            source = LineEvents(exchange.event_bytes_max)
        else:
            return None
        ending = Ending(query.topics, query.private) if query.ends_on_close else None
        return PublishStream(self._gate, self.streams, request, exchange, source, ending)

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted POST. Raises InvalidEvent, Problem (400) or Forbidden."""
        body = request.body
        query: PublishQuery = request.target.publication
        answer: _Answer = _answer_batch
        events: Sequence[Event]
        if query.topics != ():
            if not body:
                raise Problem(400, _EMPTY, field="body")
            kind = DATA_JSON if _media_type(request) == _JSON else DATA_TEXT
            events = (event_with(query, bytes(body), kind),)
            answer = _answer_position if query.id is None else _answer_own_id
        elif _content_type(request) == _NDJSON:
            events = events_of_lines(body)
            if not events:
                raise Problem(400, "Must contain at least one line.", field="body")
        else:
            event = event_of_json(body)
            events = (event,)
            answer = _answer_position if event.id is None else _answer_own_id
        warnings = [text for _, kind in kinds_of(events) for text in warnings_on(kind)]
        if warnings:
            answer = _warned(answer, warnings)
        self._gate.publish(events, request, exchange, answer, receipt=query.receipt)


_Answer = Callable[[Published], Response]


def _warned(answer: _Answer, warnings: Sequence[str]) -> _Answer:
    """`answer` with the `Fastsse-Warning` header."""
    lines = warning_lines(warnings)

    def warned(published: Published) -> Response:
        response = answer(published)
        return response._replace(head=response.head + lines)

    return warned


def _answer_position(published: Published) -> Response:
    if published.duplicates or published.receipt is not None:
        return _answer_own_id(published)
    # A position needs no escaping.
    return json_response(b'{"id":"%b"}\n' % published.last)


def _answer_own_id(published: Published) -> Response:
    return json_response(_line({"id": published.last.decode(), **_duplicates(published)}))


def _answer_batch(published: Published) -> Response:
    first, last = published.first.decode(), published.last.decode()
    members = {"count": published.count, "first": first, "last": last}
    return json_response(_line({**members, **_duplicates(published)}))


def _duplicates(published: Published) -> dict[str, object]:
    members: dict[str, object] = {}
    if published.duplicates:
        members["duplicates"] = published.duplicates
    if published.receipt is not None:
        members["receipt"] = published.receipt or None
    return members


def _content_type(request: Request) -> bytes:
    """The media type of a body that contains its topics. Raises Problem (415)."""
    media_type = _media_type(request)
    if media_type not in (_JSON, _NDJSON):
        accepted = b"Accept-Post: application/json, application/x-ndjson\r\n"
        raise Problem(415, _ACCEPTED, field="Content-Type", header_lines=accepted)
    parameters = request.headers[b"content-type"].lower().partition(b";")[2]
    name, _, charset = parameters.strip().partition(b"=")
    if name.strip() == b"charset" and charset.strip(b' "') not in (b"utf-8", b"utf8"):
        raise Problem(415, "The charset must be UTF-8.", field="Content-Type")
    return media_type


def _media_type(request: Request) -> bytes:
    return request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _line(members: dict[str, object]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)
