"""`GET /events`: reads a request and opens its stream."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from fastsse.api.access import CREDENTIAL_NAMES, Access, Then, later_answer
from fastsse.api.authorization import Authorization
from fastsse.api.feeds import UNKNOWN_FEED, unread
from fastsse.api.parameters import (
    NOTE,
    SPEECH_NAMES,
    Speech,
    chosen_once,
    names_cursor,
    notes_on,
    reads_lines,
)
from fastsse.api.polling import Polling, read_wait
from fastsse.api.views import VIEW_NAMES, ViewReader
from fastsse.auth.rights import Rights
from fastsse.control.feeds import Feeds, FeedTopics, may_be_feed
from fastsse.errors import FastsseError, InvalidSubscription, StreamRefused
from fastsse.http.problems import Problem
from fastsse.http.request import Request, Target
from fastsse.http.responses import EVENT_STREAM, STATUS_LINES, Response
from fastsse.http.router import Exchange
from fastsse.hub.resume.finished import FinishedStreams
from fastsse.subscriptions import EVENTS, HEAD, Cursor, Subscription, View
from fastsse.units import parse_duration_s

__all__ = ["Subscribe"]

# RFC 3339 §5.6. An unescaped `+` has become a space.
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:([Zz])|([+ -])(\d\d:\d\d))", re.ASCII
)
# Clients of Durable Streams request all kept events in this way.
_EARLIEST_OFFSET: Final = "-1"
_ONCE: Final = (
    frozenset({"feed", "since", "last", "last_each", "offset", "wait"}) | SPEECH_NAMES | VIEW_NAMES
)
_NAMES: Final = _ONCE | CREDENTIAL_NAMES | {"topic"}
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)
_HEAD: Final = Response(STATUS_LINES[200] + EVENT_STREAM)
# An EventSource does not reconnect after it.
_CHUNKED_HEAD: Final = Response(_HEAD.head + b"Transfer-Encoding: chunked\r\n")


# Stands for the topics of a feed that is not known yet.
_NO_FEED: Final = FeedTopics.of(("*",))


class _Readings(NamedTuple):
    """The subscription of a target, for an EventSource and for a client that `reads_lines`."""

    standard: Subscription
    by_lines: Subscription


class Subscribe:
    """Opens streams.

    Arguments:
        topics_max: the most topics of one stream.
        now_ms: unix milliseconds, for `since=10m`.
        access: decides who may subscribe.
        speech: reads the parameters for the form of streams.
        views: reads the parameters for which events are sent, and in which form.
        finished: finds out whether the stream that a client resumes was over.

    A mistake in the URL is a 400, which stops an EventSource permanently. An invalid id (too long,
    unknown, or not UTF-8) can appear in a later reconnect only, so it is never a 400: the stream
    opens and begins with a gap event.
    """

    def __init__(
        self,
        topics_max: int,
        now_ms: Callable[[], int],
        access: Access,
        speech: Speech | None = None,
        views: ViewReader | None = None,
        finished: FinishedStreams | None = None,
    ) -> None:
        self._access = access
        self._speech = Speech() if speech is None else speech
        self._views = ViewReader() if views is None else views
        self._finished = finished
        #: Answers requests with `wait`; None: there are none.
        self.polling: Polling | None = None
        #: Decides in addition to `access`; None: nothing does.
        self.authorization: Authorization | None = None
        #: Finds the topics of `feed`; None: none are stored.
        self.feeds: Feeds | None = None
        self._topics_max = topics_max
        self._now_ms = now_ms

    def __call__(self, request: Request, exchange: Exchange) -> None:
        """Handles GET and HEAD. Raises InvalidSubscription."""
        feed = feed_of(request.target.pairs)
        if feed is None:
            self._open(self.read(request.target, request.headers), request, exchange)
            return
        topics = None if self.feeds is None else self.feeds.find(feed)
        if topics is not None:
            subscription = self.read(request.target, request.headers, topics)
            self._open(subscription, request, exchange)
        elif exchange.may_wait:
            self._find_feed(feed, request, exchange)

    def _find_feed(self, feed: str, request: Request, exchange: Exchange) -> None:
        """Opens a stream of a feed that another worker, or another node, knows."""
        # Mistakes in the other parameters are reported first.
        unknown = self.read(request.target, request.headers, _NO_FEED)
        if self.feeds is None or not may_be_feed(feed):
            self._refuse_feed(unknown, exchange)
            return

        def found(topics: FeedTopics | FastsseError | None) -> None:
            try:
                if isinstance(topics, FastsseError) and unknown.dialect.wait_s is not None:
                    exchange.fail(unread(topics))
                elif isinstance(topics, FastsseError):
                    exchange.turn_away(unknown, StreamRefused("feeds"))
                elif topics is None:
                    self._refuse_feed(unknown, exchange)
                else:
                    subscription = self.read(request.target, request.headers, topics)
                    self._open(subscription, request, exchange)
            except FastsseError as error:
                exchange.fail(error)

        self.feeds.ask(feed, found)

    def _refuse_feed(self, unknown: Subscription, exchange: Exchange) -> None:
        """Answers a subscriber whose feed is not stored."""
        if unknown.dialect.wait_s is not None:
            raise Problem(404, UNKNOWN_FEED, field="feed")
        exchange.turn_away(unknown, StreamRefused("feed"))

    def _open(self, subscription: Subscription, request: Request, exchange: Exchange) -> None:
        def opened(rights: Rights | None) -> None:
            if subscription.dialect.wait_s is not None:
                self._poll(request, subscription, rights, exchange, subscription.dialect.wait_s)
            elif request.method == b"HEAD":
                exchange.respond(_CHUNKED_HEAD if request.chunked else _HEAD)
            elif subscription.view is None or not subscription.view.may_end:
                exchange.stream(subscription, rights)
            else:
                self._resume(subscription, rights, exchange)

        is_poll = subscription.dialect.wait_s is not None
        later = None if is_poll else later_answer(exchange, request, subscription)
        then: Then = opened
        if self.authorization is not None:
            topics = subscription.selectors
            then = self.authorization.subscriber(topics, request, exchange, opened, later)
        if is_poll and self.polling is not None:
            if exchange.may_wait:
                self.polling.access.subscriber(request, exchange, then)
            return
        self._access.subscriber(request, exchange, then, later)

    def _poll(
        self,
        request: Request,
        subscription: Subscription,
        rights: Rights | None,
        exchange: Exchange,
        wait_s: float,
    ) -> None:
        polling = self.polling
        if polling is None or self._finished is None:
            raise InvalidSubscription("wait", "is not available here")

        def found(is_over: bool) -> None:
            if is_over:
                polling.over(request, subscription, exchange)
            else:
                polling.answer(request, subscription, rights, exchange, wait_s)

        known = self._finished.find(subscription, rights)
        if known is not None:
            found(known)
        elif exchange.may_wait:
            self._finished.ask(subscription, rights, found)

    def _resume(
        self, subscription: Subscription, rights: Rights | None, exchange: Exchange
    ) -> None:
        """Opens a stream that an event may end, or answers 204: that event was sent already."""

        def found(is_over: bool) -> None:
            if is_over:
                exchange.turn_away(subscription, StreamRefused("over"))
            else:
                exchange.stream(subscription, rights)

        known = False if self._finished is None else self._finished.find(subscription, rights)
        if known is not None:
            found(known)
        elif exchange.may_wait:
            assert self._finished is not None
            self._finished.ask(subscription, rights, found)

    def read(
        self, target: Target, headers: Mapping[bytes, bytes], feed: FeedTopics | None = None
    ) -> Subscription:
        """The subscription that a request asks for, of the topics of its `feed` if it names one.
        O(1) if its target is in the cache, or if it names a feed.

        `Last-Event-ID` has precedence over an id in the query, and that over `since`, `last` and
        `offset`, because a client that reconnects sends the URL of its first connect again.
        """
        readings: _Readings | None = target.subscription if feed is None else _known(target, feed)
        if readings is None:
            readings, lasting = self._of_query(target, feed)
            if lasting and feed is None:
                target.subscription = readings
            elif lasting and feed is not None and feed is not _NO_FEED:
                # A target must not keep the topics of a feed.
                feed.reading = target.query, readings
        subscription = readings.by_lines if reads_lines(headers) else readings.standard
        last_event_id = headers.get(b"last-event-id")
        if not last_event_id:
            return subscription
        cursor = Cursor("after", last_event_id)
        if cursor.kind == "head":
            return subscription
        return subscription.at(cursor)

    def _of_query(self, target: Target, feed: FeedTopics | None) -> tuple[_Readings, bool]:
        """The subscription of the query alone, and whether it is independent of the time."""
        chosen = chosen_once(target.pairs, _ONCE)
        topics: Sequence[str] = [value for name, value in target.pairs if name == "topic"]
        if feed is not None:
            if topics:
                raise InvalidSubscription("feed", "can't be combined with topic")
            topics = feed
        # A library appends its current id after the one in the URL of the page, so the last id is
        # used.
        ids = [value for name, value in target.pairs if names_cursor(name)]
        last_event_id = ids[-1] if ids else ""
        cursor = self._cursor(last_event_id, chosen)
        notes = notes_on(target.pairs, _known_names(chosen))
        if not topics:
            about = "".join(f"; {line.removeprefix(NOTE)}" for line in notes.decode().splitlines())
            raise InvalidSubscription("topic", f"is missing: /events?topic=name{about}")
        speech = {name: chosen[name] for name in SPEECH_NAMES & chosen.keys()}
        dialect = self._speech.dialect(EVENTS, speech, notes)
        last_each, view = _last_each(chosen), self._views.read(chosen, topics)
        if view is not None and view.notices and not dialect.has_control_events:
            raise InvalidSubscription("deleted", "needs control events (fastsse=true)")
        wait_s = read_wait(chosen.get("wait"))
        if wait_s is not None:
            dialect, view = replace(dialect, wait_s=wait_s), _of_poll(chosen, view)
        if feed is not None:
            standard = Subscription.of_feed(feed, cursor, dialect, last_each, view)
        else:
            standard = Subscription(topics, cursor, self._topics_max, dialect, last_each, view)
        lines = standard.with_dialect(self._speech.for_lines(dialect, speech))
        return _Readings(standard, lines), cursor.kind != "since"

    def _cursor(self, last_event_id: str, chosen: Mapping[str, str]) -> Cursor:
        begins = [name for name in ("since", "last", "last_each", "offset") if name in chosen]
        if chosen.get("offset", _EARLIEST_OFFSET) != _EARLIEST_OFFSET:
            begins.remove("offset")
        if len(begins) > 1:
            raise InvalidSubscription(begins[1], f"can't be combined with {begins[0]}")
        cursor = self._begin(begins[0], chosen) if begins and begins != ["last_each"] else HEAD
        return Cursor("after", last_event_id) if last_event_id else cursor

    def _begin(self, name: str, chosen: Mapping[str, str]) -> Cursor:
        if name == "since":
            return self._since(chosen[name])
        if name == "offset":
            return Cursor("earliest")
        if not _NUMBER.fullmatch(chosen[name]):
            raise InvalidSubscription("last", "must be a whole number")
        return Cursor("last", int(chosen[name]))

    def _since(self, text: str) -> Cursor:
        if text == "earliest":
            return Cursor("earliest")
        match = _TIME.fullmatch(text)
        if match:
            return Cursor("since", _unix_ms(match))
        try:
            # A bare number is ambiguous: it could be a time or a span.
            span_s = parse_duration_s(text) if not text.strip().isdigit() else None
        except ValueError:
            span_s = None
        if span_s is None:
            allowed = "must be a time (2026-01-31T12:00:00Z) or a span (10m)"
            raise InvalidSubscription("since", allowed)
        return Cursor("since", max(0, self._now_ms() - round(span_s * 1000)))


def feed_of(pairs: Sequence[tuple[str, str]]) -> str | None:
    """The id of the feed that a query names; None without one. Raises InvalidSubscription."""
    feeds = [value for name, value in pairs if name == "feed"]
    if len(feeds) > 1:
        raise InvalidSubscription("feed", "must be given once")
    return feeds[0] if feeds else None


def _of_poll(chosen: Mapping[str, str], view: View | None) -> View:
    """The view of a poll: its events are envelopes."""
    for name in ("last_each", "deleted"):
        if name in chosen:
            raise InvalidSubscription(name, "can't be combined with wait")
    return replace(view or View(), envelope=True)


def _last_each(chosen: Mapping[str, str]) -> int:
    text = chosen.get("last_each")
    if text is None:
        return 0
    if not _NUMBER.fullmatch(text) or text.strip("0") == "":
        raise InvalidSubscription("last_each", "must be a whole number above 0")
    return int(text)


def _unix_ms(match: re.Match[str]) -> int:
    day, time, utc, sign, offset = match.groups()
    zone = "+00:00" if utc else ("-" if sign == "-" else "+") + offset
    try:
        moment = datetime.fromisoformat(f"{day}T{time[:15]}{zone}")
    except ValueError:
        raise InvalidSubscription("since", "is not a time that exists") from None
    return round(moment.timestamp() * 1000)


def _known(target: Target, feed: FeedTopics) -> _Readings | None:
    """What was read before of a query with this feed."""
    if feed.reading is None or feed.reading[0] != target.query:
        return None
    readings: _Readings = feed.reading[1]
    return readings


def _known_names(chosen: Mapping[str, str]) -> frozenset[str]:
    """The known parameters; `offset` is known only with the value for the beginning."""
    unknown = {"offset"} if chosen.get("offset", _EARLIEST_OFFSET) != _EARLIEST_OFFSET else set()
    return _NAMES - unknown
