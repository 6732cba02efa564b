"""What a publish costs in the hub with the memory store: position, frame, history, and eviction."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest

from fastsse._core import Sender
from fastsse.api.batch import events_of_lines
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import HistoryOptions, StreamOptions
from fastsse.entries import EventBatch
from fastsse.events import Event
from fastsse.hub import Hub
from fastsse.positions import now_ms

DATA = "x" * 128
LINES = b"\n".join(
    orjson.dumps({"topic": f"user/{number % 100}", "data": DATA}) for number in range(5000)
)


@pytest.fixture
def hub() -> Iterator[Hub]:
    sender = Sender(max_connections=1)
    sender.start()
    yield Hub(sender, MemoryBackbone(now_ms), HistoryOptions(), StreamOptions())
    sender.stop()


def events_of(count: int) -> list[Event]:
    return [Event("topic", DATA) for _ in range(count)]


def batch_of(count: int) -> EventBatch:
    return EventBatch([("topic",)] * count, [DATA.encode()] * count)


@pytest.mark.parametrize("make", [events_of, batch_of], ids=["events", "batch"])
@pytest.mark.parametrize("count", [1, 16, 256])
def test_a_publish(benchmark: Any, hub: Hub, make: Any, count: int) -> None:
    """One topic without streams, whose log is full: each event evicts one."""
    events: Sequence[Event] = make(count)
    for _ in range(2000 // count):
        hub.publish(events, bool)
    benchmark(hub.publish, events, bool)
    benchmark.extra_info["ns_an_event"] = benchmark.stats.stats.min / count * 1e9


@pytest.mark.parametrize("what", ["read", "publish"])
def test_ndjson(benchmark: Any, hub: Hub, what: str) -> None:
    """5,000 lines of 128 bytes of data on 100 topics, in process."""

    def run() -> None:
        events = events_of_lines(LINES)
        if what == "publish":
            hub.publish(events, bool)

    benchmark(run)
    benchmark.extra_info["ns_an_event"] = benchmark.stats.stats.min / 5000 * 1e9
