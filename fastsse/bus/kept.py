"""The memory store of a hub process: order from the clock, and the history that workers have too.

It keeps what they keep, by the same rules, so that a worker that starts is handed what the others
have, and a hub that starts again takes it from one of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fastsse.backbone import Backbone, Broken, Deliver, Done, Placed, Stretch, Stretched
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.entries import Entry, encode_entries
from fastsse.errors import Refused
from fastsse.events import Event
from fastsse.hub.history import Evictions, History
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import Clock, parse_id, position_at, position_ms
from fastsse.subscriptions import Cursor

__all__ = ["KeptMemory", "Key", "KeyedBackbone"]

Key = tuple[bytes, int]
"""A worker process's key, and the number of one of its batches."""

# What is kept and not in its topics' logs yet. Of a busy topic most of it never comes there.
UNSETTLED_MAX: Final = 16 * 1024
UNSETTLED_BYTES: Final = 8 * 1024 * 1024
# A hub that goes on from what a worker has may not know of the last events of the one before.
LEAP_MS: Final = 1_000


class KeyedBackbone(Backbone, Protocol):
    """A backbone that is behind a bus: batches have keys."""

    def append(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        """As Backbone. One that is stored already under its key is not stored again: `done` is
        given the positions that it has. Who keeps nothing over restarts may leave that out."""


class KeptMemory:
    """A `KeyedBackbone` in memory. Loop thread only.

    Arguments:
        now_ms: gives unix milliseconds.
        history: limits and topic rules.
        streams: of which only the lag policy matters.
    """

    def __init__(
        self, now_ms: Callable[[], int], history: HistoryOptions, streams: StreamOptions
    ) -> None:
        self.trouble: str | None = None
        self._now_ms = now_ms
        self._options = history
        self._lag_policy = streams.lag_policy
        self._clock = Clock(now_ms, last=position_at(now_ms()))
        self._deliver: Deliver | None = None
        self._begin(self._clock.last)

    @property
    def head(self) -> int:
        """The last position in use."""
        return self._clock.last

    @property
    def start(self) -> int:
        """The place before the oldest event that any topic could have had."""
        return self.history.start

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        """Hands on everything appended from now on."""
        self._deliver = deliver

    def append(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        """Gives positions in a row, keeps, delivers, acknowledges; all within the call."""
        if self._deliver is None:
            done(Refused("backbone", retry_after_s=1))
            return
        count = len(events)
        first = self._clock.take(count)
        positions = range(first, first + count)
        entries = encode_entries(positions, events)
        self.keep(entries)
        self._deliver(entries)
        done(positions)

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Finds nothing that a worker does not have."""
        done(Stretch((), through=self.head, is_last=True, evicted_through=self.head))

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """Finds ids, for a worker that is a little behind."""
        place = None
        if cursor.kind == "after":
            place = parse_id(cursor.text)
            place = self.history.find(cursor.text) if place is None else place
        done(None if place is None or place > self.head else place)

    def counters(self) -> dict[str, int]:
        """Counts nothing of its own."""
        return {}

    async def close(self) -> None:
        """Refuses what is appended from now on."""
        self._deliver = None
        self.trouble = "closed"

    # -- the history ----------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """What is kept, as the rules allow. O(what was kept since it was looked at last)."""
        if self._unsettled:
            self._settle()
        return self._history

    def keep(self, entries: Sequence[Entry]) -> None:
        """Keeps the newest entries."""
        self._unsettled += entries
        self._unsettled_bytes += sum([entry.frame.size for entry in entries])
        if len(self._unsettled) > UNSETTLED_MAX or self._unsettled_bytes > UNSETTLED_BYTES:
            self._settle()

    def sweep(self) -> bool:
        """Evicts what is too old, a bounded amount a call; True: call again soon."""
        is_late = self.history.sweep(self._now_ms())
        self._topics.forget_idle(4_000)
        return is_late or self._topics.idle_count > 0

    def begin_again(self, start: int) -> None:
        """Forgets everything; what a worker has follows through `keep`, then `go_on`."""
        self._begin(start)

    def go_on(self, head: int, evictions: Sequence[Evictions]) -> None:
        """Everything up to a place was kept. What comes next lies well above it, so that no
        position of the hub before is used again."""
        for let_go in evictions:
            self.history.evict(let_go)
        leap = position_at(position_ms(head) + LEAP_MS)
        self._clock = Clock(self._now_ms, last=max(leap, position_at(self._now_ms())))

    def _begin(self, start: int) -> None:
        self._topics = Topics(Rules(self._options, self._lag_policy), start)
        self._history = History(self._topics, self._options.history_total, start)
        self._unsettled: list[Entry] = []
        self._unsettled_bytes = 0

    def _settle(self) -> None:
        """Puts entries into their topics' logs, except those that would have to go at once."""
        entries, self._unsettled = self._unsettled, []
        self._unsettled_bytes = 0
        surplus = self._surplus(entries)
        if surplus:
            of_all = max(surplus.values())
            self._history.evict(Evictions(surplus, of_all, self._topics.forgotten_through))
        intern, append = self._topics.intern, self._history.append
        for position, names, own_id, frame in entries:
            if len(names) > 1 or position > surplus.get(names[0], 0):
                append(frame, tuple(map(intern, names)), own_id)

    def _surplus(self, entries: Sequence[Entry]) -> dict[str, int]:
        """Topics with more entries than are kept of them, each with the last of the first ones
        that are too many: of those before its first entry that other topics have too."""
        counts: Counter[str] = Counter()
        alone: defaultdict[str, list[int]] = defaultdict(list)
        shared: set[str] = set()
        for position, names, _, _ in entries:
            counts.update(names)
            if len(names) > 1:
                shared.update(names)
            elif names[0] not in shared:
                alone[names[0]].append(position)
        surplus = {}
        for name, positions in alone.items():
            too_many = min(counts[name] - self._topics.rule(name).events, len(positions))
            if too_many > 0:
                surplus[name] = positions[too_many - 1]
        return surplus
