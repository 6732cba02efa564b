"""The way from a source into the log: one batch at a time, tried until it is taken."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastsse.backbone.redis.health import SkipLog
from fastsse.backbone.redis.link import Backoff
from fastsse.errors import FastsseError, Refused
from fastsse.events import Event
from fastsse.log import get_logger

__all__ = ["BATCH_EVENTS", "Intake", "Publish"]

log = get_logger("sources")
BATCH_EVENTS: Final = 200

Publish = Callable[[Sequence[Event], Callable[[Any], None]], None]
"""Appends a batch; calls back once with a FastsseError or something else."""


class Intake:
    """What a source needs of the server, and what it counts.

    Arguments:
        name: the source's.
        publish: appends events.
        counts: shared by all sources.

    Attributes:
        lag_ms: how far behind the source is.
    """

    def __init__(self, name: str, publish: Publish, counts: "Counter[str]") -> None:
        self.name: Final = name
        self.lag_ms = 0
        self.counts: Final = counts
        self._publish = publish
        self._skips = SkipLog()

    async def take(self, events: Sequence[Event]) -> None:
        """Publishes a batch; returns when it was acknowledged. A log that refuses is asked again
        for as long as it takes; what it will never take is counted as skipped."""
        backoff = Backoff()
        while events:
            await backoff.wait()
            outcome = await self._append(events)
            if isinstance(outcome, Refused):
                self.counts["sources_refused"] += 1
                continue
            if isinstance(outcome, FastsseError):
                await self._take_apart(events, outcome)
                return
            self.counts["sources_events"] += len(events)
            return

    def skipped(self, what: str, why: str) -> None:
        """Something that can't become an event was left out."""
        self.counts["sources_skipped"] += 1
        unlogged = self._skips.take(asyncio.get_running_loop().time())
        if unlogged is not None:
            log.warning(
                "A source's entry was skipped.",
                source=self.name,
                entry=what,
                why=why,
                unlogged_before=unlogged,
            )

    async def _append(self, events: Sequence[Event]) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(outcome: Any) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self._publish(events, done)
        return await answer

    async def _take_apart(self, events: Sequence[Event], error: FastsseError) -> None:
        """One of them is not allowed here (a rule for event types): the others still go."""
        if len(events) == 1:
            self.skipped(events[0].topics[0], str(error))
            return
        for event in events:
            await self.take((event,))
