"""The cluster of `deploy/`, through the real proxies: two nodes act as one address."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.cli.commandline import environment
from tests.deploy.proxies import PATH
from tests.redis import cluster
from tests.redis.cluster import Publishing, Subscriber, saw_the_same, subscribers, until
from tests.redis.conftest import NO_SERVER
from tests.redis.onelog import TIMEOUT_S
from tests.redis.server import program

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(program() is None, reason=NO_SERVER)


def proxy(name: str) -> object:
    here = shutil.which(name, path=PATH) is not None
    return pytest.param(name, marks=pytest.mark.skipif(not here, reason=f"no {name} here"))


PROXIES = [proxy("haproxy"), proxy("nginx"), proxy("caddy")]


class Cluster:
    """The addresses and processes that the command printed; and its own process."""

    def __init__(self, printed: dict[str, object], runner: int) -> None:
        self.runner = runner
        self.url = str(printed["url"])
        self.nodes = [str(url) for url in printed["nodes"]]  # type: ignore[attr-defined]
        self.pids = [int(pid) for pid in printed["pids"]]  # type: ignore[attr-defined]

    async def streams(self) -> list[int]:
        """How many each node holds; -1 for one that is away."""
        counts = []
        for url in self.nodes:
            try:
                counts.append((await cluster.get(url, "/stats")).json()["connections"])
            except httpx.HTTPError:
                counts.append(-1)
        return counts


@asynccontextmanager
async def cluster_behind(proxy: str, *options: str) -> AsyncIterator[Cluster]:
    """The cluster of `deploy/` with options of `fastsse serve`; ends with the block."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "deploy" / "cluster.py"), "--port", "0"),
        *("--proxy", proxy, "--", *options),
        stdout=asyncio.subprocess.PIPE,
        env=environment(PATH=PATH),
    )
    try:
        assert running.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            line = await running.stdout.readline()
        yield Cluster(json.loads(line), running.pid)
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGCONT)
            running.send_signal(signal.SIGTERM)
        await running.communicate()


@pytest.fixture(params=PROXIES)
async def two(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    async with cluster_behind(request.param, "--retry", "50ms", "--drain", "0s") as running:
        yield running


async def test_two_nodes_are_one_service_through_a_proxy(two: Cluster) -> None:
    async with subscribers([two.url] * 4) as readers:
        # Each event leaves when it came: nothing is kept for a fuller buffer.
        for index in range(5):
            publishing = Publishing([two.url])
            await publishing.publish(f"event {index}")
            assert publishing.acknowledged
            for reader in readers:
                await reader.saw(f"event {index}")
        # The processes of nginx count connections each for itself, so the halves may differ.
        shares = await two.streams()
        assert (sum(shares), min(shares) > 0) == (4, True)

        # A node dies: its streams go on at the other, with nothing lost or repeated.
        publishing, ended = Publishing([two.url]), asyncio.Event()
        load = asyncio.create_task(publishing.keep_on("x", ended))
        await until(lambda: len(publishing.acknowledged) > 20)
        os.kill(two.pids[0], signal.SIGKILL)
        before = len(publishing.acknowledged)
        await until(lambda: len(publishing.acknowledged) > before + 50)
        ended.set()
        await load
        await saw_the_same(readers, *publishing.acknowledged)
        assert sum(reader.connections > 1 for reader in readers) == shares[0]

        # It is started again, and takes its part.
        for _ in range(600):
            if min(await two.streams()) >= 0:
                break
            await asyncio.sleep(0.05)
        newcomer = Subscriber(two.url, "t", last_event_id=readers[0].ids[2])
        await newcomer.saw(*publishing.acknowledged)
        assert newcomer.seen == readers[0].seen[3:]
        await newcomer.close()


async def test_a_client_without_a_node_receives_a_retry_time(two: Cluster) -> None:
    """An error status would end an EventSource for good; a publisher must not take it for a yes."""
    os.kill(two.runner, signal.SIGSTOP)  # It would start them again.
    for pid in two.pids:
        os.kill(pid, signal.SIGKILL)
    streamed = await cluster.get(two.url, "/events", topic="t")
    refused = await cluster.post(two.url, "not taken")
    assert streamed.status_code == 200
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    assert streamed.text == "retry: 5000\n\n"
    assert refused.status_code in (502, 503)
