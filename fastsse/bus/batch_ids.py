"""Batch ids: where each batch of each worker is in the log.

A worker numbers its batches. It sends an unanswered batch again to the next hub, and that hub must
know whether the batch is in the log already. A store keeps the numbers with the events. Without a
store the hub and all workers remember the newest numbers.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from struct import Struct
from typing import Final, NamedTuple

from fastsse.bus.frames import POSITION_BYTES, FrameError
from fastsse.bus.handshake import KEY_BYTES

__all__ = ["BatchId", "BatchIds", "pack_batch_ids", "rows_of", "unpack_batch_ids"]

# Seconds of a busy log; a batch is sent again within two.
ROWS_MAX: Final = 16 * 1024
# Worker processes, including dead ones.
KEYS_MAX: Final = 4 * 1024
_ROW: Final = Struct(f"<{KEY_BYTES}sQ{POSITION_BYTES}sI")


class BatchId(NamedTuple):
    """`size` consecutive positions that belong to the worker's batch `n`. A batch is one run,
    unless the store is shared and events of other nodes are in between."""

    key: bytes
    n: int
    first: int
    size: int

    @property
    def last(self) -> int:
        """The last position of the run."""
        return self.first + self.size - 1


def rows_of(key: bytes, n: int, positions: Sequence[int]) -> list[BatchId]:
    """A batch's positions as runs. O(1) for a range, else O(positions)."""
    if isinstance(positions, range) or positions[-1] - positions[0] == len(positions) - 1:
        return [BatchId(key, n, positions[0], len(positions))]
    runs = []
    for _, run in groupby(enumerate(positions), lambda pair: pair[1] - pair[0]):
        places = [position for _, position in run]
        runs.append(BatchId(key, n, places[0], len(places)))
    return runs


def pack_batch_ids(rows: Iterable[BatchId]) -> bytes:
    """Rows one behind the other."""
    pack = _ROW.pack
    return b"".join(
        pack(key, n, first.to_bytes(POSITION_BYTES, "little"), size) for key, n, first, size in rows
    )


def unpack_batch_ids(body: bytes, count: int, at: int = 0) -> tuple[list[BatchId], int]:
    """Reads `count` rows from a place on, and returns where they end. Raises FrameError."""
    end = at + count * _ROW.size
    if end > len(body):
        raise FrameError("a frame ends too early")
    rows = [
        BatchId(key, n, int.from_bytes(first, "little"), run)
        for key, n, first, run in _ROW.iter_unpack(body[at:end])
    ]
    return rows, end


class BatchIds:
    """The newest batches of the log, bounded."""

    __slots__ = ("_by_batch", "_last", "_rows")

    def __init__(self) -> None:
        self._rows: deque[BatchId] = deque()
        self._by_batch: dict[tuple[bytes, int], list[BatchId]] = {}
        self._last: OrderedDict[bytes, int] = OrderedDict()

    def __iter__(self) -> Iterator[BatchId]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def note(self, row: BatchId) -> None:
        """Adds the newest run. O(1)."""
        key, n = row.key, row.n
        self._rows.append(row)
        self._by_batch.setdefault((key, n), []).append(row)
        self._last[key] = max(n, self._last.get(key, 0))
        self._last.move_to_end(key)
        if len(self._rows) > ROWS_MAX:
            oldest = self._rows.popleft()
            self._by_batch.pop((oldest.key, oldest.n), None)
        if len(self._last) > KEYS_MAX:
            self._last.popitem(last=False)

    def is_taken(self, key: bytes, n: int) -> bool:
        """Whether the batch, or a later one of that worker, is in the log. Batches enter the log in
        the order of their numbers, so an earlier one is in the log or was refused."""
        return n <= self._last.get(key, 0)

    def find(self, key: bytes, n: int) -> list[BatchId]:
        """The batch's runs; none if it was refused or is too old."""
        return self._by_batch.get((key, n), [])
