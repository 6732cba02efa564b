"""Publishes the messages of a source: converts them to events, retries one batch at a time until
the log accepts it, and passes invalid messages to the dead letters."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.redis.connection import Backoff
from fastsse.redis.health import Outage, SkipLog
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.payloads import Maker

__all__ = ["BATCH_EVENTS", "NS_A_MS", "Publish", "SourceEvent", "SourcePublisher"]

log = get_logger("sources")
BATCH_EVENTS: Final = 200
NS_A_MS: Final = 1_000_000

Publish = Callable[[Sequence[Event], Callable[[Any], None]], None]
"""Appends a batch; calls back once with a FastsseError or something else."""


class SourceEvent(NamedTuple):
    """An event to publish, with its message, in case the log refuses it."""

    event: Event
    origin: str
    payload: bytes


class SourcePublisher:
    """The publishing side of a source, and its counters. Loop thread only.

    Arguments:
        name: the source's.
        maker: makes its events.
        publish: appends events.
        counts: shared by all sources.
        dead_letters: takes what can't become an event.
    """

    def __init__(
        self,
        name: str,
        maker: Maker,
        publish: Publish,
        counts: "Counter[str]",
        dead_letters: DeadLetters,
    ) -> None:
        self.name: Final = name
        self.counts: Final = counts
        self._maker = maker
        self._publish = publish
        self._dead_letters = dead_letters
        self._skips = SkipLog()
        self._outage = Outage("A source is away.", "A source is there again.", source=name)
        self._away_since_ns: int | None = None
        self._behind_since_ns: int | None = None

    @property
    def lag_ms(self) -> int:
        """The age of the oldest message that is not in the log yet."""
        moments = (self._away_since_ns, self._behind_since_ns)
        known = [moment for moment in moments if moment is not None]
        return (time.monotonic_ns() - min(known)) // NS_A_MS if known else 0

    def is_behind(self, age_ms: int) -> None:
        """Reports the age of the oldest message that is not in the log."""
        self._behind_since_ns = time.monotonic_ns() - age_ms * NS_A_MS

    def is_level(self) -> None:
        """Reports that the log has all messages."""
        self._behind_since_ns = None

    def is_away(self, why: str, tries: int) -> None:
        """The source can't be read. A connection that breaks and reconnects at once is counted, but
        not logged."""
        self.counts["sources_reconnects"] += 1
        if self._away_since_ns is None:
            self._away_since_ns = time.monotonic_ns()
        if tries > 1:
            self._outage.lasts(why, asyncio.get_running_loop().time())

    def is_there(self) -> None:
        """The source can be read."""
        self._away_since_ns = None
        self._outage.is_over()

    def draft(
        self, origin: str, payload: bytes, words: Callable[[], Mapping[str, str]]
    ) -> SourceEvent | None:
        """The event of a payload; None for an invalid one, which becomes a dead letter.

        `words` are for the templates; they may raise ValueError too.
        """
        try:
            return SourceEvent(self._maker.make(payload, words()), origin, payload)
        except ValueError as error:
            self._set_aside(origin, str(error), payload)
            return None

    async def take(self, drafts: Sequence[SourceEvent]) -> None:
        """Publishes and returns when all is acknowledged. While the log refuses, it retries without
        a limit. Events that the log can never accept become dead letters."""
        first = size_bytes = 0
        for index, draft in enumerate(drafts):
            size_bytes += len(draft.payload)
            # A batch is no larger than one that a publisher could send.
            if size_bytes > self._maker.max_bytes and index > first:
                await self._take_batch(drafts[first:index])
                first, size_bytes = index, len(draft.payload)
        await self._take_batch(drafts[first:])

    async def _take_batch(self, drafts: Sequence[SourceEvent]) -> None:
        events = [draft.event for draft in drafts]
        backoff = Backoff()
        while events:
            await backoff.wait()
            outcome = await self._append(events)
            if isinstance(outcome, Unavailable):
                self.counts["sources_refused"] += 1
                continue
            if isinstance(outcome, FastsseError):
                await self._take_apart(drafts, outcome)
            else:
                self.counts["sources_events"] += len(events)
            return

    async def _append(self, events: Sequence[Event]) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(outcome: Any) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self._publish(events, done)
        return await answer

    async def _take_apart(self, drafts: Sequence[SourceEvent], error: FastsseError) -> None:
        """One event is not allowed here, so the others are published without it."""
        if len(drafts) == 1:
            self._set_aside(drafts[0].origin, str(error), drafts[0].payload)
            return
        for draft in drafts:
            await self._take_batch((draft,))

    def _set_aside(self, origin: str, why: str, payload: bytes) -> None:
        self.counts["sources_skipped"] += 1
        self._dead_letters.add(origin, why, payload)
        unlogged = self._skips.take(asyncio.get_running_loop().time())
        if unlogged is not None:
            log.warning(
                "A source's entry was skipped.",
                source=self.name,
                entry=origin,
                why=why,
                unlogged_before=unlogged,
            )
