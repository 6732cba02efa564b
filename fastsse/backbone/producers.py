"""Producers: the newest sequence number of each, against repeats of its events.

A producer numbers what it sends. Of each only one row is kept: its epoch, its newest sequence
number and the position that this got. So a repeat is known however long ago it was stored, at the
cost of one row. A row is forgotten when the producer sent nothing for a window. What all rows take
is bounded. Above the bound new producers are refused: no known producer is forgotten earlier.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from fastsse.directives import Producer
from fastsse.errors import Conflict, ProducerFenced, SequenceGap

__all__ = [
    "PRODUCER_COST_BYTES",
    "NewRow",
    "ProducerRow",
    "ProducerTable",
    "Producers",
    "judge_producer",
    "producer_cost",
]

# Of a row in memory, without its key: the slot of the table, the tuple, two numbers, a position.
PRODUCER_COST_BYTES: Final = 280


class ProducerRow(NamedTuple):
    """The newest append of a producer. `position` is its last event's; below 0: that of the event
    at -1 - `position` of the batch that is judged."""

    epoch: int
    sequence: int
    position: int


NewRow = tuple[bytes, ProducerRow]
"""A row with its key."""


def producer_cost(key: bytes) -> int:
    """Bytes that a row counts for."""
    return len(key) + PRODUCER_COST_BYTES


class Producers(Protocol):
    """The producers that are known where order is made."""

    def find(self, key: bytes) -> ProducerRow | None:
        """The row of a producer that sent something within the window."""

    def has_room(self, size_bytes: int) -> bool:
        """Whether so many bytes of new rows can be kept for the whole window."""


def judge_producer(
    topic: str, asked: Producer, row: ProducerRow | None
) -> ProducerRow | Conflict | None:
    """What is to be done with an append of a producer whose row is this: None to store it, the row
    where it is a repeat, or why it is refused. O(1)."""
    if row is not None and asked.epoch < row.epoch:
        return ProducerFenced(topic, str(row.epoch))
    is_new_epoch = row is None or asked.epoch > row.epoch
    expected = 0 if row is None or is_new_epoch else row.sequence + 1
    if row is not None and not is_new_epoch and asked.sequence < expected:
        return row
    if asked.refuses_gaps and asked.sequence != expected:
        epoch = "" if row is None else str(row.epoch)
        return SequenceGap(topic, str(expected), str(asked.sequence), epoch)
    return None


class ProducerTable:
    """Producers in memory.

    Arguments:
        window_ms: how long each is remembered after its newest append.
        total_bytes: the bound on all.
        now_ms: unix milliseconds.

    Attributes:
        bytes: what they take.
    """

    def __init__(self, window_ms: int, total_bytes: int, now_ms: Callable[[], int]) -> None:
        self.bytes = 0
        self._window_ms: Final = window_ms
        self._total_bytes: Final = total_bytes
        self._now_ms: Final = now_ms
        # Those that were used last stand last.
        self._rows: Final[OrderedDict[bytes, tuple[int, ProducerRow]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: bytes) -> ProducerRow | None:
        """As `Producers`. O(1)."""
        found = self._rows.get(key)
        return None if found is None or found[0] <= self._now_ms() else found[1]

    def has_room(self, size_bytes: int) -> bool:
        """As `Producers`. O(rows that are too old)."""
        self._forget_old()
        return self.bytes + size_bytes <= self._total_bytes

    def add(self, key: bytes, row: ProducerRow, time_ms: int | None = None) -> None:
        """Notes the newest append of a producer, made at a time, now by default. O(1)."""
        until_ms = (self._now_ms() if time_ms is None else time_ms) + self._window_ms
        if key not in self._rows:
            self.bytes += producer_cost(key)
        self._rows[key] = until_ms, row
        self._rows.move_to_end(key)

    def restore(self, key: bytes, row: ProducerRow, time_ms: int) -> None:
        """Notes an append that an entry brings back, unless a newer one is known. O(1)."""
        known = self._rows.get(key)
        if known is None or known[1].position < row.position:
            self.add(key, row, time_ms)

    def _forget_old(self) -> None:
        now_ms = self._now_ms()
        while self._rows:
            key, (until_ms, _) = next(iter(self._rows.items()))
            if until_ms > now_ms:
                return
            del self._rows[key]
            self.bytes -= producer_cost(key)
