# ruff: noqa: ASYNC240 — files are what these tests are about.
"""A disk that fails: publishers are refused and keep their events, nothing false is acknowledged,
and all goes on by itself when the cause is gone."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fastsse.backbone.sqlite import Ack, HistoryError, SqliteBackbone
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.judging import judge_batches
from fastsse.backbone.sqlite.places import position_of
from fastsse.backbone.sqlite.write_batch import StoreBatch
from fastsse.config import Config
from fastsse.directives import END, Directives, RequestKey
from fastsse.entries import encode_entries
from fastsse.errors import Unavailable
from fastsse.events import Event
from tests.backbone.storage import (
    BAD_SECTOR,
    NO_ROOM,
    NOT_SYNCED,
    Clock,
    Disk,
    append,
    opened,
    until,
)
from tests.hub.backbone_contract import Tail

FAULTS = pytest.mark.parametrize(
    ("code", "words"),
    [
        (NO_ROOM, "the disk is full"),
        (BAD_SECTOR, "the disk fails: input/output error"),
        (NOT_SYNCED, "the disk fails: what was written may not have reached it"),
        (sqlite3.SQLITE_BUSY, "another program has locked the file"),
        (sqlite3.SQLITE_CORRUPT, "the file is damaged"),
    ],
    ids=["full", "io", "fsync", "busy", "corrupt"],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@FAULTS
@pytest.mark.parametrize("is_after", [False, True], ids=["refused", "done and reported as failed"])
async def test_while_the_disk_fails_publishers_are_refused_and_nothing_is_delivered(
    path: Path, code: int, words: str, is_after: bool
) -> None:
    disk = Disk()
    async with opened(path, ack="synced", connect=disk.connect) as tail:
        kept = await tail.append(Event("a", "before"))
        disk.fail(code, is_after=is_after)
        with pytest.raises(Unavailable) as caught:
            await tail.append(Event("a", "meanwhile"), Event("b"))
        assert (caught.value.reason, tail.backbone.trouble) == ("backbone", words)
        with pytest.raises(Unavailable):
            await tail.append(Event("a", "still"))
        if code != sqlite3.SQLITE_CORRUPT:
            assert len(await tail.read_all(("a",), 0, 1 << 20)) == 1
        disk.repair()
        await until(lambda: tail.backbone.trouble is None)
        kept += await tail.append(Event("a", "after"))
        assert tail.positions == kept
        found = await tail.read_all(("*",), 0, 1 << 20)
        if code != sqlite3.SQLITE_FULL and is_after:
            assert [entry.position for entry in found] == kept
    async with opened(path) as tail:
        found = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in found][-1] == kept[-1]


async def test_what_was_acknowledged_as_received_is_stored_when_the_disk_is_back(
    path: Path,
) -> None:
    disk = Disk()
    async with opened(path, ack="received", connect=disk.connect) as tail:
        await tail.append(Event("a", "0"))
        disk.fail(NOT_SYNCED, is_after=True)
        told = [await tail.append(Event("a", str(index))) for index in range(1, 4)]
        await until(lambda: tail.backbone.trouble is not None)
        with pytest.raises(Unavailable):
            await tail.append(Event("a", "refused"))
        disk.repair()
        await until(lambda: tail.backbone.trouble is None)
        assert len(told) == 3
        await tail.append(Event("a", "4"))
        positions = tail.positions
    async with opened(path) as tail:
        found = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in found] == positions
        assert len(positions) == 5


async def test_a_batch_that_was_refused_can_be_sent_again_under_its_key(path: Path) -> None:
    disk = Disk()
    async with opened(path, ack="synced", connect=disk.connect) as tail:
        await tail.append(Event("a"))
        disk.fail(NOT_SYNCED, is_after=True)
        with pytest.raises(Unavailable):
            await append(tail, Event("a", "once"), key=(b"w", 1))
        disk.repair()
        await until(lambda: tail.backbone.trouble is None)
        again = await append(tail, Event("a", "once"), key=(b"w", 1))
        found = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in found][1:] == again


ASKED_ONCE = pytest.mark.parametrize(
    "asked",
    [
        Directives(key=b"k"),
        Directives(request=RequestKey(b"k", b"digest", 1)),
        Directives(control=END),
    ],
    ids=["key", "request", "end"],
)


@ASKED_ONCE
@pytest.mark.parametrize("code", [NOT_SYNCED, sqlite3.SQLITE_BUSY], ids=["fsync", "busy"])
async def test_an_event_that_was_refused_is_not_known_by_its_key(
    path: Path, code: int, asked: Directives
) -> None:
    disk = Disk()

    def once() -> Event:
        event = Event("a", "" if asked.control else "once")
        event.direct(asked)
        return event

    config = Config(key_window=60)
    async with opened(path, config, ack="synced", connect=disk.connect) as tail:
        await tail.append(Event("a"))
        disk.fail(code, is_after=True)
        with pytest.raises(Unavailable):
            await tail.append(once())
        disk.repair()
        await until(lambda: tail.backbone.trouble is None)
        again = await tail.append(once())
        assert tail.positions[1:] == list(again)
        found = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in found][1:] == list(again)


async def test_keys_of_a_transaction_that_failed_are_not_stored_with_the_next(path: Path) -> None:
    file = HistoryFile(str(path), Clock())
    file.keys.window_ms, file.keys.total_bytes = 60_000, 1 << 20

    def batch(n: int, asked: Directives | None) -> StoreBatch:
        event = Event("a", str(n))
        event.direct(asked)
        entries = encode_entries([position_of(n)], [event], 0)
        return StoreBatch([event], entries, lambda outcome: None, None)

    class Failing(list[Event]):
        def __iter__(self) -> Iterator[Event]:
            raise sqlite3.OperationalError("injected")

    with closing(file):
        broken = batch(2, Directives(key=b"other"))
        broken.events = Failing(broken.events)  # type: ignore[misc]
        with pytest.raises(sqlite3.OperationalError), file.transaction(synced=False):
            judge_batches(file, [batch(1, Directives(key=b"k")), broken])
        with file.transaction(synced=False):
            judge_batches(file, [batch(3, None)])
        file.keys.begin(file.connection)
        assert file.keys.find(b"k") is None


async def test_a_sync_that_failed_is_not_tried_again_on_the_same_log(path: Path) -> None:
    disk, log = Disk(), path.with_name("history.db-wal")
    async with opened(path, ack="synced", connect=disk.connect) as tail:
        (first,) = await tail.append(Event("a", "1"))
        before = log.stat().st_ino
        disk.fail(NOT_SYNCED, is_after=True)
        with pytest.raises(Unavailable):
            await tail.append(Event("a", "2"))
        disk.repair()
        await until(lambda: tail.backbone.trouble is None)
        assert log.stat().st_ino != before
        (last,) = await tail.append(Event("a", "3"))
        found = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in found] == [first, last]


async def test_a_file_that_is_taken_away_is_missed_and_welcome_when_it_is_back(
    path: Path,
) -> None:
    async with opened(path) as tail:
        await tail.append(Event("a", "1"))
        away = path.with_name("away")
        path.rename(away)
        with pytest.raises(Unavailable):
            await tail.append(Event("a", "2"))
        assert tail.backbone.trouble == "the file is gone from its place"
        away.rename(path)
        await until(lambda: tail.backbone.trouble is None)
        await tail.append(Event("a", "3"))
        assert len(await tail.read_all(("a",), 0, 1 << 20)) == 2


async def test_an_older_copy_in_its_place_is_owned_up_to(path: Path) -> None:
    copy = path.with_name("copy")
    async with opened(path) as tail:
        (first,) = await tail.append(Event("a", "1"))
    shutil.copy(path, copy)
    async with opened(path) as tail:
        (lost,) = await tail.append(Event("a", "2"))
        path.rename(path.with_name("away"))
        with pytest.raises(Unavailable):
            await tail.append(Event("a", "refused"))
        for beside in ("history.db-wal", "history.db-shm"):
            path.with_name(beside).unlink(missing_ok=True)
        copy.rename(path)
        await until(lambda: tail.backbone.trouble is None)
        (position,) = await tail.append(Event("a", "3"))
        assert first < lost < position
        stretch = await tail.read(("a",), first - 1)
        kept = [entry.position for entry in stretch.entries]
        # A try to reopen between our steps puts the log back, and with it all is there again.
        if tail.broken:
            assert (tail.broken, kept) == ([("lost", lost)], [first, position])
            assert stretch.evicted_through == lost
        else:
            assert kept == [first, lost, position]


async def test_another_program_may_read_and_hold_the_file_for_a_moment(path: Path) -> None:
    async with opened(path) as tail:
        await tail.append(Event("a", "1"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            assert other.execute("SELECT count(*) FROM event").fetchone() == (1,)
            other.execute("BEGIN IMMEDIATE")
            answer = tail.append(Event("a", "2"))
            other.execute("ROLLBACK")
        await answer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def fill(tail: Tail) -> None:
    for _ in range(200):
        await tail.append(Event("a", "x" * 10_000))


@pytest.mark.parametrize("ack", ["written", "synced"])
async def test_a_full_disk_refuses_and_recovers_when_there_is_room(
    small_disk: Path, ack: Ack
) -> None:
    other = small_disk / "somebody else's"
    async with opened(small_disk / "history.db", ack=ack) as tail:
        await tail.append(Event("a", "first"))
        other.write_bytes(bytes(600_000))
        with pytest.raises(Unavailable):
            await fill(tail)
        assert tail.backbone.trouble == "the disk is full"
        stored = await tail.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in stored] == tail.positions
        other.unlink()
        await until(lambda: tail.backbone.trouble is None)
        await tail.append(Event("a", "last"))
    async with opened(small_disk / "history.db") as after:
        stored = await after.read_all(("a",), 0, 1 << 20)
        assert [entry.position for entry in stored] == tail.positions


def refusal(path: Path) -> str:
    """Why a file can't be opened; in one line."""
    with pytest.raises(HistoryError) as caught:
        SqliteBackbone(str(path), Config(), now_ms=Clock())
    text = str(caught.value)
    assert text.startswith(f"History {path} ")
    assert "\n" not in text
    return text


async def test_a_directory_is_no_history(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)
    assert "there is no directory" in refusal(tmp_path / "none" / "history.db")


async def test_a_pipe_is_no_history(path: Path) -> None:
    os.mkfifo(path)
    assert "is not a regular file" in refusal(path)


async def test_other_files_are_left_alone(path: Path) -> None:
    path.write_bytes(b"a letter to a friend\n" * 400)
    assert "is no database" in refusal(path)
    assert path.read_bytes().startswith(b"a letter")
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    assert "belongs to another program" in refusal(path)


async def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    async with opened(path) as tail:
        await tail.append(Event("a"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    assert "was written by a newer fastsse (version 99" in refusal(path)


async def test_a_damaged_file_is_refused_or_its_readers_are(path: Path) -> None:
    async with opened(path) as tail:
        await tail.append(*(Event("a", "x" * 1000) for _ in range(200)))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    assert "is damaged" in refusal(path)


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder, "history.db")


async def test_a_path_that_may_not_be_read_or_written_is_said(public_path: Path) -> None:
    async with opened(public_path) as tail:
        await tail.append(Event("a"))
    lock = public_path.with_name("history.db-lock")
    lock.chmod(0o600)
    with as_nobody():
        assert "can't be locked: permission denied" in refusal(public_path)
    lock.chmod(0o666)
    record = public_path.with_name("history.db-commits")
    record.chmod(0o600)
    with as_nobody():
        assert f"can't be used: {record}: permission denied" in refusal(public_path)
    record.chmod(0o666)
    for mode, words in ((0o000, "can't be opened"), (0o444, "can't be written")):
        public_path.chmod(mode)
        with as_nobody():
            assert words in refusal(public_path)
