"""Streams: the entries of a Redis stream as events, each at least once.

A consumer group keeps the place. An entry is confirmed when the log has its event. Otherwise it is
read again after any failure: by this node, or by another that takes over abandoned entries. A node
that ends cleanly releases its entries, and they are read first.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import orjson

from fastsse.config.sources import SourceRule
from fastsse.redis.connection import RedisAddress, RedisConnection
from fastsse.sources.consumer_group import ConsumerGroup, Entries, id_of
from fastsse.sources.read_count import ReadCount
from fastsse.sources.redis_faults import as_source_faults
from fastsse.sources.source import Batch, Message, PlainMessage
from fastsse.sources.source_publisher import BATCH_EVENTS

__all__ = ["StreamSource"]

# How often abandoned entries of others are searched.
LOOK_S: Final = 5.0
RELEASE_S: Final = 0.4
# Longer values can't be a topic and are not decoded.
WORD_BYTES_MAX: Final = 1024
# An id below this many ms was chosen by hand and is no time.
TIMES_FROM_MS: Final = 1_000_000_000_000
# Where a search for abandoned entries begins, and what it says at its end.
_START: Final = b"0-0"


class StreamSource:
    """Reads one source's stream.

    Arguments:
        rule: the source.
        address: where its Redis is.
    """

    trouble: str | None = None
    backlog: int | None = None

    def __init__(self, rule: SourceRule, address: RedisAddress) -> None:
        assert rule.stream is not None
        self._stream: Final = rule.stream
        self._field: Final = rule.field.encode()
        first = b"0" if rule.start == "earliest" else b"$"
        self._group = ConsumerGroup(rule.stream, rule.group, first)
        self._most: Final = min(rule.pending, BATCH_EVENTS)
        self._count = ReadCount(self._most)
        self._address = address
        self._link: RedisConnection | None = None
        self._look_at_s = 0.0
        # Entries that were read before, while they are taken.
        self._earlier: AsyncIterator[Entries] | None = None

    async def open(self) -> None:
        """As Source."""
        with as_source_faults():
            self._link = await RedisConnection.open(self._address)
            await self._group.begin(self._link)
        self._look_at_s = 0.0
        self._earlier = None

    async def read(self) -> Batch:
        """As Source. A read is never cancelled: Redis could give the next entry to the lost
        reader."""
        assert self._link is not None
        with as_source_faults():
            return self._batch(await self._next_entries(self._link))

    async def acknowledge(self, batch: Batch) -> None:
        """As Source."""
        assert self._link is not None
        ids: Sequence[bytes] = batch.places  # type: ignore[assignment]
        with as_source_faults():
            await self._group.confirm(self._link, ids)

    async def idle(self) -> None:
        """As Source. The group keeps what was read."""

    async def close(self, *, is_end: bool) -> None:
        """As Source."""
        link, self._link, self._earlier = self._link, None, None
        if link is None:
            return
        if is_end:
            try:
                async with asyncio.timeout(RELEASE_S):
                    await self._group.release(link)
            except TimeoutError:
                pass  # It is taken over later.
        await link.close()

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source: what the group would be given next."""
        with as_source_faults():
            link = await RedisConnection.open(self._address)
            try:
                return await self._preview(link, count, wait_s)
            finally:
                await link.close()

    async def _preview(self, link: RedisConnection, count: int, wait_s: float) -> list[Message]:
        last = await self._group.last_delivered(link)
        command = (b"COUNT", count, b"BLOCK", max(1, round(wait_s * 1000)))
        answer = await link.call(b"XREAD", *command, b"STREAMS", self._stream, last, wait_s=wait_s)
        entries: Entries = answer[0][1] if answer else ()
        return [self._message(entry_id, fields) for entry_id, fields in entries if fields]

    async def _next_entries(self, link: RedisConnection) -> Entries:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            self._earlier = self._take_over(link)
        if self._earlier is not None:
            async for entries in self._earlier:
                return entries
            self._earlier = None
        return await self._group.read(link, self._count.value)

    async def _take_over(self, link: RedisConnection) -> AsyncIterator[Entries]:
        """Unconfirmed entries of this reader, and abandoned ones of others."""
        async for entries in self._own(link):
            yield entries
        place = _START
        while True:
            place = await self._group.claim(link, place, self._most)
            async for entries in self._own(link):
                yield entries
            if place == _START:
                break
        await self._group.tidy(link)

    async def _own(self, link: RedisConnection) -> AsyncIterator[Entries]:
        while entries := await self._group.read_own(link, self._count.value):
            yield entries

    def _batch(self, entries: Entries) -> Batch:
        if not entries:
            return Batch()
        size_bytes = sum(sum(map(len, fields)) for _, fields in entries if fields is not None)
        self._count.note(len(entries), size_bytes)
        messages = [
            self._message(entry_id, fields) for entry_id, fields in entries if fields is not None
        ]
        return Batch(messages, [entry_id for entry_id, _ in entries], _age_ms(entries[0][0]))

    def _message(self, entry_id: bytes, fields: Sequence[bytes]) -> PlainMessage:
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        payload = pairs.get(self._field)
        if payload is None:
            payload = _all_fields(pairs)
        return PlainMessage(entry_id.decode(), payload, lambda: self._words(pairs))

    def _words(self, pairs: Mapping[bytes, bytes]) -> dict[str, str]:
        words = {
            f"field.{name.decode('utf-8', 'replace')}": value.decode("utf-8", "surrogateescape")
            for name, value in pairs.items()
            if len(value) <= WORD_BYTES_MAX
        }
        return words | {"stream": self._stream}


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
