"""What waits in a source is bounded in bytes of what it holds."""

import gc
import pathlib
import tracemalloc
from collections import Counter
from collections.abc import Callable

import pytest

from fastsse.sources import deadletters, inbox
from fastsse.sources.deadletters import DeadLetters, Letter
from fastsse.sources.file_letters import FileLetters
from fastsse.sources.inbox import Inbox

BOUND = 2 * 1024 * 1024


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
async def test_messages_that_come_unasked_are_dropped_and_counted_above_the_bound(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(inbox, "WAITING_BYTES", BOUND)
    counts: Counter[str] = Counter()
    waiting = Inbox(100_000, counts)
    count = 4 * BOUND // (size + 300)

    def fill() -> None:
        for _ in range(count):
            channel = bytes(b"c" * 200)
            waiting.add(channel.decode(), bytes(b"x" * size), channel.decode)  # type: ignore[arg-type]

    held_bytes = held_after(fill)
    dropped = counts["sources_dropped"]
    assert dropped == count - len(waiting)
    assert dropped > 0
    assert BOUND / 4 < held_bytes < 1.5 * BOUND


@pytest.mark.parametrize("size", [0, 10_000, 100_000])
async def test_dead_letters_are_lost_and_counted_above_the_bound(
    monkeypatch: pytest.MonkeyPatch, size: int, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(deadletters, "WAITING_BYTES", BOUND)
    counts: Counter[str] = Counter()
    letters = DeadLetters(FileLetters(f"{tmp_path}/letters", "s"), "s", counts)
    count = 3_000

    def fill() -> None:
        for n in range(count):
            letters.add(Letter(f"entry {n}", "it is damaged", bytes(b"x" * size)))

    held_bytes = held_after(fill)
    kept = len(letters._letters)
    assert counts["sources_letters_lost"] == count - kept
    assert 0 < kept <= deadletters.WAITING_MAX
    assert held_bytes < 1.5 * BOUND
