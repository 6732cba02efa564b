"""Runs a source: reads a batch, publishes it, acknowledges it, and reads the next one."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from fastsse.backoff import Backoff
from fastsse.sources.source import Batch, Message, Source, SourceAway
from fastsse.sources.source_publisher import SourcePublisher

__all__ = ["Driver"]

# How long running publishes may take at the end, before their messages are released.
END_S: Final = 0.6
# How often a source is called that must not read.
IDLE_S: Final = 1.0


class Driver:
    """Runs one source until it is cancelled. Loop thread only.

    Arguments:
        source: what is read.
        publisher: takes what it brings.
    """

    def __init__(self, source: Source, publisher: SourcePublisher) -> None:
        self._source = source
        self._publisher = publisher
        self._is_ending = False
        self._may_read = asyncio.Event()
        self._may_read.set()

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read until `resume`."""
        return not self._may_read.is_set()

    @property
    def trouble(self) -> str | None:
        """Why nothing comes from the source now; None if it can be read."""
        return self._publisher.trouble

    @property
    def backlog(self) -> int | None:
        """As `Source`."""
        return self._source.backlog

    def pause(self) -> None:
        """Reads nothing more after the present batch."""
        self._may_read.clear()

    def resume(self) -> None:
        """Reads again."""
        self._may_read.set()

    async def run(self) -> None:
        """Runs until it is cancelled; then ends cleanly within about a second."""
        self._is_ending = False
        following = asyncio.create_task(self._follow())
        try:
            await asyncio.shield(following)
        finally:
            self._is_ending = True
            self._may_read.set()
            await asyncio.wait((following,), timeout=END_S)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        backoff = Backoff()
        while not self._is_ending:
            await backoff.wait()
            try:
                await self._source.open()
                await self._read_on(backoff)
            except SourceAway as fault:
                self._publisher.is_away(str(fault), backoff.tries)
            finally:
                await self._source.close(is_end=self._is_ending)

    async def _read_on(self, backoff: Backoff) -> None:
        while not self._is_ending:
            if self.is_paused:
                await self._idle_until(self._may_read.wait())
                continue
            batch = await self._source.read()
            backoff.reset()
            self._report(self._source.trouble)
            await self._take(batch)

    def _report(self, trouble: str | None) -> None:
        if trouble is None:
            self._publisher.is_there()
        else:
            self._publisher.has_trouble(trouble)

    async def _take(self, batch: Batch) -> None:
        if batch.missed:
            self._publisher.has_missed(batch.missed)
        if not batch.messages:
            self._publisher.is_level()
            if batch.places is None:
                return
        else:
            self._publisher.is_behind(batch.age_ms)
            await self._idle_until(self._publish(batch.messages))
        await self._source.acknowledge(batch)
        if batch.is_last:
            self._publisher.is_level()

    async def _publish(self, messages: Sequence[Message]) -> None:
        await self._publisher.take(messages)

    async def _idle_until(self, waited: Coroutine[Any, Any, object]) -> None:
        """Waits, and calls the source meanwhile."""
        waiting = asyncio.ensure_future(waited)
        # Many batches are in the log after one turn of the loop, and need no timer.
        await asyncio.sleep(0)
        try:
            while not waiting.done():
                await asyncio.wait((waiting,), timeout=IDLE_S)
                if not waiting.done():
                    await self._source.idle()
        finally:
            waiting.cancel()
        await waiting
