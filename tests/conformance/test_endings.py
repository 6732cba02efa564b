"""What the suite starts ends with it, also where nothing of it can run any more."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance import FOLDER

MARK = "SSE_CONFORMANCE_TEST"
#: Starts a hub that has a child in its session and one in a session of its own; none of them ends
#: at SIGTERM or with its parent.
HUB = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for own_session in (False, True):
    if os.fork() == 0:
        if own_session:
            os.setsid()
        while True:
            time.sleep(100)
while True:
    listener.accept()
"""
STARTS = """
import signal, sys
from sse_conformance.adapter import load
from sse_conformance.server import Server
with Server(load(sys.argv[1])) as server:
    print("started", flush=True)
    signal.pause()
"""


def marked(mark: str) -> list[int]:
    """The running processes that inherited the mark."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            variables = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:  # It ended, or is a zombie.
            continue
        if f"{MARK}={mark}".encode() in variables.split(b"\0"):
            found.append(int(name))
    return found


def wait_until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextmanager
def suite(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process group of its own, as a shell or `timeout` makes it, whose processes have a mark."""
    mark = uuid.uuid4().hex
    variables = {**os.environ, MARK: mark, "PYTHONPATH": os.fspath(FOLDER)}
    process = subprocess.Popen(
        [sys.executable, *words], env=variables, stdout=subprocess.PIPE, text=True, process_group=0
    )
    try:
        yield process, mark
    finally:
        process.kill()
        # First what is left, because it may hold the pipe that is read to its end.
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def adapter(tmp_path: Path) -> str:
    (tmp_path / "hub.py").write_text(HUB)
    path = tmp_path / "hub.toml"
    path.write_text(
        'name = "hub"\n[listen]\npath = "/"\ntopic = "{topic}"\n'
        f'[publish]\npath = "/"\nbody = "data"\n'
        f'[server]\ncommand = ["@python@", "{tmp_path}/hub.py", "@port@"]\n'
    )
    return os.fspath(path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_servers_are_gone_after_the_suite_is_killed(adapter: str, number: int) -> None:
    with suite("-c", STARTS, adapter) as (process, mark):
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        wait_until(lambda: len(marked(mark)) == 5, "the suite, its watcher, the hub's three")
        os.killpg(process.pid, number)
        wait_until(lambda: marked(mark) == [], f"{marked(mark)} still run")


def test_servers_are_gone_after_a_whole_run_is_killed() -> None:
    """Whatever runs then: several workers, proxies and clients among it."""
    words = ("--start", "--variant", "workers", "--adapter", "fastsse")
    with suite("-m", "sse_conformance", *words) as (process, mark):
        wait_until(lambda: len(marked(mark)) >= 6, "the suite, its watcher, the hub's four")
        process.kill()
        wait_until(lambda: marked(mark) == [], f"{marked(mark)} still run")


def test_server_that_ended_is_not_watched_any_more() -> None:
    """Its number may be another program's by then."""
    program = (
        "import signal, subprocess, sys\n"
        "from sse_conformance import endings\n"
        "kept = subprocess.Popen(['sleep', '100'], start_new_session=True)\n"
        "endings.watch(kept.pid)\n"
        "endings.forget(kept.pid)\n"
        "print(kept.pid, endings.start_watcher()[1].pid, flush=True)\n"
        "signal.pause()\n"
    )
    with suite("-c", program) as (process, mark):
        assert process.stdout is not None
        kept, watcher = map(int, process.stdout.readline().split())
        process.kill()
        wait_until(lambda: watcher not in marked(mark), "the watcher still runs")
        assert marked(mark) == [kept]
