"""Batches of publishers, and the groups that they go to the log in."""

import asyncio
from collections.abc import Sequence
from typing import Final

from fastsse.backbone import Done
from fastsse.backbone.redis.records import StreamEntry
from fastsse.errors import Refused
from fastsse.events import Event

__all__ = ["Batch", "Group", "Key"]

RETRY_AFTER_S: Final = 2
# What a batch, an event and each of its topics take beside their text, about.
BATCH_COST_BYTES: Final = 512
EVENT_COST_BYTES: Final = 512
TOPIC_COST_BYTES: Final = 64

Key = tuple[bytes, int]
"""Who sent a batch to this node, and which of its batches it is."""


class Batch:
    """Events of one publish, and who waits for them.

    Attributes:
        entries: how many Redis will write: an event is one in the log and one in each topic.
        size_bytes: what it holds in memory, about.
    """

    __slots__ = ("_done", "entries", "events", "key", "positions", "size_bytes")

    def __init__(self, events: Sequence[Event], done: Done, key: Key | None = None) -> None:
        self.events: Final = events
        self.key: Final = b"" if key is None else b"%b:%d" % (key[0].hex().encode(), key[1])
        self.size_bytes: Final = BATCH_COST_BYTES + sum(map(_size_of, events))
        self.entries: Final = sum(1 + len(event.topics) for event in events)
        self.positions: list[int] = []
        self._done: Done | None = done

    @property
    def is_delivered(self) -> bool:
        """Whether its last event came down the log."""
        return len(self.positions) == len(self.events)

    def acknowledge(self) -> None:
        """Answers once: taken."""
        done, self._done = self._done, None
        if done is not None:
            done(self.positions)

    def refuse(self) -> None:
        """Answers once: not taken, as far as is known."""
        done, self._done = self._done, None
        if done is not None:
            done(Refused("backbone", retry_after_s=RETRY_AFTER_S))


def _size_of(event: Event) -> int:
    """What an event holds, about. An event type is a short word in most cases, and shared."""
    text_bytes = len(event.data) + len(event.event or "") + len(event.id or "")
    topics = event.topics
    return EVENT_COST_BYTES + text_bytes + sum(map(len, topics)) + TOPIC_COST_BYTES * len(topics)


class Group:
    """Batches that are sent together."""

    __slots__ = (
        "_batch_of",
        "_undelivered",
        "arguments",
        "batches",
        "deadline",
        "number",
        "waits_for_replicas",
    )

    def __init__(self, number: int, batches: Sequence[Batch], waits_for_replicas: bool) -> None:
        self.number: Final = number
        self.batches: Final = batches
        self.waits_for_replicas = waits_for_replicas
        self.arguments: list[bytes | int] = []
        self.deadline: asyncio.TimerHandle | None = None
        self._batch_of: Final = [batch for batch in batches for _ in batch.events]
        self._undelivered = len(batches)

    @property
    def is_done(self) -> bool:
        """Whether every batch of it was delivered, and nothing else is waited for."""
        return self._undelivered == 0 and not self.waits_for_replicas

    def note(self, entry: StreamEntry) -> None:
        """One of its events was delivered."""
        if entry.nth < len(self._batch_of):
            batch = self._batch_of[entry.nth]
            batch.positions.append(entry.position)
            if len(batch.positions) == len(batch.events):
                self._delivered(batch)

    def repeated(self, batch: Batch, positions: list[int]) -> None:
        """One of its batches was stored before, and is delivered."""
        batch.positions = positions
        self._delivered(batch)

    def _delivered(self, batch: Batch) -> None:
        self._undelivered -= 1
        if not self.waits_for_replicas:
            batch.acknowledge()

    def replicated(self) -> None:
        """Enough replicas have it."""
        self.waits_for_replicas = False
        for batch in self.batches:
            if batch.is_delivered:
                batch.acknowledge()

    def refuse(self) -> None:
        """Refuses what was not acknowledged."""
        for batch in self.batches:
            batch.refuse()
