"""The memory backbone: order from the clock, nothing stored beyond the hub's own history."""

from collections.abc import Callable, Sequence

from fastsse.backbone import Broken, Deliver, Done, Ended, Placed, Stretch, Stretched
from fastsse.backbone.judge import TopicStates, is_plain, judge, merged
from fastsse.backbone.lead import LeadLog
from fastsse.entries import encode_entries
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.evicted import Evicted
from fastsse.positions import Clock, position_at
from fastsse.subscriptions import Cursor

__all__ = ["MemoryBackbone"]


class MemoryBackbone:
    """Gives positions and hands batches on within the call.

    Its order begins when it is made, so an id from before a restart is before all its positions.

    Arguments:
        now_ms: gives unix milliseconds.

    Attributes:
        states: what is known of the topics of everything that was delivered; None: nothing.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._clock = Clock(now_ms, last=position_at(now_ms()))
        self._lead = LeadLog()
        self._deliver: Deliver | None = None
        self.start = self._clock.last
        self.trouble: str | None = None
        self.states: TopicStates | None = None

    @property
    def head(self) -> int:
        """The last position in use."""
        return self._clock.last

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        """Delivers everything that is appended from now on. Nothing older is stored."""
        self._deliver = deliver

    def append(self, events: Sequence[Event], done: Done) -> None:
        """Gives positions in a row, delivers, acknowledges; all within the call."""
        if self._deliver is None:
            done(Unavailable("backbone", retry_after_s=1))
            return
        if self.states is not None and (self.states.ended_count or not is_plain(events)):
            self._append_judged(events, self.states, done)
        else:
            done(self._append(events))

    def _append(self, events: Sequence[Event]) -> Sequence[int]:
        assert self._deliver is not None
        positions = self._clock.take_all(len(events))
        entries = encode_entries(positions, events, self._clock.time_ms)
        self._lead.note(entries.last.lead_ms)
        self._deliver(entries)
        return positions

    def _append_judged(self, events: Sequence[Event], states: TopicStates, done: Done) -> None:
        known = judge(events, states)
        if isinstance(known, FastsseError):
            done(known)
            return
        if known is None:
            done(self._append(events))
            return
        new = [event for event, place in zip(events, known, strict=True) if place is None]
        done(merged(known, self._append(new) if new else ()))

    @property
    def has_ended(self) -> bool:
        """All ends are delivered."""
        return False

    def ended_topics(self, topics: tuple[str, ...], done: Ended) -> None:
        """Knows of none that was not delivered."""
        done({})

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Reads nothing: what is kept in memory is the hub's history."""
        evicted = Evicted(0, ((0, self.head),), self.start)
        done(Stretch((), through=after, is_last=True, evicted=evicted))

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """Answers None: it knows no more places than the hub's history."""
        done(None)

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Finds nothing that the hub's history does not have."""
        done(Stretch((), through=self.head, is_last=True, evicted=Evicted()))

    def counters(self) -> dict[str, int]:
        """Counts nothing of its own."""
        return {}

    async def close(self) -> None:
        """Refuses later batches."""
        self._deliver = None
        self.trouble = "closed"
