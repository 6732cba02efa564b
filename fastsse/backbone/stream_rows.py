"""What events require of the rows of durable streams, and how they change them.

Used where order is made: `check` says whether a batch may be stored, `changes` which rows it
changes. Memory and SQLite use both; `append.lua` does the same in Redis.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from fastsse.backbone.judge import Known, TopicStates, is_control
from fastsse.directives import END, Directives, read_control, without_seq
from fastsse.entries import Entry
from fastsse.errors import (
    Conflict,
    SequenceRegressed,
    StreamChanged,
    StreamImmutable,
    StreamsFull,
    StreamTypeMismatch,
)
from fastsse.events import DATA_JSON, Event
from fastsse.streamstate import (
    ENTRY_COST_BYTES,
    StreamAsk,
    StreamRow,
    read_stream_control,
)

__all__ = [
    "RowChange",
    "StreamLimits",
    "StreamRows",
    "asked_of",
    "changes",
    "check",
    "replayed",
    "rows_of_log",
]


class RowChange(NamedTuple):
    """The new row of a stream; None: it is gone."""

    topic: str
    row: StreamRow | None


class StreamRows(Protocol):
    """The rows that are known where order is made."""

    def get(self, topic: str) -> StreamRow | None:
        """The row of a stream; None when the topic is none."""


class StreamLimits(NamedTuple):
    """The bound on all streams, and what they take now. `now_ms`: unix milliseconds."""

    total_bytes: int
    bytes: int
    now_ms: int

    @property
    def room_bytes(self) -> int:
        """How much they may still grow."""
        return self.total_bytes - self.bytes


class _Overlay:
    """Rows, with what the events of a batch change."""

    def __init__(self, rows: StreamRows) -> None:
        self._rows: Final = rows
        self.changed: Final[dict[str, StreamRow | None]] = {}

    def get(self, topic: str) -> StreamRow | None:
        """As `StreamRows`."""
        return self.changed[topic] if topic in self.changed else self._rows.get(topic)


def asked_of(event: Event) -> StreamAsk | None:
    """What an event asks of a stream."""
    return None if event.directives is None else event.directives.stream


def _new_events(events: Sequence[Event], known: Known | None) -> Iterator[tuple[int, Event]]:
    for index, event in enumerate(events):
        if known is None or known[index] is None:
            yield index, event


def check(
    events: Sequence[Event],
    known: Known | None,
    rows: StreamRows,
    limits: StreamLimits,
    states: TopicStates,
) -> Conflict | None:
    """Why a batch may not be stored. `known` as of `judge`: those are not stored again. O(events
    and topics), for a purge O(events of its topic)."""
    overlay, size_bytes = _Overlay(rows), limits.bytes
    for index, event in _new_events(events, known):
        ask = asked_of(event)
        if ask is not None and ask.seq is None and _is_content(event):
            # The most common one. Nothing that is judged after it depends on it.
            refusal = _check_content(event, ask, overlay, limits.now_ms)
            if refusal is not None:
                return refusal
            size_bytes += len(event.data) + ENTRY_COST_BYTES
            continue
        error: Conflict | None = None
        if ask is not None:
            error = _objection(event.topics[0], ask, overlay, limits.now_ms)
        error = error or _misfit(event, overlay, states)
        if error is not None:
            return error
        before = sum(row.size_bytes for row in _rows_of(event, overlay))
        _change(event, -1 - index, overlay, limits.now_ms)
        size_bytes += sum(row.size_bytes for row in _rows_of(event, overlay)) - before
    if size_bytes > limits.bytes and size_bytes > limits.total_bytes:
        return StreamsFull(events[0].topics[0])
    return None


def changes(
    events: Sequence[Event],
    known: Known | None,
    positions: Sequence[int],
    rows: StreamRows,
    now_ms: int,
) -> list[RowChange]:
    """The rows that a batch changes that was stored at these positions. O(events and topics)."""
    overlay = _Overlay(rows)
    for index, event in _new_events(events, known):
        ask = asked_of(event)
        if ask is not None and _is_content(event):
            topic = event.topics[0]
            row = overlay.get(topic)
            if row is not None:
                overlay.changed[topic] = _appended(event, ask, row, positions[index], now_ms)
        else:
            _change(event, positions[index], overlay, now_ms)
    return [RowChange(topic, row) for topic, row in overlay.changed.items()]


def _is_content(event: Event) -> bool:
    """Whether an event with directives is content of one stream, and nothing else."""
    asked = event.directives
    assert asked is not None
    return asked.control is None and asked.ttl_ms is None and len(event.topics) == 1


def _check_content(event: Event, ask: StreamAsk, rows: StreamRows, now_ms: int) -> Conflict | None:
    topic = event.topics[0]
    error: Conflict | None = _objection(topic, ask, rows, now_ms)
    if error is not None:
        return error
    row = rows.get(topic)
    if row is not None and event.data_kind != DATA_JSON and row.config.kind == "json":
        return StreamTypeMismatch(topic, row.config.content_type)
    return None


def _appended(
    event: Event, ask: StreamAsk, row: StreamRow, position: int, now_ms: int
) -> StreamRow:
    size_bytes = row.size_bytes + len(event.data) + ENTRY_COST_BYTES
    seq = row.seq if ask.seq is None else ask.seq
    return StreamRow(
        row.generation,
        row.config,
        position,
        row.closed,
        seq,
        row.forks,
        row.is_hidden,
        now_ms,
        size_bytes,
    )


def _objection(
    topic: str, ask: StreamAsk, rows: StreamRows, now_ms: int
) -> StreamChanged | SequenceRegressed | None:
    row = rows.get(topic)
    if ask.op == "create":
        return None if row is None else StreamChanged(topic)
    if row is None or row.generation != ask.generation:
        return StreamChanged(topic)
    if ask.op == "append":
        if row.is_hidden or row.is_expired(now_ms):
            return StreamChanged(topic)
        if ask.seq is not None and row.seq is not None and ask.seq <= row.seq:
            return SequenceRegressed(topic)
        return None
    is_right = bool(row.forks) if ask.op == "hide" else not row.forks
    return None if is_right else StreamChanged(topic)


def _misfit(event: Event, rows: StreamRows, states: TopicStates) -> Conflict | None:
    """Why an event is no content of one of its topics, which are streams."""
    if is_control(event):
        return _fork_objection(event, rows) or _erasure(event, rows, states)
    for topic in event.topics:
        row = rows.get(topic)
        if row is not None and event.directives and event.directives.ttl_ms is not None:
            return StreamImmutable(topic)
        if row is not None and row.config.kind == "json" and event.data_kind != DATA_JSON:
            return StreamTypeMismatch(topic, row.config.content_type)
    return None


def _erasure(event: Event, rows: StreamRows, states: TopicStates) -> StreamImmutable | None:
    """Why a control entry is refused that would change content."""
    assert event.directives is not None
    control = event.directives.control or b""
    if control == END or read_stream_control(control) is not None:
        return None
    streams = [topic for topic in event.topics if rows.get(topic) is not None]
    of_topics = read_control(control)
    if not streams and of_topics is not None and of_topics.kind == "purge":
        streams = [one for topic in event.topics for one in _streams_with(topic, rows, states)]
    return StreamImmutable(streams[0]) if streams else None


def _streams_with(topic: str, rows: StreamRows, states: TopicStates) -> Iterator[str]:
    """The streams that have events of a topic as content."""
    for position, names in states.shared_events(topic):
        for name in names:
            row = rows.get(name)
            if row is not None and position > row.generation:
                yield name


def _fork_objection(event: Event, rows: StreamRows) -> StreamChanged | None:
    ask = asked_of(event)
    assert event.directives is not None
    if ask is None or ask.op != "create":
        return None
    control = read_stream_control(event.directives.control or b"")
    if control is None or control.config is None or control.config.source is None:
        return None
    config = control.config
    source = rows.get(config.source or "")
    if source is None or source.generation != config.source_generation or source.is_hidden:
        return StreamChanged(event.topics[0])
    return None


def _rows_of(event: Event, rows: StreamRows) -> list[StreamRow]:
    return [row for topic in event.topics if (row := rows.get(topic)) is not None]


def _change(event: Event, position: int, rows: _Overlay, now_ms: int) -> None:
    """Notes in `rows` what an event changes that is stored at a position."""
    ask = asked_of(event)
    if ask is not None and ask.op != "append":
        _change_stream(event, ask, position, rows, now_ms)
        return
    for topic in event.topics:
        row = rows.get(topic)
        if row is None:
            continue
        if is_control(event):
            assert event.directives is not None
            if event.directives.control != END:
                continue
            row = row._replace(closed=position, touched_ms=now_ms)
        else:
            cost_bytes = len(event.data) + ENTRY_COST_BYTES
            row = row._replace(
                tail=position, touched_ms=now_ms, size_bytes=row.size_bytes + cost_bytes
            )
        if ask is not None and ask.seq is not None and topic == event.topics[0]:
            row = row._replace(seq=ask.seq)
        rows.changed[topic] = row


def _change_stream(
    event: Event, ask: StreamAsk, position: int, rows: _Overlay, now_ms: int
) -> None:
    topic = event.topics[0]
    assert event.directives is not None
    if ask.op == "create":
        control = read_stream_control(event.directives.control or b"")
        assert control is not None
        assert control.config is not None
        config = control.config
        rows.changed[topic] = StreamRow(
            position,
            config,
            max(position, 0) if config.source is None else config.fork_place,
            touched_ms=now_ms,
        )
        if config.source is not None:
            _count_fork(config.source, config.source_generation, 1, rows)
        return
    row = rows.get(topic)
    if row is None:
        return  # Only in a log that begins later.
    if ask.op == "hide":
        rows.changed[topic] = row._replace(is_hidden=True)
        return
    rows.changed[topic] = None
    if row.config.source is not None:
        _count_fork(row.config.source, row.config.source_generation, -1, rows)


def _count_fork(source: str, generation: int, count: int, rows: _Overlay) -> None:
    row = rows.get(source)
    if row is not None and row.generation == generation:
        rows.changed[source] = row._replace(forks=max(0, row.forks + count))


def rows_of_log(entries: Iterable[Entry]) -> dict[str, StreamRow]:
    """The rows that a whole log says, without what its entries don't say: reads. O(entries)."""
    overlay = _Overlay(_NoRows())
    for entry in entries:
        control = None if entry.extras is None else entry.extras.control
        event = Event(
            entry.topics,
            b"" if control is not None else entry.frame.body,
            directives=_replayed(control, _seq_of(entry)),
        )
        _change(event, entry.position, overlay, entry.frame.time_ms)
    return {topic: row for topic, row in overlay.changed.items() if row is not None}


def replayed(row: StreamRow, topic: str, entry: Entry) -> StreamRow:
    """The row of a stream with content that it did not have yet."""
    seq = _seq_of(entry) if topic == entry.topics[0] else None
    return row._replace(
        tail=entry.position,
        seq=row.seq if seq is None else seq,
        touched_ms=max(row.touched_ms, entry.frame.time_ms),
        size_bytes=row.size_bytes + _data_bytes(entry) + ENTRY_COST_BYTES,
    )


def _data_bytes(entry: Entry) -> int:
    """The size of the data of an event, from its lines (WHATWG HTML 9.2.6) or as it was sent."""
    if entry.extras is not None and entry.extras.payload is not None:
        return len(entry.extras.payload)
    lines = entry.frame.body.split(b"\n")
    sizes = [
        len(one.removeprefix(b"data:").removeprefix(b" ")) for one in lines if one[:5] == b"data:"
    ]
    return sum(sizes) + max(0, len(sizes) - 1)


class _NoRows:
    def get(self, topic: str) -> StreamRow | None:
        """As `StreamRows`."""
        return None


def _seq_of(entry: Entry) -> bytes | None:
    key = None if entry.extras is None else entry.extras.key
    return None if key is None else without_seq(key)[0]


def _replayed(control: bytes | None, seq: bytes | None) -> Directives | None:
    """What an entry was asked for."""
    if control is None and seq is None:
        return None
    of_stream = None if control is None else read_stream_control(control)
    ask = StreamAsk("append" if of_stream is None else of_stream.op, seq=seq)
    return Directives(control=control, stream=ask)
