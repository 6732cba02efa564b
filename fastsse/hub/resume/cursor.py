"""Replay: where a stream goes on from, what it gets before it is live, and its gap event when
something is missing.

A stream opens with one block. When continuity can't be promised the gap event stands in that
block, before anything else. What is kept follows in pages; the stream is live after the last.
"""

import json
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from fastsse._core import Frame, join_frames, raw_frame
from fastsse.auth.rights import Rights
from fastsse.entries import Entry
from fastsse.events import EARLIEST
from fastsse.hub.history import History
from fastsse.hub.resume.pages import NOTHING_TOLD, JoinedPage, PageAudience, Told, newest_told
from fastsse.positions import format_position, parse_id
from fastsse.subscriptions import Cursor

__all__ = [
    "GAP_REASONS",
    "GapEvent",
    "ReplayCursor",
    "ReplayStart",
    "after_gap",
    "begin",
    "begin_at",
    "is_hidden",
]

GapReason = Literal["evicted", "unknown", "future", "lost"]
GAP_REASONS: Final[tuple[GapReason, ...]] = ("evicted", "unknown", "future", "lost")
# An id is at most this long, so nothing longer is worth repeating to the client.
REQUESTED_BYTES_MAX = 256


class GapEvent:
    """Says in band that events are missing, and where the stream goes on (`resumes_at`, a place:
    the client's next `Last-Event-ID`, else every reconnect would report the same gap).

    A gap before a snapshot has no id: a client that is cut before the snapshot gets both again."""

    __slots__ = ("has_id", "reason", "requested", "resumes_at")

    def __init__(
        self, reason: GapReason, requested: bytes, resumes_at: int, *, has_id: bool = True
    ) -> None:
        self.reason: Final = reason
        self.requested: Final = requested
        self.resumes_at: Final = resumes_at
        self.has_id: Final = has_id

    def before_snapshot(self) -> "GapEvent":
        """The same, without an id."""
        return GapEvent(self.reason, self.requested, self.resumes_at, has_id=False)

    @property
    def data(self) -> dict[str, str]:
        """What the event says."""
        return {
            "reason": self.reason,
            "requested": self.requested[:REQUESTED_BYTES_MAX].decode("utf-8", "replace"),
            "from": format_position(self.resumes_at).decode(),
        }

    def encode(self) -> bytes:
        """The event-stream bytes. `requested` is the client's own text, so JSON escapes it."""
        place = format_position(self.resumes_at)
        text = json.dumps(self.data, separators=(",", ":")).encode()
        if not self.has_id:
            return b"event: fastsse.gap\ndata: %b\n\n" % text
        return b"event: fastsse.gap\nid: %b\ndata: %b\n\n" % (place, text)


class ReplayCursor:
    """One stream on its way to live.

    `after` is the place up to which it has everything; `told` what it knows of evictions, and
    `lost_told` the place up to which it knows that the log may have lost events, so that one gap
    is sent once; `requested` how the client called the place it is at. `is_kept_only`: it asks for
    nothing of before the source began, because its place is not that of an event it had.

    Each page reports what was evicted since the one before, at any place: all of it that lies
    after the page's place and was not reported is missing for this stream.
    """

    __slots__ = ("after", "is_kept_only", "lost_told", "requested", "told")

    def __init__(self, after: int, requested: bytes, *, is_kept_only: bool = False) -> None:
        self.after = after
        self.requested = requested
        self.is_kept_only = is_kept_only or after == 0
        self.told = NOTHING_TOLD
        self.lost_told = 0

    @property
    def is_earliest(self) -> bool:
        """Whether it asks for all that is kept, and has nothing yet."""
        return self.after == 0

    def advance(self, page: JoinedPage) -> GapEvent | None:
        """Moves on behind a page; returns the gap to send before it, when there is one."""
        gap = None
        reading = self.told.reading(page.is_stored)
        evicted = page.evicted.since(reading)
        began = page.evicted.begins if self.is_kept_only else 0
        known = max(self.after, began, self.lost_told)
        if page.damaged_through > self.after:
            gap = GapEvent("lost", self.requested, page.before)
            self.lost_told = max(self.lost_told, min(page.lost_through, page.through))
        elif page.lost_through > known:
            gap = GapEvent("lost", self.requested, page.before)
            self.lost_told = page.lost_through
        elif evicted > known:
            gap = GapEvent("evicted", self.requested, page.before)
        clock = max(reading, page.evicted.clock)
        self.told = Told(
            *((self.told.memory, clock) if page.is_stored else (clock, self.told.store))
        )
        self.after = page.through
        self.requested = format_position(page.through)
        return gap


class ReplayStart(NamedTuple):
    """Where a stream begins, and the gap when the place that was asked for is not known here.

    Eviction is not judged yet: each page does it, also the first.
    """

    replay: ReplayCursor
    gap: GapEvent | None = None

    @property
    def place(self) -> int | None:
        """Where it begins; None when only its first page shows it."""
        return None if self.replay.is_earliest else self.replay.after


def begin(history: History, reader: PageAudience, cursor: Cursor) -> ReplayStart | None:
    """Where a cursor begins, as far as memory knows; None: the backbone has to be asked, and
    `begin_at` takes its answer. O(log n), O(N) for the last N."""
    value = cursor.value
    match cursor.kind:
        case "head":
            return ReplayStart(ReplayCursor(history.head, b""))
        case "earliest":
            return ReplayStart(ReplayCursor(0, EARLIEST))
        case "since":
            assert isinstance(value, int)
            place = history.times.place_at(value)
            # What lies before memory the backbone knows better.
            is_here = place >= history.evicted_through(reader.topics)
            return _begin_since(history, reader, place) if is_here else None
        case "last":
            return _begin_last(history, reader, cursor)
        case "after":
            return _begin_after(history, reader, cursor.text)


def begin_at(
    history: History, reader: PageAudience, cursor: Cursor, place: int | None
) -> ReplayStart:
    """Where a cursor begins that only the backbone could find. `place` is its answer."""
    if cursor.kind == "last":
        return _begin_last_kept(history, reader, cursor, place)
    if cursor.kind == "since":
        assert isinstance(cursor.value, int)
        if place is None:
            place = history.times.place_at(cursor.value)
        return _begin_since(history, reader, place)
    event_id = cursor.text
    if place is not None and place <= history.head:
        return ReplayStart(ReplayCursor(place, event_id))
    known = parse_id(event_id) is not None or place is not None
    reason: GapReason = "future" if known else "unknown"
    return _unplaced(history, reader, reason, event_id)


def _begin_since(history: History, reader: PageAudience, place: int) -> ReplayStart:
    place = min(place, newest_told(history, reader))
    replay = ReplayCursor(place, format_position(place), is_kept_only=True)
    return ReplayStart(replay)


def _begin_after(history: History, reader: PageAudience, event_id: bytes) -> ReplayStart | None:
    position = parse_id(event_id)
    if position is None:
        position = history.find(event_id)
        # An id of an event that may not be read is unknown, so the answer does not reveal it.
        if position is not None and not history.may_read(position, reader.rights):
            return _unplaced(history, reader, "unknown", event_id)
    if position is None or position > history.head:
        return None
    return ReplayStart(ReplayCursor(position, event_id))


def _begin_last(history: History, reader: PageAudience, cursor: Cursor) -> ReplayStart | None:
    assert isinstance(cursor.value, int)
    place, are_all = history.before_newest(reader.topics, cursor.value, reader.rights)
    if not are_all or place < history.evicted_through(reader.topics):
        return None
    return ReplayStart(ReplayCursor(place, _requested_last(cursor)))


def _begin_last_kept(
    history: History, reader: PageAudience, cursor: Cursor, place: int | None
) -> ReplayStart:
    """The last of those that are kept. Where fewer are kept than were asked for it is everything:
    then a gap says whether there ever were more."""
    assert isinstance(cursor.value, int)
    if place is None:
        kept_after, are_all = history.before_newest(reader.topics, cursor.value, reader.rights)
        place = kept_after if are_all else 0
    return ReplayStart(ReplayCursor(place, _requested_last(cursor)))


def _requested_last(cursor: Cursor) -> bytes:
    assert isinstance(cursor.value, int)
    return b"last=%d" % cursor.value


def _unplaced(
    history: History, reader: PageAudience, reason: GapReason, event_id: bytes
) -> ReplayStart:
    return ReplayStart(
        ReplayCursor(history.head, b""), GapEvent(reason, event_id, newest_told(history, reader))
    )


def is_hidden(history: History, stored: Iterable[Entry], place: int, rights: Rights | None) -> bool:
    """Whether the event at a place may not be read, as the store or memory has it."""
    return any(
        entry.frame.private and not (rights and rights.covers_subscribe(entry.topics))
        for entry in stored
        if entry.position == place
    ) or not history.may_read(place, rights)


def after_gap(gap: GapEvent, page: Frame | None) -> Frame:
    """A gap that shows itself in the middle of a replay, with the page that follows it."""
    told = raw_frame(gap.encode())
    return told if page is None else join_frames((told, page))
