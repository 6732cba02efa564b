"""Appending to streams, and closing them."""

from collections.abc import Callable, Sequence
from typing import Final

from fastsse.directives import Directives
from fastsse.errors import BadRequest, FastsseError, StreamChanged, TopicEnded
from fastsse.events import Event
from fastsse.hub import Published
from fastsse.streams.content import pieces_of
from fastsse.streams.finding import StreamFinder
from fastsse.streams.requests import (
    TRIES_MAX,
    Appended,
    AppendRequest,
    PublishEvents,
    StreamOtherwise,
    publish_safely,
)
from fastsse.streamstate import StreamAsk, StreamRow

__all__ = ["StreamAppender", "newest_of"]


class StreamAppender:
    """Appends to streams. Loop thread only.

    Arguments:
        finder: finds their rows.
    """

    def __init__(self, finder: StreamFinder) -> None:
        self._finder: Final = finder

    def append(
        self,
        request: AppendRequest,
        publish: PublishEvents,
        done: Callable[[Appended | FastsseError], None],
        tries: int = TRIES_MAX,
    ) -> None:
        """Appends to a stream, closes it, or both at once. `done` gets an error otherwise:
        StreamMissing, StreamGone, StreamOtherwise (another content type), BadRequest, or a
        Conflict."""

        def found(row: StreamRow | FastsseError) -> None:
            if isinstance(row, FastsseError):
                done(row)
                return
            try:
                events = _appended(request, row)
            except FastsseError as error:
                # A closed stream is reported first: it explains the other error.
                done(Appended(row, is_closed=True) if row.closed else error)
                return
            if row.closed and request.producer is None:
                done(Appended(row, is_closed=not _only_closes(request)))
                return
            self._append(request, row, events, publish, done, again if tries else None)

        def again() -> None:
            self.append(request, publish, done, tries - 1)

        self._finder.find(request.topic, found)

    def _append(
        self,
        request: AppendRequest,
        row: StreamRow,
        events: Sequence[Event],
        publish: PublishEvents,
        done: Callable[[Appended | FastsseError], None],
        again: Callable[[], None] | None,
    ) -> None:
        def published(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, StreamChanged) and again is not None:
                again()
            elif isinstance(outcome, FastsseError):
                if isinstance(outcome, TopicEnded):
                    self._closed(request, row, done)
                else:
                    done(outcome)
            else:
                self._done(request, row, outcome, done)

        publish_safely(publish, events, published)

    def _done(
        self,
        request: AppendRequest,
        row: StreamRow,
        published: Published,
        done: Callable[[Appended | FastsseError], None],
    ) -> None:
        placed = published.placed
        if not published.duplicates:
            content = placed[:-1] if request.closes else placed
            tail = newest_of(content) or row.tail
            closed = (placed[-1] or 0) if request.closes else 0
            sequence = -1 if request.producer is None else request.producer.sequence
            if row.closed and not request.body:
                closed = row.closed
            done(Appended(row._replace(tail=tail, closed=closed), sequence=sequence))
            return

        def found(now: StreamRow | FastsseError) -> None:
            if isinstance(now, FastsseError):
                done(now)
            else:
                is_last = request.producer is not None and (
                    published.sequence <= request.producer.sequence
                )
                is_refused = bool(now.closed) and not is_last
                done(Appended(now, is_refused, not is_refused, published.sequence))

        self._finder.find(request.topic, found)

    def _closed(
        self,
        request: AppendRequest,
        row: StreamRow,
        done: Callable[[Appended | FastsseError], None],
    ) -> None:
        """The stream was closed meanwhile."""

        def found(now: StreamRow | FastsseError) -> None:
            if isinstance(now, FastsseError):
                done(now)
            else:
                done(Appended(now, is_closed=not _only_closes(request)))

        self._finder.find(request.topic, found)


def newest_of(placed: Sequence[int | None]) -> int:
    """The position of the last event that was not dropped; 0: all were, or there is none."""
    return next((place for place in reversed(placed) if place is not None), 0)


def _only_closes(request: AppendRequest) -> bool:
    return request.closes and not request.body


def _appended(request: AppendRequest, row: StreamRow) -> list[Event]:
    """The events of an append. Raises StreamOtherwise, BadRequest."""
    topic, config = request.topic, row.config
    events: list[Event] = []
    if request.body:
        if request.content_type is None:
            raise BadRequest("Content-Type", "is missing")
        if not config.is_of(request.content_type):
            raise StreamOtherwise(f"The stream {topic} has the content type {config.content_type}.")
        pieces = pieces_of(config, request.body)
        if not pieces:
            raise BadRequest("body", "must not be an empty array")
        events = [
            Event(topic, data, private=config.private, data_kind=kind) for data, kind in pieces
        ]
    if request.closes:
        events.append(Event.end(topic))
    ask = StreamAsk("append", row.generation, request.seq)
    for event in events:
        asked = event.directives or Directives()
        event.direct(asked._replace(producer=request.producer, stream=ask))
        ask = StreamAsk("append", row.generation)
    return events
