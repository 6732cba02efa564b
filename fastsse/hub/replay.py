"""Replay: what a stream gets before it is live, and what it is told when something is missing.

A stream opens with one block. When continuity can't be promised the gap event stands in that
block, before anything else. What is kept follows in pages; the stream is live after the last.
"""

import json
import sys
from collections import OrderedDict
from typing import Final, Literal, NamedTuple

from fastsse._core import Frame, join_frames, raw_frame
from fastsse.hub.history import PAGE_BYTES, History, Page, Selection
from fastsse.positions import format_position, parse_position, position_at
from fastsse.subscriptions import Cursor

__all__ = [
    "GAP_REASONS",
    "Gap",
    "JoinedPage",
    "PageCache",
    "Replay",
    "after_gap",
    "opening_block",
]

GapReason = Literal["evicted", "unknown", "future"]
GAP_REASONS: Final[tuple[GapReason, ...]] = ("evicted", "unknown", "future")
# An id is at most this long, so nothing longer is worth repeating to whoever asked for it.
REQUESTED_MAX_BYTES = 256
PAGE_CACHE_BYTES = 8 * 1024 * 1024
PAGES_MAX = 1_000
# A page's own objects: the frame's and the page's, the key's place, the table's row.
PAGE_COST_BYTES: Final = 400
# Of a set of topics, beside their names: the set's tuple.
TOPIC_COST_BYTES: Final = 8
# What a page may be known by, however little is in it.
KEY_FREE_BYTES: Final = 1024


class Gap:
    """Says in band that events are missing, and where the stream goes on (`resumes_at`, a place:
    the client's next `Last-Event-ID`, else every reconnect would tell the same gap)."""

    __slots__ = ("reason", "requested", "resumes_at")

    def __init__(self, reason: GapReason, requested: bytes, resumes_at: int) -> None:
        self.reason: Final = reason
        self.requested: Final = requested
        self.resumes_at: Final = resumes_at

    def encode(self) -> bytes:
        """The event-stream bytes. `requested` is the client's own text, so JSON escapes it."""
        place = format_position(self.resumes_at)
        requested = self.requested[:REQUESTED_MAX_BYTES].decode("utf-8", "replace")
        data = {"reason": self.reason, "requested": requested, "from": place.decode()}
        text = json.dumps(data, separators=(",", ":")).encode()
        return b"event: fastsse.gap\nid: %b\ndata: %b\n\n" % (place, text)


def opening_block(retry_ms: int, place: int | None, gap: Gap | None = None) -> bytes:
    """The first bytes of a stream: a comment, `retry:`, and where it goes on from.

    That is the gap's place when there is one, else `place`; None leaves it out, and then no blank
    line follows, because some client libraries would make an empty event of it.
    """
    opening = b": fastsse\nretry: %d\n" % retry_ms
    if gap is not None:
        return opening + gap.encode()
    return opening if place is None else b"%bid: %b\n\n" % (opening, format_position(place))


# Selectors and a place.
_Key = tuple[tuple[str, ...], int]


class JoinedPage(NamedTuple):
    """A page ready to send. Its `frame` is None when nothing matching lies after the place."""

    frame: Frame | None
    before: int  # The place just before its first event, or where it ends.
    through: int
    is_last: bool
    evicted_through: int


class PageCache:
    """Pages joined once for all who resume from the same place; the latest used are kept.

    A page that ends before the head stays right for ever: what lies between two places of the
    order does not change, and what was evicted since is still in it.

    What a page is known by counts too, and a page worth less than that is not kept: else whoever
    asks for ever different sets of topics would fill memory with their names.

    Arguments:
        limit_bytes: the bound on all pages together; there are at most PAGES_MAX of them.
        page_bytes: the bound on one, see `History.page`.
    """

    __slots__ = ("_limit_bytes", "_page_bytes", "_pages", "bytes")

    def __init__(self, limit_bytes: int = PAGE_CACHE_BYTES, page_bytes: int = PAGE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._page_bytes = page_bytes
        self._pages: OrderedDict[_Key, tuple[JoinedPage, int]] = OrderedDict()
        self.bytes = 0

    def read(
        self, history: History, selectors: tuple[str, ...], selection: Selection, after: int
    ) -> JoinedPage:
        """The next page after a place. `selectors` is what the selection is known by."""
        key = (selectors, after)
        kept = self._pages.get(key)
        if kept is not None:
            page = kept[0]
            if not page.is_last or page.through == history.head:
                self._pages.move_to_end(key)
                return page
        page = _joined(history.page(selection, after, self._page_bytes))
        if page.frame is not None:
            self._keep(key, page, page.frame.size)
        return page

    def _keep(self, key: _Key, page: JoinedPage, page_bytes: int) -> None:
        _, stale_bytes = self._pages.pop(key, (None, 0))
        self.bytes -= stale_bytes
        key_bytes = sum(sys.getsizeof(name) + TOPIC_COST_BYTES for name in key[0])
        if key_bytes > max(page_bytes, KEY_FREE_BYTES):
            return
        cost_bytes = page_bytes + key_bytes + PAGE_COST_BYTES
        self._pages[key] = page, cost_bytes
        self.bytes += cost_bytes
        while self.bytes > self._limit_bytes or len(self._pages) > PAGES_MAX:
            self.bytes -= self._pages.popitem(last=False)[1][1]


def _joined(page: Page) -> JoinedPage:
    frames = page.frames
    return JoinedPage(
        frame=join_frames(frames) if frames else None,
        before=frames[0].position - 1 if frames else page.through,
        through=page.through,
        is_last=page.is_last,
        evicted_through=page.evicted_through,
    )


class Replay:
    """One stream on its way to live.

    `after` is the place up to which it has everything; `told_through` the eviction that it knows
    of, so that one gap is told once; `requested` how the client called the place it is at.
    """

    __slots__ = ("after", "requested", "told_through")

    def __init__(self, after: int, requested: bytes, told_through: int = 0) -> None:
        self.after = after
        self.requested = requested
        self.told_through = told_through

    @classmethod
    def begin(
        cls, history: History, selection: Selection, cursor: Cursor
    ) -> "tuple[Replay, Gap | None]":
        """Where a cursor begins, and the gap when that place is not known here.

        Eviction is not judged yet: each page does it, also the first.
        """
        place = _place(history, selection, cursor)
        if isinstance(place, Gap):
            return cls(place.resumes_at, b""), place
        if cursor.kind == "after" or cursor.kind == "since":
            requested = cursor.text if cursor.kind == "after" else format_position(place)
            return cls(place, requested), None
        return cls(place, b"", history.evicted_through(selection)), None

    def advance(self, page: JoinedPage) -> Gap | None:
        """Moves on behind a page; returns the gap to tell before it, when there is one."""
        gap = None
        if page.evicted_through > max(self.after, self.told_through):
            gap = Gap("evicted", self.requested, page.before)
            self.told_through = page.evicted_through
        self.after = page.through
        self.requested = format_position(page.through)
        return gap


def after_gap(gap: Gap, page: Frame | None) -> Frame:
    """A gap that shows itself in the middle of a replay, with the page that follows it."""
    told = raw_frame(gap.encode())
    return told if page is None else join_frames((told, page))


def _place(history: History, selection: Selection, cursor: Cursor) -> int | Gap:
    value = cursor.value
    match cursor.kind:
        case "head":
            return history.head
        case "earliest":
            return history.before_earliest(selection)
        case "last":
            assert isinstance(value, int)
            return history.before_newest(selection, value)
        case "since":
            assert isinstance(value, int)
            return min(position_at(value), history.head)
        case "after":
            return _place_of_id(history, cursor.text)


def _place_of_id(history: History, event_id: bytes) -> int | Gap:
    position = parse_position(event_id)
    if position is None:
        position = history.find(event_id)
    if position is None:
        return Gap("unknown", event_id, history.head)
    if position > history.head:
        return Gap("future", event_id, history.head)
    return position
