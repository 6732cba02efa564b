"""A long durable stream is kept in parts: a page costs the same wherever it begins, and a part that
Redis lost is reported."""

import random
from collections.abc import AsyncIterator
from itertools import count
from typing import Final

import pytest

from fastsse.backbone.stream_expiry import control_event
from fastsse.directives import END, Directives, read_control
from fastsse.entries import Entry
from fastsse.errors import StreamImmutable
from fastsse.events import Event
from fastsse.streamstate import StreamAsk, StreamConfig, StreamControl
from fastsse.subscriptions import Cursor
from tests.redis.onelog import Node, node_on
from tests.redis.server import RedisServer

PART: Final = 1024
TEXT: Final = StreamConfig("text/plain")
PARTS, TAIL = "{fastsse}:parts:long", "{fastsse}:topic:long"
_numbers = count()


def part(number: int) -> str:
    return f"{{fastsse}}:part:{number}:long"


async def store(node: Node, events: list[Event]) -> list[int]:
    """Appends a batch; its positions."""
    found: list[object] = []
    node.backbone.append(events, lambda outcome: (found.append(outcome), node._changed.set()))
    await node.until(lambda: bool(found))
    assert not isinstance(found[0], Exception), found[0]
    return list(found[0])  # type: ignore[call-overload]


def content(generation: int, text: str, *topics: str) -> Event:
    ask = Directives(stream=StreamAsk("append", generation))
    return Event(("long", *topics), text, directives=ask)


class Long:
    """A stream of two full parts and some more; `positions` of its content."""

    def __init__(self, node: Node, redis: RedisServer) -> None:
        self.node, self.redis = node, redis
        self.generation = 0
        self.positions: list[int] = []

    async def fill(self, entries: int, *topics: str) -> None:
        texts = [f"{next(_numbers)}" for _ in range(entries)]
        for at in range(0, entries, 300):
            some = [content(self.generation, text, *topics) for text in texts[at : at + 300]]
            self.positions += await store(self.node, some)

    async def read(self, after: int, limit_bytes: int) -> tuple[list[int], int]:
        """All positions of content after a place, and up to where something is missing."""
        found, evicted = [], 0
        while True:
            page = await self.node.read("long", after=after, limit_bytes=limit_bytes)
            if page.evicted_through > after:
                evicted = page.evicted_through
            found += [one.position for one in page.entries if one.frame.events]
            assert page.is_last or page.through > after
            after = page.through
            if page.is_last:
                return found, evicted


@pytest.fixture
async def long(redis: RedisServer) -> AsyncIterator[Long]:
    redis.client.set("{fastsse}:format", "2")
    async with node_on(redis.url) as node:
        await node.answered("before")
        one = Long(node, redis)
        (one.generation,) = await store(
            node, [control_event("long", StreamControl("create", TEXT), 0)]
        )
        await one.fill(2 * PART + 300)
        assert redis.client.llen(PARTS) == 2
        assert [redis.client.llen(part(n)) for n in (0, 1)] == [PART, PART]
        assert redis.client.llen(TAIL) == 301
        yield one


async def test_pages_from_any_place_have_all_behind_it(long: Long) -> None:
    chosen = random.Random(7)
    all_of = long.positions
    for at in (-1, PART - 3, PART - 2, PART - 1, PART, 2 * PART - 2, 2 * PART - 1, len(all_of) - 1):
        after = long.generation if at < 0 else all_of[at]
        found, evicted = await long.read(after, chosen.choice([3_000, 100_000, 1 << 22]))
        assert (found, evicted) == (all_of[at + 1 :], 0)


async def test_the_newest_are_found_across_parts(long: Long) -> None:
    for wanted in (1, 300, 302, PART + 400):
        place = await long.node.seek(Cursor("last", wanted), "long")
        assert place == long.positions[-wanted] - 1
    answers: list[object] = []
    long.node.backbone.newest(("long",), 1_500, 1 << 30, answers.append)
    await long.node.until(lambda: bool(answers))
    entries: list[Entry] = answers[0].entries  # type: ignore[attr-defined]
    assert [one.position for one in entries] == long.positions[-1_500:]


async def test_a_purge_elsewhere_takes_nothing_out_of_any_part(long: Long) -> None:
    await long.fill(1, "other")
    await long.fill(PART, "more")
    refused: list[object] = []
    for topic in ("other", "more"):
        long.node.backbone.append([Event.purge(topic)], refused.append)
    await long.node.until(lambda: len(refused) == 2)
    assert [type(one) for one in refused] == [StreamImmutable] * 2
    found, evicted = await long.read(long.generation, 1 << 22)
    assert (found, evicted) == (long.positions, 0)


async def test_a_closed_stream_is_dropped_with_all_its_parts(long: Long) -> None:
    asked = Directives(control=END, stream=StreamAsk("append", long.generation))
    assert read_control(END)
    await store(long.node, [Event("long", directives=asked)])
    drop = control_event("long", StreamControl("drop"), long.generation, "drop")
    await store(long.node, [drop])
    assert not long.redis.client.keys("*part*:long")
    assert not long.redis.client.exists(TAIL, PARTS)
    # The node's check wants texts that differ, and control entries have none.
    long.node.seen.clear()
    long.node.acknowledged.clear()


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_part_that_redis_lost_is_a_gap_where_it_was(long: Long, lost: int) -> None:
    long.redis.client.delete(part(lost))
    begin, end = lost * PART - 1, (lost + 1) * PART - 1  # The first entry made the stream.
    found, evicted = await long.read(long.generation - 1, 1 << 22)
    assert found == long.positions[: max(begin, 0)] + long.positions[end:]
    assert evicted == long.positions[end - 1]
    found, evicted = await long.read(long.positions[end], 3_000)
    assert (found, evicted) == (long.positions[end + 1 :], 0)


async def test_a_lost_end_or_list_of_parts_is_a_gap(long: Long) -> None:
    last = long.positions[-1]
    tail = long.redis.client.dump(TAIL)
    long.redis.client.delete(TAIL)
    found, evicted = await long.read(long.generation, 1 << 22)
    assert (found, evicted) == (long.positions[: 2 * PART - 1], last)
    long.redis.client.restore(TAIL, 0, tail)
    long.redis.client.delete(PARTS)
    found, evicted = await long.read(long.generation, 1 << 22)
    assert (found, evicted) == (long.positions[2 * PART - 1 :], long.positions[2 * PART - 2])
