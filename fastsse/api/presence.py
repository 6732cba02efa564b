"""Presence: which subscribers are connected. The token must cover the requested path.

`/.well-known/mercure/subscriptions…` answers as Mercure's API does. `/presence?topic=` answers with
a count and a list in plain JSON. Every answer has an id. A stream opened after that id receives
every later change, because the id is read before the control service is asked.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import orjson

from fastsse.api.access import Access
from fastsse.auth.rights import ANONYMOUS, Rights
from fastsse.control.presence import FoundSubscriptions, Presence
from fastsse.control.roster import CONTEXT, LISTED_MAX, Subscribed, path_of, subscription_document
from fastsse.errors import FastsseError, Forbidden, InvalidSubscription, Unauthorised
from fastsse.http.problems import Problem
from fastsse.http.request import Request, decode
from fastsse.http.responses import JSON, NOT_STORED, STATUS_LINES, Response
from fastsse.http.router import Exchange, Route

__all__ = ["SUBSCRIPTIONS_PATH", "presence_route", "subscriptions_route"]

SUBSCRIPTIONS_PATH: Final = path_of().encode()
LIST_UNASKED: Final = 100
LIST_MAX: Final = 10_000
_LD_JSON: Final = b"Content-Type: application/ld+json\r\n" + NOT_STORED
_NUMBER: Final = re.compile(r"[0-9]{1,5}")

#: Returns the id of the last event; `earliest` before the first.
LastId = Callable[[], bytes]


def subscriptions_route(access: Access, presence: Presence, last_id: LastId) -> Route:
    """Mercure's subscription API, for every path below `SUBSCRIPTIONS_PATH`."""
    return Route(_Subscriptions(access, presence, last_id))


def presence_route(access: Access, presence: Presence, last_id: LastId) -> Route:
    """`GET /presence?topic=…&limit=…`."""
    return Route(_Plain(access, presence, last_id))


class _Subscriptions:
    """All subscriptions, those of one topic, or one of them (0.x dialect)."""

    def __init__(self, access: Access, presence: Presence, last_id: LastId) -> None:
        self._access = access
        self._presence = presence
        self._last_id = last_id

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles GET and HEAD. Raises Problem (404), Unauthorised."""
        topic, subscriber = _segments(request.target.raw_path)
        path = request.target.raw_path.decode(errors="replace")

        def allowed(rights: Rights | None) -> None:
            if rights is None or rights is ANONYMOUS:
                raise Unauthorised("Listing subscriptions requires a token.")
            if not rights.covers_subscribe((path,)):
                raise Unauthorised("The token's mercure.subscribe does not cover this path.")
            tag = self._last_id()
            if _is_known(request, tag):
                exchange.respond(Response(STATUS_LINES[304] + _etag(tag) + NOT_STORED))
                return
            done = partial(_answer_collection, exchange, path, tag)
            if subscriber is not None:
                done = partial(_answer_one, exchange, tag)
            self._presence.find(topic, subscriber, LISTED_MAX, done)

        self._access.subscriber(request, exchange, allowed)


class _Plain:
    """The number of streams that subscribe to a topic, and their subscribers."""

    def __init__(self, access: Access, presence: Presence, last_id: LastId) -> None:
        self._access = access
        self._presence = presence
        self._last_id = last_id

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles GET and HEAD. Raises InvalidSubscription, Forbidden, Unauthorised."""
        topic, most = _question(request.target.pairs)

        def allowed(rights: Rights | None) -> None:
            if rights is None or rights is ANONYMOUS:
                raise Unauthorised("The presence API requires a token.")
            if not rights.covers_subscribe((path_of(topic),)):
                raise Forbidden(f"The token's mercure.subscribe must cover {path_of(topic)}.")
            last_id = self._last_id().decode()
            self._presence.find(topic, None, most, partial(_answer_plain, exchange, topic, last_id))

        self._access.subscriber(request, exchange, allowed)


def _segments(path: bytes) -> tuple[str | None, str | None]:
    """Topic and subscriber in a path below that of the collection. Raises Problem (404)."""
    rest = path[len(SUBSCRIPTIONS_PATH) :].split(b"/")[1:]
    if len(rest) > 2 or not all(rest):
        raise Problem(404, "There is no such subscription.")
    topic, subscriber, *_ = (*(decode(part, "path") for part in rest), None, None)
    return topic, subscriber


def _question(pairs: Sequence[tuple[str, str]]) -> tuple[str, int]:
    """The parameters of `/presence`: topic and limit."""
    topics = [value for name, value in pairs if name == "topic"]
    limits = [value for name, value in pairs if name == "limit"]
    if len(topics) != 1 or not topics[0]:
        raise InvalidSubscription("topic", "must be given once: /presence?topic=name")
    most = limits[0] if limits else str(LIST_UNASKED)
    if len(limits) > 1 or not _NUMBER.fullmatch(most) or int(most) > LIST_MAX:
        raise InvalidSubscription("limit", f"must be a number from 0 to {LIST_MAX}")
    return topics[0], int(most)


def _answer_collection(
    exchange: Exchange, path: str, tag: bytes, found: FoundSubscriptions | FastsseError
) -> None:
    if isinstance(found, FastsseError):
        exchange.fail(found)
        return
    if found.total > len(found.subscriptions):
        detail = "There are too many subscriptions for one answer; request those of one topic."
        exchange.fail(Problem(400, detail, field="path", members={"count": found.total}))
        return
    members = {
        "@context": CONTEXT,
        "id": path,
        "type": "Subscriptions",
        "lastEventID": tag.decode(),
        "subscriptions": [subscription_document(one, active=True) for one in found.subscriptions],
    }
    exchange.respond(Response.of(200, orjson.dumps(members), _LD_JSON + _etag(tag)))


def _answer_one(exchange: Exchange, tag: bytes, found: FoundSubscriptions | FastsseError) -> None:
    if isinstance(found, FastsseError):
        exchange.fail(found)
    elif not found.subscriptions:
        exchange.fail(Problem(404, "There is no such subscription."))
    else:
        document = subscription_document(found.subscriptions[0], active=True)
        members = {"@context": CONTEXT, **document, "lastEventID": tag.decode()}
        exchange.respond(Response.of(200, orjson.dumps(members), _LD_JSON + _etag(tag)))


def _answer_plain(
    exchange: Exchange, topic: str, last_id: str, found: FoundSubscriptions | FastsseError
) -> None:
    if isinstance(found, FastsseError):
        exchange.fail(found)
        return
    members = {
        "topic": topic,
        "count": found.total,
        "subscribers": list(map(_subscriber, found.subscriptions)),
        "last_event_id": last_id,
    }
    body = orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)
    exchange.respond(Response.of(200, body, JSON))


def _subscriber(one: Subscribed) -> dict[str, object]:
    named: dict[str, object] = {"subscriber": one.subscriber}
    if one.payload is not None:
        named["payload"] = one.payload
    return named


def _is_known(request: Request, tag: bytes) -> bool:
    given = request.headers.get(b"if-none-match")
    if given is None:
        return False
    return tag in [one.strip().removeprefix(b"W/").strip(b'"') for one in given.split(b",")]


def _etag(tag: bytes) -> bytes:
    # Without quotes, as the reference hub does.
    return b"ETag: %b\r\n" % tag
