"""Messages that a source gives again are in the log once, also within one batch."""

import time
from collections import Counter
from collections.abc import Sequence

import pytest

from fastsse.backbone.memory import MemoryBackbone
from fastsse.backbone.producers import ProducerTable
from fastsse.config.sources import SourceRule
from fastsse.directives import Producer, producer_key
from fastsse.entries import Entry
from fastsse.sources.payloads import Maker
from fastsse.sources.source_publisher import SourcePublisher
from tests.sources.soak import NoStates


class Numbered:
    """A message of a partition, at an offset."""

    def __init__(self, partition: str, offset: int) -> None:
        self.payload = f'"{partition}{offset}"'.encode()
        self.origin = f"{partition}-{offset}"
        self.producer: Producer | None = Producer(producer_key("k", partition.encode()), 0, offset)

    def words(self) -> dict[str, str]:
        return {}


class NoLetters:
    waiting = 0

    def add(self, letter: object) -> None:
        raise AssertionError(letter)

    async def settled(self, share: float = 0.0) -> None:
        pass


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a1 a2 a1 a2", "a1 a2"),
        ("a1 a1 a1", "a1"),
        ("a1 b1 a2 b2 a1 b2 a3", "a1 b1 a2 b2 a3"),
        ("a5 a3 a4 a6", "a5 a6"),
    ],
)
async def test_an_offset_that_comes_again_in_a_batch_is_stored_once(given: str, kept: str) -> None:
    log: list[str] = []

    def deliver(entries: Sequence[Entry]) -> None:
        # The own id of each is its data.
        log.extend((entry.own_id or b"").decode() for entry in entries)

    backbone = MemoryBackbone(lambda: time.time_ns() // 1_000_000)
    backbone.states = NoStates()
    backbone.producers = ProducerTable(3_600_000, 1 << 20, lambda: time.time_ns() // 1_000_000)
    backbone.tail(backbone.start, deliver, lambda why, place: None)
    rule = SourceRule.model_validate(
        {
            "name": "k",
            "url": "kafka://h:9092",
            "topics": ["a"],
            "topic": "t",
            "id": "{data}",
            "payload": "json",
        }
    )
    counts: Counter[str] = Counter()
    maker = Maker(rule, 1 << 20, lambda topic, name: True, 0)
    publisher = SourcePublisher("k", maker, backbone.append, counts, NoLetters())
    messages = [Numbered(one[0], int(one[1:])) for one in given.split()]
    await publisher.take(messages)
    assert log == kept.split()
    assert counts["sources_events"] == len(kept.split())
    assert counts["sources_repeats"] == len(messages) - len(kept.split())
