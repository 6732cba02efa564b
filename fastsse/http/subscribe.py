"""`GET /events`: what a request asks for, as a subscription."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from fastsse.auth.rights import Rights
from fastsse.errors import InvalidSubscription
from fastsse.http.access import Access
from fastsse.http.request import ID_NAMES, SWITCHES, Request, Target
from fastsse.http.responses import EVENT_STREAM, STATUS_LINES, Response
from fastsse.http.routes import Exchange
from fastsse.subscriptions import HEAD, Cursor, Subscription
from fastsse.units import parse_duration_s

__all__ = ["Subscribe"]

# RFC 3339 §5.6. A `+` that was not escaped has become a space.
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:([Zz])|([+ -])(\d\d:\d\d))", re.ASCII
)
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)
_HEAD: Final = Response(STATUS_LINES[200] + EVENT_STREAM)
_CHUNKED_HEAD: Final = Response(_HEAD.head + b"Transfer-Encoding: chunked\r\n")


class Subscribe:
    """Opens streams.

    Arguments:
        topics_max: the bound on topics of one stream.
        now_ms: unix milliseconds, for `since=10m`.
        access: says who may.
        pings: whether streams can be pinged visibly.

    What a page's author got wrong is a 400, and that ends an EventSource for good. What only a
    later reconnect can hold (an id that is too long, unknown, or not UTF-8) never is: such a
    stream opens and begins with a gap event.
    """

    def __init__(
        self, topics_max: int, now_ms: Callable[[], int], access: Access, *, pings: bool = False
    ) -> None:
        self._access = access
        self._pings = pings
        self._topics_max = topics_max
        self._now_ms = now_ms

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles GET and HEAD. Raises InvalidSubscription."""
        subscription = self.read(request.target, request.headers)
        pings = self._wants_pings(request.target)

        def opened(rights: Rights | None) -> None:
            if request.method == b"HEAD":
                exchange.respond(_CHUNKED_HEAD if request.chunked else _HEAD)
            else:
                exchange.stream(subscription, rights, pings=pings)

        self._access.subscriber(request, exchange, opened)

    def read(self, target: Target, headers: Mapping[bytes, bytes]) -> Subscription:
        """The subscription that a request asks for. O(1) when its target was seen lately.

        `Last-Event-ID` wins over an id in the query, that over `since` and `last`: a client that
        reconnects sends the URL of its first connect again.
        """
        subscription: Subscription | None = target.subscription
        if subscription is None:
            subscription, lasting = self._of_query(target)
            if lasting:
                target.subscription = subscription
        last_event_id = headers.get(b"last-event-id")
        if not last_event_id:
            return subscription
        cursor = Cursor("after", last_event_id)
        if cursor.kind == "head":
            return subscription
        selectors, initial_id = subscription.selectors, subscription.initial_id
        return Subscription(selectors, cursor, initial_id, self._topics_max)

    def _wants_pings(self, target: Target) -> bool:
        wanted = [value for name, value in target.pairs if name == "ping"]
        if not wanted or not _switch("ping", wanted[-1]):
            return False
        if not self._pings:
            raise InvalidSubscription("ping", "is off here (option ping)")
        return True

    def _of_query(self, target: Target) -> tuple[Subscription, bool]:
        """The subscription without headers, and whether it means the same at any time."""
        topics: list[str] = []
        chosen: dict[str, str] = {}
        last_event_id = ""
        for name, value in target.pairs:
            if name == "topic":
                topics.append(value)
            elif name in ID_NAMES:
                # A library appends the id that it has come to behind the one in the page's URL.
                last_event_id = value
            elif name in ("since", "last", "initial_id"):
                if name in chosen:
                    raise InvalidSubscription(name, "must stand once")
                chosen[name] = value
        cursor = self._cursor(last_event_id, chosen.get("since"), chosen.get("last"))
        initial_id = _switch("initial_id", chosen.get("initial_id", "true"))
        if not topics:
            raise InvalidSubscription("topic", "is missing: /events?topic=name")
        subscription = Subscription(topics, cursor, initial_id, self._topics_max)
        return subscription, cursor.kind != "since"

    def _cursor(self, last_event_id: str, since: str | None, last: str | None) -> Cursor:
        if since is not None and last is not None:
            raise InvalidSubscription("last", "can't stand beside since")
        cursor = HEAD
        if since is not None:
            cursor = self._since(since)
        elif last is not None:
            if not _NUMBER.fullmatch(last):
                raise InvalidSubscription("last", "must be a whole number")
            cursor = Cursor("last", int(last))
        return Cursor("after", last_event_id) if last_event_id else cursor

    def _since(self, text: str) -> Cursor:
        if text == "earliest":
            return Cursor("earliest")
        match = _TIME.fullmatch(text)
        if match:
            return Cursor("since", _unix_ms(match))
        try:
            # A bare number could be meant as a time just as well.
            span_s = parse_duration_s(text) if not text.strip().isdigit() else None
        except ValueError:
            span_s = None
        if span_s is None:
            allowed = "must be a time (2026-01-31T12:00:00Z) or a span (10m)"
            raise InvalidSubscription("since", allowed)
        return Cursor("since", max(0, self._now_ms() - round(span_s * 1000)))


def _unix_ms(match: re.Match[str]) -> int:
    day, time, utc, sign, offset = match.groups()
    zone = "+00:00" if utc else ("-" if sign == "-" else "+") + offset
    try:
        moment = datetime.fromisoformat(f"{day}T{time[:15]}{zone}")
    except ValueError:
        raise InvalidSubscription("since", "is not a time that exists") from None
    return round(moment.timestamp() * 1000)


def _switch(field: str, text: str) -> bool:
    try:
        return SWITCHES[text.lower()]
    except KeyError:
        raise InvalidSubscription(field, "must be true or false") from None
