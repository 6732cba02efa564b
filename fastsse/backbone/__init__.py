"""Where order and durability come from: memory, a local store, or a log that many nodes share.

The hub is the only one that speaks to a backbone, from its loop thread, and every callback comes
back on that thread. The order of things is always the same: **commit, deliver, acknowledge**.
`append` commits a batch and gives it positions; `deliver` is called with every committed entry,
in order, from every publisher; only then is `done` called. A publisher whose event was acknowledged
can get the same answer after a restart, and finds the event in history.

A backbone may answer within the call (memory), when its own thread has committed (a local
store), or when the batch comes back down a shared log (many nodes). Its callers can't tell.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.evicted import Evicted
from fastsse.subscriptions import Cursor

__all__ = [
    "SNAPSHOT_EVENTS_MAX",
    "Backbone",
    "Broken",
    "Deliver",
    "Done",
    "Placed",
    "Stretch",
    "Stretched",
    "newest_within",
]

# The newest events of each topic, of all topics together. Sorting and joining them takes a few
# milliseconds of the loop.
SNAPSHOT_EVENTS_MAX: Final = 10_000

Deliver = Callable[[Sequence[Entry]], None]
"""Committed entries, at least one, their positions strictly increasing from call to call."""
Broken = Callable[[str, int], None]
"""A reason (`lost`, `trimmed`, `flushed`, …) and a place: what lies up to it may be missing, and
was perhaps never delivered. What is delivered next lies after it."""
Done = Callable[[Sequence[int] | FastsseError], None]
"""The positions of the batch, or why nothing of it was taken."""


class Stretch(NamedTuple):
    """What `read` found: the matching entries after a place, in order, up to `through`. Those that
    `evicted` and `damaged_through` speak of may be missing, no others.

    It ends before entries that are damaged, or begins behind them: all of its own entries lie
    after `damaged_through`."""

    entries: Sequence[Entry]
    through: int  # Past the last entry where nothing matching lies between; never past `head`.
    is_last: bool  # Nothing matching is stored after `through`.
    evicted: Evicted  # What is not stored any more of these topics.
    damaged_through: int = 0  # Where it lies after the place asked for: lost up to here.

    @property
    def evicted_through(self) -> int:
        """The highest place of an entry that may be missing; 0 for none."""
        return self.evicted.through


def newest_within(entries: Sequence[Entry], limit_bytes: int, through: int) -> Stretch:
    """As many of the newest entries as the limits of `Backbone.newest` allow, at least one.

    Arguments:
        entries: in order.
        limit_bytes: of their frames.
        through: the place up to which they were looked for.
    """
    kept = entries[-SNAPSHOT_EVENTS_MAX:]
    sizes = accumulate(entry.frame.size for entry in reversed(kept))
    fitting = max(1, sum(size <= limit_bytes for size in sizes))
    kept = kept[-fitting:]
    return Stretch(kept, through, len(kept) == len(entries), Evicted())


Stretched = Callable[[Stretch | FastsseError], None]
Placed = Callable[[int | FastsseError | None], None]


class Backbone(Protocol):
    """Gives events their order and keeps them, as far as it promises to. Loop thread only."""

    @property
    def head(self) -> int:
        """The last position in use; every later one lies above it, also after a restart."""

    @property
    def start(self) -> int:
        """Where the hub's own history begins: what lies after it comes by `tail`, what lies
        before it by `read` only.

        The head at opening where nothing but this process and its store knows of events; before
        the oldest kept one where another process keeps them in memory and hands them on.
        """

    @property
    def trouble(self) -> str | None:
        """Why appends are refused now, in a few words for `/readyz` and for publishers; None
        when all is well."""

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        """Has `deliver` called with everything committed after a place (`start`, or what a hub
        of before has), in order, from now on. Once, before the first `append`."""

    def append(self, events: Sequence[Event], done: Done) -> None:
        """Commits a batch of at least one event, all or nothing, then delivers it, then calls
        `done` once: with its positions, or with `Refused("backbone", …)`."""

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Gives `done` the stored entries after a place that any selector matches: topics,
        templates, or `("*",)`. At most about `limit_bytes`, at least one when there is one, and
        an error when the store can't be read now. A backbone that stores nothing of its own
        answers with the place itself. O(log n + what is read)."""

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """Gives `done` the place from which a cursor goes on, None when it is not known here.

        - `after` an id: the place of the earliest event that was published with that own id; a
          position above the head is the place itself once the head has reached it, which a
          backbone that may be behind others waits for (2 s at most).
        - `last` N: the place before the N-th newest stored entry that matches, None when fewer
          are stored.

        When it is called, everything up to the place it gives has been delivered.
        """

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Gives `done` the newest `count` stored entries of each topic that a selector matches, in
        order, each once. `through` is the head at the call.

        At most SNAPSHOT_EVENTS_MAX entries and about `limit_bytes`: the newest ones, and then
        `is_last` is false. `evicted` says nothing. A backbone that stores nothing of its own gives
        no entries. O(topics x count)."""

    def counters(self) -> dict[str, int]:
        """What it counts, by the names of the metrics."""

    async def close(self) -> None:
        """Commits or refuses what is pending. What is appended later is refused."""
