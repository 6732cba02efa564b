"""Counts every message of a Kafka topic in the log, while members of the group come and go.

    python -m tests.sources.soak --messages 1000000

Two nodes' sources share one log in memory that knows producers, as every store does. One of them is
ended and started again all the time. At the end each message must be there exactly once.
"""

import argparse
import asyncio
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from fastsse.backbone.judge import TopicStates
from fastsse.backbone.keys import KeyTable
from fastsse.backbone.memory import MemoryBackbone
from fastsse.backbone.producers import ProducerTable
from fastsse.config import Config
from fastsse.entries import Entry
from fastsse.positions import now_ms
from fastsse.sources import Sources
from tests.sources import kraft, tansu

PARTITIONS = 4
HOUR_MS = 3_600_000
STAY_S = 10.0


class NoStates(TopicStates):
    """No topic has a state."""

    ended_count = 0

    def ended_at(self, topic: str) -> int:
        return 0

    def last_of(self, topic: str) -> int:
        return 0

    def place_of_id(self, text: bytes) -> int | None:
        return None


class CountingLog:
    """A log that notes how often each number came, and keeps nothing else."""

    def __init__(self, messages: int) -> None:
        self.times = bytearray(messages)
        self.count = 0
        self.backbone = MemoryBackbone(now_ms)
        self.backbone.states = NoStates()
        self.backbone.keys = KeyTable(HOUR_MS, 1 << 20, now_ms)
        self.backbone.producers = ProducerTable(HOUR_MS, 1 << 20, now_ms)
        self.backbone.tail(self.backbone.start, self._deliver, lambda why, place: None)

    def publish(self, events: Sequence[Any], done: Any) -> None:
        self.backbone.append(events, done)

    def _deliver(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert entry.own_id is not None
            self.times[int(entry.own_id[1:])] += 1
        self.count += len(entries)


async def soak(messages: int, folder: pathlib.Path) -> dict[str, Any]:
    """Runs it, and returns what was counted."""
    has_kafka = kraft.jars() is not None
    broker = kraft.Kafka(folder) if has_kafka else tansu.Tansu(folder)
    broker.start()
    try:
        tansu.make_topic(broker.servers, "logs", PARTITIONS)
        log = CountingLog(messages)
        rule = {
            "name": "k", "url": broker.url, "topics": ["logs"], "topic": "t", "id": "n{data}",
            "payload": "json", "settings": tansu.SETTINGS,
        }  # fmt: skip
        config = Config(sources=[rule])
        numbers = ((str(number % 997), str(number)) for number in range(messages))
        producing = asyncio.create_task(
            asyncio.to_thread(tansu.produce, broker.servers, "logs", numbers)
        )
        begun_s = time.monotonic()
        stays = Sources(config, log.publish)
        stays.begin()
        rounds = repeats = 0
        while log.count < messages:
            goes = Sources(config, log.publish)
            goes.begin()
            await _until(log, messages)
            await goes.close()
            await _until(log, messages)
            repeats += goes.counters()["sources_repeats"]
            rounds += 1
        await producing
        await asyncio.sleep(2)
        repeats += stays.counters()["sources_repeats"]
        await stays.close()
        return {
            "broker": "Apache Kafka" if has_kafka else "Tansu",
            "messages": messages,
            "once": log.times.count(1),
            "missing": log.times.count(0),
            "doubled": messages - log.times.count(1) - log.times.count(0),
            "members that came and went": rounds,
            "repeats that the log knew": repeats,
            "seconds": round(time.monotonic() - begun_s, 1),
        }
    finally:
        broker.close()


async def _until(log: CountingLog, messages: int) -> None:
    """Some seconds, in which a rebalance ends and messages flow; less if all are there."""
    end_s = time.monotonic() + STAY_S
    while log.count < messages and time.monotonic() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counted = asyncio.run(soak(given.messages, pathlib.Path(folder)))
    for name, value in counted.items():
        print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")
    if counted["once"] != given.messages:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
