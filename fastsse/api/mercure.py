"""The Mercure protocol in the dialect of deployed clients (0.x), at the well-known path.

Where the specification and the reference hub differ, this module follows the hub. The documentation
lists the deliberate differences.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from fastsse.api.access import CREDENTIAL_NAMES, Access, later_answer
from fastsse.api.authorization import Authorization
from fastsse.api.parameters import SPEECH_NAMES, Speech, chosen_once, names_cursor, notes_on
from fastsse.api.publish import PublishGate
from fastsse.api.warnings import warning_lines, warnings_on
from fastsse.auth.rights import Rights
from fastsse.errors import InvalidEvent, InvalidSubscription
from fastsse.events import CONTROL, FIELDS, Event
from fastsse.http.problems import Problem
from fastsse.http.request import Request, pairs_of
from fastsse.http.responses import MERCURE_STREAM, STATUS_LINES, TEXT, Response
from fastsse.http.router import MERCURE_SPOKEN, Exchange, Route
from fastsse.hub import Published
from fastsse.subscriptions import HEAD, MERCURE, Cursor, Subscription

__all__ = ["SELECTORS_MAX", "MercurePublish", "MercureSubscribe", "mercure_routes"]

SELECTORS_MAX: Final = 1_000
_FORM: Final = b"application/x-www-form-urlencoded"
_ACCEPTED: Final = "The body must be a form: application/x-www-form-urlencoded with topic and data."
_WARNINGS_MAX: Final = 8
_NAMES: Final = SPEECH_NAMES | CREDENTIAL_NAMES | {"topic"}
_FORM_FIELDS: Final = ("topic", "data", "id", "type", "retry", "private")
_DIGITS: Final = re.compile(r"[0-9]{1,20}")
_RETRY_MAX: Final = 1 << 64
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_HEAD: Final = STATUS_LINES[200] + MERCURE_STREAM
# `private`, `id`, `type`, `retry` and fields that clients add; each topic is a field too.
_FIELDS_MAX: Final = SELECTORS_MAX + 100


def mercure_routes(access: Access, gate: PublishGate, speech: Speech) -> dict[bytes, Route]:
    """The methods of the well-known path; the router adds OPTIONS and HEAD.

    Arguments:
        access: decides who may subscribe.
        gate: publishes updates.
        speech: reads the parameters for the form of streams.
        authorization: decides in addition to `access`.
    """
    publish = MercurePublish(gate)
    return {
        b"GET": Route(MercureSubscribe(access, speech, gate.authorization), streams=True),
        b"POST": Route(publish, publish.admit),
    }


class MercureSubscribe:
    """Opens streams.

    Arguments:
        access: decides who may subscribe.
        speech: reads the parameters for the form of streams.
    """

    def __init__(self, access: Access, speech: Speech, authorization: Authorization) -> None:
        self._access = access
        self._authorization = authorization
        self._speech = speech

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles GET and HEAD. Raises InvalidSubscription."""
        subscription = self._read(request)

        def opened(rights: Rights | None) -> None:
            if request.method == b"HEAD":
                exchange.respond(Response(_HEAD + (_CHUNKED if request.chunked else b"")))
            else:
                exchange.stream(subscription, rights)

        later = later_answer(exchange, request, subscription)
        topics = subscription.selectors
        then = self._authorization.subscriber(topics, request, exchange, opened, later)
        self._access.subscriber(request, exchange, then, later)

    def _read(self, request: Request) -> Subscription:
        """The subscription that a request asks for. Unknown parameters get a comment in the
        stream."""
        target = request.target
        subscription: Subscription | None = target.subscription
        if subscription is None:
            subscription = target.subscription = _of_query(target.pairs, self._speech)
        last_event_id = request.headers.get(b"last-event-id")
        if not last_event_id:
            return subscription
        cursor = Cursor("after", last_event_id)
        return Subscription(subscription.selectors, cursor, SELECTORS_MAX, subscription.dialect)


class MercurePublish:
    """Publishes updates.

    Arguments:
        gate: the way to the hub.
    """

    def __init__(self, gate: PublishGate) -> None:
        self._gate = gate

    def admit(self, request: Request) -> None:
        """Checks the head before the body is read. Raises Problem (401, 403, 406, 415, 429)."""
        self._gate.admit(request)
        media_type = request.headers.get(b"content-type", b"").partition(b";")[0]
        if media_type.strip().lower() != _FORM:
            accepted = b"Accept-Post: " + _FORM + b"\r\n"
            raise Problem(415, _ACCEPTED, field="Content-Type", header_lines=accepted)

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles an admitted POST. Raises InvalidEvent or Problem (400), Unauthorised,
        Forbidden."""
        fields = _fields(request)
        update = read_update(fields)
        warnings = [f"{name} is not a field of Mercure" for name in fields if _is_unknown(name)]
        answer = partial(
            _answer, warning_lines((*warnings[:_WARNINGS_MAX], *warnings_on(update.event)))
        )
        self._gate.publish((update,), request, exchange, answer)


def _is_unknown(name: str) -> bool:
    return name not in _FORM_FIELDS and name not in CREDENTIAL_NAMES


def read_update(fields: Mapping[str, list[str]]) -> Event:
    """The update that the fields of a form describe. Raises InvalidEvent, also for a field of our
    own API, because that is a mistake."""
    for name in FIELDS:
        if name in fields and name not in _FORM_FIELDS:
            means = "type" if name == "event" else ", ".join(_FORM_FIELDS)
            raise InvalidEvent(name, f"is not a field of Mercure; use {means}, or POST /events")
    topics = fields.get("topic")
    if not topics:
        raise InvalidEvent("topic", "is missing")
    kind = _first(fields, "type")
    if CONTROL.search(kind):
        raise InvalidEvent("type", "must not contain control characters")
    return Event(
        topics,
        _first(fields, "data"),
        kind or None,
        _first(fields, "id") or None,
        _retry(_first(fields, "retry")),
        "private" in fields,
        "uuid",
    )


def _fields(request: Request) -> dict[str, list[str]]:
    """The fields of the form."""
    if request.body.count(b"&") > _FIELDS_MAX:
        raise Problem(400, f"A form may have at most {_FIELDS_MAX} fields.", field="body")
    fields: dict[str, list[str]] = {}
    for name, value in pairs_of(bytes(request.body)):
        fields.setdefault(name, []).append(value)
    return fields


def _first(fields: Mapping[str, list[str]], name: str) -> str:
    values = fields.get(name)
    return values[0] if values else ""


def _retry(text: str) -> int | None:
    """Milliseconds; None for 0."""
    if not text:
        return None
    if not _DIGITS.fullmatch(text) or int(text) >= _RETRY_MAX:
        raise InvalidEvent("retry", "must be an unsigned whole number (milliseconds)")
    return int(text) or None


def _answer(warnings: bytes, published: Published) -> Response:
    return Response.of(200, published.last, TEXT + warnings)


def _of_query(pairs: tuple[tuple[str, str], ...], speech: Speech) -> Subscription:
    topics = [value for name, value in pairs if name == "topic"]
    if not topics:
        raise InvalidSubscription("topic", _missing(pairs))
    if len(topics) > SELECTORS_MAX:
        raise InvalidSubscription("topic", f"must be given at most {SELECTORS_MAX} times")
    # A library appends its current id after the one in the URL of the page, so the last id is used.
    ids = [value for name, value in pairs if names_cursor(name)]
    cursor = Cursor("after", ids[-1]) if ids else HEAD
    chosen = chosen_once(pairs, SPEECH_NAMES)
    dialect = speech.dialect(MERCURE, chosen, notes_on(pairs, _NAMES))
    return Subscription(topics, cursor, SELECTORS_MAX, dialect)


def _missing(pairs: tuple[tuple[str, str], ...]) -> str:
    if any(name.startswith("match") for name, _ in pairs):
        return f"is missing; {MERCURE_SPOKEN}"
    return "is missing"
