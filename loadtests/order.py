"""Checks that a reader received every counted event once and in order.

The same judgement as the native swarm's (fastsse/swarm/native/order.pxd): for each source the
newest count and which of the 64 before it have arrived, so that a
missing event is distinguished from a late one and from a repeated one.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from fastsse.stamp import Stamp

WINDOW = 64
_ALL = (1 << WINDOW) - 1

Kind = Literal["first", "next", "lost", "announced", "late", "again"]


class Verdict(NamedTuple):
    """The result of an arrival; `missing` events were skipped."""

    kind: Kind
    missing: int = 0


class _Source:
    """`seen`: bit i says that count `newest - i` has arrived; 0: a gap was announced since."""

    __slots__ = ("newest", "seen")

    def __init__(self, count: int) -> None:
        # Earlier events were not meant for this reader, so they count as arrived.
        self.newest = count
        self.seen = _ALL

    def arrive(self, count: int) -> Verdict:
        announced = self.seen == 0
        ahead = count - self.newest
        if ahead > 0:
            self.seen = (self.seen << ahead | 1) & _ALL if ahead < WINDOW else 1
            self.newest = count
            if ahead == 1:
                return Verdict("next")
            return Verdict("announced" if announced else "lost", ahead - 1)
        if announced or -ahead >= WINDOW or self.seen >> -ahead & 1:
            return Verdict("again")
        self.seen |= 1 << -ahead
        return Verdict("late")


class Arrivals:
    """The sources of one reader, over all its connections. Not thread-safe."""

    def __init__(self) -> None:
        self._sources: dict[int, _Source] = {}

    def judge(self, stamp: Stamp) -> Verdict:
        """Takes the next event with a count. O(1)."""
        source = self._sources.get(stamp.source)
        if source is None:
            self._sources[stamp.source] = _Source(stamp.count)
            return Verdict("first")
        return source.arrive(stamp.count)

    def announce_gap(self) -> None:
        """The server reported a gap: the next skipped events of a source are no silent loss."""
        for source in self._sources.values():
            source.seen = 0
