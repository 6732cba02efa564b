"""Channels: messages of Redis's pub/sub become events.

Redis stores no message, so messages that are published while this node is away are lost. If
messages come faster than the log accepts them, those above `pending` waiting events are dropped and
counted.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from fastsse.backoff import Backoff
from fastsse.config.sources import SourceRule
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.sources.inbox import Inbox
from fastsse.sources.lease import Lease
from fastsse.sources.redis_faults import as_source_faults
from fastsse.sources.source import Batch, Message
from fastsse.sources.source_publisher import SourcePublisher
from fastsse.sources.topic_templates import compile_pattern, words_of

__all__ = ["ChannelSource"]

# A silent connection is checked with a ping, and replaced if it does not answer.
PING_S: Final = 5.0


class ChannelSource:
    """Follows the channels of one source. It reconnects by itself, also while the log takes
    nothing.

    Arguments:
        rule: the source.
        address: where its Redis is.
        publisher: notified of the state of the connection.
        lease: None if no other node uses the same log.
    """

    backlog: int | None = None

    def __init__(
        self,
        rule: SourceRule,
        address: RedisAddress,
        publisher: SourcePublisher,
        lease: Lease | None,
    ) -> None:
        self.inbox: Final = Inbox(rule.pending, publisher.counts)
        self.trouble: str | None = None
        self._address = address
        self._publisher = publisher
        self._lease = lease
        self._patterns = {text.encode(): compile_pattern(text) for text in rule.channels}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """As Source."""
        if self._lease is not None:
            self._tasks.append(asyncio.create_task(self._lease.keep()))
        self._tasks.append(asyncio.create_task(self._follow()))

    async def read(self) -> Batch:
        """As Source."""
        for task in self._tasks:
            if task.done():
                task.result()
        return await self.inbox.read()

    async def acknowledge(self, batch: Batch) -> None:
        """As Source."""
        self.inbox.acknowledge(batch)

    async def idle(self) -> None:
        """As Source. What comes meanwhile waits, within the bound."""

    async def close(self, *, is_end: bool) -> None:
        """As Source."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source: what is published within the time."""
        inbox = Inbox(count, Counter())

        def on_message(pattern: bytes, channel: bytes, payload: bytes) -> None:
            compiled = self._patterns[pattern]
            name = channel.decode("utf-8", "replace")
            inbox.add(name, payload, lambda: words_of(compiled, channel))

        with as_source_faults():
            link = await RedisConnection.open(self._address, on_message)
            try:
                await link.calls([(b"PSUBSCRIBE", pattern) for pattern in self._patterns])
                until_s = asyncio.get_running_loop().time() + wait_s
                while len(inbox) < count and asyncio.get_running_loop().time() < until_s:
                    await link.lasts(0.05)
            finally:
                await link.close()
        return inbox.all()

    async def _follow(self) -> None:
        backoff = Backoff()
        while True:
            await backoff.wait()
            try:
                link = await RedisConnection.open(self._address, self._on_message)
            except (AnswerLost, RedisRefusal) as fault:
                self._fails(fault, backoff)
                continue
            try:
                await self._listen(link, backoff)
            except (AnswerLost, RedisRefusal) as fault:
                self._fails(fault, backoff)
            finally:
                await link.close()

    async def _listen(self, link: RedisConnection, backoff: Backoff) -> None:
        # One answer to each command.
        await link.calls([(b"PSUBSCRIBE", pattern) for pattern in self._patterns])
        while True:
            self.trouble = None
            self._publisher.is_there()
            backoff.reset()
            await link.lasts(PING_S)
            await link.call(b"PING")

    def _fails(self, fault: Exception, backoff: Backoff) -> None:
        self._publisher.is_away(str(fault), backoff.tries)
        self.trouble = self._publisher.trouble

    def _on_message(self, pattern: bytes, channel: bytes, payload: bytes) -> None:
        if self._lease is not None and not self._lease.is_held:
            return
        compiled = self._patterns[pattern]
        self.inbox.add(
            channel.decode("utf-8", "replace"), payload, lambda: words_of(compiled, channel)
        )
