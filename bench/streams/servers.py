"""The servers of the protocol that are compared, each a process of its own on one core."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.server import Server
from tests.loopback import held_port

START_TIMEOUT_S = 30
_NODE_PROGRAM = """
import { DurableStreamTestServer } from "@durable-streams/server";
const [port, dataDir] = process.argv.slice(2);
const server = new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1",
  ...(dataDir ? { dataDir } : {}) });
await server.start();
"""


class Running(NamedTuple):
    """A server: the URL under which streams are, and its processes."""

    url: str
    pids: Sequence[int]

    def cpu_us(self) -> int:
        """User and system time until now."""
        total = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total * 1_000_000 // os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Has `memory_bytes` say the greatest memory from now on."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def memory_bytes(self) -> tuple[int, int]:
        """Resident memory now, and at most."""
        found = []
        for name in ("VmRSS:", "VmHWM:"):
            texts = [Path(f"/proc/{pid}/status").read_text() for pid in self.pids]
            lines = [line.split() for text in texts for line in text.splitlines()]
            found.append(sum(int(words[1]) * 1024 for words in lines if words[0] == name))
        return found[0], found[1]

    def pss_bytes(self) -> int:
        """Memory in user space; what processes share is divided among them."""
        total = 0
        for pid in self.pids:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(
                int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")
            )
        return total * 1024


@contextmanager
def fastsse(folder: str, store: str, cpu: int, *options: str) -> Iterator[Running]:
    """Ours. `store`: memory, written or synced (both sqlite)."""
    kept = [] if store == "memory" else ["--store", f"sqlite:{folder}/h.db", "--ack", store]
    room = ["--streams-total", "4GiB", "--memory-limit", "6GiB", "--max-body", "8MiB"]
    with Server(cpu, [*kept, *room, *options]) as server:
        yield Running(f"{server.url}/streams", [server._process.pid])


@contextmanager
def node(modules: Path, folder: str, cpu: int, *, is_stored: bool) -> Iterator[Running]:
    """The reference server from npm. `modules`: a folder with node_modules."""
    program = modules / "fastsse-bench.mjs"
    program.write_text(_NODE_PROGRAM)
    command = ["node", str(program)]

    def arguments(port: int) -> list[str]:
        return [*command, str(port), *([folder] if is_stored else [])]

    with _process(arguments, cpu) as found:
        yield found


@contextmanager
def rust(program: Path, folder: str, cpu: int, durability: str) -> Iterator[Running]:
    """Electric's server. `durability`: memory or wal."""

    def arguments(port: int) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(port), "--data-dir", folder]
        return [str(program), *place, "--durability", durability]

    with _process(arguments, cpu) as found:
        yield found


@contextmanager
def _process(arguments: Callable[[int], list[str]], cpu: int) -> Iterator[Running]:
    # Held to the end: a port that is free meanwhile may go to another process.
    with held_port() as held, tempfile.TemporaryFile() as log:
        port = held.getsockname()[1]
        process = subprocess.Popen(arguments(port), stdout=log, stderr=log)
        try:
            if cpu >= 0:
                os.sched_setaffinity(process.pid, {cpu})
            url = f"http://127.0.0.1:{port}/v1/stream"
            _wait(url, process)
            yield Running(url, [process.pid])
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/there-is-none", timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > until or process.poll() is not None:
                raise
            time.sleep(0.05)
