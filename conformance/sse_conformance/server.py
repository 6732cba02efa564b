"""Starts the hub of an adapter, as its table `[server]` says, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sse_conformance import endings
from sse_conformance.adapter import Adapter
from sse_conformance.hub import Hub
from sse_conformance.registry import NotSupported, NotTested

START_S = 30.0
STOP_S = 20.0
_VERSION = re.compile(r"(?<![\w.])v?(\d+(?:\.\d+)+[\w.+~-]*)")
_NAMED = re.compile(r"@(env|program):(\w+)@")


class Server:
    """A running hub with a folder of its own.

    Entering starts it; leaving ends it and removes the folder.

    Args:
        variant: a table `[server.variant.NAME]`, whose values replace those of `[server]`.
    """

    def __init__(self, adapter: Adapter, variant: str = "", salt: str = "") -> None:
        self.adapter = adapter
        self._table = {**adapter.server, **adapter.server.get("variant", {}).get(variant, {})}
        self._salt = salt
        self.port = 0
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="sse-conformance-")
        self.port = free_port()
        self._values = {
            "port": str(self.port),
            "folder": self._folder.name,
            "adapters": str(self.adapter.path.parent),
            "python": sys.executable,
            "user": user(),
            **{f"port{n}": str(free_port()) for n in range(1, 5)},
        }
        for name, text in self._table.get("files", {}).items():
            Path(self._folder.name, name).write_text(filled(text, self._values))
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM, STOP_S)
        self._folder.cleanup()

    def start(self) -> None:
        """Starts its processes and waits until it accepts connections."""
        self._log = Path(self._folder.name, "log")
        variables = {**os.environ, **self._table.get("environment", {})}
        commands = [self._table["command"], *self._table.get("helpers", ())]
        with self._log.open("ab") as log:
            for command in commands:
                words = [filled(word, self._values) for word in command]
                words[0] = found_program(words[0]) or words[0]
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables,
                    cwd=self._folder.name, start_new_session=True,
                )  # fmt: skip
                endings.watch(process.pid)
                self._processes.append(process)
        self._wait_until_it_accepts()

    def _wait_until_it_accepts(self) -> None:
        # Where a helper publishes, its port has to be open too.
        names = ["port", *self._table.get("wait_for", ())]
        deadline = time.monotonic() + START_S
        while not all(_accepts(int(self._values[name])) for name in names):
            if self._processes[0].poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-2000:]
                raise NotTested(f"{self.adapter.name} did not start: {said}")
            time.sleep(0.02)

    def hub(self) -> Hub:
        return Hub("127.0.0.1", self.port, self.adapter, salt=self._salt, pids=self.pids)

    def pids(self) -> list[int]:
        """The processes of the hub itself, children included."""
        return list(_tree(self._processes[0].pid))

    def kill(self, number: signal.Signals) -> None:
        """Sends a signal to the process that was started; SIGKILL to its children too."""
        if number == signal.SIGKILL:
            for pid in self.pids():
                _kill(pid, number)
        else:
            self._processes[0].send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Whether the hub's process ended in time."""
        try:
            self._processes[0].wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, number: signal.Signals, timeout_s: float) -> None:
        """Ends all its processes; with SIGKILL what does not end in time."""
        for process in self._processes:
            pids = list(_tree(process.pid))
            if process.poll() is None:
                process.send_signal(number)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pid in pids:
                _kill(pid, signal.SIGKILL)
            endings.forget(process.pid)
        self._processes = []

    def restart(self, number: signal.Signals) -> None:
        """Ends it with a signal and starts it again on the same port and folder."""
        self.kill(number)
        if not self.wait(STOP_S):
            self.kill(signal.SIGKILL)
            self.wait(STOP_S)
        self.end(signal.SIGKILL, STOP_S)
        self.start()

    def versions(self) -> dict[str, str]:
        return versions(self.adapter)


class Started:
    """Servers of an adapter that has a table `[server]`."""

    def __init__(self, adapter: Adapter, salt: str) -> None:
        self._adapter = adapter
        self._salt = salt

    @contextmanager
    def started(self, variant: str = "") -> Iterator[Server]:
        if variant and variant not in self._adapter.server.get("variant", {}):
            reason = self._adapter.missing(variant)
            if reason is not None:
                raise NotSupported(reason)
            raise NotTested(f"the adapter has no [server.variant.{variant}]")
        with Server(self._adapter, variant, self._salt) as server:
            yield server


class OnlyAddress:
    """A hub that somebody else runs: the suite has its address alone."""

    @contextmanager
    def started(self, variant: str = "") -> Iterator[Any]:
        raise NotTested("needs a server that the suite starts (--start)")
        yield  # A generator, for contextmanager.


def missing_programs(adapter: Adapter) -> list[str]:
    """What `[server]` needs and is not installed."""
    needs = adapter.server.get("needs", [])
    missing = [name for name in needs if found_program(name) is None and not Path(name).exists()]
    variables = adapter.server.get("needs_variables", [])
    return missing + [f"${name}" for name in variables if name not in os.environ]


def versions(adapter: Adapter) -> dict[str, str]:
    """The versions that `[server.versions]` asks for, each the output of a command."""
    found = {}
    values = {"python": sys.executable}
    for name, command in adapter.server.get("versions", {}).items():
        words = [filled(word, values) for word in command]
        words[0] = found_program(words[0]) or words[0]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        except OSError:
            continue
        found[name] = _version_in((done.stdout or done.stderr).strip())
    return found


def _version_in(text: str) -> str:
    found = _VERSION.search(text)
    return found[1] if found else text[:40]


def found_program(name: str) -> str | None:
    """Debian puts servers where only root looks; the variable names a folder of one's own."""
    places = (os.environ.get("SSE_CONFORMANCE_PATH", ""), os.environ.get("PATH", ""), "/usr/sbin")
    return shutil.which(name, path=os.pathsep.join(filter(None, places)))


def filled(text: str, values: dict[str, str]) -> str:
    """Replaces `@name@`, `@env:NAME@` (a variable) and `@program:NAME@` (the path of a program)."""
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return _NAMED.sub(_named, text)


def _named(match: re.Match[str]) -> str:
    kind, name = match.groups()
    found = os.environ.get(name) if kind == "env" else found_program(name)
    return found or ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def user() -> str:
    """The name of the account that runs this."""
    return pwd.getpwuid(os.geteuid()).pw_name


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def open_sockets(pids: list[int]) -> int:
    """How many sockets these processes hold."""
    count = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                count += os.readlink(path).startswith("socket:")
            except OSError:
                continue
    return count


def memory_bytes(pids: list[int]) -> int:
    """Pss of these processes: pages that they share count once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
