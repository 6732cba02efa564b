"""A service of several processes, as users run it: `fastsse serve --workers N`."""

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.cli.commandline import command, environment

TIMEOUT_S = 90
# What a service manager does: sockets from 3 on, and whom they are for.
_ACTIVATE = """
import fcntl, os, sys
given = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",")]
for number, fd in enumerate(given):
    os.dup2(fd, 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(given))}
os.environ["LISTEN_FDNAMES"] = ":".join(["fastsse.socket"] * (len(given) - 1) + ["admin"])
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Service:
    """A service under way: its processes by what they are, its log, its figures."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.url = ""
        self._reading = asyncio.create_task(self._read_log())

    @classmethod
    async def start(
        cls, *arguments: str, activated: tuple[int, ...] = (), **variables: str
    ) -> "Service":
        """Starts one; `wait` returns when it serves. `activated` are sockets as a service manager
        passes them: the last one is called admin."""
        words = command(["serve", "--log-format", "json", *arguments])
        if activated:
            words = [sys.executable, "-c", _ACTIVATE, ",".join(map(str, activated)), *words]
        process = await asyncio.create_subprocess_exec(
            *words,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment(**variables),
            pass_fds=activated,
        )
        return cls(process)

    async def wait(self, timeout_s: float = TIMEOUT_S) -> "Service":
        """Returns when it serves."""
        record = await self.logged("fastsse is serving.", timeout_s=timeout_s)
        self.url = record["addresses"][0]
        return self

    async def logged(
        self, event: str, count: int = 1, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """The first (or a later) record of an event, when it is there."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = [record for record in self.log if record.get("event") == event]
                if len(found) >= count:
                    return found[count - 1]
                assert not self._reading.done(), f"ended before {event!r}: {self.log[-5:]}"
                await asyncio.sleep(0.005)

    def children(self) -> dict[str, list[int]]:
        """The processes under the supervisor: `hub`, and `worker` oldest first."""
        pid = self.process.pid
        found: dict[str, list[int]] = {"hub": [], "worker": []}
        try:
            pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return found
        for child in sorted(map(int, pids)):
            try:
                name = Path(f"/proc/{child}/comm").read_text().split()
            except FileNotFoundError:
                continue
            if len(name) > 1 and state_of(child) != "Z":
                found[name[1]].append(child)
        return found

    async def replaced(self, before: dict[str, list[int]]) -> dict[str, list[int]]:
        """The processes, once every worker of `before` has ended: an old one may outlive its
        streams for a moment."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                after = self.children()
                if not set(before["worker"]) & set(after["worker"]):
                    return after
                await asyncio.sleep(0.01)

    async def stats(self) -> Any:
        """What `/stats` says, asked over a connection of its own."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.get(f"{self.url}/stats")
            answer.raise_for_status()
            return answer.json()

    async def until(self, condition: Any) -> Any:
        """Returns the statistics when they are so."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    stats = await self.stats()
                except httpx.HTTPError:
                    stats = None
                if stats is not None and condition(stats):
                    return stats
                await asyncio.sleep(0.02)

    async def handed_over(self) -> None:
        """Returns when every process has what memory keeps."""
        names = ("fastsse_bus_hub_filling", "fastsse_bus_workers_filling")
        async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    # On a connection of its own: the one before may have been a dead worker's.
                    headers = {"connection": "close"}
                    metrics = (await client.get(f"{self.url}/metrics", headers=headers)).text
                    if all(f"\n{name} 0.0\n" in metrics for name in names):
                        return
                await asyncio.sleep(0.02)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, once all its output was read."""
        async with asyncio.timeout(TIMEOUT_S):
            await self._reading
            return await self.process.wait()

    async def stop(self) -> None:
        """Whatever it does, it does it no longer, and neither do its children."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.ended()

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"text": line.decode(errors="replace")})


def state_of(pid: int) -> str:
    """A process's state letter; Z too when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


async def gone(pid: int) -> None:
    """Returns when there is no such process, or only its exit status is left."""
    async with asyncio.timeout(TIMEOUT_S):
        while state_of(pid) != "Z":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def reload(*arguments: str) -> tuple[int, str]:
    """`fastsse reload`: its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *command(["reload", *arguments]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()
