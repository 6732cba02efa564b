"""Pages: the parts of a replay, from memory or from the store. A page is made once for all streams
that resume from the same place.

Memory is used when it has everything after a place. Older events are read from the backbone, page
by page, until memory can take over. The last page always comes from memory.
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
from fastsse.hub.history import PAGE_BYTES, History, Selection
from fastsse.hub.resume.store_queries import UNKNOWN_YET, QueryWaiter, StoreQueries
from fastsse.hub.templates import WantedTopics
from fastsse.hub.topic_log import position_of
from fastsse.hub.views import ChannelView, Described, shown_topics
from fastsse.subscriptions import ANY

__all__ = [
    "JoinedPage",
    "PageAudience",
    "PageCache",
    "Pages",
    "Told",
    "described",
    "newest_told",
    "told_place",
    "viewed",
]

PAGE_CACHE_BYTES = 8 * 1024 * 1024
PAGES_MAX = 1_000
# Counted overhead of a page: its frame and objects, its key's place, its row of the cache.
PAGE_COST_BYTES: Final = 400
# Of a set of topics, without their names: the set's tuple.
TOPIC_COST_BYTES: Final = 8
# Bytes that the key of a page may have, however small the page is.
KEY_FREE_BYTES: Final = 1024


class PageAudience(Protocol):
    """What a page is made for: all streams with the same topics and the same rights."""

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
    """A page ready to send. Its `frame` is None when nothing matching lies after the place."""

    frame: Frame | None
    before: int  # The place just before its first event, or where it ends.
    through: int
    is_last: bool
    is_stored: bool  # From the store, whose clock counts its evictions; else from memory.
    evicted: Evicted
    lost_through: int  # The log that we follow may have lost events up to here.
    damaged_through: int = 0  # Where it lies after the place asked for: the store lost them.
    is_over: bool = False  # The stream is over behind its last event.


class Told(NamedTuple):
    """The readings of the two clocks up to which a stream knows of evictions."""

    memory: int = NEVER
    store: int = NEVER

    def reading(self, is_stored: bool) -> int:
        """The reading of the clock that a page goes by."""
        return self.store if is_stored else self.memory


NOTHING_TOLD: Final = Told()


# Selectors, grants, a place and a view.
_Key = tuple[tuple[str, ...], tuple[str, ...], int, ChannelView | None]


class PageCache:
    """Pages joined once for all streams that resume from the same place; the latest used are kept.

    A page that ends before the head stays valid until an event is deleted, which clears the cache:
    nothing else between two places changes, and later evicted events are still in the page.

    The key of a page counts too, and a page that is smaller than its key is not kept. Otherwise a
    client that always requests different sets of topics would fill memory with their names.

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

    def find(self, key: _Key, head: int, told: Told) -> JoinedPage | None:
        """The page kept under a key, unless something came after it, or it has what the stream
        that asks already received as missing."""
        kept = self._pages.get(key)
        if kept is None or (kept[0].is_last and kept[0].through != head):
            return None
        if kept[0].evicted.clock < told.reading(kept[0].is_stored):
            return None
        self._pages.move_to_end(key)
        return kept[0]

    def keep(self, key: _Key, page: JoinedPage) -> None:
        """Keeps a page if it is larger than its key, and replaces the earlier one."""
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
        history: what memory has.
        queries: the way to what the backbone stores.
        page_bytes: the bound on one page; a single event may be larger.
        cache_bytes: the bound on the pages that are kept.
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
        self, reader: PageAudience, after: int, asker: QueryWaiter, told: Told = NOTHING_TOLD
    ) -> JoinedPage | FastsseError | None:
        """The next page after a place; None when it has to be read: the caller then gets the
        stretch, for `made`. O(page), O(1) when it is kept."""
        history = self._history
        page = self.cache.find(_key(reader, after), history.head, told)
        if page is not None and not self._has_expired(page):
            return page
        if after >= history.evicted_through(reader.topics):
            return self._from_memory(reader, after)
        outcome = self._queries.read(reader.selectors, after, self._page_bytes, asker)
        return None if outcome is UNKNOWN_YET else self.made(reader, after, outcome, told)

    def made(
        self,
        reader: PageAudience,
        after: int,
        outcome: Stretch | FastsseError,
        told: Told = NOTHING_TOLD,
    ) -> JoinedPage | FastsseError:
        """The page from what the store has after a place. O(page)."""
        if isinstance(outcome, FastsseError):
            return outcome
        # Joined already, for another with the same rights?
        page = self.cache.find(_key(reader, after), self._history.head, told)
        if page is not None and not self._has_expired(page):
            return page
        # Committed events that are not delivered yet will come live, so they must not be in the
        # page.
        through = min(outcome.through, self._history.head)
        if through <= after or after >= self._history.evicted_through(reader.topics):
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
        """What the store has, and what only memory has: their rules are the same, but each evicts
        in its own time, and their bounds on the whole differ. So what is missing is missing in
        both."""
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
        begins = history.evicted_through(reader.topics)
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
            before=frames[0].position - 1 if frames else told_place(history, reader, through),
            through=through,
            is_last=is_last,
            is_stored=is_stored,
            evicted=evicted,
            lost_through=history.lost_through,
            is_over=is_over,
        )
        self.cache.keep(_key(reader, after), page)
        return page


def _united(
    stored: list[Frame], kept: Iterable[Frame], through: int, limit_bytes: int
) -> tuple[list[Frame], int]:
    """The frames of both, in order, each once; and up to where they are all. Those that are only
    kept are at most `limit_bytes`, but at least one."""
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
    """Frames of a page that was read from the store, each with what a view may ask of it."""
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
    The same native function as for what is live."""
    return core_view.select(
        [one.frame for one in facts],
        [one.topics for one in facts],
        [one.meta for one in facts],
        [shown_topics(one, reader.selectors, reader.rights) for one in facts],
    )


def newest_told(history: History, reader: PageAudience) -> int:
    """The newest place to name to a reader: every event for the reader after it has still to come.
    It is the place of no private event that the reader may not see, except an evicted one. For
    templates with grants that would have to be searched for, and it is the head. O(1) as a rule."""
    if history.public_head == history.head:
        return history.head
    rights, topics = reader.rights, reader.topics
    if isinstance(topics, WantedTopics) or (rights is not None and rights.subscribe == (ANY,)):
        return history.head_for(rights)
    told = max(history.public_head, history.evicted_through(topics))
    if rights is not None and rights.subscribe:
        place, _ = history.before_newest(topics, 1, rights)
        if place < history.head:
            told = max(told, place + 1)
    return min(told, history.head)


def told_place(history: History, reader: PageAudience, place: int) -> int:
    """How a place up to the head is named to a reader: there may be no event of theirs between
    that and an earlier one. Cost as `newest_told`."""
    return place if place <= history.public_head else min(place, newest_told(history, reader))


def _key(reader: PageAudience, after: int) -> _Key:
    rights = reader.rights
    return reader.selectors, () if rights is None else rights.subscribe, after, reader.view
