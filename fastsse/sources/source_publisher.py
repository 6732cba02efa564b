"""Publishes the messages of a source: converts them to events, retries one batch at a time until
the log accepts it, and passes invalid messages to the dead letters."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from fastsse.backoff import Backoff
from fastsse.directives import Directives, Producer
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.redis.health import Outage, SkipLog
from fastsse.sources.deadletters import Letter, letter_of
from fastsse.sources.payloads import Maker
from fastsse.sources.source import Message, Words
from fastsse.spans import Span

__all__ = ["BATCH_EVENTS", "NS_A_MS", "Publish", "SourceEvent", "SourcePublisher"]

log = get_logger("sources")
BATCH_EVENTS: Final = 200
NS_A_MS: Final = 1_000_000
# Of the bounds of dead letters, what may wait while others come; the largest letter needs half.
LETTERS_SHARE: Final = 0.25

Publish = Callable[[Sequence[Event], Callable[[Any], None]], None]
"""Appends a batch; calls back once with a FastsseError or something else."""


class SourceEvent(NamedTuple):
    """An event to publish, with its message, in case the log refuses it, and its span."""

    event: Event
    message: Message
    span: Span | None = None


class LetterTaker(Protocol):
    """What takes messages that can't become events."""

    @property
    def waiting(self) -> int:
        """Letters that are not written yet."""

    def add(self, letter: Letter) -> None:
        """Takes one."""

    async def settled(self, share: float = 0.0) -> None:
        """Returns when those that were taken are written, or can't be now. A share of the bounds
        may still wait."""


class SourcePublisher:
    """The publishing side of a source, and its counters. Loop thread only.

    Arguments:
        name: the source's.
        maker: makes its events.
        publish: appends events.
        counts: shared by all sources.
        dead_letters: takes what can't become an event.

    Attributes:
        trouble: why nothing can come from the source now; None: it can be read.
        trace: begins the span of a message, by its words, and adds its context to the event; None:
            tracing is off.
    """

    def __init__(
        self,
        name: str,
        maker: Maker,
        publish: Publish,
        counts: "Counter[str]",
        dead_letters: LetterTaker,
    ) -> None:
        self.name: Final = name
        self.counts: Final = counts
        self._maker = maker
        self._publish = publish
        self._dead_letters = dead_letters
        self._skips = SkipLog()
        self._outage = Outage("A source is away.", "A source is there again.", source=name)
        self.trouble: str | None = None
        self.trace: Callable[[Words, Event], tuple[Span | None, Event]] | None = None
        self._away_since_ns: int | None = None
        self._behind_since_ns: int | None = None

    def letters_wait(self) -> bool:
        """Whether messages that were set aside would be lost by a kill. Any thread."""
        return self._dead_letters.waiting > 0

    @property
    def lag_ms(self) -> int:
        """The age of the oldest message that is not in the log yet."""
        moments = (self._away_since_ns, self._behind_since_ns)
        known = [moment for moment in moments if moment is not None]
        return (time.monotonic_ns() - min(known)) // NS_A_MS if known else 0

    def is_behind(self, age_ms: int) -> None:
        """Reports the age of the oldest message that is not in the log."""
        self._behind_since_ns = time.monotonic_ns() - age_ms * NS_A_MS

    def has_missed(self, count: int) -> None:
        """Reports messages that the other system deleted before they were read."""
        self.counts["sources_missed"] += count
        log.error(
            "Messages of a source were deleted before they were read.",
            source=self.name,
            count=count,
        )

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
            self.has_trouble(why)

    def has_trouble(self, why: str) -> None:
        """Nothing can come from the source now."""
        self.trouble = why
        if self._away_since_ns is None:
            self._away_since_ns = time.monotonic_ns()
        self._outage.lasts(why, asyncio.get_running_loop().time())

    def is_there(self) -> None:
        """The source can be read."""
        self.trouble = None
        self._away_since_ns = None
        self._outage.is_over()

    async def take(self, messages: Sequence[Message]) -> None:
        """Publishes messages, and returns when each is in the log, set aside or filtered out. While
        the log refuses, it retries without a limit."""
        drafts: list[SourceEvent] = []
        size_bytes = 0
        make, limit_bytes = self._maker.make, self._maker.max_bytes
        newest: dict[bytes, int] = {}
        for message in messages:
            try:
                event = make(message)
            except ValueError as error:
                # In the order of the messages.
                await self._set_aside(message, str(error))
                continue
            if event is None:
                self.counts["sources_filtered"] += 1
                continue
            if message.producer is not None:
                key, number = message.producer.key, message.producer.sequence
                if number <= newest.get(key, -1):
                    # Events of one batch with one number are one append, so this waits for it.
                    await self._take_batch(drafts)
                    drafts, size_bytes = [], 0
                newest[key] = number
                _number(event, message.producer)
            span = None
            if self.trace is not None:
                span, event = self.trace(message.words(), event)
            size_bytes += len(message.payload)
            # A batch is no larger than one that a publisher could send.
            if size_bytes > limit_bytes and drafts:
                await self._take_batch(drafts)
                drafts, size_bytes = [], len(message.payload)
            drafts.append(SourceEvent(event, message, span))
        await self._take_batch(drafts)
        await self._dead_letters.settled()

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
                # `Published` of a hub, or the positions of a backbone.
                repeats = getattr(outcome, "duplicates", 0)
                self.counts["sources_repeats"] += repeats
                self.counts["sources_events"] += len(events) - repeats
                for draft in drafts:
                    if draft.span is not None:
                        draft.span.end()
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
            await self._set_aside(drafts[0].message, str(error))
            if drafts[0].span is not None:
                drafts[0].span.end(str(error))
            return
        for draft in drafts:
            await self._take_batch((draft,))

    async def _set_aside(self, message: Message, why: str) -> None:
        self.counts["sources_skipped"] += 1
        letter = letter_of(message, why)
        self._dead_letters.add(letter)
        unlogged = self._skips.take(asyncio.get_running_loop().time())
        if unlogged is not None:
            log.warning(
                "A source's entry was skipped.",
                source=self.name,
                entry=letter.origin,
                why=letter.why,
                unlogged_before=unlogged,
            )
        await self._dead_letters.settled(LETTERS_SHARE)


def _number(event: Event, producer: Producer) -> None:
    """Has the log know the event again. One with a publisher's key is known by that."""
    asked = event.directives
    if asked is None:
        event.direct(Directives(producer=producer))
    elif asked.key is None:
        event.direct(asked._replace(producer=producer))
