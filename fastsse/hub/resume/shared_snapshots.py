"""Snapshots that several streams are sent: made once, and sent again while nothing of them changes.

A change is an event of one of the topics, or its eviction, expiry or deletion. Events of other
topics change only the place at the end. Streams share a snapshot if they have the same selectors,
grants and view, and ask for the same number of events.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from fastsse._core import Frame, join_frames
from fastsse.hub.history import PAGE_BYTES, History, Selection
from fastsse.hub.resume.pages import PageAudience
from fastsse.hub.views import ChannelView

__all__ = ["MarkedEnd", "SharedSnapshot", "SnapshotCache", "SnapshotPages"]

SHARED_BYTES_MAX: Final = 8 * 1024 * 1024
# A snapshot with more bytes of events is made for each stream.
_SNAPSHOT_BYTES_MAX: Final = SHARED_BYTES_MAX // 4
_SNAPSHOTS_MAX: Final = 1_000
# Counted overhead of a snapshot: its objects and its row of the cache.
_COST_BYTES: Final = 1_000
# Counted for each topic without its name: its places in the tuples of names and topics.
_TOPIC_COST_BYTES: Final = 16

# Selectors, grants, events of each topic, and a view.
_Key = tuple[tuple[str, ...], tuple[str, ...], int, ChannelView | None]


class SnapshotPages:
    """The events of a snapshot. Each page is joined once, when a stream first needs it.

    Arguments:
        frames: in order of their positions.

    Attributes:
        events: number of events.
        bytes: of all events.
    """

    __slots__ = ("_at", "_frames", "_pages", "bytes", "events")

    def __init__(self, frames: list[Frame]) -> None:
        self.events: Final = len(frames)
        self.bytes: Final = sum([frame.size for frame in frames])
        self._frames = frames
        self._at = 0
        self._pages: list[Frame | None] = []

    def page(self, number: int) -> tuple[Frame | None, bool]:
        """A page, from 0, and whether it is the last; without events it is None. A stream asks for
        its pages in order. O(page), O(1) for a page that was joined before."""
        if number == len(self._pages):
            self._pages.append(self._joined())
        is_last = number + 1 == len(self._pages) and self._at == len(self._frames)
        return self._pages[number], is_last

    def _joined(self) -> Frame | None:
        frames, at, room_bytes = self._frames, self._at, PAGE_BYTES
        while self._at < len(frames) and room_bytes > 0:
            room_bytes -= frames[self._at].size
            self._at += 1
        page = join_frames(frames[at : self._at]) if self._at > at else None
        if self._at == len(frames):  # The events are in the pages now.
            self._frames, self._at = [], 0
        return page


class MarkedEnd:
    """The last page of a snapshot with the event at its end.

    Arguments:
        marker: this event.
        through: the place of the log that it describes.
    """

    __slots__ = ("_joined", "_marker", "through")

    def __init__(self, marker: Frame, through: int) -> None:
        self.through: Final = through
        self._marker = marker
        self._joined: Frame | None = None

    def after(self, page: Frame | None) -> Frame:
        """The page, the same in each call, and the event."""
        if self._joined is None:
            self._joined = self._marker if page is None else join_frames((page, self._marker))
        return self._joined


class SharedSnapshot:
    """A snapshot apart from the streams that are sent it.

    Arguments:
        pages: its events.
        topics: number of topics with an event in it.
        is_complete: whether it has all events that it should have.
        is_over: whether its last event ends the stream.
        expires_ms: when the first of its events expires, unix milliseconds; 0: never.
        until_s: until when the store's answer in it may be used.

    Attributes:
        end: its last page with the event at the end, for the newest head that a stream asked at.
    """

    __slots__ = ("end", "expires_ms", "is_complete", "is_over", "pages", "topics", "until_s")

    def __init__(
        self,
        pages: SnapshotPages,
        *,
        topics: int,
        is_complete: bool,
        is_over: bool,
        expires_ms: int,
        until_s: float,
    ) -> None:
        self.pages: Final = pages
        self.topics: Final = topics
        self.is_complete: Final = is_complete
        self.is_over: Final = is_over
        self.expires_ms: Final = expires_ms
        self.until_s: Final = until_s
        self.end: MarkedEnd | None = None


class _Kept(NamedTuple):
    """A snapshot, and the state of the history that it was made from."""

    snapshot: SharedSnapshot
    topics: Selection
    head: int
    clock: int
    expected_through: int
    cost_bytes: int


class SnapshotCache:
    """Snapshots that may be sent again (least recently used), bounded in bytes. Deletions and
    losses must `clear` it. Loop thread only.

    Arguments:
        history: the events in memory.
        now_s: a clock that only goes up.

    Attributes:
        bytes: what the kept snapshots cost.
        hits: number of snapshots that were sent again.
    """

    __slots__ = ("_by_key", "_history", "_now_s", "bytes", "hits")

    def __init__(self, history: History, now_s: Callable[[], float]) -> None:
        self.bytes = 0
        self.hits = 0
        self._history = history
        self._now_s = now_s
        self._by_key: OrderedDict[_Key, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, reader: PageAudience, count: int) -> SharedSnapshot | None:
        """The snapshot that a reader would be sent if it were made now; None: it must be made.
        O(topics)."""
        key = _key(reader, count)
        kept = self._by_key.get(key)
        if kept is None:
            return None
        if not self._is_current(kept, reader):
            self._drop(key)
            return None
        self._by_key.move_to_end(key)
        self.hits += 1
        return kept.snapshot

    def keep(self, reader: PageAudience, count: int, snapshot: SharedSnapshot) -> None:
        """Keeps a snapshot that was made now, unless it is too large."""
        key = _key(reader, count)
        if key in self._by_key:
            self._drop(key)
        # The last page is there twice, with the event at its end and without.
        size_bytes = snapshot.pages.bytes + min(snapshot.pages.bytes, PAGE_BYTES)
        names = (*key[0], *key[1])
        key_bytes = sum([sys.getsizeof(name) + _TOPIC_COST_BYTES for name in names])
        cost_bytes = size_bytes + key_bytes + _COST_BYTES
        if snapshot.pages.bytes > _SNAPSHOT_BYTES_MAX or key_bytes > _SNAPSHOT_BYTES_MAX:
            return
        history = self._history
        self._by_key[key] = _Kept(
            snapshot,
            reader.topics,
            history.head,
            history.clock,
            history.expected_through,
            cost_bytes,
        )
        self.bytes += cost_bytes
        while self.bytes > SHARED_BYTES_MAX or len(self._by_key) > _SNAPSHOTS_MAX:
            self._drop(next(iter(self._by_key)))

    def clear(self) -> None:
        """Drops all snapshots. Streams that are sent one keep its pages."""
        self._by_key.clear()
        self.bytes = 0

    def _drop(self, key: _Key) -> None:
        self.bytes -= self._by_key.pop(key).cost_bytes

    def _is_current(self, kept: _Kept, reader: PageAudience) -> bool:
        """Whether a snapshot made now would have the same events."""
        history, snapshot = self._history, kept.snapshot
        if self._now_s() > snapshot.until_s:
            return False
        if 0 < snapshot.expires_ms <= history.now_ms():
            return False
        if history.expected_through != kept.expected_through:
            return False  # Older events were inserted.
        if history.head == kept.head and history.clock == kept.clock:
            return True
        topics = reader.topics
        if not isinstance(topics, tuple) or kept.topics != topics:
            return False  # A topic was forgotten and made again; what it evicted is not known.
        return history.is_unchanged(topics, kept.head, kept.clock)


def _key(reader: PageAudience, count: int) -> _Key:
    rights = reader.rights
    grants = () if rights is None else rights.subscribe
    return reader.selectors, grants, count, reader.view
