"""Rows of durable streams that are written late: a process that is killed at any moment loses none
of them, and readers never see a file without them."""

import asyncio
import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from fastsse.backbone.sqlite import SqliteBackbone, late_rows, writer
from fastsse.backbone.sqlite.checking import check
from fastsse.backbone.sqlite.repair import repair
from fastsse.config import Config
from fastsse.directives import Directives, Producer, producer_key
from fastsse.entries import EventBatch
from fastsse.errors import Conflict, FastsseError, Unavailable
from fastsse.events import DATA_BYTES, DATA_JSON, Event
from fastsse.streamstate import Segment, StreamAsk, StreamConfig, StreamRow
from fastsse.subscriptions import Cursor
from tests.backbone.storage import NO_ROOM, Clock, Disk, abandon, opened, until
from tests.hub.backbone_contract import TEXT_STREAM, Tail, of_stream, to_stream

JSON_STREAM = StreamConfig("application/json")
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def never_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause is long enough to write rows."""
    monkeypatch.setattr(writer, "ROWS_IDLE_S", 1e9)


def rows_in(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def places_of(path: Path, topic: str) -> int:
    """How many events the file says that a topic keeps; its tree says the same."""
    ((events, size_bytes, count, total_bytes),) = rows_in(
        path,
        "SELECT topic.events, topic.bytes, count(*), sum(topic_event.bytes)"
        f" FROM topic JOIN topic_event ON topic = number WHERE name = '{topic}'",
    )
    assert (events, size_bytes) == (count, total_bytes)
    return int(str(count))


def rows(tail: Tail) -> dict[str, StreamRow]:
    """All rows, but for when each stream was read or appended to last."""
    backbone = tail.backbone
    assert isinstance(backbone, SqliteBackbone)
    return {topic: row._replace(touched_ms=0) for topic, row in backbone.streams.rows.items()}


@pytest.mark.usefixtures("never_idle")
async def test_appends_to_many_streams_write_rows_together_and_readers_find_them(
    path: Path,
) -> None:
    async with opened(path) as tail:
        made = [await tail.append(of_stream("create", name)) for name in NAMES]
        for name, (generation,) in zip(NAMES, made, strict=True):
            await tail.append(to_stream(name, generation, "one"), to_stream(name, generation, "2"))
        assert {places_of(path, name) for name in NAMES} == {1}
        found = await tail.read(("a",), made[0][0])
        assert [entry.topics for entry in found.entries] == [("a",), ("a",)]
        # Of this topic alone: a reader does not have all of them written.
        assert [places_of(path, name) for name in NAMES] == [3, 1, 1, 1]
        assert await tail.seek(("b",), Cursor("last", 1)) == tail.entries[7].position - 1
        assert [places_of(path, name) for name in NAMES] == [3, 3, 1, 1]
        assert len((await tail.read(("*",), tail.backbone.start)).entries) == 12
        assert places_of(path, "c") == 1
        assert len((await tail.read(("{x}",), tail.backbone.start)).entries) == 12
        assert [places_of(path, name) for name in NAMES] == [3] * 4
    assert not check(str(path)).problems


@pytest.mark.usefixtures("never_idle")
@pytest.mark.parametrize("bounds", [(1, 1), (5, 1), (9, 2), (1 << 20, 1 << 20)])
@pytest.mark.parametrize("seed", range(6))
async def test_streams_are_the_same_after_a_kill_at_any_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, bounds: tuple[int, int]
) -> None:
    monkeypatch.setattr(late_rows, "ROUND_EVENTS", bounds[0])
    monkeypatch.setattr(late_rows, "STEP_STREAMS", bounds[1])
    monkeypatch.setattr(writer, "TIDY_EVERY_S", 0)
    luck, clock, expected, contents = random.Random(seed), Clock(), {}, {}
    for _ in range(4):
        async with opened(path, now_ms=clock) as tail:
            assert rows(tail) == expected
            assert not check(str(path)).problems
            for name, texts in contents.items():
                assert await content(tail, name) == texts
            for _ in range(luck.randrange(40)):
                clock.ms += luck.randrange(3)
                await change(tail, luck, clock)
            expected = rows(tail)
            # What was dropped is removed later.
            contents = {name: await content(tail, name) for name in expected if luck.random() < 0.4}
            if luck.random() < 0.8:
                abandon(tail)


async def append_columns(tail: Tail, *appends: Event) -> list[int]:
    """As `Tail.append`, appends as the server has them: in columns."""
    batch = EventBatch()
    for event in appends:
        batch.add(event.topics, event.data, event.data_kind, asked=event.directives)
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    tail.backbone.append(batch, answer.set_result)
    outcome = await answer
    if isinstance(outcome, FastsseError):
        raise outcome
    return list(outcome)


@pytest.mark.usefixtures("never_idle")
async def test_appends_in_columns_are_stored_as_others_are(path: Path, tmp_path: Path) -> None:
    files = (path, tmp_path / "other.db")
    for file, append in zip(files, (append_columns, Tail.append), strict=True):
        async with opened(file) as tail:
            (generation,) = await tail.append(of_stream("create", "a"))
            numbered = Directives(
                stream=StreamAsk("append", generation, b"7"),
                producer=Producer(producer_key("", b"p"), 0, 0),
            )
            events = [to_stream("a", generation, text) for text in ("", "one\ntwo", "é" * 9000)]
            await append(tail, *events, Event("a", "n", directives=numbered))
            (found,) = [await tail.read(("a",), generation)]
            assert len(found.entries) == 4
            abandon(tail)
    stored = [
        rows_in(file, "SELECT own_id, hex(record) FROM event ORDER BY place") for file in files
    ]
    assert stored[0] == stored[1]
    assert places_of(files[0], "a") == places_of(files[1], "a") == 5


@pytest.mark.usefixtures("never_idle")
async def test_programs_of_before_refuse_a_file_while_rows_are_missing(path: Path) -> None:
    def version() -> object:
        ((found,),) = rows_in(path, "PRAGMA user_version")
        return found

    async with opened(path) as tail:
        (generation,) = await tail.append(of_stream("create", "a"))
        assert version() == 2
        await append_columns(tail, to_stream("a", generation))
        assert version() == 3
        await tail.read(("a",), generation)
        assert version() == 2
        await tail.append(to_stream("a", generation))
        abandon(tail)
    assert version() == 3
    assert check(str(path)).problems == []
    async with opened(path) as tail:
        assert version() == 2
        await append_columns(tail, to_stream("a", generation))
    assert version() == 2


def test_a_round_has_each_stream_once_in_the_order_of_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late_rows, "SORTED_NAMES", 3)
    monkeypatch.setattr(late_rows, "STEP_STREAMS", 4)
    late = late_rows.LateRows()
    names = [f"{number * 7 % 20:02}" for number in range(20)]
    for name in names[:15]:
        late.add(name, 1, 10)
    late.note(1, 15, 150)
    found = []
    while late.finished_through() is None:
        found += late.next_topics(names[10:])
    assert found == sorted(names)


@pytest.mark.parametrize(("streams", "events"), [(1, 65_536), (4096, 65_536), (9000, 144_000)])
def test_with_many_streams_more_events_share_the_rows(streams: int, events: int) -> None:
    late = late_rows.LateRows()
    for number in range(streams):
        late.add(str(number), 1, 10)
    late.note(1, events - 1, 0)
    assert not late.are_due
    late.note(1, 1, 0)
    assert late.are_due


async def content(tail: Tail, name: str) -> list[bytes]:
    found = await tail.read_all((name,), 0, 1 << 20)
    return [entry.frame.body for entry in found if entry.frame.events]


async def change(tail: Tail, luck: random.Random, clock: Clock) -> None:
    """Something that happens to streams. A refusal is as good as a success."""
    name, other = luck.sample(NAMES, 2)
    row, source = await tail.stream(name), await tail.stream(other)
    generation = 0 if row is None else row.generation
    kind = DATA_JSON if row is not None and row.config.kind == "json" else 0
    producer = Producer(producer_key("", b"p"), luck.randrange(2), luck.randrange(20))
    asks = StreamAsk("append", generation, luck.choice((None, None, b"%03d" % luck.randrange(999))))
    data = luck.choice(("", "1", '"x\\n"', "[1,\n2]", " 7 "))
    append = Event(name, data, data_kind=kind, directives=Directives(stream=asks))
    if row is None:
        events = [of_stream("create", name, config=luck.choice((TEXT_STREAM, JSON_STREAM)))]
        if source is not None and luck.random() < 0.5:
            part = Segment(other, source.generation, source.tail)
            config = source.config._replace(
                source=other, source_generation=source.generation, segments=(part,)
            )
            events = [of_stream("create", name, config=config)]
    else:
        events = luck.choice(
            (
                [append],
                [append, Event(name, "3", data_kind=DATA_JSON)],
                [Event(name, data, data_kind=kind, directives=Directives(producer=producer))],
                [Event((name, other, "plain"), "5", data_kind=DATA_JSON)],
                [Event(name, "Zm9v", data_kind=DATA_BYTES)] if not kind else [append],
                [append, Event.end(name)] if luck.random() < 0.3 else [append],
                [of_stream("hide" if row.forks else "drop", name, generation)],
            )
        )
    with suppress(FastsseError):
        if events == [append] and luck.random() < 0.6:
            await append_columns(tail, *[append] * luck.randrange(1, 4))
        else:
            await tail.append(*events)
    if luck.random() < 0.2 and generation:
        tail.backbone.touch_stream(name, generation)


@pytest.mark.usefixtures("never_idle")
async def test_a_repeat_of_a_producer_and_an_old_sequence_are_known_after_a_kill(
    path: Path,
) -> None:
    key = producer_key("", b"p")
    numbered = Event("a", "n", directives=Directives(producer=Producer(key, 1, 7)))
    async with opened(path) as tail:
        (generation,) = await tail.append(of_stream("create", "a"))
        (first,) = await tail.append(numbered)
        await tail.append(to_stream("a", generation, seq=b"5"))
        abandon(tail)
    async with opened(path) as tail:
        again = Event("a", "n", directives=Directives(producer=Producer(key, 1, 7)))
        assert list(await tail.append(again)) == [first]
        with pytest.raises(Conflict):
            await tail.append(to_stream("a", generation, seq=b"5"))


@pytest.mark.usefixtures("never_idle")
async def test_time_to_live_goes_on_from_the_last_append_after_a_kill(path: Path) -> None:
    clock, config = Clock(), TEXT_STREAM._replace(ttl_s=60)
    async with opened(path, now_ms=clock) as tail:
        (generation,) = await tail.append(of_stream("create", "a", config=config))
        clock.ms += 50_000
        await tail.append(to_stream("a", generation))
        abandon(tail)
    clock.ms += 30_000
    async with opened(path, now_ms=clock) as tail:
        row = await tail.stream("a")
        assert row is not None
        assert not row.is_expired(clock.ms)
        assert row.is_expired(clock.ms + 30_000)


@pytest.mark.usefixtures("never_idle")
async def test_a_commit_that_fails_loses_no_row_of_an_earlier_one(path: Path) -> None:
    disk = Disk()
    async with opened(path, connect=disk.connect) as tail:
        (generation,) = await tail.append(of_stream("create", "a"))
        await tail.append(to_stream("a", generation))
        disk.fail(NO_ROOM)
        with pytest.raises(Unavailable):
            await tail.append(to_stream("a", generation))
        # It can't be read while rows can't be written, rather than without its newest events.
        refused: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        tail.backbone.read(("a",), generation, 1 << 20, refused.set_result)
        assert isinstance(await refused, Unavailable)
        disk.repair()
        await until(lambda: tail.backbone.trouble is None)
        (last,) = await tail.append(to_stream("a", generation))
        expected = rows(tail)
        assert expected["a"].tail == last
        assert len((await tail.read(("a",), generation)).entries) == 2
        abandon(tail)
    async with opened(path) as tail:
        assert rows(tail) == expected
    assert not check(str(path)).problems


@pytest.mark.usefixtures("never_idle")
async def test_a_full_store_never_evicts_content_whose_rows_are_late(path: Path) -> None:
    async with opened(path, total_bytes=20_000) as tail:
        (generation,) = await tail.append(of_stream("create", "a"))
        for number in range(120):
            await tail.append(to_stream("a", generation, "x" * 100))
            await tail.append(Event("plain", "y" * 100, id=f"{number}"))
        counters = tail.backbone.counters()
        await until(lambda: tail.backbone.counters()["store_evicted"] > 0)
        assert counters["streams_kept"] == 1
        assert len(await tail.read_all(("a",), generation, 1 << 20)) == 120


@pytest.mark.usefixtures("never_idle")
async def test_a_damaged_event_without_a_row_is_a_gap_for_every_reader(path: Path) -> None:
    async with opened(path) as tail:
        (generation,) = await tail.append(of_stream("create", "a"))
        (last,) = await tail.append(to_stream("a", generation))
        abandon(tail)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE event SET record = zeroblob(80) WHERE place = (SELECT max(place) FROM event)"
        )
    async with opened(path) as tail:
        for selectors in (("a",), ("*",)):
            assert (await tail.read(selectors, generation)).evicted_through >= last
    assert check(str(path)).problems


@pytest.mark.usefixtures("never_idle")
async def test_a_repaired_file_has_all_that_is_known_of_streams(path: Path) -> None:
    key = producer_key("", b"p")
    numbered = Event("a", "n", directives=Directives(producer=Producer(key, 1, 7)))
    async with opened(path) as tail:
        (generation,) = await tail.append(of_stream("create", "a"))
        (first,) = await tail.append(numbered)
        await tail.append(to_stream("a", generation, "two\nlines"))
        await tail.append(of_stream("create", "b", config=JSON_STREAM))
        await tail.append(Event.end("b"))
        expected = rows(tail)
        abandon(tail)
    repair(str(path))
    assert not check(str(path)).problems
    async with opened(path) as tail:
        assert rows(tail) == expected
        assert len((await tail.read(("a",), generation)).entries) == 2
        again = Event("a", "n", directives=Directives(producer=Producer(key, 1, 7)))
        assert list(await tail.append(again)) == [first]
        with pytest.raises(Conflict):
            await tail.append(Event("b", "1", data_kind=DATA_JSON))


async def test_rows_are_written_in_a_pause(path: Path) -> None:
    async with opened(path) as tail:
        (generation,) = await tail.append(of_stream("create", "a"))
        await tail.append(to_stream("a", generation))
        await until(lambda: places_of(path, "a") == 2)
        ((through,),) = rows_in(path, "SELECT value FROM meta WHERE key = 'rows_through'")
        assert through == rows_in(path, "SELECT max(place) FROM event")[0][0]


async def test_a_file_without_late_rows_is_used_as_it_is(path: Path) -> None:
    async with opened(path) as tail:
        (generation,) = await tail.append(of_stream("create", "a"))
        await tail.append(to_stream("a", generation))
        expected = rows(tail)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'rows_through'")
    async with opened(path, Config()) as tail:
        assert rows(tail) == expected
        assert len((await tail.read(("a",), generation)).entries) == 1
