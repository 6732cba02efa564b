"""Streams that were over: a client that returns with the id of the event that ended its stream
receives no other stream."""

from collections.abc import Callable
from typing import Any, Final

from fastsse.auth.rights import Rights
from fastsse.backbone import Stretch
from fastsse.errors import FastsseError
from fastsse.hub.history import History
from fastsse.hub.resume.store_queries import UNKNOWN_YET, StoreQueries
from fastsse.hub.views import Described, core_view, view_of
from fastsse.positions import parse_id
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY, Subscription

__all__ = ["FinishedStreams"]

_EVERYTHING: Final = (ANY,)


class FinishedStreams:
    """Finds out whether the stream that a client resumes was over. Loop thread only.

    Arguments:
        history: the events in memory.
        queries: reads the backbone.
    """

    def __init__(self, history: History, queries: StoreQueries) -> None:
        self._history = history
        self._queries = queries

    def find(self, subscription: Subscription, rights: Rights | None) -> bool | None:
        """Whether it was over; None: only the store knows. O(log n)."""
        view, cursor = subscription.view, subscription.cursor
        if view is None or not view.may_end or cursor.kind != "after":
            return False
        place = parse_id(cursor.text)
        if place is None:
            place = self._history.find(cursor.text)
        if place is None:
            return None
        if place > self._history.head:
            return False
        described = self._history.event_at(place)
        return None if described is None else _is_last(described, subscription, rights)

    def ask(
        self, subscription: Subscription, rights: Rights | None, done: Callable[[bool], None]
    ) -> None:
        """As `find`, with the store. If the store can't answer, the result is no: the stream then
        opens, and reports that it can't read the store."""
        _Search(self._queries, subscription, rights, done).begin()


class _Search:
    """One query to the store, as a `store_queries.QueryWaiter`."""

    ended: Final = False

    def __init__(
        self,
        queries: StoreQueries,
        subscription: Subscription,
        rights: Rights | None,
        done: Callable[[bool], None],
    ) -> None:
        self._queries = queries
        self._subscription = subscription
        self._rights = rights
        self._done = done
        self._then: Callable[[Any], None] = self._on_place
        self._place = 0

    def begin(self) -> None:
        place = parse_id(self._subscription.cursor.text)
        if place is None:
            cursor = self._subscription.cursor
            self._take(self._queries.seek(self._subscription.selectors, cursor, self))
        else:
            self._on_place(place)

    def on_answer(self, outcome: Any) -> None:
        """The store has answered."""
        self._then(outcome)

    def _take(self, outcome: Any) -> None:
        if outcome is not UNKNOWN_YET:
            self._then(outcome)

    def _on_place(self, place: int | FastsseError | None) -> None:
        if place is None or isinstance(place, FastsseError):
            self._done(False)
            return
        self._place, self._then = place, self._on_stretch
        self._take(self._queries.read(_EVERYTHING, place - 1, 1, self))

    def _on_stretch(self, outcome: Stretch | FastsseError) -> None:
        found = () if isinstance(outcome, FastsseError) else outcome.entries
        self._done(
            any(
                _is_last(
                    Described(one.frame, one.topics, one.extras.meta if one.extras else None),
                    self._subscription,
                    self._rights,
                )
                for one in found
                if one.position == self._place
            )
        )


def _is_last(one: Described, subscription: Subscription, rights: Rights | None) -> bool:
    """Whether a stream of this subscription ends behind an event."""
    if one.frame.private and not (rights and rights.covers_subscribe(one.topics)):
        return False
    if not any(
        text == ANY or compile_selector(text).matches(name)
        for text in subscription.selectors
        for name in one.topics
    ):
        return False
    view = view_of(subscription)
    assert view is not None
    return core_view(view).select([one.frame], [one.topics], [one.meta])[1]
