"""Pages: the parts of a replay, from memory or from the store. A page is made once for all streams
that resume from the same place.

A page comes from memory if memory has everything after a place. Older events are read from the
backbone, page by page, until memory has the rest. The last page always comes from memory.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterable
from heapq import merge
from typing import Final, NamedTuple, Protocol

from fastsse._core import Frame, View, join_frames
from fastsse.auth.rights import Rights
from fastsse.backbone import Stretch
from fastsse.errors import FastsseError
from fastsse.evicted import NEVER, Evicted
from fastsse.hub.history import PAGE_BYTES, History, Selection, sees_private
from fastsse.hub.resume.store_queries import UNKNOWN_YET, QueryWaiter, StoreQueries
from fastsse.hub.templates import WantedTopics
from fastsse.hub.topic_log import position_of
from fastsse.hub.views import ChannelView, Described, shown_topics
from fastsse.subscriptions import ANY

__all__ = [
    "EvictionsSeen",
    "JoinedPage",
    "PageAudience",
    "PageCache",
    "Pages",
    "described",
    "newest_shown_place",
    "shown_place",
    "viewed",
]

PAGE_CACHE_BYTES = 8 * 1024 * 1024
PAGES_MAX = 1_000
# Counted overhead of a page: its frame and objects, its key's place, its row of the cache.
PAGE_COST_BYTES: Final = 400
# Counted for each topic of a key, without its name: the place in the tuple.
TOPIC_COST_BYTES: Final = 8
# The key of a page may have this many bytes even if the page is smaller.
KEY_FREE_BYTES: Final = 1024


class PageAudience(Protocol):
    """The streams that a page is for: those with the same topics, rights and view."""

    @property
    def selectors(self) -> tuple[str, ...]: ...

    @property
    def topics(self) -> Selection: ...

    @property
    def rights(self) -> Rights | None: ...

    @property
    def view(self) -> ChannelView | None: ...

    @property
    def core_view(self) -> View | None: ...


class JoinedPage(NamedTuple):
    """A page ready to send. Its `frame` is None if no matching event follows the place."""

    frame: Frame | None
    before: int  # The place just before its first event; without events, where it ends.
    through: int
    is_last: bool
    is_stored: bool  # From the store, which counts its evictions itself; else from memory.
    evicted: Evicted
    lost_through: int  # The log may have lost events up to this place.
    damaged_through: int = 0  # If after the requested place: the store lost events up to here.
    is_over: bool = False  # The stream is over behind its last event.
    secrets: frozenset[int] = frozenset()  # Which of its events are private, from 0.


class EvictionsSeen(NamedTuple):
    """The evictions that a stream has received a report of, as readings of two counters."""

    memory: int = NEVER
    store: int = NEVER

    def reading(self, is_stored: bool) -> int:
        """The reading of the counter that a page's evictions are counted by."""
        return self.store if is_stored else self.memory


NONE_SEEN: Final = EvictionsSeen()


# Selectors, grants, a place and a view.
_Key = tuple[tuple[str, ...], tuple[str, ...], int, ChannelView | None]


class PageCache:
    """A cache of pages for streams that resume from the same place (least recently used).

    A page that ends before the head stays valid until an event is deleted, which clears the cache:
    nothing else between two places changes, and the page still has events that are evicted later.

    The bytes of a page's key are counted. A page that is smaller than its key is not cached,
    because otherwise a client that requests always different topics could fill memory with names.

    Arguments:
        limit_bytes: the bound on all pages together; there are at most PAGES_MAX of them.
    """

    __slots__ = ("_limit_bytes", "_pages", "bytes")

    def __init__(self, limit_bytes: int = PAGE_CACHE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pages: OrderedDict[_Key, tuple[JoinedPage, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._pages)

    def find(self, key: _Key, head: int, seen: EvictionsSeen) -> JoinedPage | None:
        """The cached page of a key; None if there is none, if events came after it, or if it has
        events that the stream was already informed of as missing."""
        kept = self._pages.get(key)
        if kept is None or (kept[0].is_last and kept[0].through != head):
            return None
        if kept[0].evicted.clock < seen.reading(kept[0].is_stored):
            return None
        self._pages.move_to_end(key)
        return kept[0]

    def keep(self, key: _Key, page: JoinedPage) -> None:
        """Caches a page if it is larger than its key; replaces an earlier page of the key."""
        if page.frame is None:
            return
        page_bytes = page.frame.size
        _, stale_bytes = self._pages.pop(key, (None, 0))
        self.bytes -= stale_bytes
        names = (*key[0], *key[1])
        key_bytes = sum(sys.getsizeof(name) + TOPIC_COST_BYTES for name in names)
        if key_bytes > max(page_bytes, KEY_FREE_BYTES):
            return
        cost_bytes = page_bytes + key_bytes + PAGE_COST_BYTES
        self._pages[key] = page, cost_bytes
        self.bytes += cost_bytes
        while self.bytes > self._limit_bytes or len(self._pages) > PAGES_MAX:
            self.bytes -= self._pages.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Drops all pages."""
        self._pages.clear()
        self.bytes = 0


class Pages:
    """Makes pages. Loop thread only.

    Arguments:
        history: the events in memory.
        queries: reads the backbone.
        page_bytes: the bound on one page; a single event may be larger.
        cache_bytes: the bound on all cached pages.
    """

    def __init__(
        self,
        history: History,
        queries: StoreQueries,
        page_bytes: int = PAGE_BYTES,
        cache_bytes: int = PAGE_CACHE_BYTES,
    ) -> None:
        self.cache: Final = PageCache(cache_bytes)
        self._history = history
        self._queries = queries
        self._page_bytes = page_bytes

    def read(
        self, reader: PageAudience, after: int, asker: QueryWaiter, seen: EvictionsSeen = NONE_SEEN
    ) -> JoinedPage | FastsseError | None:
        """The next page after a place. None: the store must be read; `asker` then receives the
        stretch and calls `made`. O(page), O(1) for a cached page."""
        history = self._history
        page = self.cache.find(_key(reader, after), history.head, seen)
        if page is not None and not self._has_expired(page):
            return page
        if after >= history.evicted_through(reader.topics, sees_private(reader.rights)):
            return self._from_memory(reader, after)
        outcome = self._queries.read(reader.selectors, after, self._page_bytes, asker)
        return None if outcome is UNKNOWN_YET else self.made(reader, after, outcome, seen)

    def made(
        self,
        reader: PageAudience,
        after: int,
        outcome: Stretch | FastsseError,
        seen: EvictionsSeen = NONE_SEEN,
    ) -> JoinedPage | FastsseError:
        """The page made of the store's answer for a place. O(page)."""
        if isinstance(outcome, FastsseError):
            return outcome
        # Another stream with the same rights may have had it made.
        page = self.cache.find(_key(reader, after), self._history.head, seen)
        if page is not None and not self._has_expired(page):
            return page
        # Committed events that are not delivered yet will be sent live, so the page leaves them
        # out.
        through = min(outcome.through, self._history.head)
        if through <= after or after >= self._history.evicted_through(
            reader.topics, sees_private(reader.rights)
        ):
            return self._from_memory(reader, after)
        return self._from_store(reader, after, through, outcome)

    def _has_expired(self, page: JoinedPage) -> bool:
        return page.frame is not None and self._history.is_expired(page.frame)

    def _from_memory(self, reader: PageAudience, after: int) -> JoinedPage:
        history = self._history
        page = history.page(reader.topics, after, self._page_bytes, reader.rights)
        frames, through, is_last, is_over = page.frames, page.through, page.is_last, False
        if reader.core_view is None:
            frames = events_of(frames)
        else:
            frames, is_over = viewed(reader, reader.core_view, history.described(frames))
            if is_over:
                through, is_last = frames[-1].position, False
        return self._joined(reader, after, frames, through, is_last, page.evicted, False, is_over)

    def _from_store(
        self, reader: PageAudience, after: int, through: int, stretch: Stretch
    ) -> JoinedPage:
        """The events of the store, and those that only memory has. Both have the same rules, but
        each evicts at its own time, and their total bounds differ. So only what both have evicted
        is missing."""
        history, rights = self._history, reader.rights
        stored = [
            frame
            for position, topics, _, frame, _ in stretch.entries
            if position <= through
            and not history.is_expired(frame)
            and (not frame.private or (rights is not None and rights.covers_subscribe(topics)))
        ]
        kept = history.between(reader.topics, after, through, rights)
        frames, through = _united(stored, kept, through, self._page_bytes)
        begins = history.evicted_through(reader.topics, sees_private(reader.rights))
        evicted = stretch.evicted.up_to(begins)
        damaged_through, is_over = min(stretch.damaged_through, begins), False
        if reader.core_view is None:
            frames = events_of(frames)
        else:
            facts = described(frames, stretch, history)
            frames, is_over = viewed(reader, reader.core_view, facts)
            through = frames[-1].position if is_over else through
        page = self._joined(reader, after, frames, through, False, evicted, True, is_over)
        return page if damaged_through <= after else page._replace(damaged_through=damaged_through)

    def _joined(
        self,
        reader: PageAudience,
        after: int,
        frames: list[Frame],
        through: int,
        is_last: bool,
        evicted: Evicted,
        is_stored: bool,
        is_over: bool = False,
    ) -> JoinedPage:
        history = self._history
        page = JoinedPage(
            frame=join_frames(frames) if frames else None,
            before=frames[0].position - 1 if frames else shown_place(history, reader, through),
            through=through,
            is_last=is_last,
            is_stored=is_stored,
            evicted=evicted,
            lost_through=history.lost_through,
            is_over=is_over,
            secrets=frozenset(n for n, frame in enumerate(frames) if frame.private),
        )
        self.cache.keep(_key(reader, after), page)
        return page


def _united(
    stored: list[Frame], kept: Iterable[Frame], through: int, limit_bytes: int
) -> tuple[list[Frame], int]:
    """The frames of both in order, each once, and the place up to which they are complete. Of those
    that are only in memory at most `limit_bytes` are taken, but at least one."""
    frames: list[Frame] = []
    are_stored = set(map(position_of, stored))
    room_bytes, last = limit_bytes, 0
    for frame in merge(stored, kept, key=position_of):
        position = frame.position
        if position == last:
            continue
        if position not in are_stored:
            room_bytes -= frame.size
            if room_bytes < 0 and frames:
                return frames, last
        frames.append(frame)
        last = position
    return frames, through


def events_of(frames: list[Frame]) -> list[Frame]:
    """The frames without control entries and deleted events."""
    return [frame for frame in frames if frame.events]


def described(frames: Iterable[Frame], stretch: Stretch, history: History) -> list[Described]:
    """Frames of a page that was read from the store, each with its topics and meta for a view."""
    stored = {
        entry.position: Described(
            entry.frame, entry.topics, None if entry.extras is None else entry.extras.meta
        )
        for entry in stretch.entries
    }
    facts = []
    for frame in frames:
        one = stored.get(frame.position)
        facts.append(history.described((frame,))[0] if one is None else one)
    return facts


def viewed(
    reader: PageAudience, core_view: View, facts: list[Described]
) -> tuple[list[Frame], bool]:
    """The frames as the reader's view sends them, and whether the stream is over behind the last.
    Uses the native function that live events go through, too."""
    return core_view.select(
        [one.frame for one in facts],
        [one.topics for one in facts],
        [one.meta for one in facts],
        [shown_topics(one, reader.selectors, reader.rights) for one in facts],
    )


def newest_shown_place(history: History, reader: PageAudience) -> int:
    """The newest place that may be shown to a reader; no event for the reader is after it yet.

    It is not the place of a private event that the reader may not see, except of an evicted one:
    otherwise its id would reveal that the event was published. For templates with grants it is the
    head, because finding a better place would need a search. O(1) as a rule."""
    if history.public_head == history.head:
        return history.head
    rights, topics = reader.rights, reader.topics
    if isinstance(topics, WantedTopics) or (rights is not None and rights.subscribe == (ANY,)):
        return history.head_for(rights)
    newest = max(history.public_head, history.evicted_through(topics, sees_private(rights)))
    if rights is not None and rights.subscribe:
        place, _ = history.before_newest(topics, 1, rights)
        if place < history.head:
            newest = max(newest, place + 1)
    return min(newest, history.head)


def shown_place(history: History, reader: PageAudience, place: int) -> int:
    """The place to show to a reader instead of `place`, which is at most the head: the same, or an
    earlier one with no event for the reader in between. Cost as `newest_shown_place`."""
    return (
        place if place <= history.public_head else min(place, newest_shown_place(history, reader))
    )


def _key(reader: PageAudience, after: int) -> _Key:
    rights = reader.rights
    return reader.selectors, () if rights is None else rights.subscribe, after, reader.view
