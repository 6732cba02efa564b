"""Creating streams and forks of streams."""

from collections.abc import Callable
from typing import Final

from fastsse.backbone.stream_expiry import control_event
from fastsse.errors import FastsseError, StreamChanged
from fastsse.events import Event
from fastsse.hub import Hub, Published
from fastsse.streams.appending import newest_of
from fastsse.streams.content import pieces_of
from fastsse.streams.deleting import StreamRemover
from fastsse.streams.forks import find_fork
from fastsse.streams.reading import StreamReader
from fastsse.streams.requests import (
    TRIES_MAX,
    Created,
    CreateRequest,
    PublishEvents,
    StreamMissing,
    StreamOtherwise,
    publish_safely,
)
from fastsse.streamstate import StreamConfig, StreamControl, StreamRow

__all__ = ["StreamCreator"]


class StreamCreator:
    """Creates streams. Loop thread only.

    Arguments:
        hub: knows the rows, and publishes.
        reader: reads the source of a fork.
        remover: drops an expired stream that is in the way.
        now_ms: unix milliseconds.
    """

    def __init__(
        self, hub: Hub, reader: StreamReader, remover: StreamRemover, now_ms: Callable[[], int]
    ) -> None:
        self._hub: Final = hub
        self._reader: Final = reader
        self._remover: Final = remover
        self._now_ms: Final = now_ms

    def create(
        self,
        request: CreateRequest,
        publish: PublishEvents,
        done: Callable[[Created | FastsseError], None],
        tries: int = TRIES_MAX,
    ) -> None:
        """Creates a stream, unless it is there with the same configuration. `done` gets an error
        otherwise: StreamOtherwise, StreamMissing for the source, BadRequest."""
        topics = (request.topic,) if request.fork is None else (request.topic, request.fork.topic)

        def found(rows: dict[str, StreamRow] | FastsseError) -> None:
            if isinstance(rows, FastsseError):
                done(rows)
                return
            row, now_ms = rows.get(request.topic), self._now_ms()
            if row is not None and row.is_expired(now_ms) and not row.forks and tries:
                self._remover.drop(request.topic, row, self._hub.publish, lambda _: again())
            elif row is not None:
                done(self._existing(request, row, rows))
            elif request.fork is None:
                config = StreamConfig(
                    request.content_type or "application/octet-stream",
                    request.ttl_s,
                    request.expires_ms,
                    request.private,
                )
                self._create(request, config, publish, done, again if tries else None)
            else:
                self._fork(request, rows.get(request.fork.topic), publish, done, again)

        def again() -> None:
            self.create(request, publish, done, tries - 1)

        self._hub.find_streams(topics, found)

    def _existing(
        self, request: CreateRequest, row: StreamRow, rows: dict[str, StreamRow]
    ) -> Created | FastsseError:
        config, fork = row.config, request.fork
        if row.is_hidden or row.is_expired(self._now_ms()):
            return StreamOtherwise(f"The stream {request.topic} was deleted; forks of it remain.")
        source = None if fork is None else fork.topic
        inherits = fork is not None and request.ttl_s is None and request.expires_ms is None
        is_same = (
            config.source == source
            and config.fork_asked == ("" if fork is None else fork.asked)
            and (inherits or (config.ttl_s, config.expires_ms) == request[2:4])
            and bool(row.closed) == request.is_closed
            and config.is_of(request.content_type, is_fork=fork is not None)
        )
        if is_same:
            return Created(row, False)
        return StreamOtherwise(f"The stream {request.topic} exists with another configuration.")

    def _fork(
        self,
        request: CreateRequest,
        source: StreamRow | None,
        publish: PublishEvents,
        done: Callable[[Created | FastsseError], None],
        again: Callable[[], None],
    ) -> None:
        fork = request.fork
        assert fork is not None
        if source is None or (source.is_expired(self._now_ms()) and not source.is_hidden):
            done(StreamMissing(f"There is no stream {fork.topic}."))
            return
        if source.is_hidden:
            done(StreamOtherwise(f"The stream {fork.topic} was deleted."))
            return
        if request.content_type is not None and not source.config.is_of(request.content_type):
            done(StreamOtherwise("A fork has the content type of its source."))
            return

        def forked(outcome: tuple[StreamConfig, bytes] | FastsseError) -> None:
            if isinstance(outcome, FastsseError):
                done(outcome)
                return
            config, prefix = outcome
            if request.ttl_s is not None or request.expires_ms is not None:
                config = config._replace(ttl_s=request.ttl_s, expires_ms=request.expires_ms)
            config = config._replace(private=config.private or request.private)
            self._create(request, config, publish, done, again, prefix)

        find_fork(self._reader, fork, source, forked)

    def _create(
        self,
        request: CreateRequest,
        config: StreamConfig,
        publish: PublishEvents,
        done: Callable[[Created | FastsseError], None],
        again: Callable[[], None] | None,
        prefix: bytes = b"",
    ) -> None:
        """Publishes the entry that creates a stream, and its first content."""
        topic = request.topic
        try:
            bodies = [body for body in (prefix, request.body) if body]
            pieces = [piece for body in bodies for piece in pieces_of(config, body)]
            events = [control_event(topic, StreamControl("create", config), 0)]
            events += [
                Event(topic, data, private=config.private, data_kind=kind) for data, kind in pieces
            ]
        except FastsseError as error:
            done(error)
            return
        if request.is_closed:
            events.append(Event.end(topic))

        def published(outcome: Published | FastsseError) -> None:
            if isinstance(outcome, StreamChanged) and again is not None:
                again()
            elif isinstance(outcome, FastsseError):
                done(outcome)
            else:
                placed = outcome.placed
                begin = placed[0] or 0
                empty = config.fork_place if config.source is not None else begin
                tail = newest_of(placed[1 : 1 + len(pieces)]) or empty
                closed = (placed[-1] or 0) if request.is_closed else 0
                done(Created(StreamRow(begin, config, tail, closed), True))

        publish_safely(publish, events, published)
