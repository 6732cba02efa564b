"""Damaged bytes of a file are never a true event: readers get a gap event where they lie."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastsse.backbone import Stretch
from fastsse.backbone.sqlite import HistoryError
from fastsse.backbone.sqlite.checking import check
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.places import place_of
from fastsse.backbone.sqlite.repair import repair
from fastsse.backbone.sqlite.transfer import export_lines, import_lines
from fastsse.config import Config
from fastsse.entries import Entry, pack_entry
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.subscriptions import Cursor
from tests.backbone.storage import TIMEOUT_S, opened, until
from tests.hub.backbone_contract import Tail, same

CONFIG = Config(history_age="3650d")
TOPICS = ("a", "b", "t/1", "t/2")
SELECTORS = {"*": set(TOPICS), "a": {"a"}, "b": {"b"}, "t/{n}": {"t/1", "t/2"}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def content(path: Path) -> bytes:
    return path.read_bytes()


def replace_content(path: Path, raw: bytes) -> None:
    """Writes a closed file again, without the files that belong to it."""
    for beside in ("-wal", "-shm", "-commits"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    path.write_bytes(raw)


async def filled(path: Path, count: int = 60) -> list[Entry]:
    """A file of that many events, closed; every fifth is private, every seventh has an own id."""
    async with opened(path, CONFIG) as tail:
        for index in range(count):
            topics = (TOPICS[index % 4],) if index % 6 else ("a", "t/1")
            own_id = f"own {index}" if index % 7 == 0 else None
            await tail.append(
                Event(topics, f"the data of {index}", id=own_id, private=index % 5 == 0)
            )
        return tail.entries


def damage_records(path: Path, entries: list[Entry], *indexes: int) -> None:
    """Flips a bit of what is stored of some events."""
    with sqlite3.connect(path) as connection:
        for index in indexes:
            record = bytearray(pack_entry(entries[index]))
            record[len(record) // 2] ^= 1
            changed = connection.execute(
                "UPDATE event SET record = ? WHERE place = ?",
                (bytes(record), place_of(entries[index].position)),
            )
            assert changed.rowcount == 1
    connection.close()


async def stretch(tail: Tail, selectors: tuple[str, ...], after: int, limit_bytes: int) -> Stretch:
    """One page. Raises what the backbone answers instead."""
    answer: asyncio.Future[Stretch | FastsseError] = asyncio.get_running_loop().create_future()
    tail.backbone.read(selectors, after, limit_bytes, answer.set_result)
    async with asyncio.timeout(TIMEOUT_S):
        outcome = await answer
    if isinstance(outcome, FastsseError):
        raise outcome
    return outcome


class Reader:
    """One who reads all that there is from a place on, as the hub does, page by page.

    Attributes:
        got: the entries.
        gaps: pairs of places: between them something may be missing.
    """

    def __init__(self, after: int = 0) -> None:
        self.after = after
        self.told_through = 0
        self.got: list[Entry] = []
        self.gaps: list[tuple[int, int]] = []

    async def read(self, tail: Tail, *selectors: str, limit_bytes: int = 1 << 20) -> None:
        while True:
            page = await stretch(tail, selectors, self.after, limit_bytes)
            assert page.is_last or page.through > self.after
            through = max(page.damaged_through, page.evicted_through)
            if through > max(self.after, self.told_through):
                self.gaps.append((self.after, through))
                self.told_through = through
            assert all(e.position > max(self.after, page.damaged_through) for e in page.entries)
            self.got += page.entries
            self.after = page.through
            if page.is_last:
                return

    def may_miss(self, position: int) -> bool:
        return any(after < position <= through for after, through in self.gaps)


async def test_a_damaged_record_is_a_gap_where_it_lies_for_all_who_may_have_read_it(
    path: Path,
) -> None:
    entries = await filled(path, 24)
    damaged = (0, 7, 8, 13, 23)
    damage_records(path, entries, *damaged)
    async with opened(path, CONFIG) as tail:
        start = entries[0].position - 1
        for limit_bytes in (1, 300, 1 << 20):
            for selector, topics in SELECTORS.items():
                reader = Reader(start)
                await reader.read(tail, selector, limit_bytes=limit_bytes)
                meant = [e for e in entries if not topics.isdisjoint(e.topics)]
                lost = {entries[index].position for index in damaged}
                whole = [entry for entry in meant if entry.position not in lost]
                assert len(reader.got) == len(whole)
                assert all(map(same, reader.got, whole))
                missed = {entry.position for entry in meant if entry.position in lost}
                assert all(map(reader.may_miss, missed))
                assert not any(reader.may_miss(entry.position) for entry in whole)
                assert {through for _, through in reader.gaps} <= missed
        assert tail.backbone.counters()["store_damaged"] == len(damaged)
        # Not where no damaged event is meant, and not for one who is past it.
        reader = Reader(entries[13].position)
        await reader.read(tail, "b")
        assert reader.gaps == []


async def test_an_own_id_of_a_damaged_event_is_not_found(path: Path) -> None:
    entries = await filled(path, 24)
    damage_records(path, entries, 7)
    with sqlite3.connect(path) as connection:  # The column next to the record is no proof.
        connection.execute(
            "UPDATE event SET own_id = ? WHERE place = ?",
            (b"own 13", place_of(entries[14].position)),
        )
    connection.close()
    async with opened(path, CONFIG) as tail:
        assert await tail.seek(("a",), Cursor("after", "own 0")) == entries[0].position
        for unknown in ("own 7", "own 13"):
            assert await tail.seek(("a",), Cursor("after", unknown)) is None
        assert tail.backbone.counters()["store_damaged"] == 2


async def test_an_event_that_stands_under_a_foreign_topic_or_place_is_not_served_there(
    path: Path,
) -> None:
    entries = await filled(path, 12)
    with sqlite3.connect(path) as connection:
        # One record in the place of another, and one row of a topic moved to another topic.
        connection.execute(
            "UPDATE event SET record = ? WHERE place = ?",
            (pack_entry(entries[1]), place_of(entries[5].position)),
        )
        connection.execute(
            "UPDATE topic_event SET topic = (SELECT number FROM topic WHERE name = 't/2')"
            " WHERE place = ?",
            (place_of(entries[4].position),),
        )
    connection.close()
    async with opened(path, CONFIG) as tail:
        for selector, topics in SELECTORS.items():
            reader = Reader()
            await reader.read(tail, selector)
            assert [e.topics for e in reader.got if topics.isdisjoint(e.topics)] == [], selector
            assert all(any(map(same, [entry] * 12, entries)) for entry in reader.got)
            if selector == "*" or "5" in selector:
                assert reader.may_miss(entries[5].position)


async def test_retention_goes_past_damaged_records(path: Path) -> None:
    entries = await filled(path, 24)
    damage_records(path, entries, *range(0, 24, 2))
    few = Config(history_events=1, history_age="3650d")
    async with opened(path, few) as tail:
        await until(lambda: tail.backbone.counters()["stored_events"] <= len(TOPICS))
    assert not any("counts" in problem for problem in check(str(path)).problems)


async def test_the_bound_on_the_whole_file_goes_past_damaged_records(path: Path) -> None:
    entries = await filled(path, 24)
    damage_records(path, entries, *range(0, 24, 2))
    async with opened(path, CONFIG, total_bytes=500) as tail:
        await until(lambda: tail.backbone.counters()["stored_bytes"] <= 500)
    assert not any("counts" in problem for problem in check(str(path)).problems)


async def test_pages_that_sqlite_cannot_read_are_a_gap_and_reading_goes_on_after_them(
    path: Path,
) -> None:
    async with opened(path, CONFIG) as tail:
        for index in range(200):
            await tail.append(Event("a" if index % 2 else "b", f"{index} " + "x" * 500))
        entries = tail.entries
    connection = sqlite3.connect(path)
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    raw = bytearray(content(path))
    # The page with an event of the middle, zeroed; it is a leaf of the tree of events.
    at = raw.index(b"100 xxxx") // page_bytes * page_bytes
    raw[at : at + page_bytes] = bytes(page_bytes)
    replace_content(path, raw)
    async with opened(path, CONFIG) as tail:
        for selector in ("*", "a", "b"):
            reader = Reader(entries[0].position - 1)
            async with asyncio.timeout(30):
                await reader.read(tail, selector, limit_bytes=4_096)
            got = {entry.position for entry in reader.got}
            assert all(any(map(same, [e] * len(entries), entries)) for e in reader.got[:3])
            missing = [
                entry
                for entry in entries
                if entry.position not in got and (selector == "*" or selector in entry.topics)
            ]
            assert 0 < len(missing) < 60
            assert all(reader.may_miss(entry.position) for entry in missing)
            assert entries[-1].position in got or entries[-2].position in got


def flips(seed: int, size: int) -> Iterator[int]:
    """1 to 20 random bits of so many bytes."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 20)):
        yield rng.randrange(size * 8)


async def examined(path: Path, entries: list[Entry]) -> list[Reader]:
    """Reads a damaged file in every way and checks that all that comes is true, and that nothing is
    missing without a word: a gap where it lies, or a loss that is reported to all at the start."""
    by_position = {entry.position: entry for entry in entries}
    readers = []
    async with opened(path, CONFIG) as tail:
        for selector, topics in SELECTORS.items():
            reader = Reader(entries[0].position - 1)
            try:
                await reader.read(tail, selector)
            except FastsseError:
                continue  # The store says that it can't be read, which is no silence.
            for entry in reader.got:
                assert entry.position in by_position, "a false id"
                assert same(entry, by_position[entry.position]), "a false event"
                assert not topics.isdisjoint(entry.topics), "an event of another topic"
            readers.append(reader)
            got = {entry.position for entry in reader.got}
            missing = [
                entry
                for entry in entries
                if not topics.isdisjoint(entry.topics) and entry.position not in got
            ]
            is_notified = all(reader.may_miss(entry.position) for entry in missing)
            assert is_notified or tail.broken, "a silent loss"
        for index in range(0, 60, 7):
            answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            tail.backbone.seek(("a",), Cursor("after", f"own {index}"), answer.set_result)
            place = await answer
            is_true = place in (None, entries[index].position)
            assert is_true or isinstance(place, FastsseError), "a false place"
    return readers


# Those from 1,000 on lost an event in silence once, or gave a page that did not move on.
@pytest.mark.parametrize("seed", [*range(24), 1007, 1017, 1107, 1154, 1447, 1491])
async def test_flipped_bits_anywhere_in_the_file_are_no_event(path: Path, seed: int) -> None:
    entries = await filled(path)
    raw = bytearray(content(path))
    for bit in flips(seed, len(raw)):
        raw[bit // 8] ^= 1 << bit % 8
    replace_content(path, raw)
    with contextlib.suppress(HistoryError):  # It does not start, and says why.
        await examined(path, entries)


async def test_flipped_bits_inside_of_records_are_never_a_silent_loss(path: Path) -> None:
    entries = await filled(path)
    whole, records = content(path), list(map(pack_entry, entries))
    rng = random.Random(35)
    for _ in range(15):
        raw = whole
        for record in rng.sample(records, rng.randint(1, 20)):
            damaged = bytearray(record)
            bit = rng.randrange(len(record) * 8)
            damaged[bit // 8] ^= 1 << bit % 8
            raw = raw.replace(record, damaged)  # Also where pages keep an old copy of it.
        replace_content(path, raw)
        readers = await examined(path, entries)
        assert len(readers) == len(SELECTORS)
        assert any(reader.gaps for reader in readers)


async def test_a_repair_keeps_what_is_whole_and_leaves_gaps_where_events_were(path: Path) -> None:
    entries = await filled(path, 24)
    damaged = (0, 7, 8, 13, 23)
    damage_records(path, entries, *damaged)
    assert sum("can't be read" in problem for problem in check(str(path)).problems) == len(damaged)
    repaired = repair(str(path))
    assert (repaired.kept, repaired.lost, repaired.is_torn) == (19, 5, False)
    assert len(check(repaired.backup).problems) > 0
    report = check(str(path))
    assert (report.problems, report.lost) == ([], 5)
    lines = list(export_lines(str(path)))
    copy = path.with_name("copy.db")
    file = HistoryFile(str(copy), lambda: 0)
    import_lines(file, lines, is_complete=True)
    file.close()
    lost = {entries[index].position for index in damaged}
    for each in (path, copy):
        async with opened(each, CONFIG) as tail:
            for selector, topics in SELECTORS.items():
                reader = Reader(entries[0].position - 1)
                await reader.read(tail, selector)
                meant = [entry for entry in entries if not topics.isdisjoint(entry.topics)]
                whole = [entry for entry in meant if entry.position not in lost]
                assert len(reader.got) == len(whole)
                assert all(map(same, reader.got, whole))
                missed = [entry for entry in meant if entry.position in lost]
                assert all(reader.may_miss(entry.position) for entry in missed)
                assert not any(reader.may_miss(entry.position) for entry in whole)
            (position,) = await tail.append(Event("a"))
            assert position > entries[-1].position
            assert tail.backbone.counters()["store_damaged"] == 0, "it is known by now"


async def test_a_repair_goes_round_pages_that_cannot_be_read(path: Path) -> None:
    async with opened(path, CONFIG) as tail:
        for index in range(200):
            await tail.append(Event("a" if index % 2 else "b", f"{index} " + "x" * 500))
        entries = tail.entries
    raw = bytearray(content(path))
    page_bytes = int.from_bytes(raw[16:18], "big")
    at = raw.index(b"100 xxxx") // page_bytes * page_bytes
    raw[at : at + page_bytes] = bytes(page_bytes)
    replace_content(path, bytes(raw))
    repaired = repair(str(path))
    assert repaired.is_torn
    assert 150 < repaired.kept < 200
    assert check(str(path)).problems == []
    async with opened(path, CONFIG) as tail:
        reader = Reader(entries[0].position - 1)
        await reader.read(tail, "*")
        got = {entry.position for entry in reader.got}
        assert len(got) == repaired.kept
        assert all(e.position in got or reader.may_miss(e.position) for e in entries)


async def test_a_repair_of_a_sound_file_changes_nothing_that_is_read(path: Path) -> None:
    await filled(path, 24)
    before = list(export_lines(str(path)))
    for count in (1, 2):
        repaired = repair(str(path))
        assert (repaired.kept, repaired.lost) == (24, 0)
        assert repaired.backup.endswith(".damaged" if count == 1 else ".damaged2")
    after = list(export_lines(str(path)))
    assert after[1:] == before[1:]
    async with opened(path, CONFIG):
        with pytest.raises(HistoryError, match="in use"):
            repair(str(path))
