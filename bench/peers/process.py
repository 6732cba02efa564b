"""A peer as a running process tree: its address, CPU time and memory."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.peers.peer import Peer

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 2
MEMORY = {"Rss": "rss", "Pss": "pss", "Private_Dirty": "private"}
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class DidNotStart(RuntimeError):
    """A peer that was there but never answered; the message holds what it printed."""


class PeerServer:
    """A peer on loopback and on a free port of its own choice.

    Entering starts it and waits until it accepts connections; leaving ends it, by SIGTERM and, when
    that is not heeded, by SIGKILL to each of its processes.

    Args:
        cpu: the core that all its processes stay on; below 0: any.
    """

    def __init__(self, peer: Peer, cpu: int = -1) -> None:
        self.peer = peer
        self._cpu = cpu
        self.url = ""

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="fastsse-peer-")
        command = self.peer.command(Path(self._directory.name))
        self._log = tempfile.NamedTemporaryFile(suffix=".log")
        with _on_core(self._cpu):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.peer.environment},
            )
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        try:
            self.url = f"http://{self._wait_until_it_accepts()}"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in self.process_ids():
                os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()
        self._directory.cleanup()

    def _wait_until_it_accepts(self) -> str:
        """Its `host:port`."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            address = (self.peer.address or announced)(self.output())
            if address and _accepts(address):
                return address
            time.sleep(0.02)
        raise DidNotStart(f"{self.peer.name} did not start:\n{self.output()}")

    def output(self) -> str:
        """What it has printed until now."""
        return Path(self._log.name).read_text(errors="replace")

    def process_ids(self) -> list[int]:
        """Its process and all that descend from it."""
        return list(_tree(self._process.pid))

    def cpu_us(self) -> int:
        """User and system time of all its processes (10 ms steps)."""
        return cpu_us_of(self._process.pid)

    def memory(self) -> dict[str, int]:
        """User-space bytes of all its processes: `rss`, `pss` (counts shares once), `private`."""
        found = dict.fromkeys(MEMORY.values(), 0)
        for pid in self.process_ids():
            for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
                name, _, rest = line.partition(":")
                if name in MEMORY:
                    found[MEMORY[name]] += int(rest.split()[0]) * 1024
        return found

    def metrics(self) -> dict[str, float]:
        """Nothing: a peer is measured from outside alone."""
        return {}


def cpu_us_of(pid: int) -> int:
    """User and system time of a process and all that descend from it (10 ms steps)."""
    return sum(map(_cpu_ticks, _tree(pid))) * TICK_US


@contextmanager
def _on_core(cpu: int) -> Iterator[None]:
    """Whatever this thread starts meanwhile inherits the core."""
    mine = os.sched_getaffinity(0)
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def announced(output: str) -> str | None:
    """The address in a line `listening on <host>:<port>`, once the whole line is there."""
    for line in output.splitlines(keepends=True):
        if line.startswith("listening on ") and line.endswith("\n"):
            return line.removeprefix("listening on ").strip()
    return None


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(path).split():
            yield from _tree(int(child))


def _cpu_ticks(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if fields else 0


def _read(path: Path) -> str:
    """A file of /proc, empty when its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
