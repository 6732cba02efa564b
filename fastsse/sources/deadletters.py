"""Dead letters: what could not become an event, kept in a stream for somebody to look at."""

import asyncio
from typing import Final

from fastsse.backbone.redis.faults import AnswerLost, Refusal
from fastsse.backbone.redis.link import Address, Link
from fastsse.log import get_logger

__all__ = ["DeadLetters"]

log = get_logger("sources")
# The stream keeps about so many; so many may wait to be written.
KEPT: Final = 10_000
WAITING_MOST: Final = 1_000


class DeadLetters:
    """Writes to a source's dead-letter stream, if it has one; never holds the source up."""

    def __init__(self, address: Address, stream: str | None, source: str) -> None:
        self._address = address
        self._stream = stream
        self._source = source
        self._letters: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue(WAITING_MOST)

    def add(self, origin: str, why: str, payload: bytes) -> None:
        """Has a letter written. When too many wait already it is only in the log."""
        if self._stream is not None and not self._letters.full():
            self._letters.put_nowait((origin, why, payload))

    async def run(self) -> None:
        """Writes until it is cancelled."""
        while True:
            letter = await self._letters.get()
            try:
                link = await Link.open(self._address)
            except (AnswerLost, Refusal) as fault:
                log.warning("A dead letter is lost.", source=self._source, why=str(fault))
                continue
            try:
                await self._write(link, letter)
                while not self._letters.empty():
                    await self._write(link, self._letters.get_nowait())
            except (AnswerLost, Refusal) as fault:
                log.warning("A dead letter is lost.", source=self._source, why=str(fault))
            finally:
                await link.close()

    async def _write(self, link: Link, letter: tuple[str, str, bytes]) -> None:
        origin, why, payload = letter
        assert self._stream is not None
        await link.call(
            b"XADD", self._stream, b"MAXLEN", b"~", KEPT, b"*",
            b"source", self._source, b"origin", origin, b"why", why, b"payload", payload,
        )  # fmt: skip
