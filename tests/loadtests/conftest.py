"""Real Locust processes against real servers. What the collected tests need runs side by side;
each test then waits for its own."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.loadtests.runs import RUNS, Run

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
"""Far more than a run takes, for a machine that is busy with other things."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "locust_run(name): the test reads this run's results")


def free_port() -> int:
    """A free one below those that the kernel gives out, for programs that need theirs as an option
    beforehand."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Server:
    """`fastsse serve` on a free port."""

    def __init__(self, options: tuple[str, ...], log: Path) -> None:
        command = [sys.executable, "-m", "fastsse", "serve", "--port", "0", "--log-format", "json"]
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen([*command, *options], stdout=out, stderr=out, cwd=ROOT)

    @property
    def url(self) -> str:
        """Waits until it serves."""
        deadline = time.monotonic() + TIMEOUT_S
        while "addresses" not in (text := self.log.read_text()):
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first = next(line for line in text.splitlines() if "addresses" in line)
        return str(json.loads(first)["addresses"][0])


@dataclass
class Result:
    """What a finished run left: Locust's entries by type and name, our JSON, its output."""

    exit_code: int
    output: str
    folder: Path
    locust: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def count(self, kind: str, name: str) -> int:
        """Requests in Locust's statistics, failures included."""
        return int(self.locust.get((kind, name), {}).get("num_requests", 0))

    def failures(self, kind: str, name: str) -> int:
        return int(self.locust.get((kind, name), {}).get("num_failures", 0))

    @property
    def failed(self) -> dict[tuple[str, str], int]:
        """What has failures."""
        return {key: e["num_failures"] for key, e in self.locust.items() if e["num_failures"]}

    @property
    def swarms(self) -> list[dict[str, Any]]:
        """The swarms' own results."""
        return [json.loads(p.read_text()) for p in sorted(self.folder.glob("swarm-*.json"))]

    def swarm_total(self, counter: str) -> int:
        return sum(swarm["counters"][counter] for swarm in self.swarms)

    @property
    def whole(self) -> dict[str, Any]:
        """`run.json`."""
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return found


class Running:
    """A Locust process."""

    def __init__(self, run: Run, folder: Path, server: Server | None) -> None:
        self.folder = folder
        folder.mkdir()
        self.run = run
        self.port = free_port()
        self.server = server
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        url = self.server.url if self.server is not None else f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py"]
        command += ["--host", url, "--figures", str(self.folder)]
        command += ["--json-file", str(self.folder / "locust")]
        options = [o.format(port=self.port, python=sys.executable) for o in self.run.options]
        with (self.folder / "locust.log").open("wb") as out:
            self.process = subprocess.Popen([*command, *options], stdout=out, stderr=out, cwd=ROOT)

    def result(self) -> Result:
        """Waits for the end."""
        assert self.process is not None
        exit_code = self.process.wait(TIMEOUT_S)
        result = Result(exit_code, (self.folder / "locust.log").read_text(), self.folder)
        path = self.folder / "locust.json"
        for entry in json.loads(path.read_text()) if path.exists() else ():
            result.locust[entry["method"], entry["name"]] = entry
        return result

    @property
    def is_under_way(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self) -> None:
        if self.process is not None:
            end(self.process)


class Runs:
    """The runs that tests look at, begun in the order in which they are looked at: a few at once,
    so that the machine has something left for other tests."""

    AT_ONCE = 4

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        self._folder = folder
        self._waiting = list(names)
        self._begun: dict[str, Running] = {}
        self._servers: dict[str, Server] = {}

    def running(self, name: str) -> Running:
        """A run, begun by now, and others next to it."""
        if name in self._waiting:
            self._begin(name)
        while self._waiting and self._under_way < self.AT_ONCE:
            self._begin(self._waiting[0])
        return self._begun[name]

    @property
    def _under_way(self) -> int:
        return sum(running.is_under_way for running in self._begun.values())

    def end(self) -> None:
        for running in self._begun.values():
            running.end()
        for server in self._servers.values():
            end(server.process)

    def _begin(self, name: str) -> None:
        self._waiting.remove(name)
        run = RUNS[name]
        self._begun[name] = Running(run, self._folder / name, self._server(run))
        self._begun[name].start()

    def _server(self, run: Run) -> Server | None:
        if run.server_name is None:
            return None
        if run.server_name not in self._servers:
            log = self._folder / f"server-{run.server_name}.log"
            self._servers[run.server_name] = Server(run.server, log)
        return self._servers[run.server_name]


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """Those that the collected tests name."""
    marks = (item.get_closest_marker("locust_run") for item in request.session.items)
    names = dict.fromkeys(str(mark.args[0]) for mark in marks if mark is not None)
    runs = Runs(names, tmp_path_factory.mktemp("locust"))
    yield runs
    runs.end()


@pytest.fixture
def mine(runs: Runs, request: pytest.FixtureRequest) -> Running:
    """The run that the test names."""
    mark = request.node.get_closest_marker("locust_run")
    return runs.running(mark.args[0])


@pytest.fixture
def result(mine: Running) -> Result:
    """Its results, once it is over."""
    return mine.result()
