"""The command as users run it, in a process of its own; and called in the process of the tests."""

import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from fastsse.cli import main
from fastsse.config import catalogue

ROOT = Path(__file__).parents[2]


def forget_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the variables of all options: a developer may have set some."""
    for option in catalogue().values():
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.delenv("FASTSSE_CONFIG", raising=False)


@dataclass
class Ended:
    """What a command left."""

    status: int
    out: str
    err: str


class Running:
    """A command under way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout = process.stdout
        self.stderr = process.stderr

    async def line(self) -> str:
        """The next line of standard output."""
        return (await self.stdout.readline()).decode().rstrip("\n")

    async def error_line(self) -> str:
        """The next line of standard error."""
        return (await self.stderr.readline()).decode().rstrip("\n")

    async def write(self, data: bytes) -> None:
        """Give it input."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self, data: bytes = b"") -> Ended:
        """Give it the rest of its input and wait for its end."""
        out, err = await self._process.communicate(data)
        assert self._process.returncode is not None
        return Ended(self._process.returncode, out.decode(), err.decode())

    async def stop(self) -> None:
        """Whatever it does, it does it no longer."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


def environment(**variables: str) -> dict[str, str]:
    """The environment without what could configure a command."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTSSE_")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**clean, "PYTHONPATH": path, "NO_PROXY": "*", **variables}


def command(arguments: Sequence[str]) -> list[str]:
    """How a command is started."""
    return [sys.executable, "-m", "fastsse", *arguments]


def called(*arguments: str, **variables: str) -> Ended:
    """Runs a command in this process: a twentieth of the time of a process. For what depends on
    neither signals nor the terminal."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main(arguments)
    return Ended(status, out.getvalue(), err.getvalue())
