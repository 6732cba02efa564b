"""The memory store of a hub process: order from the clock, and the same history as the workers.

It keeps events by the same rules as the workers. So a worker that starts receives the history from
the hub, and a hub that starts again takes it from a worker.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from fastsse.backbone import Backbone, Broken, Deliver, Done, FoundStreams, Placed
from fastsse.backbone.judge import is_plain
from fastsse.backbone.keys import KeyTable, known_of_entry
from fastsse.backbone.memory import MemoryBackbone
from fastsse.backbone.producers import ProducerRow, ProducerTable
from fastsse.backbone.stream_rows import RowChange, rows_of_log
from fastsse.backbone.stream_table import StreamTable
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.directives import OF_PRODUCER, Producer, without_seq
from fastsse.entries import Entry
from fastsse.events import Event
from fastsse.hub.append_buffer import AppendBuffer
from fastsse.hub.backfill import Evictions
from fastsse.hub.history import History
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import Clock, parse_id, position_at, position_ms
from fastsse.subscriptions import Cursor

__all__ = ["HubMemory", "Key", "KeyedBackbone"]

Key = tuple[bytes, int]
"""A worker process's key, and the number of one of its batches."""

# How far the positions of a new hub are above those of the lost one, of whose last events it may
# not know.
LEAP_MS: Final = 1_000
# The same if positions are already that far ahead of the clock, because several hubs were lost. It
# is less than the time between two losses, so that it does not add up.
LEAP_MS_MIN: Final = 50


class KeyedBackbone(Backbone, Protocol):
    """A backbone for several workers: batches have keys."""

    def append(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        """As Backbone. A batch whose key is stored already is not stored again: `done` gets the
        positions of the first time. A backbone that stores nothing may leave that out."""


class HubMemory(MemoryBackbone):
    """A `KeyedBackbone` in memory. Loop thread only.

    Arguments:
        now_ms: gives unix milliseconds.
        history: limits and topic rules.
        streams: of which only the lag policy matters.
    """

    keeps_keys = True

    def __init__(
        self, now_ms: Callable[[], int], history: HistoryOptions, streams: StreamOptions
    ) -> None:
        super().__init__(now_ms)
        self._now_ms = now_ms
        self._options = history
        self._lag_policy = streams.lag_policy
        self._waiting: list[Callable[[], None]] = []
        self._is_filling = False
        self._held: list[Callable[[], None]] = []
        self._begin(self.start)
        self.states = self
        self.keys = KeyTable(round(history.key_window * 1000), history.keys_total, now_ms)
        self.producers = ProducerTable(
            round(history.producer_window * 1000), history.producers_total, now_ms
        )
        self.streams = StreamTable(history.streams_total, now_ms)

    def tail(self, after: int, deliver: Deliver, broken: Broken) -> None:
        """Keeps and delivers everything that is appended from now on."""

        def keep_and_deliver(entries: Sequence[Entry]) -> None:
            self.keep(entries)
            deliver(entries)

        super().tail(after, keep_and_deliver, broken)

    def append(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        """As `MemoryBackbone`; the keys of batches are remembered elsewhere.

        What is to be judged waits until the history of the workers is here, since that brings the
        keys, producers and streams. What comes behind it waits too, so that the order stays.
        """
        if self._is_filling and (self._held or not is_plain(events)):
            self._held.append(lambda: MemoryBackbone.append(self, events, done))
        else:
            super().append(events, done)

    def apply_rules(self, history: HistoryOptions) -> None:
        """As Backbone."""
        self._options = history
        self._topics.rules.apply(history)
        self.history.apply_rules()

    def seek(self, selectors: tuple[str, ...], cursor: Cursor, done: Placed) -> None:
        """Finds ids, for a worker that is a little behind."""
        place = None
        if cursor.kind == "after":
            place = parse_id(cursor.text)
            place = self.history.find(cursor.text) if place is None else place
        done(None if place is None or place > self.head else place)

    def counters(self) -> dict[str, int]:
        """Whether what workers kept has still to come."""
        return {"bus_hub_filling": int(not self.is_whole)}

    # -- the history ----------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """The history, within the rules. O(entries since the last call)."""
        self._append_buffer.settle()
        return self._history

    @property
    def ended_count(self) -> int:
        """As `TopicStates`. What waits to be kept has no control entry."""
        return self._history.ended_count

    def last_of(self, topic: str) -> int:
        """As `TopicStates`. O(what was kept since it was looked at last)."""
        return self.history.last_of(topic)

    def place_of_id(self, text: bytes) -> int | None:
        """As `TopicStates`. Cost as `last_of`."""
        return self.history.place_of_id(text)

    def shared_events(self, topic: str) -> Iterable[tuple[int, Sequence[str]]]:
        """As `TopicStates`."""
        return self.history.shared_events(topic)

    def ended_at(self, topic: str) -> int:
        """As `TopicStates`."""
        return self._history.ended_at(topic)

    def settle(self) -> None:
        """Moves all kept entries into `history`."""
        self._append_buffer.settle()

    def keep(self, entries: Sequence[Entry]) -> None:
        """Keeps the newest entries."""
        self._append_buffer.keep(entries)

    def sweep(self) -> bool:
        """Evicts what is too old, a bounded amount a call; True: call again soon."""
        is_late = self.history.sweep(self._now_ms())
        self._topics.forget_idle(4_000)
        return is_late or self._topics.idle_count > 0

    # -- after a hub that was lost --------------------------------------------------------------

    def go_on(self, start: int, head: int) -> None:
        """Forgets everything and continues the log of workers, which have the entries after `start`
        up to `head`. These are added to `history` later, and then `be_whole` is called. New
        positions are well above `head`, so that no position of the lost hub is used again."""
        now_ms = self._now_ms()
        is_ahead = position_ms(head) - now_ms > LEAP_MS
        leap_ms = position_ms(head) + (LEAP_MS_MIN if is_ahead else LEAP_MS)
        self._clock = Clock(self._now_ms, last=position_at(max(leap_ms, now_ms)))
        self._begin(start)
        self._history.expect(head)
        self._is_filling = True

    @property
    def is_whole(self) -> bool:
        """Whether the history of the workers is complete here."""
        return not self._history.expected_through

    def when_whole(self, called: Callable[[], None]) -> None:
        """Calls a function as soon as it is complete, perhaps within the call."""
        if self.is_whole:
            called()
        else:
            self._waiting.append(called)

    def be_whole(self) -> None:
        """Ends the recovery. History that did not arrive counts as evicted."""
        history = self.history
        lost = history.expected_through
        if lost:
            history.prepend(history.older(), Evictions({}, lost, lost))
        self.streams.apply(
            RowChange(topic, row) for topic, row in rows_of_log(self._all_entries()).items()
        )
        self._is_filling = False
        waiting = [*self._waiting, *self._held]
        self._waiting, self._held = [], []
        for called in waiting:
            called()

    def _all_entries(self) -> Iterator[Entry]:
        entries = self._history.entries(0)
        while entries:
            yield from entries
            entries = self._history.entries(entries[-1].position)

    def find_streams(self, topics: tuple[str, ...], done: FoundStreams) -> None:
        """As Backbone; after a hub that was lost when the history is complete."""
        if self._is_filling:
            self._held.append(lambda: done(self.streams.find(topics)))
        else:
            done(self.streams.find(topics))

    def _note_key(self, position: int, key: bytes) -> None:
        _, key = without_seq(key)
        if not key:
            return
        if key[:1] == OF_PRODUCER:
            one = Producer.decode(key[1:])
            row = ProducerRow(one.epoch, one.sequence, position)
            self.producers.restore(one.key, row, position_ms(position))
            return
        text, known = known_of_entry(position, key)
        if self.keys.find(text) is None:
            self.keys.add(text, known, position_ms(position))

    def _begin(self, start: int) -> None:
        self.start = start
        self._topics = Topics(Rules(self._options, self._lag_policy), start)
        self._history = History(self._topics, self._options.history_total, start)
        # Of a hub that was lost the entries bring their keys back.
        self._history.on_key = self._note_key
        self._history.keeps_streams = True
        self._append_buffer = AppendBuffer(self._topics, self._history)
