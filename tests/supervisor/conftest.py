"""Supervisors with children that do next to nothing, and whole services."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commandline import environment
from tests.supervisor.service import Service

TIMEOUT_S = 90


class Little:
    """A supervisor under way, and the lines that its children wrote."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[list[str]] = []

    async def line(self, *words: object) -> list[str]:
        """The next line that begins so, lines before it kept in `lines`."""
        begin = [str(word) for word in words]
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                assert self.process.stdout is not None
                line = (await self.process.stdout.readline()).decode().split()
                assert line, f"ended before {begin}: {self.lines}"
                self.lines.append(line)
                if line[: len(begin)] == begin:
                    return line

    async def has(self, *words: object) -> None:
        """Returns when a line begins so, one that came before or the next."""
        begin = [str(word) for word in words]
        if all(line[: len(begin)] != begin for line in self.lines):
            await self.line(*words)

    def pid_of(self, number: int) -> int:
        """The process that a started child is."""
        return next(int(line[3]) for line in self.lines if line[0::2][:2] == ["start", str(number)])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, after all that it and its children wrote."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            rest = (await self.process.stdout.read()).decode()
            self.lines += [line.split() for line in rest.splitlines()]
            return await self.process.wait()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.communicate()


Begin = Callable[..., Awaitable[Little]]


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """`await begin(2, "hub", SLOW="1")` starts one; nothing of it is left after the test."""
    begun: list[Little] = []

    async def begin_little(*arguments: object, **variables: str) -> Little:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.supervisor.littlecrew", *map(str, arguments)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environment(), **variables},
            cwd=Path(__file__).parents[2],
        )
        begun.append(Little(process))
        return begun[-1]

    yield begin_little
    for little in begun:
        await little.stop()


Serve = Callable[..., Awaitable[Service]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve("--workers", "2")` starts a service that serves when this returns; with
    `wait=False` it returns at once. Nothing of it is left after the test."""
    begun: list[Service] = []

    async def serve_service(*arguments: str, wait: bool = True, **options: Any) -> Service:
        quick = ("--port", "0", "--drain", "200ms", "--retry", "10ms")
        begun.append(await Service.start(*quick, *arguments, **options))
        return await begun[-1].wait() if wait else begun[-1]

    yield serve_service
    for service in begun:
        await service.stop()
