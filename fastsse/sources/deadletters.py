"""Dead letters: messages that could not become an event, kept in a stream for inspection."""

import asyncio
from collections import Counter, deque
from typing import Final

from fastsse.log import get_logger
from fastsse.redis.connection import Backoff, RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.health import SkipLog

__all__ = ["DeadLetters"]

log = get_logger("sources")
# About the number of letters in the stream; the number and the bytes that may wait to be written.
KEPT: Final = 10_000
WAITING_MAX: Final = 1_000
WAITING_BYTES: Final = 16 * 1024 * 1024
# Counted overhead of each.
_COST_BYTES: Final = 256
# At the end, waiting letters are written for at most this time.
END_S: Final = 0.5

Letter = tuple[str, str, bytes]
"""The origin of a message, its problem, and the message."""


class DeadLetters:
    """Writes to a source's dead-letter stream, if it has one. Never delays the source.

    Arguments:
        address: where the stream is.
        stream: its name; None writes nothing.
        source: the source's name.
        counts: has those that are lost.
    """

    def __init__(
        self, address: RedisAddress, stream: str | None, source: str, counts: "Counter[str]"
    ) -> None:
        self._address = address
        self._stream = stream
        self._source = source
        self._counts = counts
        self._letters: deque[Letter] = deque()
        self._waiting_bytes = 0
        self._added = asyncio.Event()
        self._losses = SkipLog()

    def add(self, origin: str, why: str, payload: bytes) -> None:
        """Queues a letter. If too many wait already it is dropped and counted."""
        if self._stream is None:
            return
        letter = origin, why, payload
        is_full = len(self._letters) >= WAITING_MAX
        if is_full or self._waiting_bytes + _size_of(letter) > WAITING_BYTES:
            self._lose("too much waits to be written")
            return
        self._letters.append(letter)
        self._waiting_bytes += _size_of(letter)
        self._added.set()

    async def run(self) -> None:
        """Writes until it is cancelled, then writes the waiting letters for a bounded time."""
        try:
            while True:
                await self._added.wait()
                self._added.clear()
                await self._write_waiting()
        finally:
            try:
                async with asyncio.timeout(END_S):
                    await self._write_waiting()
            except TimeoutError:
                log.warning("Dead letters are lost.", source=self._source, count=len(self._letters))

    async def _write_waiting(self) -> None:
        backoff = Backoff()
        while self._letters:
            await backoff.wait()
            try:
                link = await RedisConnection.open(self._address)
            except (AnswerLost, RedisRefusal):
                continue
            try:
                await self._write_over(link, backoff)
            except AnswerLost:
                continue
            finally:
                await link.close()

    async def _write_over(self, link: RedisConnection, backoff: Backoff) -> None:
        while self._letters:
            try:
                await self._write(link, self._letters[0])
            except RedisRefusal as refusal:
                self._lose(str(refusal))
            self._waiting_bytes -= _size_of(self._letters.popleft())
            backoff.reset()

    async def _write(self, link: RedisConnection, letter: Letter) -> None:
        origin, why, payload = letter
        assert self._stream is not None
        await link.call(
            b"XADD", self._stream, b"MAXLEN", b"~", KEPT, b"*",
            b"source", self._source, b"origin", origin, b"why", why, b"payload", payload,
        )  # fmt: skip

    def _lose(self, why: str) -> None:
        self._counts["sources_letters_lost"] += 1
        unlogged = self._losses.take(asyncio.get_running_loop().time())
        if unlogged is not None:
            log.warning(
                "A dead letter is lost.", source=self._source, why=why, unlogged_before=unlogged
            )


def _size_of(letter: Letter) -> int:
    return _COST_BYTES + sum(map(len, letter))
