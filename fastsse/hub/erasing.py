"""Finds events that are to be deleted: by topic and id, or whether a topic has any."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastsse.backbone import Stretch
from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.events import as_header_value
from fastsse.eventstream import EventStreamParser
from fastsse.hub.history import History
from fastsse.hub.resume.store_queries import UNKNOWN_YET, StoreQueries
from fastsse.positions import format_position, parse_id
from fastsse.subscriptions import Cursor

__all__ = ["EventLookup", "FoundEvent"]

_READ_BYTES: Final = 1


class FoundEvent(NamedTuple):
    """A kept event: its position, its topics, and its id as streams receive it."""

    position: int
    topics: tuple[str, ...]
    event_id: str
    private: bool


Found = Callable[[FoundEvent | FastsseError | None], None]


class EventLookup:
    """Asks memory, then the store. Loop thread only.

    Arguments:
        history: the events in memory.
        queries: reads the backbone.
    """

    def __init__(self, history: History, queries: StoreQueries) -> None:
        self._history = history
        self._queries = queries

    def find(self, topic: str, event_id: str, done: Found) -> None:
        """Calls `done`, now or later, with the kept event of a topic with this id; None if there is
        none, or if it was deleted. If several events have an own id, the earliest is found."""
        text = as_header_value(event_id.encode("utf-8", "surrogatepass"))
        _Search(self._history, self._queries, topic, text, done).begin()

    def has_events(self, topic: str, done: Callable[[bool | FastsseError], None]) -> None:
        """Calls `done`, now or later, with whether an event of a topic is kept."""
        _TopicSearch(self._history, self._queries, topic, done).begin()


class _Question:
    """A query to the store, as a `store_queries.QueryWaiter`."""

    ended: Final = False

    def __init__(self, history: History, queries: StoreQueries) -> None:
        self._history = history
        self._queries = queries
        self._then: Callable[[Any], None] = lambda outcome: None

    def on_answer(self, outcome: Any) -> None:
        """The store has answered."""
        self._then(outcome)

    def _ask(self, outcome: Any, then: Callable[[Any], None]) -> None:
        self._then = then
        if outcome is not UNKNOWN_YET:
            then(outcome)


class _Search(_Question):
    def __init__(
        self,
        history: History,
        queries: StoreQueries,
        topic: str,
        event_id: bytes,
        done: Found,
    ) -> None:
        super().__init__(history, queries)
        self._topic = topic
        self._event_id = event_id
        self._done = done

    def begin(self) -> None:
        place = parse_id(self._event_id)
        if place is None:
            place = self._history.find(self._event_id)
        if place is not None and place <= self._history.head:
            self._look(place)
            return
        # Its worker or node may be ahead of this one.
        cursor = Cursor("after", self._event_id)
        if cursor.kind != "after":
            self._done(None)
            return
        self._ask(self._queries.seek((self._topic,), cursor, self), self._on_place)

    def _on_place(self, place: int | FastsseError | None) -> None:
        if place is None or isinstance(place, FastsseError):
            self._done(place)
        else:
            self._look(place)

    def _look(self, place: int) -> None:
        if (entry := self._history.entry_at(place)) is not None:
            self._done(self._found(entry))
            return

        def answered(outcome: Stretch | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                self._done(outcome)
                return
            # What another process kept may have come meanwhile.
            stored = (one for one in outcome.entries if one.position == place)
            entry = self._history.entry_at(place) or next(stored, None)
            self._done(None if entry is None else self._found(entry))

        self._ask(self._queries.read((self._topic,), place - 1, _READ_BYTES, self), answered)

    def _found(self, entry: Entry) -> FoundEvent | None:
        if not entry.frame.events or self._topic not in entry.topics:
            return None
        body = entry.frame.body
        (block,) = EventStreamParser(len(body) + 1).feed(body)
        event_id = block.id if block.id is not None else format_position(entry.position)
        return FoundEvent(entry.position, entry.topics, event_id.decode(), entry.frame.private)


class _TopicSearch(_Question):
    def __init__(
        self,
        history: History,
        queries: StoreQueries,
        topic: str,
        done: Callable[[bool | FastsseError], None],
    ) -> None:
        super().__init__(history, queries)
        self._topic = topic
        self._done = done

    def begin(self) -> None:
        if self._history.has_events(self._topic):
            self._done(True)
            return

        def answered(outcome: Stretch | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                self._done(outcome)
            else:
                self._done(bool(outcome.entries) or self._history.has_events(self._topic))

        self._ask(self._queries.newest((self._topic,), 1, _READ_BYTES, self), answered)
