"""Channels: what is published to Redis's own pub/sub, as events.

Redis keeps none of it: what is published while this node is away is gone, and so is what comes
faster than the log takes it once `pending` events wait; that is counted as dropped.
"""

import asyncio
import contextlib
import time
from collections import deque
from typing import Any, Final

from redis import exceptions

from fastsse.backbone.redis.link import Address, Backoff
from fastsse.config.sources import SourceRule
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.intake import BATCH_EVENTS, Intake
from fastsse.sources.lease import Lease
from fastsse.sources.payloads import Maker
from fastsse.sources.templates import compile_pattern, words_of

__all__ = ["ChannelSource"]

log = get_logger("sources")
# A connection on which nothing comes is asked whether it is alive, and left if it is not.
PING_S: Final = 5.0


class ChannelSource:
    """Follows the channels of one source.

    Arguments:
        rule: the source.
        address: where its Redis is.
        maker: makes its events.
        intake: takes them.
        lease: None where no other node has the same log.
        dead_letters: takes what can't become an event.
    """

    def __init__(
        self,
        rule: SourceRule,
        address: Address,
        maker: Maker,
        intake: Intake,
        lease: Lease | None,
        dead_letters: DeadLetters,
    ) -> None:
        self._rule = rule
        self._address = address
        self._maker = maker
        self._intake = intake
        self._lease = lease
        self._dead_letters = dead_letters
        self._patterns = {text.encode(): compile_pattern(text) for text in rule.channels}
        self._queue: deque[tuple[int, Event]] = deque()
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
            connection = self._address.connection()
            try:
                async with asyncio.timeout(self._address.timeout_s):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    await self._send(connection, b"PSUBSCRIBE", *self._patterns)
                while True:
                    await self._read(connection, backoff)
            except (exceptions.RedisError, OSError, TimeoutError) as error:
                self._intake.counts["sources_reconnects"] += 1
                if backoff.tries == 2:
                    log.warning("A source is away.", source=self._rule.name, why=str(error)[:200])
            finally:
                with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError):
                    await connection.disconnect(nowait=True)

    async def _read(self, connection: Any, backoff: Backoff) -> None:
        """One message. A silent connection is asked once, and then not trusted any more."""
        reading = asyncio.ensure_future(connection.read_response(disconnect_on_error=False))
        try:
            done, _ = await asyncio.wait((reading,), timeout=PING_S)
            if not done:
                await self._send(connection, b"PING")
            async with asyncio.timeout(self._address.timeout_s):
                message = await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        backoff.reset()
        if isinstance(message, list) and message[0] == b"pmessage":
            self._take(*message[1:4])

    async def _send(self, connection: Any, *command: bytes) -> None:
        packed = b"".join(connection.pack_command(*command))
        await connection.send_packed_command(packed, check_health=False)

    def _take(self, pattern: bytes, channel: bytes, payload: bytes) -> None:
        if self._lease is not None and not self._lease.is_held:
            return
        try:
            words = words_of(self._patterns[pattern], channel.decode())
            event = self._maker.make(payload, words)
        except (ValueError, KeyError) as error:
            name = channel.decode("utf-8", "replace")
            self._intake.skipped(name, str(error))
            self._dead_letters.add(name, str(error), payload)
            return
        if len(self._queue) >= self._rule.pending:
            self._intake.counts["sources_dropped"] += 1
            return
        self._queue.append((time.monotonic_ns(), event))
        self._queued.set()

    async def _hand_on(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                waited_ns = time.monotonic_ns() - self._queue[0][0]
                self._intake.lag_ms = waited_ns // 1_000_000
                count = min(len(self._queue), BATCH_EVENTS)
                # They keep their places until they are taken, so that `pending` bounds all.
                await self._intake.take([self._queue[index][1] for index in range(count)])
                for _ in range(count):
                    self._queue.popleft()
            self._intake.lag_ms = 0
