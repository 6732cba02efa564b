"""Lists of present streams, read from Redis page by page."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from fastsse.cluster.membership import NAME_BYTES
from fastsse.control.cluster import Answer
from fastsse.control.roster import ANSWER_BYTES
from fastsse.errors import FastsseError, Unavailable
from fastsse.log import get_logger
from fastsse.redis.connection import ConnectionOnDemand, RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.redis.keys import Keys

__all__ = ["RosterQueries"]

log = get_logger("redis")
PAGE: Final = 1_000
ASKED_AT_ONCE: Final = 4
RETRY_AFTER_S: Final = 2


class _Listed:
    """What an answer lists, within its bounds."""

    def __init__(self, most: int) -> None:
        self.texts: list[bytes] = []
        self._most = most
        self._left_bytes = ANSWER_BYTES

    def add(self, topic: bytes, subscriber: bytes, payload: bytes) -> bool:
        """Adds one and returns whether there was room. Raises ValueError for an invalid record."""
        if len(self.texts) >= self._most:
            return False
        who = orjson.dumps((topic.decode(), subscriber.decode()))
        text = b"%b,%b]" % (who[:-1], payload or b"null")
        self._left_bytes -= len(text)
        if self._left_bytes < 0:
            return False
        self.texts.append(text)
        return True

    def answer(self, count: int) -> bytes:
        """The answer of `Roster.find`."""
        return b"[%d,[%b]]" % (count, b",".join(self.texts))


class RosterQueries:
    """Lists present streams. Loop thread only. A few queries run at a time.

    Arguments:
        address, keys: where the roster is stored.
    """

    def __init__(self, address: RedisAddress, keys: Keys) -> None:
        self._keys = keys
        self._link = ConnectionOnDemand(address)
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, topic: str | None, name: str | None, most: int, answer: Answer) -> None:
        """As `Roster`. O(what is listed), in pages of 1,000."""
        task = asyncio.get_running_loop().create_task(self._answer(topic, name, most, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Answers open queries with an error, and closes the connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._link.close()

    async def _answer(self, topic: str | None, name: str | None, most: int, answer: Answer) -> None:
        outcome: bytes | FastsseError = Unavailable("backbone", RETRY_AFTER_S)
        try:
            async with self._turns:
                link = await self._link.get()
                if topic is None:
                    outcome = await self._all(link, most)
                elif name is None:
                    outcome = await self._of_topic(link, topic.encode(), most)
                else:
                    outcome = await self._one(link, topic.encode(), name.encode())
        except (AnswerLost, RedisRefusal, ValueError) as fault:
            log.warning("Presence can't be read.", why=str(fault))
        finally:
            answer(outcome)

    async def _one(self, link: RedisConnection, topic: bytes, name: bytes) -> bytes:
        listed = _Listed(1)
        value = await link.call(b"HGET", self._keys.there(topic), name)
        if value is not None:
            listed.add(topic, name, value[NAME_BYTES:])
        return listed.answer(len(listed.texts))

    async def _of_topic(self, link: RedisConnection, topic: bytes, most: int) -> bytes:
        key = self._keys.there(topic)
        listed = _Listed(most)
        count = await link.call(b"HLEN", key)
        if not most:
            return listed.answer(count)
        async for name, value in _walk(link, key):
            if not listed.add(topic, name, value[NAME_BYTES:]):
                return listed.answer(max(count, len(listed.texts) + 1))
        return listed.answer(len(listed.texts))

    async def _all(self, link: RedisConnection, most: int) -> bytes:
        keys, listed = self._keys, _Listed(most)
        counts, alive, dead = await link.calls(
            [
                (b"HVALS", keys.counts),
                (b"ZRANGE", keys.nodes, 0, -1),
                (b"ZRANGE", keys.dead, 0, -1),
            ]
        )
        count = sum(map(int, counts))
        if count > most:
            return listed.answer(count)
        # For a moment a stream of a renamed node is listed under both names.
        seen: set[bytes] = set()
        for node in (*alive, *dead):
            async for name, kept in _walk(link, keys.held(node)):
                if kept[:1] != b"+" or name in seen:
                    continue
                seen.add(name)
                selectors, _, payload = kept[1:].partition(b"\n")
                for selector in orjson.loads(selectors):
                    if not listed.add(selector.encode(), name, payload):
                        return listed.answer(max(count, len(listed.texts) + 1))
        return listed.answer(len(listed.texts))


async def _walk(link: RedisConnection, key: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
    """The fields of a hash, each once. Fields that are added or removed meanwhile may be
    included."""
    cursor: bytes = b"0"
    seen: set[bytes] = set()
    while True:
        answer: Any = await link.call(b"HSCAN", key, cursor, b"COUNT", PAGE)
        cursor, flat = answer
        for name, value in zip(flat[::2], flat[1::2], strict=True):
            if name not in seen:
                seen.add(name)
                yield name, value
        if cursor == b"0":
            return
