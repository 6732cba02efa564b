"""The server under test: a real `fastsse serve` process of its own, on a core of its own.

The cases know no more of a server than `UnderTest`, so that they run against any program that
streams on `GET /events?topic=a` and takes the data of an event with `POST /events?topic=a`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class UnderTest(Protocol):
    """A running server, measured from outside. Figures are those of all its processes."""

    url: str

    def cpu_us(self) -> int:
        """User and system time until now."""

    def memory(self) -> dict[str, int]:
        """Bytes in user space: `rss`, `pss`, `private` (dirty)."""

    def metrics(self) -> dict[str, float]:
        """fastsse's own counters; empty for another server."""


class Server:
    """`fastsse serve` with its defaults and the options given, bound to a free port.

    Args:
        cpu: the core that all its threads stay on; below 0: any.
        environment: variables in addition to those of this process.
    """

    def __init__(
        self,
        cpu: int = -1,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.options = list(options)
        self._environment = {**os.environ, **(environment or {})}
        self._cpu = cpu
        self.url = ""

    def __enter__(self) -> Self:
        self._log = tempfile.NamedTemporaryFile(suffix=".log")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "fastsse", "serve", "--port", "0"),
                *("--log-format", "json", *self.options),
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=self._environment,
        )
        if self._cpu >= 0:
            os.sched_setaffinity(self._process.pid, {self._cpu})
        self.url = self._address()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _address(self) -> str:
        """The first address that the server's start-up line names."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in Path(self._log.name).read_text().splitlines():
                if '"addresses"' in line:
                    return str(json.loads(line)["addresses"][0])
            time.sleep(0.02)
        raise RuntimeError("fastsse serve did not start:\n" + Path(self._log.name).read_text())

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def cpu_us(self) -> int:
        """User and system time of all its threads and processes, from /proc/<pid>/stat (10 ms
        steps)."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) * TICK_US
        return total

    def memory(self) -> dict[str, int]:
        """See `UnderTest`. What its processes share is in `pss` once, and in `rss` in each."""
        names = {"Rss": "rss", "Pss": "pss", "Private_Dirty": "private"}
        found = dict.fromkeys(names.values(), 0)
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in names:
                    found[names[name]] += int(rest.split()[0]) * 1024
        return found

    def pids(self) -> list[int]:
        """The process, and with several workers those under it."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def metrics(self) -> dict[str, float]:
        """What `/metrics` counts without labels: deliveries, sends, missed edges …"""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if line[:1] not in ("#", ""))
        return {name: float(value) for name, value in rows if "{" not in name}
