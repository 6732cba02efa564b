"""Gathers many events into batches that grow with the load.

While a batch is on its way, the next is encoded. So a slow source has its events sent one by one
without delay, and a fast one fills a batch up to its bounds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any, Final

import orjson

__all__ = ["BATCH_BYTES", "BATCH_EVENTS", "Events", "batches"]

BATCH_EVENTS: Final = 5_000
# Half of the default of max_body.
BATCH_BYTES: Final = 512 * 1024
# Events of an iterable that are encoded before the loop has a turn to send.
_EVENTS_A_TURN: Final = 250

Events = Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]


async def batches(events: Events) -> AsyncIterator[bytes]:
    """The events as NDJSON, in order; each batch has all events that are ready.

    At most one batch is held while the one before is in use. Raises TypeError for an event that
    JSON can't represent, and what `events` raises, after the events before it.
    """
    held = _Held()
    filling = asyncio.create_task(_fill(held, events))
    try:
        while await held.wait():
            yield held.take()
        await filling
    finally:
        filling.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await filling


class _Held:
    """The lines of the next batch."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size_bytes = 0
        self._is_over = False
        self._changed = asyncio.Event()

    def end(self) -> None:
        """No line follows."""
        self._is_over = True
        self._changed.set()

    async def add(self, line: bytes) -> None:
        """Adds a line when there is room for it; an empty batch has room for any."""
        while self._lines and (
            len(self._lines) >= BATCH_EVENTS or self._size_bytes + len(line) > BATCH_BYTES
        ):
            self._changed.clear()
            await self._changed.wait()
        self._lines.append(line)
        self._size_bytes += len(line) + 1
        if len(self._lines) == 1:
            self._changed.set()

    async def wait(self) -> bool:
        """Returns when there is a line; False when none follows."""
        while not self._lines and not self._is_over:
            self._changed.clear()
            await self._changed.wait()
        return bool(self._lines)

    def take(self) -> bytes:
        """All lines, which makes room."""
        lines, self._lines, self._size_bytes = self._lines, [], 0
        self._changed.set()
        return b"\n".join(lines)


async def _fill(held: _Held, events: Events) -> None:
    try:
        if isinstance(events, AsyncIterable):
            async for event in events:
                await held.add(orjson.dumps(event))
            return
        for number, event in enumerate(events, 1):
            await held.add(orjson.dumps(event))
            if number % _EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
    finally:
        held.end()
