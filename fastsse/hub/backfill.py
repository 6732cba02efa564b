"""Backfill: events that another process kept before this history began.

The events arrive in order, a page at a time, while the history already takes new events. When all
have arrived, `History.prepend` inserts them in one step.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple

from fastsse._core import Frame
from fastsse.entries import Entry, Extras
from fastsse.hub.topic_log import EVENT_COST_BYTES, Owners, TopicLog, position_of
from fastsse.hub.topics import Topic, Topics

__all__ = ["BackfilledEvents", "Evictions"]


class Evictions(NamedTuple):
    """The evictions of a history, for another history that received its events: by topic, of all
    events together, and of topics that it does not remember."""

    by_topic: dict[str, int]
    of_all: int
    forgotten_through: int


class BackfilledEvents:
    """Events of one worker or hub that go into another's history. Loop thread only.

    The topics of these events stay alive until `release`.

    Arguments:
        topics: those of the receiving history.

    Attributes:
        positions, frames, owners: the events, in order.
        logs: the same by topic.
        own_ids: ids that publishers gave, by position.
        extras: optional fields, by position.
        bytes: bytes of the events; each event counts once.
    """

    def __init__(self, topics: Topics) -> None:
        self.positions: list[int] = []
        self.frames: list[Frame] = []
        self.owners: list[Owners] = []
        self.logs: dict[Topic, TopicLog] = {}
        self.own_ids: dict[int, bytes] = {}
        self.extras: dict[int, Extras] = {}
        self.bytes = 0
        self._topics = topics

    def add(self, entries: Sequence[Entry]) -> None:
        """The next events. O(events and topics)."""
        by_name, logs, hold = self._topics.by_name, self.logs, self._hold
        for position, names, own_id, frame, extras in entries:
            cost_bytes = frame.size + EVENT_COST_BYTES
            owners = []
            for name in names:
                topic = by_name.get(name)
                if topic is None or (log := logs.get(topic)) is None:
                    topic, log = hold(name)
                log.frames.append(frame)
                log.bytes += cost_bytes
                owners.append(topic)
            self.positions.append(position)
            self.frames.append(frame)
            self.owners.append(owners[0] if len(owners) == 1 else tuple(owners))
            self.bytes += cost_bytes
            if own_id is not None:
                self.own_ids[position] = own_id
            if extras is not None:
                self.extras[position] = extras

    def hold(self, names: Iterable[str]) -> None:
        """Keeps topics alive for which evictions are known, so that templates find them and are
        notified when they are forgotten."""
        for name in names:
            topic = self._topics.by_name.get(name)
            if topic is None or topic not in self.logs:
                self._hold(name)

    def cut(self) -> int:
        """Drops events that the topics have evicted meanwhile. Returns the last dropped
        position, or 0. O(topics), or O(events)."""
        cut = [_cut_off(log, topic.evicted_through) for topic, log in self.logs.items()]
        if not any(cut):
            return 0
        kept = [
            _is_kept(owners, position)
            for owners, position in zip(self.owners, self.positions, strict=True)
        ]
        gone = list(compress(self.positions, [not one for one in kept]))
        for position in gone:
            self.own_ids.pop(position, None)
            self.extras.pop(position, None)
        self.positions = list(compress(self.positions, kept))
        self.frames = list(compress(self.frames, kept))
        self.owners = list(compress(self.owners, kept))
        self.bytes = sum([frame.size + EVENT_COST_BYTES for frame in self.frames])
        return max(gone, default=0)

    def release(self) -> None:
        """Releases all topics. Call it once, after success and after failure."""
        for topic in self.logs:
            topic.named -= 1
            if not topic.named:
                self._topics.may_be_idle(topic)
        self.logs.clear()

    def _hold(self, name: str) -> tuple[Topic, TopicLog]:
        topic = self._topics.intern(name)
        topic.named += 1
        log = self.logs[topic] = TopicLog()
        return topic, log


def _cut_off(log: TopicLog, through: int) -> bool:
    """Drops the frames up to a place; returns whether there were any."""
    frames = log.frames
    if not frames or frames[0].position > through:
        return False
    first = bisect_right(frames, through, key=position_of)
    log.bytes -= sum([frame.size + EVENT_COST_BYTES for frame in frames[:first]])
    del frames[:first]
    return True


def _is_kept(owners: Owners, position: int) -> bool:
    if isinstance(owners, tuple):
        return any(topic.evicted_through < position for topic in owners)
    return owners.evicted_through < position
