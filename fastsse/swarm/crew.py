"""A running swarm: its processes, live figures, orders."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fastsse.programs import module_command
from fastsse.swarm import _swarm
from fastsse.swarm.job import STRIDE_BYTES, encode_job
from fastsse.swarm.plan import Plan, shares_of
from fastsse.swarm.refusal import Refusal
from fastsse.swarm.results import (
    Histogram,
    SwarmResults,
    read_block,
    read_counters,
    read_measure,
    total,
)

POLL_S = 0.02


class Crew:
    """The processes of one run.

    Use it as a context manager: entering starts the processes, leaving ends them. All methods may
    be called from any one thread; none waits unless it says so.

    Raises (on construction):
        Refusal: the plan can't be carried out here; nothing was started.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._shares = shares_of(plan)
        self._process: subprocess.Popen[bytes] | None = None
        self._memory: mmap.mmap | None = None
        self._blocks: list[memoryview] = []
        self.started_at = 0.0
        self._cut = 0
        self._last: SwarmResults | None = None

    @property
    def processes(self) -> int:
        return len(self._shares)

    def __enter__(self) -> Self:
        size = STRIDE_BYTES * len(self._shares)
        memory_fd = os.memfd_create("fastsse-swarm")
        try:
            os.ftruncate(memory_fd, size)
            self._memory = mmap.mmap(memory_fd, size)
            self._process = subprocess.Popen(
                module_command("fastsse.swarm.leader"),
                stdin=subprocess.PIPE,
                pass_fds=[memory_fd],
            )
            assert self._process.stdin is not None
            self._process.stdin.write(encode_job(memory_fd, self._shares, self.plan.cpus))
            self._process.stdin.flush()
        finally:
            os.close(memory_fd)
        stride, length = STRIDE_BYTES // 8, _swarm.BLOCK_BYTES // 8
        with memoryview(self._memory) as octets, octets.cast("Q") as words:
            self._blocks = [
                words[i * stride : i * stride + length] for i in range(len(self._shares))
            ]
        self.started_at = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> SwarmResults:
        """Ends every connection and process; returns the last figures. Waits for the end."""
        for block in self._blocks:
            block[0] = 1
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
        last = self.figures()
        self._release(last)
        return last

    def _release(self, last: SwarmResults) -> None:
        """Gives the shared memory back; its last state stays readable."""
        self._last = last
        for block in self._blocks:
            block.release()
        self._blocks = []
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    @property
    def alive(self) -> bool:
        """False once a process has failed (its message is on standard error) or all have ended."""
        return self._process is not None and self._process.poll() is None

    def counters(self) -> dict[str, int]:
        """The counters of all processes. Cheap."""
        if self._last is not None:
            return dict(self._last.counters)
        names = _swarm.COUNTER_NAMES
        merged = dict.fromkeys(names, 0)
        for block in self._blocks:
            for name, value in read_counters(block, names).items():
                merged[name] += value
        return merged

    def cpu_us(self) -> list[int]:
        """CPU time of each process until now."""
        return [block[_CPU] for block in self._blocks]

    def measure(self, name: str) -> Histogram:
        """One histogram of all processes."""
        if self._last is not None:
            return self._last.measures[name]
        counters, names = len(_swarm.COUNTER_NAMES), _swarm.MEASURE_NAMES
        merged = Histogram()
        for block in self._blocks:
            merged += read_measure(block, names, counters, name)
        return merged

    def figures(self) -> SwarmResults:
        """Everything, of all processes. A millisecond or two for each."""
        if self._last is not None:
            return self._last
        return total(map(read_block, self._blocks))

    def cut(self, streams: int) -> None:
        """Cuts this many streams as a failing network would; they reconnect at once and resume."""
        self._cut += streams
        edges = [self._cut * i // self.processes for i in range(self.processes + 1)]
        for number, block in enumerate(self._blocks):
            block[1] = edges[number + 1] - edges[number]

    def opening_s(self) -> float:
        """How long the slowest process took to open all its connections, once all have settled."""
        return max(block[_SETTLED] - block[_BEGAN] for block in self._blocks) / 1e6

    @property
    def process_ids(self) -> list[int]:
        """The forked processes that hold the connections."""
        if not self.alive:
            return []
        assert self._process is not None
        leader = self._process.pid
        return list(map(int, Path(f"/proc/{leader}/task/{leader}/children").read_text().split()))

    def wait_until_settled(self, timeout_s: float) -> bool:
        """Waits until each connection has once been opened or given up. False: not in time."""
        return self.wait_for(lambda: all(b[_SETTLED] for b in self._blocks), timeout_s)

    def wait_for_events(self, count: int, timeout_s: float) -> bool:
        """Waits until the fast connections have received `count` events in total."""
        return self.wait_for(lambda: sum(b[_EVENTS] for b in self._blocks) >= count, timeout_s)

    def wait_for(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Waits for a condition; False when it did not come about in time or the run ended.

        Raises:
            Refusal: a process failed.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            if not self.alive:
                raise Refusal("A process of the swarm failed; its message stands above.")
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


_FIRST = len(_swarm.ORDER_NAMES)
_BEGAN = _FIRST + _swarm.COUNTER_NAMES.index("began_at_us")
_SETTLED = _FIRST + _swarm.COUNTER_NAMES.index("settled_at_us")
_EVENTS = _FIRST + _swarm.COUNTER_NAMES.index("events")
_CPU = _FIRST + _swarm.COUNTER_NAMES.index("cpu_us")
