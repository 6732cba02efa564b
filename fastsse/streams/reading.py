"""Reads a stream page by page, from memory or the store; a fork also from its sources."""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, Protocol, TypeAlias

from fastsse._content import take_content, take_stored
from fastsse._core import Frame
from fastsse.backbone import Stretch, Stretched
from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.hub.history import History
from fastsse.streams.ahead import ReadAhead, ReadContent
from fastsse.streams.content import Content
from fastsse.streams.turns import ReadTurns
from fastsse.streamstate import Segment, StreamRow

__all__ = ["Chunk", "ContentGone", "StoredEntries", "StreamReader"]

_UNBOUNDED: Final = 1 << 62
# A page from the store may end when less than such a part of it is free.
_PAGE_PARTS: Final = 8
_FRAME_OF: Final[Callable[[Entry], Frame]] = itemgetter(Entry._fields.index("frame"))


class ContentGone(FastsseError):
    """Content at the offset is not kept any more."""


class Chunk(NamedTuple):
    """A page: content, the position behind it, and whether the stream ends there now. A frame is an
    event; a run has several."""

    contents: Sequence[Content]
    next: int
    is_up_to_date: bool


ChunkRead: TypeAlias = Callable[[Chunk | FastsseError], None]


class StoredEntries(Protocol):
    """Reads the store."""

    def read_stream(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `Backbone.read_stream`."""

    def read_content(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `Backbone.read_content`."""


class StreamReader:
    """Reads streams. Loop thread only.

    Arguments:
        history: the newest events, in memory.
        stored: reads older ones.
        turns: bound pages, and say when one that comes from the store is made.
    """

    def __init__(self, history: History, stored: StoredEntries, turns: ReadTurns) -> None:
        self._history: Final = history
        self._stored: Final = stored
        self._turns: Final = turns
        self._ahead: Final = ReadAhead(stored.read_content)

    def read(self, topic: str, row: StreamRow, after: int, done: ChunkRead) -> None:
        """Calls `done` with the next page after a position, up to the end in the row; with
        ContentGone when some of it was evicted or lost. Within the call if memory has it.
        O(page)."""
        if row.generation and after > row.tail:
            done(ContentGone("the stream ends before the offset: content up to it was lost"))
            return
        # Of a topic that is no stream events can be deleted: no page of it is read ahead.
        ahead = self._ahead if row.generation and not self._turns.is_live else None
        source = _Source(self._stored.read_content if ahead is None else ahead.read, ahead)
        _Reading(self._history, source, self._turns, (topic, row), after, done).go_on()

    def read_events(self, topic: str, row: StreamRow, after: int, done: ChunkRead) -> None:
        """As `read`; the page has a frame for each event."""
        source = _Source(self._stored.read_stream)
        _Reading(self._history, source, self._turns, (topic, row), after, done).go_on()

    def newer(self, topic: str, row: StreamRow, after: int, through: int) -> list[Content] | None:
        """A stream's own content in memory, after a position and up to another; None if some may
        be evicted. O(content)."""
        kept = self._history.topics.by_name.get(topic)
        start = max(after, row.generation)
        if kept is None or start < kept.evicted_through:
            return None
        if kept.log is None:
            return []
        contents: list[Content] = []
        now_ms = self._history.now_ms()
        take_content(kept.log.after(start), through, _UNBOUNDED, contents, now_ms)
        return contents


class _Source(NamedTuple):
    """Where stored content is read. `ahead`: reads further pages."""

    read: ReadContent
    ahead: ReadAhead | None = None


class _Reading:
    """One page that is being read."""

    def __init__(
        self,
        history: History,
        source: _Source,
        turns: ReadTurns,
        stream: tuple[str, StreamRow],
        after: int,
        done: ChunkRead,
    ) -> None:
        self._history = history
        self._ask_store, self._ahead = source
        self._turns = turns
        self._page_bytes = self._room_bytes = turns.page_bytes
        self._done = done
        self._place = after
        ahead = self._ahead
        self._is_in_order = ahead is not None and ahead.is_in_order(stream[0], after)
        self._is_from_store = False
        self._contents: list[Content] = []
        topic, row = stream
        self._topic = topic
        self._tail = row.tail
        self._segments = [*row.config.segments, Segment(topic, row.generation, row.tail)]
        self._segments = [one for one in self._segments if one.through > max(after, one.after)]
        self._segments.reverse()

    def go_on(self) -> None:
        """Reads memory until the page is full, or asks the store for the rest."""
        while self._segments:
            segment = self._segments[-1]
            start = max(self._place, segment.after)
            if start >= segment.through:
                self._segments.pop()
            elif not self._read_memory(segment, start):
                self._read_store(segment, start)
                return
            elif self._room_bytes <= 0:
                break
        self._finish()

    def _finish(self) -> None:
        is_all = not any(one.through > self._place for one in self._segments)
        place = max(self._place, self._tail) if is_all else self._place
        if self._ahead is not None and self._is_from_store and not is_all:
            self._read_ahead(self._ahead)
        self._done(Chunk(self._contents, place, is_all))

    def _read_ahead(self, ahead: ReadAhead) -> None:
        """Has the next page read, if the client reads in order."""
        ahead.note_end(self._topic, self._place)
        if self._is_in_order:
            segment = next(one for one in reversed(self._segments) if one.through > self._place)
            limit_bytes = min(self._page_bytes, self._turns.stored_bytes)
            ahead.begin(segment.topic, max(self._place, segment.after), limit_bytes)

    def _read_memory(self, segment: Segment, start: int) -> bool:
        """Reads from memory; False if some may be evicted."""
        kept = self._history.topics.by_name.get(segment.topic)
        if kept is None or start < kept.evicted_through:
            return False
        if kept.log is None or self._take(segment, kept.log.after(start)):
            self._place = segment.through
        return True

    def _read_store(self, segment: Segment, start: int) -> None:
        turns = self._turns

        def read(stretch: Stretch | FastsseError) -> None:
            turns.take(lambda: self._on_stretch(stretch))

        limit_bytes = max(1, min(self._room_bytes, turns.stored_bytes))
        self._ask_store(segment.topic, start, limit_bytes, read)

    def _on_stretch(self, stretch: Stretch | FastsseError) -> None:
        if isinstance(stretch, FastsseError):
            self._done(stretch)
            return
        segment = self._segments[-1]
        start = max(self._place, segment.after)
        self._is_from_store = True
        if max(stretch.evicted_through, stretch.damaged_through) > start:
            self._done(ContentGone("content at the offset is not kept any more"))
        elif not self._take_stretch(segment, stretch):
            self._finish()
        else:
            is_whole = stretch.is_last or stretch.through >= segment.through
            self._place = segment.through if is_whole else max(start, stretch.through)
            # Another question to the store costs more than so little content.
            if not is_whole and self._room_bytes * _PAGE_PARTS < self._page_bytes:
                self._finish()
            else:
                self.go_on()

    def _take_stretch(self, segment: Segment, stretch: Stretch) -> bool:
        """As `_take`, of what the store has read."""
        if stretch.content is None:
            return self._take(segment, map(_FRAME_OF, stretch.entries))
        through, now_ms = segment.through, self._history.now_ms()
        room_bytes = take_stored(stretch.content, through, self._room_bytes, self._contents, now_ms)
        return self._has_room(room_bytes)

    def _take(self, segment: Segment, frames: Iterable[Frame]) -> bool:
        """Takes content up to the end of a segment; False when the page is full."""
        contents = self._contents
        now_ms = self._history.now_ms()
        room_bytes = take_content(frames, segment.through, self._room_bytes, contents, now_ms)
        return self._has_room(room_bytes)

    def _has_room(self, room_bytes: int) -> bool:
        self._room_bytes = room_bytes
        if self._contents:
            self._place = self._contents[-1].position
        return room_bytes > 0
