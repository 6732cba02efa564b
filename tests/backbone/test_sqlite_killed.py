# ruff: noqa: ASYNC220 — files and processes are what these tests are about.
"""A process killed in the middle of commits: what it acknowledged is stored, no position is used
twice. Real processes, killed for good."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fastsse.backbone.sqlite import Ack
from fastsse.backbone.sqlite.places import position_of
from tests.backbone.storage import opened

ROOT = Path(__file__).parents[2]
LIVES = 4


def live_and_die(path: Path, ack: str, lines: int) -> tuple[list[int], list[int]]:
    """Runs the appender until it has said so many lines, kills it, and returns what it had
    delivered and what it had acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.backbone.appender", str(path), ack],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    # What it wrote before it died counts too; a line that was cut does not.
    said += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    found: dict[str, list[int]] = {"s": [], "a": []}
    for line in said:
        if line.endswith("\n"):
            found[line[0]].append(int(line[2:]))
    return found["s"], found["a"]


def stored(path: Path) -> set[int]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT place FROM event")
        return {position_of(place) for (place,) in rows}


@pytest.mark.parametrize("ack", ["received", "written", "synced"])
async def test_what_a_killed_process_acknowledged_is_stored(tmp_path: Path, ack: Ack) -> None:
    path, seen, acknowledged = tmp_path / "history.db", [], []
    for _ in range(LIVES):
        delivered, told = live_and_die(path, ack, random.randrange(50, 2_000))
        # Above all that went before, whatever of that was lost.
        assert not seen or not delivered or min(delivered) > max(seen)
        assert delivered == sorted(set(delivered))
        seen += delivered
        acknowledged += told
    assert len(acknowledged) > LIVES
    if ack != "received":
        assert set(acknowledged) <= stored(path)
    async with opened(path) as tail:
        assert tail.backbone.head >= max(seen)
        stretch = await tail.read(("all",), max(seen))
        # Only under `received` may events that somebody saw be missing.
        assert (stretch.evicted_through >= max(seen)) is (ack == "received")


@pytest.fixture(scope="module")
def failing_sync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("library") / "failing_sync.so"
    source = Path(__file__).with_name("failing_sync.c")
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


async def test_syncs_that_fail_acknowledge_nothing_and_end_by_themselves(
    tmp_path: Path, failing_sync: Path
) -> None:
    path, fault = tmp_path / "history.db", tmp_path / "fault"
    # What is loaded before everything already, such as a sanitizer, stays first.
    loaded = f"{os.environ.get('LD_PRELOAD', '')} {failing_sync}".strip()
    environment = {**os.environ, "LD_PRELOAD": loaded, "FAIL_SYNC": str(fault)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.backbone.appender", str(path), "synced"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    said: list[str] = []

    def read_until(kind: str, times: int) -> None:
        for _ in range(times):
            while not (line := process.stdout.readline()).startswith(kind):  # type: ignore[union-attr]
                assert line, "it ended"
                said.append(line)
            said.append(line)

    read_until("a", 50)
    log = path.with_name("history.db-wal").stat().st_ino
    fault.touch()
    read_until("r", 40)
    refused_at = len(said)
    read_until("r", 40)
    # While it lasts nothing is delivered or acknowledged.
    assert {line[0] for line in said[refused_at:]} == {"r"}
    fault.unlink()
    read_until("a", 50)
    assert path.with_name("history.db-wal").stat().st_ino != log
    process.kill()
    process.stdout.close()
    process.wait()
    delivered = [int(line[2:]) for line in said if line[0] == "s"]
    acknowledged = {int(line[2:]) for line in said if line[0] == "a"}
    assert delivered == sorted(set(delivered))
    assert acknowledged <= set(delivered) <= stored(path)
    # What was refused is not there, up to the batches that were under way when it was killed.
    assert {position for position in stored(path) if position <= delivered[-1]} == set(delivered)
