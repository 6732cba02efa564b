"""The memory backbone: order from the clock, nothing stored beyond the hub's own history."""

from collections.abc import Callable, Sequence

from fastsse._appends import judge_appends
from fastsse._batch import producer_runs, undirect
from fastsse._commit import MemoryLog
from fastsse.backbone import (
    Broken,
    Deliver,
    Done,
    Ended,
    FoundStreams,
    Placed,
    Stretch,
    Stretched,
)
from fastsse.backbone.judge import (
    KEYS_FULL_RETRY_S,
    JudgedPositions,
    Known,
    TopicStates,
    ended_topic,
    is_keyed,
    is_plain,
    judge,
    known_once,
    merged,
    new_keys,
    new_rows,
    newest_sequence,
)
from fastsse.backbone.keys import KeyTable, KnownKey, key_cost
from fastsse.backbone.lead import LeadLog
from fastsse.backbone.producers import ProducerRow, ProducerTable, producer_cost
from fastsse.backbone.stream_table import StreamTable
from fastsse.config import HistoryOptions
from fastsse.directives import without_key
from fastsse.entries import EventBatch, KeyedBatch, kinds_of
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.evicted import Evicted
from fastsse.positions import Clock, position_at
from fastsse.subscriptions import Cursor

__all__ = ["MemoryBackbone"]


class MemoryBackbone(MemoryLog):
    """Gives positions and hands batches on within the call.

    Its order begins when it is made, so an id from before a restart is before all its positions.

    Arguments:
        now_ms: gives unix milliseconds.

    Attributes:
        states: what is known of the topics of everything that was delivered; None: nothing.
        keeps_keys: whether entries carry keys, for a table that is made of them again.
        keys, producers: what is known against repeats; set together with `states`.
        streams: the rows of durable streams; likewise.
    """

    keeps_keys = False
    judges_each = True

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(Clock(now_ms, last=position_at(now_ms())), LeadLog())
        self.start = self._clock.last
        self.trouble: str | None = None
        self.keys = KeyTable(0, 0, now_ms)
        self.producers = ProducerTable(0, 0, now_ms)
        self.streams = StreamTable(0, now_ms)

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
        if self.states is not None and (
            self.states.ended_count or not is_plain(events) or self.streams.has_any(events)
        ):
            self._append_judged(events, self.states, done)
        else:
            done(self._append(events))

    def _append_asked(self, batch: EventBatch | KeyedBatch) -> Sequence[int] | None:
        """As `append_now`, where something is asked of events, a topic has ended, or there are
        durable streams."""
        assert self.states is not None
        events = batch.events if isinstance(batch, KeyedBatch) else batch
        if not is_plain(events):
            return None if isinstance(batch, KeyedBatch) else self._append_to_streams(batch)
        if self.streams.rows and self.streams.has_any(events):
            return None
        if self.states.ended_count and any(
            self.states.ended_at(topic) for topics, _ in kinds_of(events) for topic in topics
        ):
            return None
        if not isinstance(batch, KeyedBatch):
            return self.hand_on(events, self._clock.take_all(len(events)))
        if self.keeps_keys:
            return None
        return self.keys.add_new(batch.keys, batch.digests, lambda: self._append(events))

    def _append_to_streams(self, batch: EventBatch) -> Sequence[int] | None:
        """Stores appends of which none is refused or known; None: nothing was done."""
        assert self.states is not None
        limits, producers = self.streams.limits, self.producers
        ended_at = self.states.ended_at if self.states.ended_count else None
        appends = None
        if not self.keeps_keys:  # Else entries need the keys of producers.
            appends = judge_appends(
                batch,
                self.streams.rows.get,
                ended_at,
                producers.find,
                limits.now_ms,
                limits.room_bytes,
            )
        if appends is None:
            return None
        new_bytes = sum(map(producer_cost, appends.new_keys))
        if new_bytes and not producers.has_room(new_bytes):
            return None
        positions = self._clock.take_all(len(batch))
        # Readers of the entries may ask for the rows, so these come first.
        self.streams.note(appends.rows(positions, limits.now_ms), appends.size_bytes)
        appends.forget_keys()
        self.hand_on(batch, positions)
        for key, *row in appends.numbers(positions):
            producers.add(key, ProducerRow(*row))
        return positions

    def _append(self, events: Sequence[Event]) -> Sequence[int]:
        positions = self._clock.take_all(len(events))
        if self.streams.rows or not is_plain(events):
            # Readers of the entries may ask for the rows, so these come first.
            self.streams.store(events, None, positions)
        return self.hand_on(events, positions)

    def _append_judged(self, events: Sequence[Event], states: TopicStates, done: Done) -> None:
        if len(events) == 1 and is_keyed(events[0]) and not self.streams.rows:
            self._append_keyed(events, states, done)
            return
        if not states.ended_count and not self.streams.rows:
            runs = producer_runs(events)
            if runs is not None and self._append_runs(events, runs, done):
                return
        known = judge(events, states, self.keys, self.producers)
        if isinstance(known, FastsseError):
            done(known)
            return
        if (error := self.streams.check(events, known, states)) is not None:
            done(error)
            return
        positions = self._append_new(events, known)
        for key, one in new_keys(events, positions, known):
            self.keys.add(key, one)
        for producer, row in new_rows(events, positions, known):
            self.producers.add(producer, row)
        if known is not None:
            assert isinstance(positions, JudgedPositions)
            positions.sequence = newest_sequence(events, known, self.producers)
        done(positions)

    def _append_keyed(self, events: Sequence[Event], states: TopicStates, done: Done) -> None:
        """The same for one event with a key and nothing else: the most common case, without a
        list for each step."""
        (event,), keys = events, self.keys
        asked = event.directives
        assert asked is not None
        if asked.request is None:
            key, digest = asked.key or b"", b""
        else:
            key, digest = asked.request.key, asked.request.digest
        found = keys.find(key)
        if found is not None:
            done(known_once(event, found))
        elif states.ended_count and (ended := ended_topic(event, states)) is not None:
            done(ended)
        elif not keys.has_room(key_cost(key, 1)):
            done(Unavailable("keys", KEYS_FULL_RETRY_S))
        else:
            if not self.keeps_keys:
                # Nothing reads the key of an entry here.
                event.direct(without_key(asked))
            positions = self._append(events)
            keys.add(key, KnownKey(digest, positions))
            done(positions)

    def _append_runs(
        self, events: Sequence[Event], runs: dict[bytes, list[int]], done: Done
    ) -> bool:
        """Stores events of which only their numbers are asked, and none is known: what sources
        bring. False: nothing was done."""
        size_bytes = 0
        for key, (epoch, first, _, _) in runs.items():
            row = self.producers.find(key)
            if row is None:
                size_bytes += producer_cost(key)
            elif row[:2] >= (epoch, first):
                return False
        if size_bytes and not self.producers.has_room(size_bytes):
            return False
        if not self.keeps_keys:
            # Nothing reads the key of an entry here.
            undirect(events)
        positions = self.hand_on(events, self._clock.take_all(len(events)))
        for key, (epoch, _, last, place) in runs.items():
            self.producers.add(key, ProducerRow(epoch, last, positions[place]))
        done(positions)
        return True

    def _append_new(self, events: Sequence[Event], known: Known | None) -> Sequence[int]:
        if known is None:
            return self._append_directed(events)
        new = [event for event, place in zip(events, known, strict=True) if place is None]
        return merged(events, known, self._append_directed(new) if new else ())

    def _append_directed(self, events: Sequence[Event]) -> Sequence[int]:
        if self.keeps_keys:
            return self._append(events)
        # Nothing reads the key of an entry here.
        asked = [event.directives for event in events]
        for event, directives in zip(events, asked, strict=True):
            event.direct(without_key(directives))
        positions = self._append(events)
        for event, directives in zip(events, asked, strict=True):
            event.direct(directives)
        return positions

    @property
    def has_ended(self) -> bool:
        """All ends are delivered."""
        return False

    def ended_topics(self, topics: tuple[str, ...], done: Ended) -> None:
        """Knows of none that was not delivered."""
        done({})

    def find_streams(self, topics: tuple[str, ...], done: FoundStreams) -> None:
        """As Backbone."""
        done(self.streams.find(topics))

    def touch_stream(self, topic: str, generation: int) -> None:
        """As Backbone."""
        self.streams.touch(topic, generation)

    def expired_streams(self) -> Sequence[Sequence[Event]]:
        """As Backbone."""
        return self.streams.expired()

    def read(
        self, selectors: tuple[str, ...], after: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Reads nothing: what is kept in memory is the hub's history."""
        evicted = Evicted(0, ((0, self.head),), self.start)
        done(Stretch((), through=after, is_last=True, evicted=evicted))

    def read_stream(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `read`."""
        self.read((topic,), after, limit_bytes, done)

    def read_content(self, topic: str, after: int, limit_bytes: int, done: Stretched) -> None:
        """As `read`."""
        self.read((topic,), after, limit_bytes, done)

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """Answers None: it knows no more places than the hub's history."""
        done(None)

    def newest(
        self, selectors: tuple[str, ...], count: int, limit_bytes: int, done: Stretched
    ) -> None:
        """Finds nothing that the hub's history does not have."""
        done(Stretch((), through=self.head, is_last=True, evicted=Evicted()))

    def apply_rules(self, history: HistoryOptions) -> None:
        """Nothing: the hub's history keeps what rules allow."""

    def counters(self) -> dict[str, int]:
        """What durable streams take."""
        return {"streams_bytes": self.streams.bytes, "streams_kept": len(self.streams.rows)}

    async def close(self) -> None:
        """Refuses later batches."""
        self._deliver = None
        self.trouble = "closed"
