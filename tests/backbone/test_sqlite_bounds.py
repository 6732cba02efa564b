"""What waits for a disk that does not answer is bounded in bytes of what it holds."""

import asyncio
import gc
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fastsse.backbone.sqlite import backbone
from fastsse.backbone.stream_expiry import control_event
from fastsse.config import Config
from fastsse.directives import Directives
from fastsse.errors import FastsseError, Unavailable
from fastsse.events import Event
from fastsse.streamstate import StreamAsk, StreamConfig, StreamControl
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


async def test_long_streams_evict_no_other_events(tmp_path: Path) -> None:
    # Each line end is stored as seven bytes, so the stream takes far more than it counts for.
    lines = "\n" * 50
    config = Config(streams_total="64MiB", history_events=100_000)
    async with opened(tmp_path / "h.db", config, total_bytes=60_000) as tail:
        create = control_event("log", StreamControl("create", StreamConfig("text/plain")), 0)
        (generation,) = await tail.append(create)
        ask = Directives(stream=StreamAsk("append", generation))
        for _ in range(20):
            await tail.append(*[Event("log", lines, directives=ask) for _ in range(200)])
        kept = [(await tail.append(Event("plain", str(n))))[0] for n in range(20)]
        retention = tail.backbone._writer._retention
        await until(lambda: not retention.is_behind)
        found = await tail.read_all(("plain",), 0, 1 << 20)
        assert [entry.position for entry in found] == kept
        for n in range(3000):
            (newest,) = await tail.append(Event("plain", str(n)))
        await until(lambda: not retention.is_behind)
        found = await tail.read_all(("plain",), 0, 1 << 20)
        assert 100 < len(found) < 1500
        assert found[-1].position == newest
        assert len(await tail.read_all(("log",), 0, 1 << 20)) == 4001
