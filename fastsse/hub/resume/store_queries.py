"""Store queries: bounded concurrency, first in first out.

Identical queries share one result (single-flight). A query that no stream waits for is not sent.
"""

from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, Final, Protocol

from fastsse.backbone import Backbone, Stretch
from fastsse.errors import FastsseError
from fastsse.hub.history import Erased
from fastsse.subscriptions import Cursor

__all__ = ["UNKNOWN_YET", "QueryWaiter", "StoreQueries"]


class _Later(Enum):
    """The type of UNKNOWN_YET, the result of a query that is answered later."""

    UNKNOWN_YET = 0


UNKNOWN_YET: Final = _Later.UNKNOWN_YET

Put = Callable[[Callable[[Any], None]], None]


class QueryWaiter(Protocol):
    """Waits for the result of a query."""

    @property
    def ended(self) -> bool:
        """Whether the result is no longer needed."""

    def on_answer(self, outcome: Any) -> None:
        """Called once for each query that was not answered within the call."""


# Ended queries are removed when there are more of them than this, and more than waiting ones.
ENDED_MAX: Final = 64


class _StoreQuery:
    __slots__ = ("_look_at", "askers", "key", "outcome", "put")

    def __init__(self, key: Hashable, put: Put) -> None:
        self.key = key
        self.put = put
        self.askers: list[QueryWaiter] = []
        self.outcome: Any = UNKNOWN_YET
        self._look_at = ENDED_MAX

    def add(self, asker: QueryWaiter) -> None:
        """Adds a waiter and drops those that have ended. Amortized O(1)."""
        if len(self.askers) >= self._look_at:
            self.askers = [one for one in self.askers if not one.ended]
            self._look_at = 2 * len(self.askers) + ENDED_MAX
        self.askers.append(asker)

    @property
    def has_ended(self) -> bool:
        """Whether no waiter needs the result any more."""
        return all(asker.ended for asker in self.askers)


class StoreQueries:
    """Asks a backbone. Loop thread only.

    Arguments:
        backbone: answers within the call, or later.
        at_once_max: the bound on concurrent queries.

    Attributes:
        under_way: number of queries that the backbone has not answered.
    """

    def __init__(self, backbone: Backbone, at_once_max: int) -> None:
        self.under_way = 0
        self._backbone = backbone
        self._at_once_max = at_once_max
        self._questions: dict[Hashable, _StoreQuery] = {}
        self._waiting: deque[_StoreQuery] = deque()
        self._look_at = ENDED_MAX
        # Since the oldest question under way was asked: its answer may not know of them.
        self._erased: list[Erased] = []

    def on_erased(self, erased: Erased) -> None:
        """Notes a deletion: no later answer has the deleted event."""
        if self.under_way:
            self._erased.append(erased)

    @property
    def waiting(self) -> int:
        """Number of queries that wait for their turn."""
        return len(self._waiting)

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, asker: QueryWaiter
    ) -> Stretch | FastsseError | _Later:
        """As `Backbone.read`. Returns the result, or UNKNOWN_YET; then it calls the asker later."""

        def put(done: Callable[[Any], None]) -> None:
            self._backbone.read(selectors, after, limit_bytes, done)

        stretch: Stretch | FastsseError | _Later
        stretch = self._ask((selectors, after, limit_bytes), put, asker)
        return stretch

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, asker: QueryWaiter
    ) -> Stretch | FastsseError | _Later:
        """As `Backbone.newest`, and otherwise as `read`."""

        def put(done: Callable[[Any], None]) -> None:
            self._backbone.newest(selectors, count, limit_bytes, done)

        stretch: Stretch | FastsseError | _Later
        stretch = self._ask((selectors, "newest", count, limit_bytes), put, asker)
        return stretch

    def seek(
        self, selectors: tuple[str, ...], cursor: Cursor, asker: QueryWaiter
    ) -> int | FastsseError | _Later | None:
        """As `Backbone.seek`, and otherwise as `read`."""

        def put(done: Callable[[Any], None]) -> None:
            self._backbone.seek(selectors, cursor, done)

        place: int | FastsseError | _Later | None
        place = self._ask((selectors, cursor), put, asker)
        return place

    @property
    def has_ended(self) -> bool:
        """As `Backbone.has_ended`."""
        return self._backbone.has_ended

    def ended_topics(
        self, topics: tuple[str, ...], asker: QueryWaiter
    ) -> dict[str, int] | FastsseError | _Later:
        """As `Backbone.ended_topics`, and otherwise as `read`."""

        def put(done: Callable[[Any], None]) -> None:
            self._backbone.ended_topics(topics, done)

        ends: dict[str, int] | FastsseError | _Later
        ends = self._ask(("ends", topics), put, asker)
        return ends

    def _ask(self, key: Hashable, put: Put, asker: QueryWaiter) -> Any:
        question = self._questions.get(key)
        if question is None:
            question = self._questions[key] = _StoreQuery(key, put)
            if self.under_way < self._at_once_max:
                self._begin(question)
            else:
                self._wait(question)
        if question.outcome is UNKNOWN_YET:
            question.add(asker)
        return question.outcome

    def _wait(self, question: _StoreQuery) -> None:
        """Queues a query. Queries of ended streams are dropped, because clients may reconnect many
        times while a store hangs. Amortized O(1)."""
        if len(self._waiting) >= self._look_at:
            ended = [one for one in self._waiting if one.has_ended]
            for one in ended:
                del self._questions[one.key]
            self._waiting = deque(one for one in self._waiting if not one.has_ended)
            self._look_at = 2 * len(self._waiting) + ENDED_MAX
        self._waiting.append(question)

    def _begin(self, question: _StoreQuery) -> None:
        self.under_way += 1

        def done(outcome: Any) -> None:
            self.under_way -= 1
            del self._questions[question.key]
            if self._erased and isinstance(outcome, Stretch):
                outcome = _without(outcome, self._erased)
            if not self.under_way:
                self._erased = []
            question.outcome = outcome
            self._begin_waiting()
            for asker in question.askers:
                if not asker.ended:
                    asker.on_answer(outcome)

        question.put(done)

    def _begin_waiting(self) -> None:
        while self._waiting and self.under_way < self._at_once_max:
            question = self._waiting.popleft()
            if question.has_ended:
                del self._questions[question.key]
            else:
                self._begin(question)


def _without(stretch: Stretch, erased: list[Erased]) -> Stretch:
    """A stretch without events deleted since it was read. O(entries + deletions)."""
    places = {one.through for one in erased if one.topic is None}
    purges = [one for one in erased if one.topic is not None]
    kept = [
        entry
        for entry in stretch.entries
        if entry.position not in places and not any(one.covers(entry) for one in purges)
    ]
    return stretch._replace(entries=kept)
