"""Files as a source: rotations, restarts and kills lose no line and repeat none."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from fastsse.config import Config, ConfigError
from fastsse.events import Event
from fastsse.sources import Sources, file_tailer, followed_file
from fastsse.sources.file_places import FilePlaces
from fastsse.sources.file_tailer import Tailer, TailOptions
from tests.redis import cluster
from tests.redis.cluster import subscribers
from tests.sources.flows import until_metric
from tests.sources.test_contract import Log, running, until


class Place:
    """A folder with a log file and the places of a tailer."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.file = folder / "app.log"
        self.places = folder / "places.json"
        self.rule = {"files": [str(self.file)], "place": str(self.places)}

    def write(self, *lines: object) -> None:
        with self.file.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def rotate(self) -> None:
        """As logrotate: app.log becomes app.log.1, and so on."""
        for number in range(9, 0, -1):
            old = self.file.with_name(f"app.log.{number}")
            if old.exists():
                old.rename(self.file.with_name(f"app.log.{number + 1}"))
        self.file.rename(self.file.with_name("app.log.1"))
        self.file.touch()

    def empty(self) -> None:
        """As logrotate with copytruncate."""
        shutil.copy(self.file, self.file.with_name("app.log.1"))
        os.truncate(self.file, 0)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path)


class Tail:
    """A tailer and what it read; `all` acknowledges."""

    def __init__(self, place: Place, **options: Any) -> None:
        places = FilePlaces(str(place.places)).opened()
        self.tailer = Tailer(TailOptions([str(place.file)], **options), places)

    def all(self) -> list[str]:
        found: list[str] = []
        while lines := self.tailer.read():
            found += [line.payload.decode() for line in lines]
            self.tailer.acknowledge(lines)
        return found

    def look(self) -> None:
        """Has the next read look at names."""
        self.tailer._scanned_s = 0.0


@pytest.fixture
def tail(place: Place) -> Iterator[Tail]:
    place.write("first")
    made = Tail(place)
    yield made
    made.tailer.close()


def test_a_renamed_file_is_read_to_its_end_before_its_last_line_counts(
    place: Place, tail: Tail
) -> None:
    with place.file.open("a") as still_open:
        place.write("second")
        place.rotate()
        place.write("in the new one")
        still_open.write("late\n")
        still_open.flush()
        tail.look()
        assert tail.all() == ["first", "second", "late", "in the new one"]


def test_a_file_that_is_copied_and_emptied_loses_no_line(place: Place, tail: Tail) -> None:
    assert tail.all() == ["first"]
    place.write("second")
    place.empty()
    place.write("third, longer than all that was there before")
    found = tail.all()
    tail.look()
    found += tail.all()
    assert found == ["second", "third, longer than all that was there before"]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_folder_that_comes_back_brings_no_line_again(
    is_restarted: bool, tmp_path: pathlib.Path
) -> None:
    """An unmounted disk, away for longer than a rotated file is kept open."""
    folder, away = tmp_path / "logs", tmp_path / "away"
    folder.mkdir()
    place = Place(folder)
    place.places = tmp_path / "places.json"
    place.write("a", "b")
    tail = Tail(place, rotated_s=0.0)
    try:
        assert tail.all() == ["a", "b"]
        folder.rename(away)
        if is_restarted:
            tail.tailer.close()
            tail = Tail(place, rotated_s=0.0)
        for _ in range(3):
            tail.look()
            assert tail.all() == []
        assert tail.tailer.trouble is not None
        with (away / "app.log").open("a") as file:
            file.write("c\n")
        away.rename(folder)
        for line in ("c", "d"):
            tail.look()
            assert tail.all() == [line]
            place.write("d")
        tail.look()
        assert tail.all() == ["d"]
        assert tail.tailer.trouble is None
    finally:
        tail.tailer.close()


def test_another_file_in_the_folder_that_comes_back_is_read_from_its_beginning(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    place = Place(folder)
    place.places = tmp_path / "places.json"
    place.write("a", "b")
    first = Tail(place)
    assert first.all() == ["a", "b"]
    folder.rename(tmp_path / "away")
    first.tailer.close()
    tail = Tail(place)
    try:
        assert tail.all() == []
        folder.mkdir()
        place.write("x", "y", "z")
        tail.look()
        assert tail.all() == ["x", "y", "z"]
        assert "The rest of a file was not found" in caplog.text
    finally:
        tail.tailer.close()


def test_a_file_that_gets_its_name_back_brings_no_line_again(place: Place) -> None:
    place.write("a")
    other = place.file.with_name("app.log.old")
    tail = Tail(place, rotated_s=0.0)
    try:
        assert tail.all() == ["a"]
        place.file.rename(other)
        tail.look()
        assert tail.all() == []
        other.rename(place.file)
        for _ in range(3):
            tail.look()
            assert tail.all() == []
        place.write("b")
        assert tail.all() == ["b"]
    finally:
        tail.tailer.close()


def test_rotations_while_nothing_reads_are_caught_up_in_order(place: Place) -> None:
    place.write(0, 1)
    first = Tail(place)
    assert first.all() == ["0", "1"]
    first.tailer.close()
    for number in range(2, 10, 2):
        place.write(number)
        place.rotate()
        place.write(number + 1)
        # Times of files may be coarse.
        os.utime(place.file, ns=(0, 2_000_000_000 * 10**9 + number))
        os.utime(place.file.with_name("app.log.1"), ns=(0, 2_000_000_000 * 10**9 + number - 1))
    second = Tail(place)
    assert second.all() == [str(number) for number in range(2, 10)]
    second.tailer.close()


def test_lines_that_were_not_acknowledged_come_again_with_the_same_numbers(place: Place) -> None:
    place.write("a", "b", "c")
    first = Tail(place)
    lines = first.tailer.read()
    first.tailer.acknowledge(lines[:1])
    first.tailer.close()
    second = Tail(place)
    assert second.tailer.read() == lines[1:]
    second.tailer.close()


def test_a_rotated_file_whose_last_line_has_no_end_gives_it_out(place: Place) -> None:
    place.file.write_text("whole\npart")
    tail = Tail(place, rotated_s=0.0)
    assert tail.all() == ["whole"]
    place.rotate()
    tail.look()
    assert tail.tailer.read() == []
    assert tail.all() == ["part"]
    tail.tailer.read()
    assert [saved.path for saved in tail.tailer._places_now()] == [str(place.file)]
    tail.tailer.close()


def test_latest_begins_with_the_line_that_is_written_now(place: Place) -> None:
    place.file.write_text("old\nold\nbeg")
    tail = Tail(place, starts_behind=True)
    place.file.open("a").write("un\n")
    assert tail.all() == ["begun"]
    tail.tailer.close()


def test_a_line_without_an_end_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_tailer, "LINE_BYTES_MAX", 1_000_000)
    with place.file.open("w") as file:
        file.write("x" * 20_000_000 + "\nnext\n")
    tail = Tail(place)
    lengths: list[int] = []
    lines: list[str] = []
    while len(lines) < 2:
        got = tail.tailer.read()
        lengths.append(sum(file.held_bytes for file in tail.tailer._all()))
        lines += [line.payload.decode() for line in got]
    assert max(lengths) <= 3_100_000
    assert 1_000_000 < len(lines[0]) <= 3_100_000
    assert lines[1] == "next"
    tail.tailer.close()


def test_many_unfinished_lines_share_a_bound(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_tailer, "HELD_BYTES_MAX", 1_000_000)
    monkeypatch.setattr(file_tailer, "HELD_LINE_BYTES_MAX", 1_000)
    for number in range(20):
        place.file.with_name(f"app{number}.log").write_text("x" * 500_000)
    pattern = str(place.file.with_name("app*.log"))
    tailer = Tailer(TailOptions([pattern]), FilePlaces(None))
    for _ in range(40):
        tailer.read()
    assert sum(file.held_bytes for file in tailer._all()) < 2_000_000
    tailer.close()


async def test_a_second_reader_of_the_same_places_is_refused(place: Place) -> None:
    place.write("one")
    log, second = Log(), Log()
    system: Any = place
    async with running(system, log):
        await until(lambda: len(log.events) == 1)
        async with running(system, second) as sources:
            await until(lambda: sources.states()[0]["state"] == "away")
            assert "another process" in sources.states()[0]["trouble"]
    assert second.events == []


async def test_places_that_cannot_be_kept_stop_the_source_and_say_why(
    place: Place, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    place.rule["place"] = str(folder / "places.json")
    place.write("one")
    log = Log()
    system: Any = place
    async with running(system, log) as sources:
        await until(lambda: len(log.events) == 1)
        shutil.rmtree(folder)
        place.write("two")
        await until(lambda: sources.states()[0]["state"] == "away")
        assert "places.json" in sources.states()[0]["trouble"]
        folder.mkdir()
        await until(lambda: sources.states()[0]["state"] == "ready")


async def test_wildcards_find_new_files_and_fill_templates(tmp_path: pathlib.Path) -> None:
    (tmp_path / "shop.log").write_text("a\n")
    given = {
        "name": "f",
        "files": [str(tmp_path / "*.log")],
        "topic": "logs/{1}",
        "meta": {"file": "{file}"},
    }
    log = Log()
    sources = Sources(Config(sources=[given]), log.publish)
    sources.begin()
    await until(lambda: len(log.events) == 1)
    (tmp_path / "cart.log").write_text("b\n")
    await until(lambda: len(log.events) == 2)
    await sources.close()
    assert [event.topics for event in log.events] == [("logs/shop",), ("logs/cart",)]
    assert json.loads(log.events[1].meta or b"") == {"file": str(tmp_path / "cart.log")}


def test_a_durable_store_needs_a_place(tmp_path: pathlib.Path) -> None:
    given = {"name": "f", "files": ["x.log"], "topic": "t"}
    with pytest.raises(ConfigError, match="place"):
        Config(sources=[given], store=f"sqlite:{tmp_path}/h.db")


async def test_rotations_under_load_lose_nothing(place: Place) -> None:
    place.file.touch()
    log = Log()
    system: Any = place
    count = 20_000
    async with running(system, log):
        place.write(*range(500))
        # From now on the file is known.
        await until(lambda: len(log.events) == 500)
        for first in range(500, count, 500):
            place.write(*range(first, first + 500))
            if first % 2_000 == 1_500:
                place.rotate()
            await asyncio.sleep(0)
        await until(lambda: len(log.events) >= count, lambda: len(log.events))
    assert _numbers(log.events) == list(range(count))


def _numbers(events: list[Event]) -> list[int]:
    return [int(event.data) for event in events]


async def test_kills_of_the_server_lose_and_repeat_no_line(
    place: Place, tmp_path: pathlib.Path
) -> None:
    options = tmp_path / "fastsse.toml"
    options.write_text(
        f'[[sources]]\nname = "f"\nfiles = ["{place.file}"]\nplace = "{place.places}"\n'
        'topic = "t"\n'
    )
    flags = ("--config", str(options), "--history-events", "100000")
    store = f"sqlite:{tmp_path}/history.db"
    total = 12_000
    place.write(*range(total // 3))
    for part in (1, 2):
        async with cluster.doomed(store, *flags) as service:
            await until_metric(service.url, "fastsse_stored_events", part * 1_500)
            service.signal(signal.SIGKILL)
            await service.ended()
        place.write(*range(part * total // 3, part * total // 3 + total // 6))
        place.rotate()
        place.write(*range(part * total // 3 + total // 6, (part + 1) * total // 3))
    async with (
        cluster.doomed(store, *flags) as service,
        subscribers([service.url], last_event_id="earliest") as (reader,),
    ):
        await until(lambda: len(reader.seen) >= total, lambda: len(reader.seen))
        assert [int(text) for text in reader.seen] == list(range(total))


def test_the_longest_kept_line_is_what_dead_letters_keep() -> None:
    from fastsse.sources import deadletters

    assert followed_file.LINE_BYTES_MAX == deadletters.PAYLOAD_BYTES_MAX
