"""`POST /events`: a request's body as events, put in order by the hub."""

import hmac
import math
from typing import Final, NamedTuple

import orjson

from fastsse.errors import FastsseError, InvalidEvent
from fastsse.events import Event
from fastsse.http.batch import event_of_json, events_of_lines
from fastsse.http.clients import Clients
from fastsse.http.cors import Cors
from fastsse.http.problems import Problem, problem_of
from fastsse.http.quotas import Owner, Quotas
from fastsse.http.request import Request, Target
from fastsse.http.responses import json_response
from fastsse.http.routes import Exchange
from fastsse.hub import Hub, Published
from fastsse.log import AccessLog

__all__ = ["Publish"]

_JSON: Final = b"application/json"
_NDJSON: Final = b"application/x-ndjson"
_ACCEPTED: Final = (
    "Without topic in the query the body must be application/json "
    '({"topic": …, "data": …}) or application/x-ndjson (one such object a line).'
)
_FIELDS: Final = ("topic", "event", "id", "retry")


class Publish:
    """Takes events in.

    Arguments:
        hub: orders them.
        token: what `Authorization: Bearer` must hold; None lets anyone publish.
        cors: says which pages may.
        clients: tells who they are.
        quotas: how many publishes a client may send.
        access: told of each publish; None when that would write nothing.
    """

    def __init__(
        self,
        hub: Hub,
        token: str | None,
        cors: Cors,
        clients: Clients,
        quotas: Quotas,
        access: AccessLog | None,
    ) -> None:
        self._hub = hub
        self._token = None if token is None else token.encode()
        self._cors = cors
        self._clients = clients
        self._quotas = quotas
        self._access = access

    def admit(self, request: Request) -> None:
        """Looks at the head before the body is read. Raises Problem (400, 401, 403, 415, 429)."""
        headers = request.headers
        if self._token is not None:
            self._authorise(headers.get(b"authorization"))
        self._cors.check_publish(headers)
        coding = headers.get(b"content-encoding")
        if coding is not None and coding.strip().lower() not in (b"", b"identity"):
            accepted = b"Accept-Encoding: identity\r\n"
            detail = "Compressed bodies are not accepted."
            raise Problem(415, detail, field="Content-Encoding", header_lines=accepted)
        target = request.target
        if target.publication is None:
            target.publication = _read_query(target)
        if target.publication is _NOT_IN_QUERY:
            _content_type(request)
        if self._quotas.active:
            self._take_allowance(request)

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles POST, admitted. Raises InvalidEvent or Problem (400)."""
        body = request.body
        query: _Query = request.target.publication
        if query is not _NOT_IN_QUERY:
            topics, event, event_id, retry = query
            self._publish(Event(topics, bytes(body), event, event_id, retry), body, exchange)
        elif _content_type(request) == _NDJSON:
            events = events_of_lines(body)
            if self._quotas.active:
                self._quotas.published_more(self._owner(request), len(events) - 1)
            self._publish_batch(events, body, exchange)
        else:
            self._publish(event_of_json(body), body, exchange)

    def _publish(self, event: Event, body: bytes | bytearray, exchange: Exchange) -> None:
        def done(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                exchange.fail(outcome)
            elif event.id is None:  # A position: nothing in it needs escaping.
                exchange.respond(json_response(b'{"id":"%b"}\n' % outcome.last))
            else:
                exchange.respond(json_response(_line({"id": event.id.decode()})))
            if self._access is not None:
                self._note(outcome, 1, len(body), exchange)

        self._hub.publish((event,), done)

    def _publish_batch(
        self, events: list[Event], body: bytes | bytearray, exchange: Exchange
    ) -> None:
        if not events:
            raise Problem(400, "Must hold at least one line.", field="body")

        def done(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                exchange.fail(outcome)
            else:
                first, last = outcome.first.decode(), outcome.last.decode()
                answer = {"count": outcome.count, "first": first, "last": last}
                exchange.respond(json_response(_line(answer)))
            if self._access is not None:
                self._note(outcome, len(events), len(body), exchange)

        self._hub.publish(events, done)

    def _note(
        self, outcome: Published | FastsseError, events: int, sent_bytes: int, exchange: Exchange
    ) -> None:
        assert self._access is not None
        status = problem_of(outcome).status if isinstance(outcome, FastsseError) else 200
        self._access.published(exchange.peer(), events, sent_bytes, status)

    def _owner(self, request: Request) -> Owner:
        forwarded = request.headers.get(b"x-forwarded-for")
        return self._quotas.owner(self._clients.address(request.peer, forwarded), None)

    def _take_allowance(self, request: Request) -> None:
        wait_s = self._quotas.publish_wait_s(self._owner(request))
        if wait_s:
            after = b"Retry-After: %d\r\n" % math.ceil(wait_s)
            raise Problem(429, "This client publishes too much.", header_lines=after)

    def _authorise(self, given: bytes | None) -> None:
        assert self._token is not None
        scheme, _, token = (given or b"").strip().partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return
        challenge = b'WWW-Authenticate: Bearer realm="fastsse"%b\r\n'
        error = b"" if given is None else b', error="invalid_token"'
        detail = "Publishing needs the header Authorization: Bearer <publish_token>."
        raise Problem(401, detail, field="Authorization", header_lines=challenge % error)


class _Query(NamedTuple):
    """What the query of a publish says, as Event takes it."""

    topics: str | tuple[str, ...]
    event: str | None
    id: str | None
    retry: str | None


_NOT_IN_QUERY: Final = _Query((), None, None, None)


def _read_query(target: Target) -> _Query:
    """Raises InvalidEvent for names that are unknown, repeated or out of place."""
    topics = tuple(value for name, value in target.pairs if name == "topic")
    chosen: dict[str, str] = {}
    for name, value in target.pairs:
        if name not in _FIELDS:
            raise InvalidEvent(name, f"is unknown; there are {', '.join(_FIELDS)}")
        if name in chosen:
            raise InvalidEvent(name, "must stand once")
        if name != "topic":
            chosen[name] = value
    if topics:
        # One topic alone is checked faster than a list of one.
        named = topics[0] if len(topics) == 1 else topics
        return _Query(named, chosen.get("event"), chosen.get("id"), chosen.get("retry"))
    for name in chosen:
        raise InvalidEvent(name, "needs topic beside it in the query")
    return _NOT_IN_QUERY


def _content_type(request: Request) -> bytes:
    """The type of a body that says its topics itself. Raises Problem (415)."""
    given = request.headers.get(b"content-type", b"")
    media_type, _, parameters = given.lower().partition(b";")
    media_type = media_type.strip()
    if media_type not in (_JSON, _NDJSON):
        accepted = b"Accept-Post: application/json, application/x-ndjson\r\n"
        raise Problem(415, _ACCEPTED, field="Content-Type", header_lines=accepted)
    name, _, charset = parameters.strip().partition(b"=")
    if name.strip() == b"charset" and charset.strip(b' "') not in (b"utf-8", b"utf8"):
        raise Problem(415, "The charset must be UTF-8.", field="Content-Type")
    return media_type


def _line(members: dict[str, object]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)
