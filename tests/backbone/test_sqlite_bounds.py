"""What waits for a disk that does not answer is bounded in bytes of what it holds."""

import asyncio
import gc
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fastsse.backbone.sqlite import backbone
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from tests.backbone.storage import opened, until

BOUND = 4 * 1024 * 1024


@pytest.mark.parametrize(("count", "size"), [(1, 1), (200, 1), (50, 2_000)])
async def test_publishes_that_wait_for_the_disk_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(backbone, "WAITING_BYTES_MAX", BOUND)
    async with opened(tmp_path / "history.db") as tail:
        writer: Any = tail.backbone._writer  # type: ignore[attr-defined]
        goes_on, take = threading.Event(), writer._take
        monkeypatch.setattr(writer, "_take", lambda: (goes_on.wait(), take())[1])
        outcomes: list[Any] = []
        gc.collect()
        tracemalloc.start()
        try:
            for taken in range(100_000):  # noqa: B007
                events = tuple(Event(f"t{n}", f"{n:0{size}}") for n in range(count))
                tail.backbone.append(
                    events, lambda outcome, events=events: outcomes.append((outcome, events))
                )
                if outcomes:
                    break
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            goes_on.set()
        assert isinstance(outcomes[0][0], Unavailable)
        assert BOUND / 8 < held_bytes < 1.5 * BOUND
        # What was taken is stored, and then there is room.
        await until(lambda: len(outcomes) == taken + 1)
        assert not any(isinstance(outcome, FastsseError) for outcome, _ in outcomes[1:])
        await asyncio.wait_for(tail.append(Event("t0")), 60)
