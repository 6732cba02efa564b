"""What waits in a source is bounded in bytes of what it holds."""

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable

import pytest

from fastsse.config.sources import SourceRule
from fastsse.events import Event
from fastsse.redis.connection import RedisAddress
from fastsse.sources import deadletters, redis_channels
from fastsse.sources.deadletters import DeadLetters
from fastsse.sources.redis_channels import ChannelSource
from fastsse.sources.source_publisher import SourceEvent

BOUND = 2 * 1024 * 1024
NOWHERE = RedisAddress("redis://127.0.0.1:1", 1)


class Publisher:
    """Makes events, and takes none: the log is away."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def draft(self, origin: str, payload: bytes, words: Callable[[], object]) -> SourceEvent:
        words()
        return SourceEvent(Event("t", payload.decode()), origin, payload)


def held_after(fill: Callable[[], None]) -> int:
    """Bytes that are held after it."""
    gc.collect()
    tracemalloc.start()
    try:
        fill()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000])
async def test_messages_of_channels_are_dropped_and_counted_above_the_bound(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(redis_channels, "WAITING_BYTES", BOUND)
    rule = SourceRule(name="s", channels=("c*",), topic="t", pending=100_000)
    publisher = Publisher()
    source = ChannelSource(rule, NOWHERE, publisher, None)  # type: ignore[arg-type]
    count = 4 * BOUND // (size + 300)

    def fill() -> None:
        for _ in range(count):
            source._hear(b"c*", b"c" * 200, bytes(b"x" * size))

    held_bytes = held_after(fill)
    dropped = publisher.counts["sources_dropped"]
    assert dropped == count - len(source._queue)
    assert dropped > 0
    assert BOUND / 4 < held_bytes < 1.5 * BOUND


@pytest.mark.parametrize("size", [0, 10_000, 100_000])
async def test_dead_letters_are_lost_and_counted_above_the_bound(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(deadletters, "WAITING_BYTES", BOUND)
    counts: Counter[str] = Counter()
    letters = DeadLetters(NOWHERE, "dead", "s", counts)
    count = 3_000

    def fill() -> None:
        for n in range(count):
            letters.add(f"entry {n}", "it is damaged", bytes(b"x" * size))

    held_bytes = held_after(fill)
    kept = len(letters._letters)
    assert counts["sources_letters_lost"] == count - kept
    assert 0 < kept <= deadletters.WAITING_MAX
    assert held_bytes < 1.5 * BOUND
