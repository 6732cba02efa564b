# ruff: noqa: ASYNC221, ASYNC240 — files and processes are what these tests are about.
"""One server on one file, under whatever name: real processes, real links, real mounts."""

import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastsse.backbone.sqlite import HistoryError, SqliteBackbone
from fastsse.config import Config
from fastsse.errors import Unavailable
from fastsse.events import Event
from tests.backbone.storage import Clock, opened, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def server(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes the file, until the test ends it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.backbone.appender", str(path), "written"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
        process.kill()


def refusal(path: Path) -> str:
    """Why a file can't be opened."""
    with pytest.raises(HistoryError) as caught:
        SqliteBackbone(str(path), Config(), now_ms=Clock())
    return str(caught.value)


def says_who(text: str, path: Path, process: int) -> bool:
    """Whether a refusal is the one sentence that names the holder."""
    return text == (
        f"History {path} is in use by another server (process {process});"
        " end that first, or name another file."
    )


async def test_a_second_server_is_refused_after_the_lock_file_was_removed(
    path: Path, server: subprocess.Popen[str]
) -> None:
    path.with_name("history.db-lock").unlink()
    assert says_who(refusal(path), path, server.pid)


async def test_a_second_server_is_refused_by_a_hard_link_and_by_a_symbolic_one(
    path: Path, server: subprocess.Popen[str]
) -> None:
    hard, symbolic = path.with_name("hard.db"), path.with_name("symbolic.db")
    hard.hardlink_to(path)
    symbolic.symlink_to(path)
    for other in (hard, symbolic):
        assert says_who(refusal(other), other, server.pid)


async def test_a_second_server_is_refused_through_another_mount(
    path: Path, server: subprocess.Popen[str]
) -> None:
    mounted = path.with_name("mounted")
    mounted.mkdir()
    mount = ["mount", "--bind", str(path.parent), str(mounted)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    try:
        assert says_who(refusal(mounted / path.name), mounted / path.name, server.pid)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


async def test_a_second_server_is_refused_by_a_new_name_and_by_the_old_one(
    path: Path, server: subprocess.Popen[str]
) -> None:
    renamed = path.with_name("renamed.db")
    path.rename(renamed)
    assert says_who(refusal(renamed), renamed, server.pid)
    assert says_who(refusal(path), path, server.pid)


async def test_the_file_is_free_when_its_server_was_killed(
    path: Path, server: subprocess.Popen[str]
) -> None:
    server.kill()
    server.wait()
    async with opened(path) as tail:
        await tail.append(Event("a"))


async def test_a_refused_second_server_leaves_the_locks_of_the_first_alone(path: Path) -> None:
    link = path.with_name("link.db")
    async with opened(path) as tail:
        await tail.append(Event("a", "1"))
        link.symlink_to(path)
        for other in (path, link):
            assert says_who(refusal(other), other, os.getpid())
        # Without SQLite's own locks another program would take itself for the last user of the
        # file, and would delete its log when it ends.
        program = f"import sqlite3; sqlite3.connect({str(path)!r}).execute('DELETE FROM desk')"
        subprocess.run([sys.executable, "-c", program], check=True)
        assert path.with_name("history.db-wal").exists()
        await tail.append(Event("a", "2"))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (2,)


async def test_a_file_of_another_server_put_in_place_is_not_taken_over(
    path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    async with opened(path) as tail, opened(other) as held:
        await held.append(Event("a", "of the other"))
        other.rename(path)
        with pytest.raises(Unavailable):
            await tail.append(Event("a", "refused"))
        await until(lambda: "in use by another server" in (tail.backbone.trouble or ""))


async def test_an_earlier_version_is_kept_out_by_the_lock_that_it_knows(path: Path) -> None:
    lock = path.with_name("history.db-lock")
    async with opened(path):
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert "is in use by another server" in refusal(path)
