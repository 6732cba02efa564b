"""Real processes, killed with SIGKILL: streams' workers notice a pause, and nothing else."""

import asyncio
import pathlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fastsse.events import Event
from tests.bus.onebus import Bus, End, a_bus, until

ROOT = pathlib.Path(__file__).parents[2]


async def program(name: str, *arguments: str, fds: tuple[int, ...] = ()) -> Process:
    """Starts a test's program and waits until it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"tests.bus.{name}", *arguments, stdout=PIPE, cwd=ROOT, pass_fds=fds
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    assert line == b"ready\n"
    return process


class HubInAProcess:
    """A hub process of its own, which can be killed and started again."""

    def __init__(self, bus: Bus, store: str, workers: int) -> None:
        self.bus = bus
        self.store = store
        self.workers = workers
        self.process: Process | None = None

    async def start(self, restarted: str = "no") -> None:
        fd = self.bus.listening.fileno()
        self.process = await program(
            "hubprogram", str(fd), self.store, str(self.workers), restarted, fds=(fd,)
        )

    async def kill(self, number: int = signal.SIGKILL) -> int:
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(number)
        return await process.wait()


@asynccontextmanager
async def a_hub(store: str, workers: int) -> AsyncIterator[HubInAProcess]:
    async with a_bus(history_events=100_000) as bus:
        hub = HubInAProcess(bus, store, workers)
        try:
            await hub.start()
            yield hub
        finally:
            if hub.process is not None:
                await hub.kill()


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_hub_may_be_killed_at_any_moment(store: str, tmp_path: pathlib.Path) -> None:
    url = store if store == "memory" else f"sqlite:{tmp_path / 'history.db'}"
    async with a_hub(url, 2) as hub:
        ends = [await hub.bus.worker() for _ in range(2)]
        acknowledged: dict[bytes, int] = {}
        over = asyncio.Event()

        async def publish(end: End, name: str) -> None:
            index = 0
            while not over.is_set():
                data = f"{name}{index}"
                (acknowledged[data.encode()],) = await end.publish(Event("a", data))
                index += 1

        publishing = [
            asyncio.create_task(publish(end, f"{n}-{m}-"))
            for n, end in enumerate(ends)
            for m in range(8)
        ]
        for _ in range(4):
            count = len(acknowledged)
            await until(lambda count=count: len(acknowledged) > count + 200)
            await hub.kill()
            await hub.start("yes")
        over.set()
        await asyncio.gather(*publishing)
        await until(lambda: ends[0].backbone.head == ends[1].backbone.head)
        for end in ends:
            assert end.broken == []
            assert end.positions == sorted(set(end.positions))
            # Each once, where its publisher was answered, and nothing else.
            assert dict(zip(end.data, end.positions, strict=True)) == acknowledged
            assert len(end.data) == len(acknowledged)
        assert ends[0].backbone.counters()["bus_hub_lost"] == 4


async def test_a_killed_worker_takes_nothing_with_it() -> None:
    async with a_hub("memory", 2) as hub:
        end = await hub.bus.worker()
        worker = await program("workerprogram", hub.bus.address[1:], "1")
        await until(lambda: len(end.entries) > 100)
        worker.kill()
        await worker.wait()
        assert worker.stdout is not None
        lines = (await worker.stdout.read()).split(b"\n")
        told = [line.split() for line in lines[:-1]]
        positions = [int(position) for _, position in told]
        await end.publish(Event("a", "on"))
        assert positions
        assert set(positions) <= set(end.positions)
        assert end.data[-1] == b"on"
        assert end.positions == sorted(set(end.positions))


async def test_a_hub_that_ends_on_a_signal_loses_nothing(tmp_path: pathlib.Path) -> None:
    async with a_hub(f"sqlite:{tmp_path / 'history.db'}", 1) as hub:
        end = await hub.bus.worker()
        answers = [end.publish(Event("a", str(index))) for index in range(50)]
        assert await hub.kill(signal.SIGTERM) == 0
        answers += [end.publish(Event("a", str(index))) for index in range(50, 100)]
        await hub.start("yes")
        await asyncio.gather(*answers)
        assert end.data == [b"%d" % index for index in range(100)]


async def test_a_hub_that_stands_still_publishes_nothing_that_was_refused() -> None:
    async with a_hub("memory", 2) as hub:
        impatient, patient = await hub.bus.worker(timeout_s=1), await hub.bus.worker()
        await impatient.publish(Event("a", "before"))
        assert hub.process is not None
        hub.process.send_signal(signal.SIGSTOP)
        refused = impatient.publish(Event("a", "refused"))
        waits = patient.publish(Event("a", "waited"))
        with pytest.raises(Exception, match="backbone"):
            await refused
        hub.process.send_signal(signal.SIGCONT)
        await waits
        await impatient.publish(Event("a", "after"))
        await until(lambda: len(patient.entries) == 3)
        assert impatient.data == patient.data == [b"before", b"waited", b"after"]
