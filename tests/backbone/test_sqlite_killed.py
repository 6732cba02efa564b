"""A process killed in the middle of commits: what it acknowledged is stored, no position is used
twice. Real processes, killed for good."""

import random
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
