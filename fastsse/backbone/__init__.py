"""Where order and durability come from: memory, a local store, or a log that many nodes share.

Only the hub uses a backbone, from its loop thread, and every callback is called on that thread. The
order of things is always the same: **commit, deliver, acknowledge**. `append` commits a batch and
gives it positions; `deliver` is called with every committed entry, in order, from every publisher;
only then is `done` called. After a restart, an acknowledged event is in history, and a publisher
that repeats it gets the same answer.

A backbone may answer within the call (memory), after its own thread has committed (a local store),
or when it reads the batch back from a shared log (many nodes). For callers there is no difference.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from fastsse._content import StoredContent
from fastsse.config import HistoryOptions
from fastsse.entries import Entry, EventBatch, KeyedBatch
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.evicted import Evicted
from fastsse.streamstate import StreamRow
from fastsse.subscriptions import Cursor

__all__ = [
    "SNAPSHOT_EVENTS_MAX",
    "Backbone",
    "Broken",
    "Deliver",
    "Done",
    "Ended",
    "FoundStreams",
    "Placed",
    "Stretch",
    "Stretched",
    "newest_within",
]

# The newest events of each topic, of all topics together. Sorting and joining them takes a few
# milliseconds of the loop.
SNAPSHOT_EVENTS_MAX: Final = 10_000

Deliver = Callable[[Sequence[Entry]], None]
"""Called with committed entries, at least one. Positions strictly increase, also from call to
call."""
Broken = Callable[[str, int], None]
"""Called with a reason (`lost`, `trimmed`, `flushed`, …) and a place. Entries up to this place may
be missing and may never have been delivered. Later deliveries are after it."""
Done = Callable[[Sequence[int] | FastsseError], None]
"""Called with the positions of the batch, or with the reason why no event of it was accepted."""


class Stretch(NamedTuple):
    """The result of `read`: the matching entries after a place, in order, up to `through`. Only
    entries that `evicted` and `damaged_through` report may be missing.

    It ends before damaged entries or begins after them: all of its entries are after
    `damaged_through`."""

    entries: Sequence[Entry]
    through: int  # Past the last entry where nothing matching lies between; never past `head`.
    is_last: bool  # Nothing matching is stored after `through`.
    evicted: Evicted  # What is not stored any more of these topics.
    damaged_through: int = 0  # Where it lies after the place asked for: lost up to here.
    content: StoredContent | None = None  # The entries, if they were read as content.

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
Ended = Callable[[dict[str, int] | FastsseError], None]
"""Topics that have ended, each with the position of its end."""
FoundStreams = Callable[[dict[str, StreamRow] | FastsseError], None]
"""The rows of those topics that are durable streams."""
Placed = Callable[[int | FastsseError | None], None]


class Backbone(Protocol):
    """Orders events and stores them as durably as it promises. Loop thread only."""

    @property
    def head(self) -> int:
        """The last position in use. Later positions are higher, also after a restart."""

    @property
    def start(self) -> int:
        """Where the hub's own history begins: entries after it come through `tail`, earlier ones
        only through `read`.

        It is the head at opening if only this process and its store know of events. If another
        process keeps events in memory and sends them, it is before the oldest of these.
        """

    @property
    def trouble(self) -> str | None:
        """Why appends are refused now, in a few words for `/readyz` and publishers; None if they
        are accepted."""

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        """Calls `deliver` from now on with everything committed after a place (`start`, or the head
        of an earlier hub), in order. Call it once, before the first `append`."""

    @property
    def judges_each(self) -> bool:
        """Whether a batch may have several requests, each with one event and a key of its own."""

    def append(self, events: Sequence[Event], done: Done) -> None:
        """Commits a batch of at least one event, all or nothing, then delivers it, then calls
        `done` once: with its positions, with `Refused("backbone", …)`, or with a `Conflict` where
        the state of its topics forbids it. What is known already is not stored again; then the
        positions are `judge.JudgedPositions`."""

    @property
    def append_now(self) -> Callable[[EventBatch | KeyedBatch], Sequence[int] | None] | None:
        """A function that commits and delivers a batch before it returns, and returns the
        positions. It takes the usual batches, and appends to durable streams. For any other, such
        as one with other directives, it does nothing and returns None, and the caller calls
        `append`. None for stores whose commits end later than the call."""

    @property
    def has_ended(self) -> bool:
        """Whether a topic may have ended whose end is not delivered, since it lies before
        `start`."""

    def ended_topics(self, topics: tuple[str, ...], done: Ended) -> None:
        """Gives `done` those of these topics that have ended."""

    def find_streams(self, topics: tuple[str, ...], done: FoundStreams) -> None:
        """Gives `done` the rows of those topics that are durable streams, of which everything that
        the rows know of was delivered. A change that was acknowledged before the call is in
        them, wherever it was made."""

    def touch_stream(self, topic: str, generation: int) -> None:
        """Notes that a durable stream was read now."""

    def expired_streams(self) -> Sequence[Sequence[Event]]:
        """Batches that delete durable streams which have expired: those of a bounded number of
        streams a call, all in turn. Empty where another process orders."""

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Calls `done` with the stored entries after a place that match any selector: topics,
        templates, or `("*",)`. They have at most about `limit_bytes`, but at least one is read if
        there is one. `done` gets an error if the store can't be read now. A backbone without a
        store answers with the place itself. O(log n + read)."""

    def read_stream(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `read`, of one durable stream. Content that was lost is reported only to a reader
        whose place lies within what was lost: what was stored before that is whole."""

    def read_content(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `read_stream`, for a reader that needs only what was published: the stretch has
        `content` in place of entries where the store can give it so."""

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """Calls `done` with the place from which a cursor continues, or None if the backbone does
        not know it.

        - `after` an id: the place of the earliest event that was published with that own id; a
          position above the head is the place itself once the head has reached it, which a
          backbone that may be behind others waits for (2 s at most).
        - `last` N: the place before the N-th newest stored entry that matches, None when fewer
          are stored.

        When `done` is called, everything up to the place has been delivered.
        """

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Gives `done` the newest `count` stored entries of each topic that a selector matches, in
        order, each once. `through` is the head at the call.

        At most SNAPSHOT_EVENTS_MAX entries and about `limit_bytes`: the newest ones, and then
        `is_last` is false. `evicted` says nothing. A backbone that stores nothing of its own gives
        no entries. O(topics x count)."""

    def apply_rules(self, history: HistoryOptions) -> None:
        """Stores and evicts by other `[[topics]]` from now on."""

    def counters(self) -> dict[str, int]:
        """Its counters, by the names of the metrics."""

    async def close(self) -> None:
        """Commits or refuses pending batches. Later ones are refused."""
