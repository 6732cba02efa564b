"""The Mercure protocol as deployed clients speak it (its 0.x dialect), at the well-known path.

Where the specification and the reference hub differ, this does as the hub does; README says where
it deliberately does not.
"""

import re
from collections.abc import Mapping
from typing import Final

from fastsse.auth.rights import Rights
from fastsse.errors import InvalidEvent, InvalidSubscription
from fastsse.events import CONTROL, Event
from fastsse.http.access import Access
from fastsse.http.problems import Problem
from fastsse.http.publish import Intake
from fastsse.http.request import Request, pairs_of
from fastsse.http.responses import MERCURE_STREAM, STATUS_LINES, TEXT, Response
from fastsse.http.routes import Exchange, Route
from fastsse.hub import Published
from fastsse.subscriptions import HEAD, MERCURE, MERCURE_TELLING, Cursor, Subscription

__all__ = ["SELECTORS_MAX", "TELLS", "MercurePublish", "MercureSubscribe", "mercure_routes"]

SELECTORS_MAX: Final = 1_000
#: The query parameter that opts in to the server's own in-band events (gaps, expiring tokens).
TELLS: Final = "fastsse"
_FORM: Final = b"application/x-www-form-urlencoded"
_DIGITS: Final = re.compile(r"[0-9]{1,20}")
_RETRY_LIMIT: Final = 1 << 64
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_HEAD: Final = STATUS_LINES[200] + MERCURE_STREAM
# `private`, `id`, `type`, `retry` and what clients add; each topic is a field too.
_FIELDS_MAX: Final = SELECTORS_MAX + 100


def mercure_routes(access: Access, intake: Intake) -> dict[bytes, Route]:
    """The methods of the well-known path; OPTIONS and HEAD come with them.

    Arguments:
        access: says who may subscribe.
        intake: where updates are handed in.
    """
    publish = MercurePublish(intake)
    return {
        b"GET": Route(MercureSubscribe(access), streams=True),
        b"POST": Route(publish, intake.admit),
    }


class MercureSubscribe:
    """Opens streams.

    Arguments:
        access: says who may.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles GET and HEAD. Raises InvalidSubscription."""
        subscription = self._read(request)

        def opened(rights: Rights | None) -> None:
            if request.method == b"HEAD":
                exchange.respond(Response(_HEAD + (_CHUNKED if request.chunked else b"")))
            else:
                exchange.stream(subscription, rights)

        self._access.subscriber(request, exchange, opened)

    def _read(self, request: Request) -> Subscription:
        """The subscription that a request asks for. Unknown names in the query mean nothing."""
        target = request.target
        subscription: Subscription | None = target.subscription
        if subscription is None:
            subscription = target.subscription = _of_query(target.pairs)
        last_event_id = request.headers.get(b"last-event-id")
        if not last_event_id:
            return subscription
        cursor = Cursor("after", last_event_id)
        return Subscription(
            subscription.selectors, cursor, True, SELECTORS_MAX, subscription.dialect
        )


class MercurePublish:
    """Takes updates in.

    Arguments:
        intake: where they are handed in.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles POST, admitted. Raises InvalidEvent or Problem (400), Unauthorised, Forbidden."""
        update = read_update(_fields(request))
        self._intake.publish((update,), request, exchange, _answer)


def read_update(fields: Mapping[str, list[str]]) -> Event:
    """The update that a form's fields describe; unknown ones mean nothing. Raises InvalidEvent."""
    topics = fields.get("topic")
    if not topics:
        raise InvalidEvent("topic", "is missing")
    kind = _first(fields, "type")
    if CONTROL.search(kind):
        raise InvalidEvent("type", "must not hold control characters")
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
    """The form's fields; none when the body is no form."""
    media_type = request.headers.get(b"content-type", b"").partition(b";")[0]
    if media_type.strip().lower() != _FORM:
        return {}
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
    """Milliseconds; 0 is as if it were not there."""
    if not text:
        return None
    if not _DIGITS.fullmatch(text) or int(text) >= _RETRY_LIMIT:
        raise InvalidEvent("retry", "must be an unsigned whole number (milliseconds)")
    return int(text) or None


def _answer(published: Published) -> Response:
    return Response.of(200, published.last, TEXT)


def _of_query(pairs: tuple[tuple[str, str], ...]) -> Subscription:
    topics = [value for name, value in pairs if name == "topic"]
    if not topics:
        raise InvalidSubscription("topic", "is missing")
    if len(topics) > SELECTORS_MAX:
        raise InvalidSubscription("topic", f"must stand at most {SELECTORS_MAX} times")
    last_event_id = next((value for name, value in pairs if name == "lastEventID"), "")
    tells = (TELLS, "true") in pairs
    cursor = Cursor("after", last_event_id) if last_event_id else HEAD
    dialect = MERCURE_TELLING if tells else MERCURE
    return Subscription(topics, cursor, True, SELECTORS_MAX, dialect)
