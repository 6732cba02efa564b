"""Appends that are judged in columns are stored exactly as the judge would have them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsse._batch import has_ends, has_repeated_numbers, is_plain
from fastsse.backbone.memory import MemoryBackbone
from fastsse.backbone.producers import ProducerTable
from fastsse.backbone.sqlite import SqliteBackbone, judging
from fastsse.backbone.stream_table import StreamTable
from fastsse.config import Config
from fastsse.directives import Directives, Producer
from fastsse.entries import (
    Entry,
    EventBatch,
    KeyedBatch,
    SharedFields,
    pack_events,
    unpack_events,
)
from fastsse.errors import FastsseError
from fastsse.events import DATA_JSON, DATA_TEXT, Event
from fastsse.streamstate import StreamAsk, StreamConfig
from tests.backbone.storage import Clock, Disk
from tests.hub.backbone_contract import START_MS, Tail, of_stream

HOUR_MS = 3_600_000
STREAMS = {
    "text": StreamConfig("text/plain"),
    "json": StreamConfig("application/json"),
    "mortal": StreamConfig("text/plain", ttl_s=1),
    "private": StreamConfig("text/plain", private=True),
}
TOPICS = (*STREAMS, "closed", "gone", "none")


class Append:
    """What is asked of one append. `topic` may be no stream, or one that is closed or was deleted;
    `ask` None is a publish."""

    def __init__(
        self,
        topic: str,
        kind: int,
        is_current: bool,
        asks: bool,
        seq: bytes | None,
        producer: Producer | None,
        size: int,
    ) -> None:
        self.topic, self.kind, self.data = topic, kind, b"1" * size
        self.is_current, self.asks, self.seq, self.producer = is_current, asks, seq, producer

    def __repr__(self) -> str:
        return f"Append({vars(self)})"

    def directives(self, generations: dict[str, int]) -> Directives | None:
        if not self.asks:
            return None
        generation = generations.get(self.topic, 5) + (not self.is_current)
        return Directives(stream=StreamAsk("append", generation, self.seq), producer=self.producer)


def batch_of(appends: Sequence[Append], generations: dict[str, int]) -> EventBatch:
    batch = EventBatch()
    for one in appends:
        is_private = one.topic == "private"
        shared = SharedFields(Event("x", private=True)) if is_private else None
        asked = one.directives(generations)
        batch.add((one.topic,), one.data, one.kind, shared, None, asked)
    return batch


def rarely(value: Any, other: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([value] * 9 + [other])


producers = st.builds(
    Producer,
    st.sampled_from((b"a", b"b")),
    st.integers(0, 1),
    st.integers(0, 4),
    rarely(True, False),
)
appends = st.builds(
    Append,
    st.sampled_from(["text", "json", "mortal", "private"] * 4 + list(TOPICS)),
    rarely(DATA_JSON, DATA_TEXT),
    rarely(True, False),
    rarely(True, False),
    st.sampled_from([None] * 6 + [b"a", b"b", b"c"]),
    st.none() | producers,
    st.sampled_from([3, 3, 3, 900]),
)
batches = st.lists(st.lists(appends, min_size=1, max_size=5), max_size=8)


class Log:
    """A log in memory, with one stream of each kind. `is_short`: it judges in columns."""

    def __init__(self, *, is_short: bool, room_bytes: int) -> None:
        self.now_ms, self.is_short, self.short = START_MS, is_short, 0
        self.answers: list[Any] = []
        self.delivered: list[Any] = []
        self.changed: list[Any] = []
        backbone = self.backbone = MemoryBackbone(lambda: self.now_ms)
        self.tail = Tail(backbone)
        backbone.producers = ProducerTable(HOUR_MS, room_bytes, lambda: self.now_ms)
        backbone.streams = StreamTable(room_bytes * 10, lambda: self.now_ms)
        for topic, config in STREAMS.items():
            backbone.append([of_stream("create", topic, 0, config)], lambda outcome: None)
        backbone.append([of_stream("create", "closed")], lambda outcome: None)
        backbone.append([Event.end("closed")], lambda outcome: None)
        self.generations = {name: row.generation for name, row in backbone.streams.rows.items()}
        backbone.streams.on_changed = lambda topic, row: self.changed.append((topic, row))

    def append(self, batch: EventBatch) -> None:
        positions = self.backbone.append_now(batch) if self.is_short else None
        if positions is None:
            self.backbone.append(batch, self._answered)
        else:
            self.short += 1
            self._answered(positions)

    def _answered(self, outcome: Any) -> None:
        if isinstance(outcome, FastsseError):
            self.answers.append((type(outcome), str(outcome)))
        else:
            self.answers.append((list(outcome), getattr(outcome, "duplicates", 0)))


def described(entries: Sequence[Entry]) -> list[Any]:
    return [(entry[:3], entry.extras, entry.frame.body, entry.frame.private) for entry in entries]


@given(batches, st.sampled_from([0, 0, 1200]), st.sampled_from([1 << 20, 1 << 20, 600, 280]))
def test_columns_and_events_are_stored_answered_and_noted_alike(
    batches: list[list[Append]], step_ms: int, room_bytes: int
) -> None:
    logs = [Log(is_short=is_short, room_bytes=room_bytes) for is_short in (True, False)]
    for batch in batches:
        for log in logs:
            log.append(batch_of(batch, log.generations))
            log.now_ms += step_ms
    short, long = logs
    assert short.answers == long.answers
    assert described(short.tail.entries) == described(long.tail.entries)
    assert short.backbone.streams.rows == long.backbone.streams.rows
    assert short.backbone.streams.bytes == long.backbone.streams.bytes
    assert short.backbone.producers._rows == long.backbone.producers._rows
    assert short.backbone.producers.bytes == long.backbone.producers.bytes
    assert dict(short.changed) == dict(long.changed)


def test_usual_appends_are_judged_in_columns() -> None:
    log = Log(is_short=True, room_bytes=1 << 20)
    usual = [
        Append("text", DATA_JSON, True, True, b"a", None, 3),
        Append("text", DATA_TEXT, True, True, None, Producer(b"p", 0, 0, True), 3),
        Append("json", DATA_JSON, True, True, None, None, 3),
        Append("none", DATA_TEXT, True, False, None, None, 3),
    ]
    log.append(batch_of(usual, log.generations))
    log.append(batch_of([Append("text", 0, True, True, b"b", None, 3)], log.generations))
    assert log.short == 2
    assert log.backbone.streams.rows["text"].seq == b"b"
    refused = [
        Append("text", 0, True, True, b"b", None, 3),
        Append("text", 0, False, True, None, None, 3),
        Append("json", DATA_TEXT, True, True, None, None, 3),
        Append("closed", 0, True, True, None, None, 3),
        Append("text", 0, True, True, None, Producer(b"p", 0, 0, True), 3),
        Append("text", 0, True, True, None, Producer(b"p", 0, 2, True), 3),
        Append("text", 0, True, False, None, None, 3),
    ]
    for one in refused:
        log.append(batch_of([one], log.generations))
    assert log.short == 2
    assert log.backbone.streams.bytes == sum(
        row.size_bytes for row in log.backbone.streams.rows.values()
    )


async def stored(path: Path, batches: Sequence[Sequence[Append]], *, is_short: bool) -> list[Any]:
    """What a file with the streams answers, delivers and has of such batches, all appended in one
    turn of the loop."""
    config = Config(streams_total=6000, producers_total=600)
    judge = judging.judge_appends if is_short else lambda *arguments: None
    with patch.object(judging, "judge_appends", judge):
        backbone = SqliteBackbone(
            str(path), config, "written", now_ms=Clock(), connect=Disk().connect
        )
        tail = Tail(backbone)
        for topic, of_topic in STREAMS.items():
            await tail.append(of_stream("create", topic, 0, of_topic))
        await tail.append(of_stream("create", "closed"))
        await tail.append(Event.end("closed"))
        generations = {name: row.generation for name, row in backbone.streams.rows.items()}
        loop = asyncio.get_running_loop()
        waiting = [loop.create_future() for _ in batches]
        for batch, answered in zip(batches, waiting, strict=True):
            backbone.append(batch_of(batch, generations), answered.set_result)
        answers = await asyncio.gather(*waiting)
        found = [
            (type(one), str(one)) if isinstance(one, FastsseError) else list(one) for one in answers
        ]
        rows = dict(backbone.streams.rows)
        await backbone.close()
    again = SqliteBackbone(str(path), config, "written", now_ms=Clock(), connect=Disk().connect)
    assert again.streams.rows == rows
    with_producers = again._file.connection.execute("SELECT * FROM producer").fetchall()
    await again.close()
    return [found, described(tail.entries), rows, sorted(with_producers)]


@settings(max_examples=20)
@given(batches)
def test_the_file_stores_columns_and_events_alike(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Append]]
) -> None:
    path = tmp_path_factory.mktemp("store")
    short, long = (
        asyncio.run(stored(path / f"{is_short}.db", batches, is_short=is_short))
        for is_short in (True, False)
    )
    assert short == long


def test_a_batch_with_appends_is_read_as_events_of_the_same() -> None:
    usual = [
        Append("private", DATA_TEXT, True, True, b"a", Producer(b"p", 1, 2, True), 3),
        Append("none", DATA_TEXT, True, False, None, None, 3),
    ]
    generations = {"private": 7 << 64}
    batch = batch_of(usual, generations)
    assert not is_plain(batch)
    assert not has_ends(batch)
    asked = [one.directives(generations) for one in usual]
    packed = pack_events(batch)
    assert [event.directives for event in unpack_events(packed)] == asked
    assert [event.directives for event in batch] == asked
    assert [event.private for event in batch] == [True, False]
    assert pack_events(batch) == packed == pack_events(list(batch))
    batch[0].direct(None)  # What is changed stays.
    assert is_plain(batch)


def test_a_number_of_a_producer_that_stands_twice_is_found() -> None:
    one, two = (
        Append("text", 0, True, True, None, Producer(b"p", 0, number, True), 3) for number in (0, 1)
    )
    plain = Append("text", 0, True, True, None, None, 3)
    assert has_repeated_numbers(batch_of([one, plain, one], {}))
    keyed = KeyedBatch(batch_of([one, one, plain], {}), [None, None, b"k"], [b"", b"", b"d" * 16])
    assert has_repeated_numbers(keyed)
    assert [event.directives is None for event in keyed] == [False, False, False]
    assert not has_repeated_numbers(batch_of([one, plain, two, plain], {}))
    assert not has_repeated_numbers([Event("a")])
