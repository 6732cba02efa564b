"""Logs: the frames that history keeps, in order. Each topic has a log, and the whole has one.

A log is a list that is filled at the end and emptied at the front. A place is found by bisection,
and a page is read in a row. The emptied part is cut off when it is half of the list: O(1) an event
in the long run, and no list is copied for a single event.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import compress
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from fastsse._core import Frame, raw_frame

if TYPE_CHECKING:
    from fastsse.hub.templates import WantedTopics
    from fastsse.hub.topics import Topic

__all__ = [
    "EVENT_COST_BYTES",
    "Owners",
    "TopicLog",
    "WholeLog",
    "is_wanted",
    "logs_of",
    "once",
    "position_of",
]

# What a kept event costs without its bytes: frame header, allocation, position, its places in two
# logs. Measured, and counted so that the limits bound memory for small events too.
EVENT_COST_BYTES = 192

# The topics that an event was published under: the topic itself when it is only one, which saves
# a tuple an event.
Owners: TypeAlias = "Topic | tuple[Topic, ...]"

position_of = attrgetter("position")
# Stands where a frame was, so that the frame is freed before its place is cut off.
GONE = raw_frame(b":\n")
CUT_MIN = 64


class TopicLog:
    """The frames kept for one topic, oldest first."""

    __slots__ = ("bytes", "frames", "start")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.start = 0
        self.bytes = 0

    def drop_first(self) -> Frame:
        """Drops the oldest frame and returns it."""
        frames, start = self.frames, self.start
        frame = frames[start]
        frames[start] = GONE
        self.start = start = start + 1
        if start >= CUT_MIN and start * 2 >= len(frames):
            del frames[:start]
            self.start = 0
        return frame

    def prepend(self, older: TopicLog) -> None:
        """Puts the frames of a log before these, which all lie after them. O(n)."""
        self.frames = older.frames[older.start :] + self.frames[self.start :]
        self.start = 0
        self.bytes += older.bytes

    def after(self, position: int) -> Iterator[Frame]:
        """The frames after `position`, in order. O(log n) to begin."""
        frames = self.frames
        first = bisect_right(frames, position, self.start, key=position_of)
        return (frames[index] for index in range(first, len(frames)))

    def newest_first(self) -> Iterator[Frame]:
        """The frames backwards."""
        frames = self.frames
        return (frames[index] for index in range(len(frames) - 1, self.start - 1, -1))


class WholeLog:
    """Every event kept, once, in order, with the topics that it was published under.

    Most events leave from the front. One that leaves from the middle (its topic keeps less than
    others do) leaves a hole; holes are closed a block at a time, so that no publish ever waits
    for a pass over the whole.
    """

    __slots__ = ("_block", "_frames", "_holes", "_new_holes", "_owners", "_positions", "_start")

    # Closing one costs a few milliseconds at most, in a log of a million. It is done once holes are
    # a quarter of the log, and so often that they stay under a half of it.
    BLOCK = 32 * 1024

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._frames: list[Frame] = []
        self._owners: list[Owners | None] = []
        self._start = 0
        self._holes = 0
        self._new_holes = 0  # Made since a block was last closed.
        self._block = 0  # Where the next block to close begins.

    def append(self, position: int, frame: Frame, owners: Owners) -> None:
        """Adds the newest event."""
        self._positions.append(position)
        self._frames.append(frame)
        self._owners.append(owners)

    def prepend(self, positions: list[int], frames: list[Frame], owners: list[Owners]) -> None:
        """Puts events before all others, which lie after them. O(n), as fast as lists are."""
        start = self._start
        self._positions = positions + self._positions[start:]
        self._frames = frames + self._frames[start:]
        self._owners = [*owners, *self._owners[start:]]
        self._start = self._block = 0

    def first(self) -> tuple[int, Owners] | None:
        """The oldest event kept: its position and topics."""
        if self._start == len(self._positions):
            return None
        owners = self._owners[self._start]
        assert owners is not None
        return self._positions[self._start], owners

    def let_go(self, topic: Topic, position: int) -> bool:
        """Drops the event at `position`, which `topic` has just evicted, unless another of its
        topics keeps it; says whether it did. O(log n), mostly O(1)."""
        index = self._start
        if self._positions[index] != position:
            index = bisect_left(self._positions, position, index)
        owners = self._owners[index]
        if owners is not topic and not _all_evicted(owners, position):
            return False
        self._frames[index] = GONE
        self._owners[index] = None
        if index == self._start:
            self._advance()
        else:
            self._make_hole()
        return True

    def after(self, position: int) -> Iterator[Frame]:
        """The frames after `position`, in order. O(log n) to begin."""
        frames = self._frames
        first = bisect_right(self._positions, position, self._start)
        return (
            frame for index in range(first, len(frames)) if (frame := frames[index]) is not GONE
        )

    def newest_first(self) -> Iterator[Frame]:
        """The frames backwards."""
        frames = self._frames
        backwards = range(len(frames) - 1, self._start - 1, -1)
        return (frame for index in backwards if (frame := frames[index]) is not GONE)

    def owned_after(self, position: int) -> Iterator[tuple[Frame, Owners]]:
        """The frames after `position` with their topics, in order. O(log n) to begin."""
        frames, owners = self._frames, self._owners
        first = bisect_right(self._positions, position, self._start)
        return (
            (frames[index], owner)
            for index in range(first, len(frames))
            if (owner := owners[index]) is not None
        )

    def owned_newest_first(self) -> Iterator[tuple[Frame, Owners]]:
        """The same backwards."""
        frames, owners = self._frames, self._owners
        backwards = range(len(frames) - 1, self._start - 1, -1)
        return (
            (frames[index], owner) for index in backwards if (owner := owners[index]) is not None
        )

    def owners_of(self, position: int) -> Owners:
        """The topics of the event kept at a position; none when there is none. O(log n)."""
        positions = self._positions
        index = bisect_left(positions, position, self._start)
        found = index < len(positions) and positions[index] == position
        return (self._owners[index] if found else None) or ()

    def owned_between(
        self, after: int, through: int, limit: int
    ) -> list[tuple[int, Owners | None]]:
        """At most `limit` positions with their topics (None where a hole is), oldest first, of
        the places after one position and through another. O(log n + limit)."""
        positions = self._positions
        first = bisect_right(positions, after, self._start)
        stop = min(bisect_right(positions, through, first), first + limit)
        return list(zip(positions[first:stop], self._owners[first:stop], strict=True))

    def _advance(self) -> None:
        start, owners = self._start + 1, self._owners
        end = len(owners)
        while start < end and owners[start] is None:
            start += 1
        self._holes -= start - self._start - 1
        if start >= CUT_MIN and start * 2 >= end:
            del self._positions[:start], self._frames[:start], owners[:start]
            self._block = max(0, self._block - start)
            start = 0
        self._start = start

    def _make_hole(self) -> None:
        self._holes += 1
        self._new_holes += 1
        length = len(self._owners) - self._start
        if self._holes > length // 4 and self._new_holes >= max(
            CUT_MIN, min(self.BLOCK, length) // 8
        ):
            self._close_block()

    def _close_block(self) -> None:
        first = self._block if self._start <= self._block < len(self._positions) else self._start
        stop = first + self.BLOCK
        kept = self._owners[first:stop]
        self._positions[first:stop] = compress(self._positions[first:stop], kept)
        self._frames[first:stop] = compress(self._frames[first:stop], kept)
        self._owners[first:stop] = compress(kept, kept)
        closed = kept.count(None)
        self._block = first + len(kept) - closed
        self._holes -= closed
        self._new_holes = 0


def logs_of(topics: Iterable[Topic]) -> list[TopicLog]:
    """The logs of those topics that have one."""
    return [topic.log for topic in topics if topic.log is not None]


def is_wanted(wanted: WantedTopics, owners: Owners) -> bool:
    """Whether one of an event's topics is among those."""
    if isinstance(owners, tuple):
        return any(topic in wanted for topic in owners)
    return owners in wanted


def once(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Leaves out repeats: an event under several of the topics is the same frame in a row."""
    last = None
    for frame in frames:
        if frame is not last:
            yield frame
        last = frame


def _all_evicted(owners: Owners | None, position: int) -> bool:
    return isinstance(owners, tuple) and all(topic.evicted_through >= position for topic in owners)
