"""Rolling upgrade: two nodes of an earlier version on one Redis are replaced under load.

The earlier version is built from the history of this clone into `build/earlier`, once, which takes
a minute. FASTSSE_TEST_EARLIER names a tree in which it is built already.
"""

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from fastsse.client.errors import ClientError
from fastsse.client.publisher import Publisher
from tests.cli.commandline import ROOT, environment
from tests.loopback import held_port
from tests.redis.cluster import Subscriber, until
from tests.redis.server import RedisServer

#: The last commit of the version whose nodes read format 1 of Redis only.
EARLIER = "83cf4af02de3699c1489460d2d44c22752d29dfd"
_BUILD_S = 500
_START_S = 90
_MORE = 50
_PAUSE_S = 0.01
# A viewer whose node is started again, on a busy machine, finds all that it missed.
_OPTIONS = {
    "FASTSSE_DRAIN": "0s", "FASTSSE_RETRY": "50ms", "FASTSSE_HISTORY_EVENTS": "1000000"
}  # fmt: skip


def earlier() -> pathlib.Path:
    """A tree with the earlier version, built."""
    if named := os.environ.get("FASTSSE_TEST_EARLIER"):
        return pathlib.Path(named)
    folder = ROOT / "build" / "earlier" / EARLIER[:8]
    if (folder / "built").exists():
        return folder
    git = ("git", "-C", str(ROOT))
    if subprocess.run(
        [*git, "cat-file", "-e", EARLIER], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"the earlier version, {EARLIER[:8]}, is not in the history of this folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packed = subprocess.run([*git, "archive", EARLIER], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=_BUILD_S)
    (folder / "built").touch()
    return folder


class Node:
    """A node at a port of its own: of this version or the earlier one, in turn."""

    def __init__(self, redis: RedisServer, folder: pathlib.Path) -> None:
        self._held = held_port()
        self._port = self._held.getsockname()[1]
        self._redis, self._log = redis, folder / f"node-{self._port}.log"
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    async def start(self, tree: pathlib.Path) -> None:
        """Returns when it is ready."""
        flags = ("--port", str(self._port), "--store", self._redis.url, "--log-format", "json")
        variables = {"PYTHONPATH": str(tree), **_OPTIONS}
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fastsse", "serve", *flags),
                cwd=tree, env=environment() | variables, stdout=output, stderr=output,
            )  # fmt: skip
        async with asyncio.timeout(_START_S), httpx.AsyncClient(trust_env=False) as client:
            while not await self._is_ready(client):
                assert self._process.returncode is None, self._log.read_text()[-3_000:]
                await asyncio.sleep(0.05)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    async def end(self, number: signal.Signals) -> None:
        """Ends it, as an operator or a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            await process.wait()

    async def close(self) -> None:
        await self.end(signal.SIGKILL)
        self._held.close()


class Load:
    """Publishes to each node all the time, and repeats what was not answered.

    Attributes:
        sent: what was acknowledged.
        repeated: what was sent again, so it may be there twice: the earlier version has no keys.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.sent: list[str] = []
        self.repeated: set[str] = set()
        self._ended = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._publish(node, f"n{at}")) for at, node in enumerate(nodes)
        ]

    async def has_more(self) -> None:
        """Returns when so much more was acknowledged."""
        behind = len(self.sent) + _MORE
        await until(lambda: len(self.sent) >= behind)

    async def close(self) -> None:
        self._ended.set()
        await asyncio.gather(*self._tasks)

    async def _publish(self, node: Node, name: str) -> None:
        number = 0
        async with Publisher(node.url, patience_s=0) as publisher:
            while not self._ended.is_set():
                text = f"{name} {number}"
                try:
                    await publisher.publish("t", text)
                except ClientError:
                    self.repeated.add(text)
                    await asyncio.sleep(0.05)
                    continue
                self.sent.append(text)
                number += 1
                await asyncio.sleep(_PAUSE_S)


@asynccontextmanager
async def cluster_of(
    redis: RedisServer, folder: pathlib.Path, tree: pathlib.Path
) -> AsyncIterator[list[Node]]:
    """Two nodes of a version."""
    async with AsyncExitStack() as stack:
        nodes = [Node(redis, folder) for _ in range(2)]
        for node in nodes:
            stack.push_async_callback(node.close)
            await node.start(tree)
        yield nodes


# A build of the earlier version, if there is none.
@pytest.mark.timeout(_BUILD_S + 180)
async def test_nodes_are_replaced_one_by_one_and_taken_back_without_a_loss_or_a_repeat(
    redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    old, new = await asyncio.to_thread(earlier), ROOT
    written = lambda: redis.client.get("{fastsse}:format")  # noqa: E731
    async with cluster_of(redis, tmp_path, old) as nodes, AsyncExitStack() as stack:
        viewers = [Subscriber(node.url, "t", last_event_id="earliest") for node in nodes]
        for viewer in viewers:
            stack.push_async_callback(viewer.close)
        load = Load(nodes)
        await load.has_more()
        steps = [
            (0, new, signal.SIGTERM),
            (1, new, signal.SIGKILL),
            (0, old, signal.SIGTERM),
            (0, new, signal.SIGKILL),
        ]
        for at, tree, number in steps:
            await nodes[at].end(number)
            await nodes[at].start(tree)
            await load.has_more()
        await until(lambda: written() == b"2")
        await load.close()
        for viewer in viewers:
            await until(lambda viewer=viewer: set(load.sent) <= set(viewer.seen), viewer)  # type: ignore[misc]
            doubled = {text for text, count in Counter(viewer.seen).items() if count > 1}
            assert doubled <= load.repeated
            assert viewer.gaps == []
        assert viewers[0].seen == viewers[1].seen
