"""Runs the suite of the protocol's authors (npm) against servers, and reads what it says."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.libraries.node import MODULES, NODE
from tests.loopback import held_port
from tests.supervisor.service import Service

HERE = Path(__file__).parent
# Of one run; alone it takes 40 s.
TIMEOUT_S = 420
PATH = "/v1/stream"
OPTIONS = (
    *("--streams-path", PATH, "--streams-poll", "2s", "--max-body", "32MiB"),
    *("--cors-origins", "*", "--drain", "0s", "--outbound-networks", "127.0.0.0/8"),
)


class Result(NamedTuple):
    """How many tests passed and were skipped, and what failed."""

    passed: int
    skipped: int
    failed: Sequence[str]


async def run_suite(folder: Path, url: str) -> Result:
    """Runs all tests in a new folder."""
    if not (MODULES / "@durable-streams/server-conformance-tests").is_dir():
        pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    for name in ("suite.test.ts", "vitest.config.mjs"):
        shutil.copy(HERE / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "node_modules").symlink_to(MODULES)
    process = await asyncio.create_subprocess_exec(
        *(NODE, MODULES / "vitest/vitest.mjs", "run", "--root", folder),
        cwd=folder,
        env={
            "STREAMS_URL": url,
            "HOME": str(folder),
            "PATH": str(NODE.parent),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (folder / "result.json").exists(), output.decode()[-2000:]
    return _read(json.loads((folder / "result.json").read_text()))


def _read(report: dict) -> Result:
    tests = [test for file in report["testResults"] for test in file["assertionResults"]]
    failed = [
        f"{test['fullName']}: {test['failureMessages'][0].splitlines()[0]}"
        for test in tests
        if test["status"] == "failed"
    ]
    passed = sum(test["status"] == "passed" for test in tests)
    return Result(passed, len(tests) - passed - len(failed), failed)


@contextlib.asynccontextmanager
async def serving(*options: str) -> AsyncIterator[Service]:
    """A service for the suite, on a port of its own."""
    with contextlib.closing(held_port()) as held:
        port = str(held.getsockname()[1])
        service = await Service.start("--port", port, *OPTIONS, *options)
        try:
            yield await service.wait()
        finally:
            service.process.terminate()
            await service.ended()


@contextlib.asynccontextmanager
async def in_front_of(services: Sequence[Service]) -> AsyncIterator[str]:
    """A proxy that gives connections to the services in turn."""
    ports = [int(service.url.rpartition(":")[2]) for service in services]
    turn = 0

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        there, back = await asyncio.open_connection("127.0.0.1", ports[turn % len(ports)])
        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
