"""Real Locust processes against real servers. All that the collected tests need start together
and run side by side; each test then waits for its own."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.loadtests.runs import RUNS, Run

ROOT = Path(__file__).parents[2]
PATIENCE_S = 100
"""Far more than a run takes, for a machine that is busy with other things."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "locust_run(name): the test reads this run's results")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The runs are started once, so one process has all that look at them."""
    for item in items:
        if item.get_closest_marker("locust_run") is not None:
            item.add_marker(pytest.mark.xdist_group("locust"))


def free_port() -> int:
    """A free one below those that the kernel gives out, for programs that must be told theirs
    beforehand."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(20)
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
        deadline = time.monotonic() + PATIENCE_S
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
        exit_code = self.process.wait(PATIENCE_S)
        result = Result(exit_code, (self.folder / "locust.log").read_text(), self.folder)
        path = self.folder / "locust.json"
        for entry in json.loads(path.read_text()) if path.exists() else ():
            result.locust[entry["method"], entry["name"]] = entry
        return result

    def end(self) -> None:
        if self.process is not None:
            end(self.process)


@pytest.fixture(scope="session")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Running]]:
    """The runs that the collected tests name, all started."""
    marks = (item.get_closest_marker("locust_run") for item in request.session.items)
    names = {str(mark.args[0]) for mark in marks if mark is not None}
    folder = tmp_path_factory.mktemp("locust")
    wanted = {name: RUNS[name] for name in sorted(names)}
    options = {run.server_name: run.server for run in wanted.values() if run.server_name}
    servers: dict[str | None, Server] = {
        name: Server(given, folder / f"server-{name}.log") for name, given in options.items()
    }
    runs = {
        name: Running(run, folder / name, servers.get(run.server_name))
        for name, run in wanted.items()
    }
    for running in runs.values():
        running.start()
    yield runs
    for running in runs.values():
        running.end()
    for server in servers.values():
        end(server.process)


@pytest.fixture
def mine(running: dict[str, Running], request: pytest.FixtureRequest) -> Running:
    """The run that the test names."""
    mark = request.node.get_closest_marker("locust_run")
    return running[mark.args[0]]


@pytest.fixture
def result(mine: Running) -> Result:
    """Its results, once it is over."""
    return mine.result()
