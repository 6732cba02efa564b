"""Streams: the entries of a Redis stream as events, each at least once.

A consumer group keeps the place. An entry is confirmed when the log has its event. Otherwise it is
read again after any failure: by this node, or by another that takes over abandoned entries. A node
that ends cleanly releases its entries, and they are read first.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from fastsse.config.sources import SourceRule
from fastsse.redis.connection import Backoff, RedisAddress, RedisConnection
from fastsse.redis.errors import AnswerLost, RedisRefusal
from fastsse.sources.consumer_group import ConsumerGroup, Entries, id_of
from fastsse.sources.source_publisher import BATCH_EVENTS, SourceEvent, SourcePublisher

__all__ = ["StreamSource"]

# How often abandoned entries of others are searched.
LOOK_S: Final = 5.0
# How long running publishes may take at the end, before their entries are released.
END_S: Final = 0.6
RELEASE_S: Final = 0.4
# About the most bytes of one read. If entries are so large, they are read one by one.
READ_BYTES: Final = 4 * 1024 * 1024
COUNT_FIRST: Final = 10
# Longer values can't be a topic and are not decoded.
WORD_BYTES_MAX: Final = 1024
# An id below this many ms was chosen by hand and is no time.
TIMES_FROM_MS: Final = 1_000_000_000_000


class StreamSource:
    """Reads one source's stream.

    Arguments:
        rule: the source.
        address: where its Redis is.
        publisher: takes what it brings.
    """

    def __init__(self, rule: SourceRule, address: RedisAddress, publisher: SourcePublisher) -> None:
        assert rule.stream is not None
        self._stream: Final = rule.stream
        self._field: Final = rule.field.encode()
        self._group = ConsumerGroup(rule.stream, rule.group)
        self._most: Final = min(rule.pending, BATCH_EVENTS)
        self._count = min(self._most, COUNT_FIRST)
        self._address = address
        self._publisher = publisher
        self._look_at_s = 0.0
        self._is_ending = False

    async def run(self) -> None:
        """Runs until it is cancelled; then ends cleanly within a second."""
        following = asyncio.create_task(self._follow())
        try:
            await asyncio.shield(following)
        finally:
            self._is_ending = True
            await asyncio.wait((following,), timeout=END_S)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        backoff = Backoff()
        while not self._is_ending:
            await backoff.wait()
            try:
                link = await RedisConnection.open(self._address)
            except (AnswerLost, RedisRefusal) as fault:
                self._publisher.is_away(str(fault), backoff.tries)
                continue
            try:
                await self._read_on(link, backoff)
            except (AnswerLost, RedisRefusal) as fault:
                self._publisher.is_away(str(fault), backoff.tries)
            finally:
                await self._let_go(link)

    async def _let_go(self, link: RedisConnection) -> None:
        if self._is_ending:
            try:
                async with asyncio.timeout(RELEASE_S):
                    await self._group.release(link)
            except TimeoutError:
                pass  # It is taken over later.
        await link.close()

    async def _read_on(self, link: RedisConnection, backoff: Backoff) -> None:
        await self._group.begin(link)
        self._look_at_s = 0.0
        loop = asyncio.get_running_loop()
        while not self._is_ending:
            if loop.time() >= self._look_at_s:
                self._look_at_s = loop.time() + LOOK_S
                await self._take_over(link)
                await self._group.tidy(link)
            entries = await self._group.read(link, self._count)
            self._publisher.is_there()
            backoff.reset()
            await self._take(link, entries)

    async def _take_over(self, link: RedisConnection) -> None:
        """Unconfirmed entries of this reader, and abandoned ones of others."""
        await self._take_own(link)
        place = b"0-0"
        while not self._is_ending:
            place = await self._group.claim(link, place, self._most)
            await self._take_own(link)
            if place == b"0-0":
                return

    async def _take_own(self, link: RedisConnection) -> None:
        while not self._is_ending:
            entries = await self._group.read_own(link, self._count)
            if not entries:
                return
            await self._take(link, entries)

    async def _take(self, link: RedisConnection, entries: Entries) -> None:
        """Publishes entries and confirms them. Invalid entries become dead letters and are
        confirmed too."""
        if not entries:
            self._publisher.is_level()
            return
        self._publisher.is_behind(_age_ms(entries[0][0]))
        drafts = [
            draft
            for entry_id, fields in entries
            if fields is not None and (draft := self._draft(entry_id, fields))
        ]
        await self._publisher.take(drafts)
        self._suit_count(entries)
        await self._group.confirm(link, [entry_id for entry_id, _ in entries])

    def _draft(self, entry_id: bytes, fields: Sequence[bytes]) -> SourceEvent | None:
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        payload = pairs.get(self._field)
        if payload is None:
            payload = _all_fields(pairs)
        return self._publisher.draft(entry_id.decode(), payload, lambda: self._words(pairs))

    def _words(self, pairs: Mapping[bytes, bytes]) -> dict[str, str]:
        words = {
            f"field.{name.decode('utf-8', 'replace')}": value.decode("utf-8", "surrogateescape")
            for name, value in pairs.items()
            if len(value) <= WORD_BYTES_MAX
        }
        return words | {"stream": self._stream}

    def _suit_count(self, entries: Entries) -> None:
        """Reads fewer at once if entries are large."""
        size_bytes = sum(sum(map(len, fields)) for _, fields in entries if fields is not None)
        if size_bytes > READ_BYTES:
            self._count = max(1, self._count // 2)
        elif len(entries) == self._count:
            self._count = min(self._most, self._count * 2)


def _age_ms(entry_id: bytes) -> int:
    ms, _ = id_of(entry_id)
    return max(0, time.time_ns() // 1_000_000 - ms) if ms >= TIMES_FROM_MS else 0


def _all_fields(pairs: Mapping[bytes, bytes]) -> bytes:
    """All fields as one JSON object."""
    return orjson.dumps(
        {
            name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for name, value in pairs.items()
        }
    )
