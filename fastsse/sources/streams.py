"""Streams: the entries of a Redis stream as events, each at least once.

A consumer group keeps the place. An entry is confirmed when the log has its event, so whatever
ends here or there, it is read again: by this node, or by another that finds it was left alone.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, Final

import orjson

from fastsse.backbone.redis.faults import AnswerLost, Refusal
from fastsse.backbone.redis.link import Address, Backoff, Link
from fastsse.config.sources import SourceRule
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.intake import BATCH_EVENTS, Intake
from fastsse.sources.payloads import Maker

__all__ = ["StreamSource"]

log = get_logger("sources")
BLOCK_MS: Final = 1_000
# An entry that somebody read and did not confirm for so long is taken over.
LEFT_ALONE_MS: Final = 10_000
LOOK_S: Final = 5.0

Entries = Sequence[tuple[bytes, Sequence[bytes] | None]]


class StreamSource:
    """Reads one source's stream. Arguments as ChannelSource."""

    def __init__(
        self,
        rule: SourceRule,
        address: Address,
        maker: Maker,
        intake: Intake,
        dead_letters: DeadLetters,
        left_alone_ms: int = LEFT_ALONE_MS,
    ) -> None:
        assert rule.stream is not None
        self._stream = rule.stream.encode()
        self._group = rule.group.encode()
        self._rule = rule
        self._count = min(rule.pending, BATCH_EVENTS)
        self._address = address
        self._maker = maker
        self._intake = intake
        self._dead_letters = dead_letters
        self._left_alone_ms = left_alone_ms
        self._consumer: Final = os.urandom(8).hex().encode()
        self._look_at_s = 0.0

    async def run(self) -> None:
        """Runs until it is cancelled."""
        backoff = Backoff()
        while True:
            await backoff.wait()
            try:
                link = await Link.open(self._address)
            except (AnswerLost, Refusal) as fault:
                self._is_away(fault, backoff)
                continue
            try:
                await self._begin(link)
                while True:
                    await self._read(link)
                    backoff.reset()
            except (AnswerLost, Refusal) as fault:
                self._is_away(fault, backoff)
            finally:
                await link.close()

    def _is_away(self, fault: Exception, backoff: Backoff) -> None:
        self._intake.counts["sources_reconnects"] += 1
        if backoff.tries == 2:
            log.warning("A source is away.", source=self._rule.name, why=str(fault))

    async def _begin(self, link: Link) -> None:
        """Makes the group where there is none: it begins with what comes from now on."""
        try:
            await link.call(b"XGROUP", b"CREATE", self._stream, self._group, b"$", b"MKSTREAM")
        except Refusal as refusal:
            if "BUSYGROUP" not in str(refusal):
                raise
        self._look_at_s = 0.0

    async def _read(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._look_at_s:
            self._look_at_s = loop.time() + LOOK_S
            await self._take_over(link)
        answer: Any = await link.call(
            b"XREADGROUP", b"GROUP", self._group, self._consumer, b"COUNT", self._count,
            b"BLOCK", BLOCK_MS, b"STREAMS", self._stream, b">",
            wait_s=BLOCK_MS / 1000,
        )  # fmt: skip
        if answer:
            await self._take(link, answer[0][1])
        else:
            self._intake.lag_ms = 0

    async def _take_over(self, link: Link) -> None:
        """What another consumer, or this node before, read and never confirmed."""
        place = b"0-0"
        while True:
            answer: Any = await link.call(
                b"XAUTOCLAIM", self._stream, self._group, self._consumer, self._left_alone_ms,
                place, b"COUNT", self._count,
            )  # fmt: skip
            place, entries = answer[0], answer[1]
            await self._take(link, [entry for entry in entries if entry is not None])
            if place == b"0-0":
                return

    async def _take(self, link: Link, entries: Entries) -> None:
        """Publishes entries and confirms them; what is bad is set aside and confirmed too."""
        if not entries:
            return
        events: list[Event] = []
        for entry_id, fields in entries:
            if fields is None:  # Deleted since it was read.
                continue
            try:
                events.append(self._event(fields))
            except ValueError as error:
                name = entry_id.decode()
                self._intake.skipped(name, str(error))
                self._dead_letters.add(name, str(error), _all_fields(fields))
        newest_ms = int(entries[-1][0].partition(b"-")[0])
        self._intake.lag_ms = max(0, time.time_ns() // 1_000_000 - newest_ms)
        await self._intake.take(events)
        ids = [entry_id for entry_id, _ in entries]
        await link.call(b"XACK", self._stream, self._group, *ids)

    def _event(self, fields: Sequence[bytes]) -> Event:
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        words = {
            f"field.{name.decode()}": value.decode("utf-8", "surrogateescape")
            for name, value in pairs.items()
            if len(value) <= 1024 and _is_text(name)
        }
        payload = pairs.get(self._rule.field.encode())
        if payload is None:
            payload = _all_fields(fields)
        return self._maker.make(payload, words | {"stream": self._stream.decode()})


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _all_fields(fields: Sequence[bytes]) -> bytes:
    """All fields as one JSON object."""
    texts = [field.decode("utf-8", "replace") for field in fields]
    return orjson.dumps(dict(zip(texts[::2], texts[1::2], strict=True)))
