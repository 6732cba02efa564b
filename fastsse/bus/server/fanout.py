"""The fan-out: sends the ordered log to all workers.

Entries are packed once. The entries of one turn of the loop are one frame, with the same bytes for
every worker. The newest frames are kept for workers that catch up.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from fastsse.bus.batch_ids import BatchId, pack_batch_ids
from fastsse.bus.frames import COUNT, FrameKind, frame
from fastsse.entries import Entry, pack_entry

__all__ = ["Fanout", "FanoutTarget", "log_frame"]

# A frame of this size is complete.
FRAME_BYTES: Final = 1024 * 1024
RECENT_BYTES: Final = 8 * 1024 * 1024


class FanoutTarget(Protocol):
    """A worker that is up to date."""

    def send_now(self, data: bytes) -> None:
        """Sends a whole frame, and what was sent before it in this turn."""


class Fanout:
    """Sends the log. Loop thread only.

    Attributes:
        head: the last position that was sent.
    """

    def __init__(self, head: int) -> None:
        self.head = head
        self._live: dict[FanoutTarget, None] = {}
        self._recent: deque[tuple[int, bytes]] = deque()
        self._recent_bytes = 0
        self._recent_start = head
        self._entries: list[bytes] = []
        self._entries_bytes = 0
        self._last = head
        self._rows: list[BatchId] = []
        self._ready: list[tuple[int, bytes]] = []
        self._is_due = False
        self._loop = asyncio.get_running_loop()

    def recall(self, entries: Sequence[Entry], head: int) -> None:
        """Takes the end of the log that an earlier hub sent, for workers that miss some of it. The
        log continues at `head`. Call it before any worker is connected."""
        if entries:
            self.deliver(entries)
            self.flush()
        self.head = self._last = head

    def deliver(self, entries: Sequence[Entry]) -> None:
        """The next entries; they leave at the end of the turn."""
        for entry in entries:
            packed = pack_entry(entry)
            self._entries.append(packed)
            self._entries_bytes += len(packed)
            self._last = entry.position
            if self._entries_bytes >= FRAME_BYTES:
                self._close_frame()
        self._be_due()

    def taken(self, rows: Sequence[BatchId]) -> None:
        """Batches whose entries were delivered; their workers are notified after the entries."""
        self._rows += rows
        self._be_due()

    def flush(self) -> None:
        """Sends what was delivered so far."""
        self._is_due = False
        if self._entries or self._rows:
            self._close_frame()
        ready, self._ready = self._ready, []
        for last, data in ready:
            self.head = last
            self._remember(last, data)
            for listener in tuple(self._live):
                listener.send_now(data)

    def listen(self, listener: FanoutTarget) -> None:
        """Sends a worker every frame from now on. It must have everything up to `head`."""
        self._live[listener] = None

    def leave(self, listener: FanoutTarget) -> None:
        """The worker is gone."""
        self._live.pop(listener, None)

    def covers(self, after: int) -> bool:
        """Whether `recent` has everything after a place."""
        return after >= self._recent_start

    def recent(self, after: int) -> Iterator[bytes]:
        """The frames with the entries after a place. The first one may also contain earlier
        entries."""
        return (data for last, data in self._recent if last > after)

    @property
    def recent_start(self) -> int:
        """The place after which `recent` has everything."""
        return self._recent_start

    def _be_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush_if_due)

    def _flush_if_due(self) -> None:
        if self._is_due:
            self.flush()

    def _close_frame(self) -> None:
        self._ready.append((self._last, log_frame(self._rows, self._entries)))
        self._entries, self._rows = [], []
        self._entries_bytes = 0

    def _remember(self, last: int, data: bytes) -> None:
        self._recent.append((last, data))
        self._recent_bytes += len(data)
        while self._recent_bytes > RECENT_BYTES:
            self._recent_start, oldest = self._recent.popleft()
            self._recent_bytes -= len(oldest)


def log_frame(rows: Sequence[BatchId], packed: Sequence[bytes]) -> bytes:
    """A LOG frame: batches that end here, and entries as records."""
    return frame(FrameKind.LOG, COUNT.pack(len(rows)), pack_batch_ids(rows), *packed)
