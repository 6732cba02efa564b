"""Snapshots: the newest events of each topic that a stream selects, sent before its live events.

A snapshot has events of memory and of the store up to one place, in the order of positions. It ends
with a `fastsse.snapshot` event, whose id is that place; the stream continues behind it. The place
is the head, or, when memory has evicted events since the store answered, the head of its answer:
the stream then gets what came since as every stream that resumes there. The events of a snapshot
keep their own ids, so a client that is cut in the middle resumes after the last event that it
received, and receives all events that follow.
"""

import json
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from fastsse._core import Frame, raw_frame
from fastsse.auth.rights import Rights
from fastsse.backbone import SNAPSHOT_EVENTS_MAX, Stretch
from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.evicted import Evicted
from fastsse.hub.history import History, NewestEvents, sees_private
from fastsse.hub.resume.pages import (
    JoinedPage,
    PageAudience,
    described,
    shown_place,
    viewed,
)
from fastsse.hub.resume.shared_snapshots import (
    MarkedEnd,
    SharedSnapshot,
    SnapshotCache,
    SnapshotPages,
)
from fastsse.hub.resume.store_queries import UNKNOWN_YET, QueryWaiter, StoreQueries
from fastsse.positions import format_position
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY

__all__ = ["Snapshot", "Snapshots"]

# The most bytes of a snapshot's frames that are read from the store.
STORED_BYTES_MAX: Final = 8 * 1024 * 1024
# An answer of the store is used again for this long, for many clients that connect at once. Newer
# events are in memory.
STORED_S: Final = 1.0
_STORED_MAX: Final = 16
# How much further the store is read when the newest events of a topic are not shown, and at most.
_DEEPER: Final = 8
_DEPTH_MAX: Final = 512
_NOTHING_STORED: Final = Stretch((), 0, True, Evicted())


class _Answer(NamedTuple):
    """An answer of the store.

    Attributes:
        depth: so many events of each topic were asked for; 0: nothing was asked.
        until_s: until when it may be used.
    """

    stretch: Stretch
    depth: int
    until_s: float


_NOT_ASKED: Final = _Answer(_NOTHING_STORED, 0, math.inf)


class Snapshot:
    """The part of a snapshot that one stream has not been sent yet.

    Arguments:
        pages: its events, which other streams may share.
        through: the place that it describes.
        ending: what follows the last event: an event at the end, nothing, or the stream's end.

    Attributes:
        is_sent: whether all of it was sent.
    """

    __slots__ = ("_ending", "_page", "_pages", "is_sent", "through")

    def __init__(
        self, pages: SnapshotPages, through: int, ending: MarkedEnd | Literal["nothing", "over"]
    ) -> None:
        self.through: Final = through
        self.is_sent = False
        self._ending = ending
        self._pages = pages
        self._page = 0

    def next_page(self, head: int) -> JoinedPage:
        """The next events; events after `through` follow the last ones."""
        frame, self.is_sent = self._pages.page(self._page)
        self._page += 1
        if self.is_sent and isinstance(self._ending, MarkedEnd):
            frame = self._ending.after(frame)
        return JoinedPage(
            frame=frame,
            before=self.through,
            through=self.through,
            is_last=self.is_sent and head == self.through,
            is_stored=False,
            evicted=Evicted(),
            lost_through=0,
            is_over=self.is_sent and self._ending == "over",
        )


def _marker(events: int, topics: int, place: int, *, is_complete: bool) -> Frame:
    data = {"topics": topics, "events": events, "complete": is_complete}
    text = json.dumps(data, separators=(",", ":")).encode()
    block = b"event: fastsse.snapshot\nid: %b\ndata: %b\n\n" % (format_position(place), text)
    return raw_frame(block)


class Snapshots:
    """Makes snapshots. Loop thread only.

    A snapshot is made once for all streams that ask for the same while nothing of it changes.

    Arguments:
        history: the events in memory.
        queries: reads the backbone.
        now_s: a clock that only goes up.

    Attributes:
        shared: the snapshots that may be sent again.
        made_total: number of snapshots that were made.
    """

    def __init__(
        self,
        history: History,
        queries: StoreQueries,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shared: Final = SnapshotCache(history, now_s)
        self.made_total = 0
        self._history = history
        self._queries = queries
        self._now_s = now_s
        # By selectors and depth.
        self._stored: OrderedDict[tuple[tuple[str, ...], int], _Answer] = OrderedDict()

    def read(
        self, reader: PageAudience, count: int, asker: QueryWaiter, *, has_marker: bool
    ) -> Snapshot | FastsseError | int:
        """The newest `count` events of each topic. A number: the store must be read; the asker
        receives its answer and calls `made` with this number. O(topics) with a small factor for a
        shared snapshot, else O(topics x count)."""
        shared = self.shared.find(reader, count)
        if shared is not None:
            return self._of(shared, reader, has_marker, self._history.head)
        found = self._history.newest_of_each(reader.topics, count, reader.rights)
        if found.is_enough:
            head = self._history.head
            return self._made(reader, count, found, _NOT_ASKED, has_marker, head)
        return self._ask(reader, count, count, asker, has_marker)

    def _ask(
        self, reader: PageAudience, count: int, depth: int, asker: QueryWaiter, has_marker: bool
    ) -> Snapshot | FastsseError | int:
        """Adds the newest `depth` events of each topic from an earlier answer of the store, or asks
        it."""
        answer = self._stored.get((reader.selectors, depth))
        if answer is not None and self._is_right(reader, answer):
            return self._answered(reader, count, answer, asker, has_marker)
        outcome = self._queries.newest(reader.selectors, depth, STORED_BYTES_MAX, asker)
        if outcome is UNKNOWN_YET:
            return depth
        return self.made(reader, count, outcome, asker, depth, has_marker=has_marker)

    def made(
        self,
        reader: PageAudience,
        count: int,
        outcome: Stretch | FastsseError,
        asker: QueryWaiter,
        depth: int,
        *,
        has_marker: bool,
    ) -> Snapshot | FastsseError | int:
        """The snapshot made with the store's answer; or a number, as `read`: the newest events of a
        topic have expired or may not be read, so older ones are needed. O(topics x depth)."""
        if isinstance(outcome, FastsseError):
            return outcome
        answer = _Answer(outcome, depth, self._now_s() + STORED_S)
        key = reader.selectors, depth
        self._stored.pop(key, None)
        self._stored[key] = answer
        if len(self._stored) > _STORED_MAX:
            self._stored.popitem(last=False)
        shared = self.shared.find(reader, count)  # Another stream may have had it made.
        if shared is not None:
            return self._of(shared, reader, has_marker, self._history.head)
        return self._answered(reader, count, answer, asker, has_marker)

    def _answered(
        self,
        reader: PageAudience,
        count: int,
        answer: _Answer,
        asker: QueryWaiter,
        has_marker: bool,
    ) -> Snapshot | FastsseError | int:
        """The snapshot of memory and an answer, or more is asked for: what a reader may see of an
        answer is not what another one may see of it."""
        depth, place = answer.depth, self._history.head
        found = self._history.newest_of_each(reader.topics, count, reader.rights)
        if self._is_behind(reader, found, answer.stretch.through, count):
            place = min(place, answer.stretch.through)
            found = found._replace(by_topic=_up_to(place, found.by_topic))
        is_short = self._add_stored(found.by_topic, answer.stretch, reader, count, depth)
        if is_short and answer.stretch.is_last and depth < _DEPTH_MAX:
            return self._ask(reader, count, min(depth * _DEEPER, _DEPTH_MAX), asker, has_marker)
        return self._made(reader, count, found, answer, has_marker, place)

    def clear(self) -> None:
        """Drops everything cached, because an event may be deleted now."""
        self._stored.clear()
        self.shared.clear()

    def _is_right(self, reader: PageAudience, answer: _Answer) -> bool:
        """Whether memory has all events after an answer of the store."""
        if self._now_s() > answer.until_s:
            return False
        return answer.stretch.through >= self._history.evicted_through(
            reader.topics, sees_private(reader.rights)
        )

    def _is_behind(
        self, reader: PageAudience, found: NewestEvents, through: int, count: int
    ) -> bool:
        """Whether memory has evicted events after an answer of the store of topics of which it has
        fewer than `count` now."""
        history, by_topic = self._history, found.by_topic
        if through >= history.evicted_through(reader.topics, sees_private(reader.rights)):
            return False
        return any(
            len(by_topic.get(name, ())) < count
            for name in history.evicted_after(reader.topics, through)
        )

    def _add_stored(
        self,
        found: dict[str, list[Frame]],
        stored: Stretch,
        reader: PageAudience,
        count: int,
        depth: int,
    ) -> bool:
        """Adds events that only the store has, for topics of which memory has fewer than `count`.
        Committed events that are not delivered yet will be sent live, so they are left out.

        Returns whether a topic has fewer, although the store gave `depth` events of it."""
        history, head = self._history, self._history.head
        are_in = {name: {frame.position for frame in frames} for name, frames in found.items()}
        seen: Counter[str] = Counter()
        matches = _matcher(reader.selectors)
        for entry in reversed(stored.entries):
            names = list(filter(matches, entry.topics))
            seen.update(names)
            frame = entry.frame
            if entry.position > head or not frame.events or history.is_expired(frame):
                continue
            for name in names if _may_read(entry, reader.rights) else ():
                positions = are_in.setdefault(name, set())
                if len(positions) < count and entry.position not in positions:
                    positions.add(entry.position)
                    found.setdefault(name, []).append(frame)
        return any(n >= depth and len(found.get(name, ())) < count for name, n in seen.items())

    def _made(
        self,
        reader: PageAudience,
        count: int,
        found: NewestEvents,
        answer: _Answer,
        has_marker: bool,
        place: int,
    ) -> Snapshot:
        history, stored, by_topic = self._history, answer.stretch, found.by_topic
        by_position = {frame.position: frame for frames in by_topic.values() for frame in frames}
        frames = [by_position[position] for position in sorted(by_position)]
        are_all = found.is_whole and stored.is_last
        is_complete = are_all and len(frames) <= SNAPSHOT_EVENTS_MAX
        expires_ms = min((frame.expires_ms for frame in frames if frame.expires_ms), default=0)
        frames, is_over = frames[-SNAPSHOT_EVENTS_MAX:], False
        if reader.core_view is not None:
            frames, is_over = viewed(reader, reader.core_view, described(frames, stored, history))
        shared = SharedSnapshot(
            SnapshotPages(frames),
            topics=len(by_topic),
            is_complete=is_complete,
            is_over=is_over,
            expires_ms=expires_ms,
            until_s=answer.until_s,
        )
        self.made_total += 1
        if place == history.head:  # Else it describes what was.
            self.shared.keep(reader, count, shared)
        return self._of(shared, reader, has_marker, place)

    def _of(
        self, shared: SharedSnapshot, reader: PageAudience, has_marker: bool, place: int
    ) -> Snapshot:
        """What one stream is sent; the snapshot describes a place."""
        pages = shared.pages
        if shared.is_over:
            return Snapshot(pages, place, "over")
        if not has_marker:
            return Snapshot(pages, place, "nothing")
        if shared.end is None or shared.end.through != place:
            shown = shown_place(self._history, reader, place)
            marker = _marker(pages.events, shared.topics, shown, is_complete=shared.is_complete)
            shared.end = MarkedEnd(marker, place)
        return Snapshot(pages, place, shared.end)


def _up_to(place: int, by_topic: dict[str, list[Frame]]) -> dict[str, list[Frame]]:
    """The frames of each topic up to a place; topics without one are missing."""
    kept = {
        name: [one for one in frames if one.position <= place] for name, frames in by_topic.items()
    }
    return {name: frames for name, frames in kept.items() if frames}


def _matcher(selectors: tuple[str, ...]) -> Callable[[str], bool]:
    if ANY in selectors:
        return lambda name: True
    named = frozenset(selectors)
    compiled = [compile_selector(text) for text in selectors]
    templates = [selector for selector in compiled if not selector.is_exact]
    return lambda name: name in named or any(one.matches(name) for one in templates)


def _may_read(entry: Entry, rights: Rights | None) -> bool:
    return not entry.frame.private or (rights is not None and rights.covers_subscribe(entry.topics))
