"""The inbox of a source whose messages come unasked: bounded, and counted above the bound."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from fastsse.sources.source import Batch, PlainMessage, Words
from fastsse.sources.source_publisher import BATCH_EVENTS, NS_A_MS

__all__ = ["Inbox"]

# Bytes that may wait for the log, in addition to the bound on events.
WAITING_BYTES: Final = 64 * 1024 * 1024
# Counted overhead of each, without payload and origin.
_COST_BYTES: Final = 512
# How long a read waits for the first message.
WAIT_S: Final = 0.5


class Inbox:
    """Messages that wait for the log. Above its bounds the newest are dropped. Loop thread only.

    Arguments:
        most: messages that may wait.
        counts: has those that were dropped.
    """

    def __init__(self, most: int, counts: "Counter[str]") -> None:
        self._most: Final = most
        self._counts = counts
        self._queue: deque[tuple[int, PlainMessage, int]] = deque()
        self._queued_bytes = 0
        self._queued = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def add(
        self, origin: str, payload: bytes, words: Callable[[], Words], *, is_kept: bool = False
    ) -> bool:
        """Takes a message; False: it was dropped. `is_kept`: the other system keeps it until it is
        acknowledged, so it is not lost then, and not counted."""
        # The event has the text, and so has the message that it was made of.
        cost_bytes = 2 * (len(payload) + len(origin)) + _COST_BYTES
        if len(self._queue) >= self._most or self._queued_bytes + cost_bytes > WAITING_BYTES:
            self._counts["sources_dropped"] += not is_kept
            return False
        message = PlainMessage(origin, payload, words)
        self._queue.append((time.monotonic_ns(), message, cost_bytes))
        self._queued_bytes += cost_bytes
        self._queued.set()
        return True

    async def read(self) -> Batch:
        """The oldest messages; they count until they are acknowledged, so that the bound holds for
        all."""
        if not self._queue:
            self._queued.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await self._queued.wait()
        if not self._queue:
            return Batch()
        count = min(len(self._queue), BATCH_EVENTS)
        messages = [self._queue[index][1] for index in range(count)]
        age_ms = (time.monotonic_ns() - self._queue[0][0]) // NS_A_MS
        return Batch(messages, count, age_ms, count == len(self._queue))

    def all(self) -> list[PlainMessage]:
        """Everything that waits."""
        return [message for _, message, _ in self._queue]

    def clear(self) -> None:
        """Drops everything: the other system sends it again."""
        self._queue.clear()
        self._queued_bytes = 0

    def acknowledge(self, batch: Batch) -> None:
        """Removes the messages of a batch."""
        for _ in batch.messages:
            self._queued_bytes -= self._queue.popleft()[2]
