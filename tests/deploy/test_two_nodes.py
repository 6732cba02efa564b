"""Two nodes behind a proxy with TLS and HTTP/2, under a public name: one address, one order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.deploy.front import TIMEOUT_S, Front, ask, front, stream
from tests.deploy.test_recipes import OPTIONS, address, every_proxy
from tests.redis import cluster
from tests.redis.conftest import NO_SERVER
from tests.redis.server import program, running

pytestmark = pytest.mark.skipif(program() is None, reason=NO_SERVER)


@asynccontextmanager
async def two_nodes(
    proxy: str, folder: Path
) -> AsyncIterator[tuple[Server, Server, AsyncExitStack, Front]]:
    """The nodes, what ends the first one, and the proxy."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(running(folder / "redis"))
        options = OPTIONS | {"store": redis.url}
        life = await stack.enter_async_context(AsyncExitStack())
        first = await life.enter_async_context(Server(Config(**options)))
        second = await stack.enter_async_context(Server(Config(**options)))
        flags = (address(first), "--node", address(second))
        yield first, second, life, await stack.enter_async_context(front(proxy, folder, *flags))


async def streams_of(node: Server) -> int:
    return int((await cluster.get(node.addresses[0], "/stats")).json()["connections"])


@every_proxy
async def test_streams_over_tls_are_spread_and_survive_a_node(proxy: str, tmp_path: Path) -> None:
    async with (
        two_nodes(proxy, tmp_path) as (first, second, life, site),
        AsyncExitStack() as readers,
    ):
        path = "/events?topic=news&since=1h"
        opened = [
            await readers.enter_async_context(stream(site, path, "--http2")) for _ in range(4)
        ]
        for reader in opened:
            await reader.saw("HTTP/2 200 ")
        assert [await streams_of(node) for node in (first, second)] == [2, 2]
        await first.publish_later("news", "from the first")
        await second.publish_later("news", "from the second")
        said = await ask(site, "/events?topic=news", "--http2", "-d", "through the proxy")
        assert said.startswith("HTTP/2 200 ")
        for reader in opened:
            await reader.saw("data: through the proxy")
            data = [line for line in reader.lines if line.startswith("data: ")]
            assert data == [f"data: from the {n}" for n in ("first", "second")] + [
                "data: through the proxy"
            ]
        await life.aclose()
        async with asyncio.timeout(TIMEOUT_S):
            while sum(reader.has_ended for reader in opened) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        # The other node takes what comes now, with all that the first one had.
        async with stream(site, path, "--http2") as newcomer:
            await newcomer.saw("data: from the first", "data: through the proxy")
            await second.publish_later("news", "after")
            for reader in (newcomer, *(one for one in opened if not one.has_ended)):
                await reader.saw("data: after")
