"""Client libraries of Go and Java: exact over cut connections, and what a long event does to them.

Their programs are in `go/` and `java/`, built here with `go` and `mvn`, where these are installed.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.libraries.node import Program
from tests.loopback import Relay

pytestmark = pytest.mark.timeout(600)
HERE = Path(__file__).parent
# Go's scanner takes a line of 64 KiB, and r3labs/sse and go-sse leave that as it is.
SCANNER_BYTES = 64 * 1024


def built(folder: Path, program: str, *arguments: str) -> None:
    """Runs a build tool; the test is skipped where it is missing."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    done = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def go_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("go") / "reader"
    built(HERE / "go", "go", "build", "-mod=readonly", "-o", str(target), ".")
    return target


@pytest.fixture(scope="session")
def java_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("java")
    shutil.copytree(HERE / "java", folder, dirs_exist_ok=True)
    built(
        folder,
        "mvn",
        *("-q", "-B", "-DskipTests", "package", "dependency:copy-dependencies"),
        f"-DoutputDirectory={folder}/lib",
    )
    return folder


@asynccontextmanager
async def running(*command: object) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        await process.communicate()


def by_java(folder: Path, url: str, read_timeout_ms: int) -> Sequence[object]:
    paths = os.pathsep.join((f"{folder}/target/classes", f"{folder}/lib/*"))
    return (
        "java",
        "-Xshare:auto",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        paths,
        "Reader",
        url,
        read_timeout_ms,
    )


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    config = Config(port=0, drain=0, retry="20ms", access_lines=0, min_heartbeat="1s")
    async with Server(config) as one:
        yield one


async def until_streams(server: Server, count: int) -> None:
    async with asyncio.timeout(60):
        while server.stream_count != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def events(program: Program, count: int) -> list[str]:
    """Data of so many events. These libraries make an event without data of the opening, too."""
    while len(seen := [data for data in program.all("data") if data]) < count:
        await program.until("data", len(program.all("data")) + 1)
    return seen


async def is_exact(server: Server, relay: Relay, program: Program) -> None:
    """Every event once and in order, though the connection is cut and events come meanwhile."""
    await until_streams(server, 1)
    sent: list[str] = []
    for _ in range(4):
        sent += [f"event {len(sent)} \u2603", f"event {len(sent) + 1}\nof two lines"]
        for data in sent[-2:]:
            server.publish("a", data)
        await events(program, len(sent))
        relay.cut()
        await until_streams(server, 0)
        sent.append(f"missed {len(sent)}")
        server.publish("a", sent[-1])
        await until_streams(server, 1)
    assert await events(program, len(sent)) == sent


@pytest.mark.parametrize("library", ["r3labs", "tmaxmax"])
async def test_a_go_client_is_exact_over_cut_connections(
    server: Server, go_reader: Path, library: str
) -> None:
    async with Relay(server.addresses[0]) as relay:
        url = f"{relay.url}/events?topic=a"
        async with running(go_reader, library, url) as program:
            await is_exact(server, relay, program)


async def test_okhttp_is_exact_over_cut_connections(server: Server, java_reader: Path) -> None:
    async with Relay(server.addresses[0]) as relay:
        url = f"{relay.url}/events?topic=a"
        async with running(*by_java(java_reader, url, 60_000)) as program:
            await is_exact(server, relay, program)


async def test_a_heartbeat_below_okhttps_read_timeout_keeps_its_stream(
    server: Server, java_reader: Path
) -> None:
    quiet = f"{server.addresses[0]}/events?topic=a"
    async with running(*by_java(java_reader, quiet, 3_000)) as program:
        assert await program.until("error") == ["SocketTimeoutException"]
    await until_streams(server, 0)
    async with running(*by_java(java_reader, f"{quiet}&heartbeat=1s", 3_000)) as program:
        await until_streams(server, 1)
        await asyncio.sleep(4)  # Longer than the time-out.
        server.publish("a", "still there")
        assert await events(program, 1) == ["still there"]
        assert program.all("error") == []


@pytest.mark.parametrize("library", ["r3labs", "tmaxmax"])
async def test_max_event_keeps_from_go_what_its_scanner_can_not_read(
    server: Server, go_reader: Path, library: str
) -> None:
    url = f"{server.addresses[0]}/events?topic=a"
    async with running(go_reader, library, url) as program:
        await until_streams(server, 1)
        server.publish("a", "x" * (SCANNER_BYTES // 2))
        (data,) = await events(program, 1)
        assert len(data) == SCANNER_BYTES // 2
        # It fails at this one, resumes before it, and gets it again.
        server.publish("a", "x" * (SCANNER_BYTES + 1))
        await program.until("error", 3)
        assert await events(program, 1) == [data]
