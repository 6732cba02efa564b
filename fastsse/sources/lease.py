"""Leases: of the nodes that share a log, only one reads the messages published on channels."""

import asyncio
import os
from typing import Final

from fastsse.backoff import Backoff
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.health import Outage

__all__ = ["Lease"]

LIFE_MS: Final = 3_000
RENEWAL_S: Final = 1.0
_RENEW: Final = (
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then "
    b"return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end "
    b"return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX') and 1 or 0"
)
_GIVE_UP: Final = (
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
)


class Lease:
    """A key with one holder. A holder that ends releases it; one that dies loses it within 3 s.

    Arguments:
        address, key: where it is stored.
        source: the source's name, for the log.

    Attributes:
        is_held: whether this node has it. It becomes False before the lease ends if it can't be
            renewed.
    """

    def __init__(self, address: RedisAddress, key: bytes, source: str) -> None:
        self._address = address
        self._key = key
        self._outage = Outage(
            "The node that takes a source's channels is unknown.",
            "Nodes agree again who takes a source's channels.",
            source=source,
        )
        self._holder: Final = os.urandom(12).hex().encode()
        self._until_s = 0.0

    @property
    def is_held(self) -> bool:
        return asyncio.get_running_loop().time() < self._until_s

    async def keep(self) -> None:
        """Acquires the lease and renews it until cancelled."""
        backoff = Backoff()
        while True:
            await backoff.wait()
            try:
                link = await RedisConnection.open(self._address)
            except (AnswerLost, RedisRefusal) as fault:
                self._fails(fault, backoff)
                continue
            try:
                await self._renew(link, backoff)
            except (AnswerLost, RedisRefusal) as fault:
                self._fails(fault, backoff)
            finally:
                if self.is_held:
                    await self._give_up(link)
                await link.close()

    async def _renew(self, link: RedisConnection, backoff: Backoff) -> None:
        loop = asyncio.get_running_loop()
        while True:
            asked_s = loop.time()
            has_it = await link.call(b"EVAL", _RENEW, 1, self._key, self._holder, LIFE_MS)
            # A part of its life is a reserve for clocks that run at different speeds.
            self._until_s = asked_s + 0.9 * LIFE_MS / 1000 if has_it else 0.0
            backoff.reset()
            self._outage.is_over()
            await link.lasts(RENEWAL_S)

    def _fails(self, fault: Exception, backoff: Backoff) -> None:
        # A connection that is cut and reconnects at once is not worth a record.
        if backoff.tries > 1:
            self._outage.lasts(str(fault), asyncio.get_running_loop().time())

    async def _give_up(self, link: RedisConnection) -> None:
        self._until_s = 0.0
        try:
            async with asyncio.timeout(RENEWAL_S):
                await link.call(b"EVAL", _GIVE_UP, 1, self._key, self._holder)
        except (AnswerLost, RedisRefusal, TimeoutError):
            return
