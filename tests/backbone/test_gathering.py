"""The writer waits a moment for the publishers that it has just answered."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastsse.backbone.sqlite.checkpoint import Checkpointer
from fastsse.backbone.sqlite.file import HistoryFile
from fastsse.backbone.sqlite.wake import Wake
from fastsse.backbone.sqlite.write_batch import StoreBatch
from fastsse.backbone.sqlite.writer import Put, Writer, WriterLinks
from fastsse.entries import encode_entries
from fastsse.events import Event
from fastsse.positions import Positions
from tests.backbone.storage import Clock

NOTHING: Any = None


@pytest.fixture
def clocked(tmp_path: Path) -> Iterator[tuple[Writer, list[Callable[[], float]]]]:
    """A writer whose thread does not run, and the clock that it asks."""
    clock: list[Callable[[], float]] = [lambda: 0.0]
    file = HistoryFile(str(tmp_path / "h.db"), Clock())
    wake = Wake()
    links = WriterLinks(NOTHING, NOTHING, contextlib.nullcontext, wake, lambda: clock[0]())
    checkpointer = Checkpointer(file.path, sqlite3.connect, wake)
    writer = Writer(file, NOTHING, checkpointer, "synced", links)
    try:
        yield writer, clock
    finally:
        writer._queue.clear()
        clock.clear()  # It refers to the writer.
        file.close()


def batch(events: int) -> StoreBatch:
    made = [Event("t", "x")] * events
    positions = Positions(1 << 64, events)
    return StoreBatch(made, encode_entries(positions, made), lambda outcome: None, None)


def test_a_commit_waits_for_as_many_events_as_the_last_two_had(clocked: Any) -> None:
    writer, clock = clocked
    asked = 0

    def now_s() -> float:
        """Another publisher publishes whenever the writer looks at the clock."""
        nonlocal asked
        asked += 1
        writer.put(batch(2))
        return 0.0

    writer._expected, writer._commit_s = 5, 1000.0
    clock[0] = now_s
    writer._gather()
    assert asked == 3
    assert sum(len(one.entries) for one in writer._take()) == 6
    # What was taken is not counted again, and what is no batch is not waited for.
    writer._expected = 1
    writer.put(Put("key", None))
    writer._gather()
    assert asked == 4


def test_a_wait_for_publishers_ends_with_a_part_of_the_last_commits_time(clocked: Any) -> None:
    writer, clock = clocked
    times = iter(range(100))
    writer._expected, writer._commit_s = 5, 10.0
    clock[0] = lambda: float(next(times))
    writer._wake.set()
    waited: list[float] = []
    writer._wake.wait = waited.append
    writer._gather()
    assert waited == [3.0, 2.0, 1.0]


def test_a_thread_that_is_woken_before_it_waits_does_not_wait() -> None:
    wake = Wake()
    assert not wake.wait(0)
    wake.set()
    wake.set()
    assert wake.wait(60)
    assert not wake.wait(0)
    wake.set()
    wake.clear()
    wake.clear()
    assert not wake.wait(0)


def test_threads_that_wake_at_once_wake_once_and_do_not_fail() -> None:
    wake = Wake()
    rounds, failed = 2_000, []
    begin = threading.Barrier(3)

    def run() -> None:
        try:
            for _ in range(rounds):
                begin.wait(60)
                wake.set()
        except BaseException as error:
            failed.append(error)
            begin.abort()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(rounds):
        begin.wait(60)
        assert wake.wait(60)
    for thread in threads:
        thread.join()
    assert failed == []
