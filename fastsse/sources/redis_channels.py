"""Channels: messages of Redis's pub/sub become events.

Redis stores no message, so messages that are published while this node is away are lost. If
messages come faster than the log accepts them, those above `pending` waiting events are dropped and
counted.
"""

import asyncio
import time
from collections import deque
from typing import Final

from fastsse.config.sources import SourceRule
from fastsse.redis.connection import Backoff, RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.sources.lease import Lease
from fastsse.sources.source_publisher import BATCH_EVENTS, NS_A_MS, SourceEvent, SourcePublisher
from fastsse.sources.topic_templates import compile_pattern, words_of

__all__ = ["ChannelSource"]

# A silent connection is checked with a ping, and replaced if it does not answer.
PING_S: Final = 5.0
# Bytes that may wait for the log, in addition to the bound on events.
WAITING_BYTES: Final = 64 * 1024 * 1024
# Counted overhead of each, without payload and channel name.
_COST_BYTES: Final = 512


class ChannelSource:
    """Follows the channels of one source.

    Arguments:
        rule: the source.
        address: where its Redis is.
        publisher: takes what it brings.
        lease: None if no other node uses the same log.
    """

    def __init__(
        self,
        rule: SourceRule,
        address: RedisAddress,
        publisher: SourcePublisher,
        lease: Lease | None,
    ) -> None:
        self._most: Final = rule.pending
        self._address = address
        self._publisher = publisher
        self._lease = lease
        self._patterns = {text.encode(): compile_pattern(text) for text in rule.channels}
        self._queue: deque[tuple[int, SourceEvent, int]] = deque()
        self._queued_bytes = 0
        self._queued = asyncio.Event()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._lease is not None:
                group.create_task(self._lease.keep())
            group.create_task(self._hand_on())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        backoff = Backoff()
        while True:
            await backoff.wait()
            try:
                link = await RedisConnection.open(self._address, self._hear)
            except (AnswerLost, RedisRefusal) as fault:
                self._publisher.is_away(str(fault), backoff.tries)
                continue
            try:
                await self._listen(link, backoff)
            except (AnswerLost, RedisRefusal) as fault:
                self._publisher.is_away(str(fault), backoff.tries)
            finally:
                await link.close()

    async def _listen(self, link: RedisConnection, backoff: Backoff) -> None:
        # One answer to each command.
        await link.calls([(b"PSUBSCRIBE", pattern) for pattern in self._patterns])
        while True:
            self._publisher.is_there()
            backoff.reset()
            await link.lasts(PING_S)
            await link.call(b"PING")

    def _hear(self, pattern: bytes, channel: bytes, payload: bytes) -> None:
        if self._lease is not None and not self._lease.is_held:
            return
        # The event has the text, and so has the message that it was made of.
        cost_bytes = 2 * (len(payload) + len(channel)) + _COST_BYTES
        if len(self._queue) >= self._most or self._queued_bytes + cost_bytes > WAITING_BYTES:
            self._publisher.counts["sources_dropped"] += 1
            return
        draft = self._publisher.draft(
            channel.decode("utf-8", "replace"),
            payload,
            lambda: words_of(self._patterns[pattern], channel),
        )
        if draft is not None:
            self._queue.append((time.monotonic_ns(), draft, cost_bytes))
            self._queued_bytes += cost_bytes
            self._queued.set()

    async def _hand_on(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                waited_ns = time.monotonic_ns() - self._queue[0][0]
                self._publisher.is_behind(waited_ns // NS_A_MS)
                count = min(len(self._queue), BATCH_EVENTS)
                # They count until the log has taken them, so that `pending` bounds all.
                await self._publisher.take([self._queue[index][1] for index in range(count)])
                for _ in range(count):
                    self._queued_bytes -= self._queue.popleft()[2]
            self._publisher.is_level()
