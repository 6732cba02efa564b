"""Replay: where a stream continues, what it receives before it is live, and its gap event when
something is missing.

A stream opens with one block. When continuity can't be promised, this block has the gap event,
before anything else. Kept events follow in pages; the stream is live after the last page.
"""

import json
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from fastsse._core import Frame, join_frames, raw_frame
from fastsse.auth.rights import Rights
from fastsse.entries import Entry
from fastsse.events import EARLIEST
from fastsse.hub.history import History, sees_private
from fastsse.hub.resume.pages import (
    NONE_SEEN,
    EvictionsSeen,
    JoinedPage,
    PageAudience,
    newest_shown_place,
)
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
# The longest valid id; a longer one is cut when the gap event repeats it.
REQUESTED_BYTES_MAX = 256


class GapEvent:
    """The event `fastsse.gap`: events are missing, and the stream continues at `resumes_at`.

    This place becomes the client's next `Last-Event-ID`; otherwise every reconnect would report
    the same gap. A gap before a snapshot has no id, so a client that is cut before the snapshot
    receives both again."""

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
        """The event's data, before it is encoded as JSON."""
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
    """The place of one stream that is not live yet.

    Attributes:
        after: the stream has everything up to this place.
        requested: this place in the client's words, for a gap event.
        seen: the evictions that earlier pages have reported.
        loss_reported_through: the log may have lost events up to this place, and the stream has
            received a gap event for it.
        is_kept_only: the stream does not ask for events from before the source began, because its
            place is not that of an event it had.

    Each page reports what was evicted since the page before, at any place. Of that, everything
    after the page's place is missing for this stream, unless a gap event has reported it.
    """

    __slots__ = ("after", "is_kept_only", "loss_reported_through", "requested", "seen")

    def __init__(self, after: int, requested: bytes, *, is_kept_only: bool = False) -> None:
        self.after = after
        self.requested = requested
        self.is_kept_only = is_kept_only or after == 0
        self.seen = NONE_SEEN
        self.loss_reported_through = 0

    @property
    def is_earliest(self) -> bool:
        """Whether it asks for all kept events, and has none yet."""
        return self.after == 0

    def advance(self, page: JoinedPage) -> GapEvent | None:
        """Moves behind a page. Returns the gap event to send before the page, or None."""
        gap = None
        reading = self.seen.reading(page.is_stored)
        evicted = page.evicted.since(reading)
        began = page.evicted.begins if self.is_kept_only else 0
        known = max(self.after, began, self.loss_reported_through)
        if page.damaged_through > self.after:
            gap = GapEvent("lost", self.requested, page.before)
            self.loss_reported_through = max(
                self.loss_reported_through, min(page.lost_through, page.through)
            )
        elif page.lost_through > known:
            gap = GapEvent("lost", self.requested, page.before)
            self.loss_reported_through = page.lost_through
        elif evicted > known:
            gap = GapEvent("evicted", self.requested, page.before)
        clock = max(reading, page.evicted.clock)
        self.seen = EvictionsSeen(
            *((self.seen.memory, clock) if page.is_stored else (clock, self.seen.store))
        )
        self.after = page.through
        self.requested = format_position(page.through)
        return gap


class ReplayStart(NamedTuple):
    """Where a stream begins, and the gap event if the requested place is not known here.

    Evictions are not considered yet: each page does that, the first too.
    """

    replay: ReplayCursor
    gap: GapEvent | None = None

    @property
    def place(self) -> int | None:
        """Where it begins; None if only its first page can say."""
        return None if self.replay.is_earliest else self.replay.after


def begin(history: History, reader: PageAudience, cursor: Cursor) -> ReplayStart | None:
    """Where a cursor begins, if memory knows it. None: ask the backbone, and call `begin_at` with
    its answer. O(log n), O(N) for the last N."""
    value = cursor.value
    match cursor.kind:
        case "head":
            return ReplayStart(ReplayCursor(history.head, b""))
        case "earliest":
            return ReplayStart(ReplayCursor(0, EARLIEST))
        case "since":
            assert isinstance(value, int)
            place = history.times.place_at(value)
            # The backbone has events from before those in memory.
            is_here = place >= history.evicted_through(reader.topics, sees_private(reader.rights))
            return _begin_since(history, reader, place) if is_here else None
        case "last":
            return _begin_last(history, reader, cursor)
        case "after":
            return _begin_after(history, reader, cursor.text)


def begin_at(
    history: History, reader: PageAudience, cursor: Cursor, place: int | None
) -> ReplayStart:
    """Where a cursor begins that only the backbone could find; `place` is the backbone's answer,
    None: not found."""
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
    place = min(place, newest_shown_place(history, reader))
    replay = ReplayCursor(place, format_position(place), is_kept_only=True)
    return ReplayStart(replay)


def _begin_after(history: History, reader: PageAudience, event_id: bytes) -> ReplayStart | None:
    position = parse_id(event_id)
    if position is None:
        position = history.find(event_id)
        # The id of an event that may not be read counts as unknown, so that it stays secret.
        if position is not None and not history.may_read(position, reader.rights):
            return _unplaced(history, reader, "unknown", event_id)
    if position is None or position > history.head:
        return None
    return ReplayStart(ReplayCursor(position, event_id))


def _begin_last(history: History, reader: PageAudience, cursor: Cursor) -> ReplayStart | None:
    assert isinstance(cursor.value, int)
    place, are_all = history.before_newest(reader.topics, cursor.value, reader.rights)
    if not are_all or place < history.evicted_through(reader.topics, sees_private(reader.rights)):
        return None
    return ReplayStart(ReplayCursor(place, _requested_last(cursor)))


def _begin_last_kept(
    history: History, reader: PageAudience, cursor: Cursor, place: int | None
) -> ReplayStart:
    """The last N of the kept events. If fewer are kept, all of them: then a gap event reports
    whether there were more."""
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
        ReplayCursor(history.head, b""),
        GapEvent(reason, event_id, newest_shown_place(history, reader)),
    )


def is_hidden(history: History, stored: Iterable[Entry], place: int, rights: Rights | None) -> bool:
    """Whether these rights do not allow to read the event at a place."""
    return any(
        entry.frame.private and not (rights and rights.covers_subscribe(entry.topics))
        for entry in stored
        if entry.position == place
    ) or not history.may_read(place, rights)


def after_gap(gap: GapEvent, page: Frame | None) -> Frame:
    """A gap event in the middle of a replay, joined with the page that follows."""
    reported = raw_frame(gap.encode())
    return reported if page is None else join_frames((reported, page))
