"""What is evicted gives every reader a gap: against a model that keeps everything."""

import asyncio
import contextlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsse.backbone.sqlite.checkpoint import Checkpointer
from fastsse.backbone.sqlite.damage import Damage
from fastsse.backbone.sqlite.evictions import StoredEvictions
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.inserts import store_entries
from fastsse.backbone.sqlite.places import EVENT_COST_BYTES, PlaceClock, place_of, position_of
from fastsse.backbone.sqlite.queries import HistoryQueries
from fastsse.backbone.sqlite.retention import SqliteRetention
from fastsse.backbone.sqlite.schema import open_reading
from fastsse.backbone.sqlite.wake import Wake
from fastsse.backbone.sqlite.write_batch import StoreBatch
from fastsse.backbone.sqlite.writer import Writer, WriterLinks
from fastsse.config import Config, TopicLimits
from fastsse.entries import Entry, encode_entries, pack_entry
from fastsse.events import Event
from tests.backbone.storage import TIMEOUT_S, Clock, opened, until

NAMES = ("few", "small", "short", "plain", "none", "current")
CONFIG = Config(
    history_events=6,
    history_bytes="1MiB",
    history_age="1h",
    max_lag="1KiB",
    topics=[
        {"match": "few", "history_events": 2},
        {"match": "small", "history_bytes": "1KiB"},
        {"match": "short", "history_age": "10s"},
        {"match": "none", "history_events": 0},
        {"match": "current", "history_age": "10s", "keep_last": 2},
    ],
)


@dataclass
class Model:
    """All events ever, and what each topic keeps of them by the rules."""

    entries: list[Entry] = field(default_factory=list)
    kept: dict[str, list[Entry]] = field(default_factory=lambda: {name: [] for name in NAMES})

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        for name in entry.topics:
            self.kept[name].append(entry)

    def let_go(self, now_ms: int) -> None:
        for name, kept in self.kept.items():
            limits = CONFIG.limits(name)
            aged = (now_ms - round(limits.age_s * 1000)) << 64
            while kept and (
                len(kept) > limits.events
                or sum(map(cost, kept)) > limits.bytes
                or (kept[0].position <= aged and len(kept) > limits.keep_last)
            ):
                kept.pop(0)

    def follow(self, name: str, positions: list[int]) -> None:
        """The bound on all topics took more: the oldest, and nothing in between."""
        kept = [entry for entry in self.kept[name] if entry.position in positions]
        assert kept == self.kept[name][len(self.kept[name]) - len(kept) :]
        assert len(kept) == len(positions)
        self.kept[name] = kept

    def all_kept(self) -> list[Entry]:
        kept = {entry.position: entry for kept in self.kept.values() for entry in kept}
        return list(kept.values())


def cost(entry: Entry) -> int:
    return len(pack_entry(entry)) + EVENT_COST_BYTES


UNBOUNDED = 1 << 40
STEPS = st.lists(
    st.one_of(
        st.lists(
            st.tuples(
                st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
                st.integers(0, 400),
            ),
            min_size=1,
            max_size=6,
        ),
        st.sampled_from(["evict", "5s pass", "a day passes", "a day back", "reopen"]),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, total_bytes=st.sampled_from([2_000, UNBOUNDED]))
def test_each_topic_keeps_what_its_rule_says_and_every_loss_is_reported(
    tmp_path_factory: pytest.TempPathFactory, steps: list[object], total_bytes: int
) -> None:
    path, clock = tmp_path_factory.mktemp("model") / "history.db", Clock()
    model = Model()
    file = HistoryFile(str(path), clock)
    start = file.head
    retention = SqliteRetention(file, CONFIG.limits, total_bytes, clock)
    positions = PlaceClock(clock, file.head)
    try:
        for step in [*steps, "evict"]:
            if isinstance(step, list):
                events = [Event(topics, "x" * size) for topics, size in step]
                first = positions.take(len(events))
                entries = encode_entries(range(first, first + len(events)), events)
                with file.transaction(synced=False):
                    retention.note(store_entries(file, entries))
                for entry in entries:
                    model.add(entry)
            elif step == "reopen":
                file.close()
                file = HistoryFile(str(path), clock)
                retention = SqliteRetention(file, CONFIG.limits, total_bytes, clock)
            elif step == "evict":
                clock.ms += 1_000
                # A round finds what is too old, and the next steps let it go.
                while retention.step() or retention.round_is_due(clock.ms):
                    pass
                model.let_go(clock.ms)
                check(path, model, start, positions.last, total_bytes)
            else:
                clock.ms += {"5s pass": 5_000, "a day passes": 86_400_000}.get(
                    str(step), -86_400_000
                )
        assert file.state.events == len(model.all_kept())
        assert file.state.bytes == sum(map(cost, model.all_kept()))
    finally:
        file.close()


def check(path: Path, model: Model, start: int, head: int, total_bytes: int) -> None:
    """What is read is what is kept; and nothing that is gone lies above `evicted_through`."""
    connection = open_reading(str(path))
    reading = HistoryQueries(connection, StoredEvictions(), Damage(str(path)))
    try:
        if total_bytes < UNBOUNDED:
            for name in NAMES:
                stretch = reading.stretch((name,), 0, head, 1 << 20)
                model.follow(name, [entry.position for entry in stretch.entries])
            assert sum(map(cost, model.all_kept())) <= total_bytes
        for selectors in (*((name,) for name in NAMES), ("few", "small"), NAMES, ("*",)):
            stretch = reading.stretch(selectors, 0, head, 1 << 20)
            named = NAMES if selectors == ("*",) else selectors
            kept = {e.position for name in named for e in model.kept[name]}
            assert {entry.position for entry in stretch.entries} == kept
            gone = [
                entry.position
                for entry in model.entries
                if not set(named).isdisjoint(entry.topics)
                if any(entry not in model.kept[name] for name in entry.topics if name in named)
                if selectors != ("*",) or entry.position not in kept
            ]
            # Every loss is reported, and none that did not happen.
            assert stretch.evicted_through == max(gone, default=start)
    finally:
        connection.close()


async def test_topics_without_events_are_forgotten_and_their_readers_notified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastsse.backbone.sqlite.retention.REMEMBERED_MAX", 3)
    monkeypatch.setattr("fastsse.backbone.sqlite.retention.FORGET_ROUNDS", 1)
    clock, config = Clock(), Config(history_events=0, history_age="10s")
    path = tmp_path / "history.db"
    async with opened(path, config, now_ms=clock) as tail:
        for index in range(10):
            await tail.append(Event(f"t{index}"))
        counters = tail.backbone.counters
        await until(lambda: counters()["stored_events"] == 0)
    file = HistoryFile(str(path), clock)
    retention = SqliteRetention(file, config.limits, 0, clock)
    for _ in range(4):
        clock.ms += 2_000
        retention.step()
    (rows,) = file.connection.execute("SELECT count(*) FROM topic").fetchone()
    file.close()
    assert rows == 3
    async with opened(path, config, now_ms=clock) as tail:
        for index in range(10):
            assert (await tail.read((f"t{index}",), 0)).evicted_through > 0
        (position,) = await tail.append(Event("t0"))
        assert position > (await tail.read(("t0",), 0)).evicted_through - 1


async def test_stored_history_shrinks_under_load_and_stays_within_its_bound(
    tmp_path: Path,
) -> None:
    config = Config(history_events=100, history_age="1d")
    async with opened(tmp_path / "history.db", config) as tail:
        answers = [tail.append(*(Event("a", "x") for _ in range(50))) for _ in range(60)]
        for answer in answers:
            await answer
        # What is counted is committed a little later, so what can be read is asked.
        async with asyncio.timeout(TIMEOUT_S):
            while len(found := await tail.read_all(("a",), 0, 1 << 20)) > 100:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert tail.backbone.counters()["stored_events"] == 100
        assert [entry.position for entry in found] == tail.positions[-100:]
        assert (await tail.read(("a",), 0)).evicted_through == tail.positions[-101]


def test_the_newest_of_a_topic_outlast_those_of_others_until_they_alone_are_too_many(
    tmp_path: Path,
) -> None:
    path, clock = str(tmp_path / "history.db"), Clock()
    file = HistoryFile(path, clock)
    retention = SqliteRetention(file, CONFIG.limits, 1_800, clock)
    positions = PlaceClock(clock, file.head)
    connection = open_reading(path)
    reading = HistoryQueries(connection, StoredEvictions(), Damage(path))

    def publish(topic: str, count: int) -> list[int]:
        first = positions.take(count)
        places = range(first, first + count)
        entries = encode_entries(places, [Event(topic, "x" * 100)] * count)
        with file.transaction(synced=False):
            retention.note(store_entries(file, entries))
        while retention.step():
            pass
        return list(places)

    def kept(topic: str) -> list[int]:
        stretch = reading.stretch((topic,), 0, positions.last, 1 << 20)
        return [entry.position for entry in stretch.entries]

    try:
        current = publish("current", 3)
        for _ in range(5):
            plain = publish("plain", 6)
        assert kept("current") == current[1:]
        assert plain[-1] in kept("plain")
        assert file.state.bytes <= 1_800
        # The one that was spared only as one of the newest goes with the next.
        newer = publish("current", 1)
        assert kept("current") == [current[2], *newer]
        retention = SqliteRetention(file, CONFIG.limits, 300, clock)
        publish("plain", 1)
        assert file.state.bytes <= 300
    finally:
        connection.close()
        file.close()


def test_a_batch_lies_in_a_row() -> None:
    entries = encode_entries(range(5, 8), [Event("a")] * 3)
    assert list(StoreBatch((), entries, lambda _: None, None).positions) == [5, 6, 7]
    assert position_of(place_of(5)) == 5


class _Endless:
    """A retention whose rounds never end, and whose steps take 2 ms each."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.steps = 0
        self.is_behind = False

    def step(self) -> bool:
        self.steps += 1
        self.now_s += 0.002
        return True


def test_rounds_take_a_part_of_the_time_however_many_topics_there_are(tmp_path: Path) -> None:
    file = HistoryFile(str(tmp_path / "h.db"), Clock())
    endless: Any = _Endless()
    links = WriterLinks(
        lambda call: call(),
        lambda stored: None,
        contextlib.nullcontext,
        Wake(),
        lambda: endless.now_s,
    )
    checkpointer = Checkpointer(file.path, sqlite3.connect, links.wake)
    writer = Writer(file, endless, checkpointer, "written", links)
    try:
        while endless.now_s < 101:  # Publishers wake it each millisecond.
            assert 0 < writer._evict() <= 1
            endless.now_s += 0.001
        assert 10 < endless.steps <= 1 / 0.002 / 20
        # What is over its bounds does not wait.
        endless.steps, endless.is_behind = 0, True
        for _ in range(100):
            assert writer._evict() == 0
        assert endless.steps == 100
    finally:
        file.close()


def test_a_round_passes_durable_streams_by(tmp_path: Path) -> None:
    file = HistoryFile(str(tmp_path / "h.db"), Clock())
    asked: list[str] = []

    def limits(topic: str) -> TopicLimits:
        asked.append(topic)
        return CONFIG.limits(topic)

    retention = SqliteRetention(file, limits, 1 << 30, Clock())
    first = PlaceClock(Clock(), file.head).take(2)
    file.streams.topics["stream"] = None
    try:
        events = [Event(topic, "x") for topic in ("stream", "plain")]
        with file.transaction(synced=False):
            store_entries(file, encode_entries(range(first, first + 2), events))
        while retention.step() or retention.round_is_due(Clock().ms):
            pass
        assert asked == ["plain"]
    finally:
        file.close()
