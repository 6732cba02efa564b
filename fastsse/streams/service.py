"""Durable streams: create, append, close, delete, read. What the protocol says, without HTTP.

Each change is decided here by the row of the stream, and published with the row's generation. If
the row has changed meanwhile, the place where order is made refuses it, and it is decided again.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from fastsse.directives import END, Directives, Producer
from fastsse.entries import Entry
from fastsse.errors import BadRequest, FastsseError, StreamChanged, TopicEnded
from fastsse.events import Event
from fastsse.hub import Hub, Published
from fastsse.log import get_logger
from fastsse.streams.content import Content, control_block, data_block, data_of, pieces_of
from fastsse.streams.cursors import Cursors
from fastsse.streams.forks import ForkRequest, find_fork
from fastsse.streams.offsets import format_offset
from fastsse.streams.reading import ChunkRead, StreamReader
from fastsse.streams.waiting import Waiters
from fastsse.streamstate import StreamAsk, StreamConfig, StreamControl, StreamRow

__all__ = [
    "AppendRequest",
    "Appended",
    "CreateRequest",
    "Created",
    "DurableStreams",
    "PublishEvents",
    "StreamGone",
    "StreamMissing",
    "StreamOtherwise",
]

log = get_logger("streams")
# How often a change is decided again.
_TRIES_MAX: Final = 8
# A read is noted at most once in such a part of the time to live.
_TOUCHES: Final = 10

PublishEvents: TypeAlias = Callable[
    [Sequence[Event], Callable[[Published | FastsseError], None]], None
]
"""Publishes events for who asked, all or none; calls back once. May raise a FastsseError."""


class StreamMissing(FastsseError):
    """There is no such stream."""


class StreamGone(FastsseError):
    """The stream was deleted, and is kept for its forks."""


class StreamOtherwise(FastsseError):
    """The stream exists with another configuration."""


class CreateRequest(NamedTuple):
    """What is to be created.

    Attributes:
        topic: the stream's name.
        content_type: None takes that of the source, or bytes.
        ttl_s, expires_ms, private: as in StreamConfig.
        is_closed: it is closed at once.
        body: its first content.
        fork: of what it is a fork; None: of nothing.
    """

    topic: str
    content_type: str | None
    ttl_s: int | None
    expires_ms: int | None
    private: bool
    is_closed: bool
    body: bytes
    fork: ForkRequest | None = None


class AppendRequest(NamedTuple):
    """What is to be appended to a stream. An empty body only closes it.

    Attributes:
        content_type: of the body; None when there is none.
        seq: `Stream-Seq`.
        producer: who appends, and its number.
    """

    topic: str
    content_type: str | None
    body: bytes
    closes: bool
    seq: bytes | None = None
    producer: Producer | None = None


class Created(NamedTuple):
    """The stream is there. `is_new`: it was not before."""

    row: StreamRow
    is_new: bool


class Appended(NamedTuple):
    """What was appended, or why not.

    Attributes:
        row: as it is now.
        is_closed: the stream is closed, and the append was refused for that.
        is_repeat: it was appended before.
        sequence: the newest of the producer.
    """

    row: StreamRow
    is_closed: bool = False
    is_repeat: bool = False
    sequence: int = -1


class DurableStreams:
    """All streams, as one worker serves them. Loop thread only.

    Arguments:
        hub: orders, keeps and sends.
        poll_s: how long a long-poll waits.
        now_ms: unix milliseconds.

    Attributes:
        reader: reads pages.
        cursors: give the cursors of answers.
        waiters: long-polls that wait.
        on_appended: called with the topic of each stream that has new content.
    """

    def __init__(self, hub: Hub, poll_s: float, now_ms: Callable[[], int]) -> None:
        self.reader: Final = StreamReader(hub.history, hub)
        self.cursors: Final = Cursors(now_ms)
        self.waiters: Final = Waiters(poll_s)
        self.on_appended: Callable[[str], None] | None = None
        self._hub: Final = hub
        self._now_ms: Final = now_ms
        # Streams with an open tail, each with its row when the newest of them was opened.
        self._tailed: Final[dict[str, StreamRow]] = {}
        self._touched: Final[dict[str, int]] = {}
        hub.on_content = self._on_entries
        hub.on_sweep = self.sweep

    def close(self) -> None:
        """Answers the long-polls that wait."""
        self.waiters.close()

    def counters(self) -> dict[str, int]:
        """Its counters, by the names of the metrics."""
        return {"streams_waiting": self.waiters.count, "streams_tailed": len(self._tailed)}

    # -- finding ----------------------------------------------------------------------------------

    def find(self, topic: str, done: Callable[[StreamRow | FastsseError], None]) -> None:
        """Calls `done` with the row of a stream, StreamMissing or StreamGone."""

        def found(rows: dict[str, StreamRow] | FastsseError) -> None:
            if isinstance(rows, FastsseError):
                done(rows)
                return
            row = rows.get(topic)
            if row is None or (row.is_expired(self._now_ms()) and not row.is_hidden):
                if row is not None:
                    self._drop_expired(topic, row)
                done(StreamMissing(f"There is no stream {topic}."))
            elif row.is_hidden:
                done(StreamGone(f"The stream {topic} was deleted; forks of it remain."))
            else:
                done(row)

        self._hub.find_streams((topic,), found)

    def find_here(
        self, topic: str, row: StreamRow, done: Callable[[StreamRow | FastsseError], None]
    ) -> None:
        """Calls `done` within the call with the row of a stream as far as it was delivered here:
        as it was, with what came since."""
        history = self._hub.history
        kept = history.topics.by_name.get(topic)
        if kept is None or kept.log is None:
            done(row)
            return
        tail = row.tail
        for frame in kept.log.after(max(row.tail, row.generation)):
            if frame.events:
                tail = frame.position
        done(row._replace(tail=tail, closed=row.closed or kept.ended_at))

    def touch(self, topic: str, row: StreamRow) -> None:
        """Notes that a stream with a time to live was read. O(1)."""
        ttl_s = row.config.ttl_s
        if ttl_s is None:
            return
        now_ms = self._now_ms()
        newest_ms = max(row.touched_ms, self._touched.get(topic, 0))
        if now_ms - newest_ms >= ttl_s * 1000 // _TOUCHES:
            if len(self._touched) > 10_000:
                self._touched.clear()
            self._touched[topic] = now_ms
            self._hub.touch_stream(topic, row.generation)

    # -- creating ---------------------------------------------------------------------------------

    def create(
        self,
        request: CreateRequest,
        publish: PublishEvents,
        done: Callable[[Created | FastsseError], None],
        tries: int = _TRIES_MAX,
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
                self._drop(request.topic, row, self._hub.publish, lambda _: again())
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

        find_fork(self.reader, fork, source, forked)

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
            events = [_control(topic, StreamControl("create", config), 0)]
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
                positions = outcome.positions
                tail = positions[len(pieces)] if pieces else config.fork_place or positions[0]
                if config.source is not None and not pieces:
                    tail = config.fork_place
                closed = positions[-1] if request.is_closed else 0
                done(Created(StreamRow(positions[0], config, tail, closed), True))

        _publish(publish, events, published)

    # -- appending --------------------------------------------------------------------------------

    def append(
        self,
        request: AppendRequest,
        publish: PublishEvents,
        done: Callable[[Appended | FastsseError], None],
        tries: int = _TRIES_MAX,
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
                # That the stream is closed is reported first: it explains more.
                done(Appended(row, is_closed=True) if row.closed else error)
                return
            if row.closed and request.producer is None:
                done(Appended(row, is_closed=not _only_closes(request)))
                return
            self._append(request, row, events, publish, done, again if tries else None)

        def again() -> None:
            self.append(request, publish, done, tries - 1)

        self.find(request.topic, found)

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

        _publish(publish, events, published)

    def _done(
        self,
        request: AppendRequest,
        row: StreamRow,
        published: Published,
        done: Callable[[Appended | FastsseError], None],
    ) -> None:
        positions = published.positions
        if not published.duplicates:
            has_content = bool(request.body)
            tail = positions[-2 if request.closes else -1] if has_content else row.tail
            closed = positions[-1] if request.closes else 0
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

        self.find(request.topic, found)

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

        self.find(request.topic, found)

    # -- deleting ---------------------------------------------------------------------------------

    def delete(
        self,
        topic: str,
        publish: PublishEvents,
        done: Callable[[FastsseError | None], None],
        tries: int = _TRIES_MAX,
    ) -> None:
        """Deletes a stream; one with forks is kept for them. `done` gets None, StreamMissing or
        StreamGone."""

        def found(row: StreamRow | FastsseError) -> None:
            if isinstance(row, FastsseError):
                done(row)
            else:
                self._drop(topic, row, publish, dropped)

        def dropped(error: FastsseError | None) -> None:
            if isinstance(error, StreamChanged) and tries:
                self.delete(topic, publish, done, tries - 1)
            else:
                done(error)

        self.find(topic, found)

    def _drop_expired(self, topic: str, row: StreamRow) -> None:
        def dropped(error: FastsseError | None) -> None:
            if error is not None and not isinstance(error, StreamChanged):
                log.warning("An expired stream could not be deleted.", topic=topic)

        self._drop(topic, row, self._hub.publish, dropped)

    def _drop(
        self,
        topic: str,
        row: StreamRow,
        publish: PublishEvents,
        done: Callable[[FastsseError | None], None],
    ) -> None:
        """Hides a stream that has forks. Drops one that has none, and the hidden ones that it was
        the last fork of."""
        if row.forks:
            events = [_control(topic, StreamControl("hide"), row.generation, "hide")]
            _publish(publish, events, lambda outcome: done(_error(outcome)))
            return
        events = [_control(topic, StreamControl("drop"), row.generation, "drop")]

        def found(all_events: list[Event]) -> None:
            _publish(publish, all_events, lambda outcome: done(_error(outcome)))

        self._find_unneeded(row, events, found)

    def _find_unneeded(
        self, row: StreamRow, events: list[Event], done: Callable[[list[Event]], None]
    ) -> None:
        source = row.config.source
        if source is None:
            done(events)
            return

        def found(rows: dict[str, StreamRow] | FastsseError) -> None:
            above = None if isinstance(rows, FastsseError) else rows.get(source)
            is_unneeded = (
                above is not None
                and above.generation == row.config.source_generation
                and above.is_hidden
                and above.forks == 1
            )
            if above is None or not is_unneeded:
                done(events)
                return
            events.append(_control(source, StreamControl("drop"), above.generation, "drop"))
            self._find_unneeded(above, events, done)

        self._hub.find_streams((source,), found)

    # -- reading ----------------------------------------------------------------------------------

    def read(self, topic: str, row: StreamRow, after: int, done: ChunkRead) -> None:
        """As StreamReader. Counts as a read for the time to live."""
        self.touch(topic, row)
        self.reader.read(topic, row, after, done)

    def tail_name(self, topic: str, row: StreamRow) -> str:
        """The name of the tail of a stream (`hub/tails.py`)."""
        return f"{format_offset(row.generation)}:{topic}"

    def tailing(self, topic: str, row: StreamRow) -> None:
        """A stream is about to be tailed."""
        self._tailed[topic] = row

    def sweep(self) -> None:
        """Notes that tailed streams are read; to be called about once a second. O(tailed)."""
        for topic, row in list(self._tailed.items()):
            if self._hub.tails.find(self.tail_name(topic, row)) is None:
                del self._tailed[topic]
            else:
                self.touch(topic, row)

    def _on_entries(self, entries: Sequence[Entry]) -> None:
        """Committed entries: sends them to tails, and answers long-polls."""
        waiters, tailed, appended = self.waiters, self._tailed, self.on_appended
        if not tailed and not waiters.count and appended is None:
            return
        sent = False
        for entry in entries:
            for topic in entry.topics:
                if topic in tailed:
                    sent |= self._send(topic, tailed[topic], entry)
                if topic in waiters:
                    waiters.wake(topic)
                if appended is not None:
                    appended(topic)
        if sent:
            self._hub.tails.wake()

    def _send(self, topic: str, row: StreamRow, entry: Entry) -> bool:
        tail = self._hub.tails.find(self.tail_name(topic, row))
        if tail is None:
            del self._tailed[topic]
            return False
        control = None if entry.extras is None else entry.extras.control
        if control is None:
            content = Content(entry.position, data_of(entry.frame))
            place = control_block(entry.position, self.cursors.after(None))
            block = data_block(row.config, (content,)) + place
            tail.send(block, entry.frame.time_ms)
            self._tailed[topic] = row._replace(tail=entry.position)
        elif control == END:
            tail.send(control_block(row.tail, "", is_closed=True), entry.frame.time_ms)
            tail.end()
        else:
            tail.end()
        return True


def _control(topic: str, control: StreamControl, generation: int, op: str = "create") -> Event:
    ask = StreamAsk(op, generation)  # type: ignore[arg-type]
    return Event(topic, directives=Directives(control=control.encode(), stream=ask))


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


def _publish(
    publish: PublishEvents,
    events: Sequence[Event],
    done: Callable[[Published | FastsseError], None],
) -> None:
    try:
        publish(events, done)
    except FastsseError as error:
        done(error)


def _error(outcome: Published | FastsseError) -> FastsseError | None:
    return outcome if isinstance(outcome, FastsseError) else None
