"""The first connection to Redis: waits until Redis can be used."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fastsse.backoff import Backoff
from fastsse.errors import FastsseError
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.health import Outage

__all__ = ["ask_when_ready"]

T = TypeVar("T")
# Refusals that usually end by themselves.
_PASSING: Final = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "MAXCLIENTS")


async def ask_when_ready(
    address: RedisAddress, wait_s: float, ask: Callable[[RedisConnection], Awaitable[T]]
) -> T:
    """Connects, calls `ask` with the connection, closes it, and returns the answer.

    Retries for up to `wait_s` while Redis can't be reached or loads its data. Raises FastsseError,
    whose text says what is wrong, if that lasts, or if Redis refuses permanently.
    """
    backoff = Backoff()
    outage = Outage("Waiting for Redis.", "Redis is available.")
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    while True:
        await backoff.wait()
        try:
            answer = await _ask_once(address, ask)
        except (AnswerLost, RedisRefusal) as fault:
            if loop.time() >= until_s or getattr(fault, "code", "LOADING") not in _PASSING:
                raise FastsseError(str(fault)) from None
            outage.lasts(str(fault), loop.time())
        else:
            outage.is_over()
            return answer


async def _ask_once(address: RedisAddress, ask: Callable[[RedisConnection], Awaitable[T]]) -> T:
    link = await RedisConnection.open(address)
    try:
        return await ask(link)
    finally:
        await link.close()
