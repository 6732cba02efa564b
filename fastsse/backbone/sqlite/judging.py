"""Judging batches within the transaction that stores them; see `fastsse.backbone.judge`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from fastsse._appends import Appends, judge_appends
from fastsse.backbone.judge import (
    is_content_alone,
    is_plain,
    judge,
    new_keys,
    new_rows,
    newest_sequence,
)
from fastsse.backbone.producers import ProducerRow, producer_cost
from fastsse.backbone.sqlite.erasing import shared_events
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.places import position_of
from fastsse.backbone.sqlite.producer_rows import ProducerRows
from fastsse.backbone.sqlite.stream_file import StreamFile
from fastsse.backbone.sqlite.write_batch import StoreBatch
from fastsse.backbone.stream_rows import changes, check
from fastsse.directives import Control, read_control
from fastsse.entries import Entry, kinds_of
from fastsse.errors import FastsseError
from fastsse.events import as_header_value
from fastsse.positions import parse_id
from fastsse.streamstate import StreamRow, read_stream_control

__all__ = ["judge_batches"]


class _States:
    """What the file says of topics, with what the batches of this transaction change."""

    def __init__(self, file: HistoryFile) -> None:
        self._file: Final = file
        self._ended: Final[dict[str, int]] = {}
        self._newest: Final[dict[str, int]] = {}
        self._appended: Final[dict[str, StreamRow]] = {}
        self._own_ids: Final[dict[bytes, int]] = {}
        self._shared: Final[list[tuple[int, Sequence[str]]]] = []

    @property
    def ended_count(self) -> int:
        """As `TopicStates`; not exact above 0."""
        return int(self._file.has_ended) + len(self._ended)

    def ended_at(self, topic: str) -> int:
        """As `TopicStates`."""
        if topic in self._ended:
            return self._ended[topic]
        if not self._file.has_ended:
            return 0
        self._file.topics.load(self._file.connection, (topic,))
        row = self._file.topics.get(topic)
        return 0 if row is None or not row.ended else position_of(row.ended)

    def last_of(self, topic: str) -> int:
        """As `TopicStates`. O(log n)."""
        if topic in self._newest or topic in self._appended:
            row = self._appended.get(topic)
            return max(self._newest.get(topic, 0), 0 if row is None else row.tail)
        if late := self._file.late.newest(topic):
            return position_of(late)
        self._file.topics.load(self._file.connection, (topic,))
        of_topic = self._file.topics.get(topic)
        if of_topic is None:
            return 0
        found = self._file.connection.execute(
            "SELECT place FROM topic_event WHERE topic = ? AND shared IS NOT 2"
            " ORDER BY place DESC LIMIT 1",
            (of_topic.number,),
        ).fetchone()
        return 0 if found is None else position_of(found[0])

    def place_of_id(self, text: bytes) -> int | None:
        """As `TopicStates`. O(log n)."""
        position = parse_id(text)
        if position is not None:
            return position
        own_id = as_header_value(text)
        found = self._file.connection.execute(
            "SELECT place FROM event WHERE own_id = ? ORDER BY place LIMIT 1", (own_id,)
        ).fetchone()
        return self._own_ids.get(own_id) if found is None else position_of(found[0])

    def shared_events(self, topic: str) -> Iterator[tuple[int, Sequence[str]]]:
        """As `TopicStates`."""
        yield from (one for one in self._shared if topic in one[1])
        self._file.topics.load(self._file.connection, (topic,))
        of_topic = self._file.topics.get(topic)
        if of_topic is not None:
            yield from shared_events(self._file, of_topic.number)

    def note_appends(self, rows: Mapping[str, StreamRow]) -> None:
        """Appends that will be stored, by the rows after them."""
        self._appended.update(rows)

    def note(self, entries: Iterable[Entry]) -> None:
        """Entries that will be stored."""
        for entry in entries:
            if entry.extras is not None and entry.extras.control is not None:
                of_stream = read_stream_control(entry.extras.control)
                if of_stream is not None and of_stream.op == "drop":
                    self._ended.update(dict.fromkeys(entry.topics, 0))
                elif read_control(entry.extras.control) == Control("end"):
                    self._ended.update(dict.fromkeys(entry.topics, entry.position))
                continue
            self._newest.update(dict.fromkeys(entry.topics, entry.position))
            if len(entry.topics) > 1:
                self._shared.append((entry.position, entry.topics))
            if entry.own_id is not None:
                self._own_ids.setdefault(as_header_value(entry.own_id), entry.position)


def judge_batches(file: HistoryFile, batches: Iterable[StoreBatch]) -> None:
    """Notes of each batch whether it may be stored, or which of it was before; remembers its keys.
    In their order, so that each sees what those before it change."""
    batches = list(batches)
    has_directed = not all(is_plain(batch.events) for batch in batches)
    states = _States(file)
    if has_directed:
        file.keys.begin(file.connection)
        file.producers.begin(file.connection)
    file.streams.begin(file.connection)
    for batch in batches:
        if has_directed or states.ended_count or _is_of_stream(batch, file.streams):
            _judge(batch, states, file)
    file.streams.store()
    if has_directed:  # Else there may be keys of a transaction that failed.
        file.keys.store()
        file.producers.store()


def _is_of_stream(batch: StoreBatch, streams: StreamFile) -> bool:
    topics = streams.topics
    return bool(topics) and any(
        topic in topics for names, _ in kinds_of(batch.events) for topic in names
    )


def _judge_appends(batch: StoreBatch, states: _States, file: HistoryFile) -> bool:
    """Judges a batch of appends to streams, if nothing stands against any of them; False: nothing
    was done."""
    streams, producers = file.streams, file.producers
    ended_at = states.ended_at if states.ended_count else None
    limits = streams.limits
    appends = judge_appends(
        batch.events, streams.get, ended_at, producers.find, limits.now_ms, limits.room_bytes
    )
    if appends is None or not appends.is_whole:
        return False
    new_bytes = sum(map(producer_cost, appends.new_keys))
    if new_bytes and not producers.has_room(new_bytes):
        return False
    rows = appends.rows(batch.positions, limits.now_ms)
    batch.streams_before = appends.before
    batch.appended, batch.appended_bytes = rows, appends.size_bytes
    states.note_appends(rows)
    streams.add_appends(rows, appends.size_bytes)
    if appends.producers:
        _note_producers(batch, appends, producers)
    return True


def _note_producers(batch: StoreBatch, appends: Appends, producers: ProducerRows) -> None:
    numbers = appends.numbers(batch.positions)
    rows = [(key, ProducerRow(epoch, sequence, at)) for key, epoch, sequence, at in numbers]
    before = [(key, appends.producers[key]) for key, _ in rows]
    batch.rows_before = [(key, None if row is None else ProducerRow(*row)) for key, row in before]
    producers.add(rows)


def _judge(batch: StoreBatch, states: _States, file: HistoryFile) -> None:
    if _judge_appends(batch, states, file):
        return
    keys, producers, streams = file.keys, file.producers, file.streams
    judged = judge(batch.events, states, keys, producers)
    if not isinstance(judged, FastsseError):
        batch.refusal = check(batch.events, judged, streams, streams.limits, states)
        if batch.refusal is not None:
            return
    if isinstance(judged, FastsseError):
        batch.refusal = judged
        return
    batch.known = judged
    states.note(batch.stored)
    _judge_streams(batch, streams)
    if not is_content_alone(batch.events) and not is_plain(batch.events):
        positions = batch.outcome
        assert not isinstance(positions, FastsseError)
        keys.add(new_keys(batch.events, positions, judged))
        rows = new_rows(batch.events, positions, judged)
        batch.rows_before = [(key, producers.find(key)) for key, _ in rows]
        producers.add(rows)
        if judged is not None:
            batch.sequence = newest_sequence(batch.events, judged, producers)


def _judge_streams(batch: StoreBatch, streams: StreamFile) -> None:
    """Notes how a batch changes the rows of streams."""
    positions = batch.outcome
    assert not isinstance(positions, FastsseError)
    changed = changes(batch.events, batch.known, positions, streams, streams.limits.now_ms)
    batch.streams_before = [(topic, streams.get(topic)) for topic, _ in changed]
    batch.stream_changes = changed
    streams.add(changed)
