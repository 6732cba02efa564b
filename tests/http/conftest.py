"""Servers for the tests of HTTP. Every test runs on asyncio's own loop and on uvloop's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from fastsse.config import Config
from fastsse.server import Server
from tests.http.raw import Answer, connected, request

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
# libuv keeps a pipe for the process from its first loop on; no test shall be blamed for it.
uvloop.new_event_loop().close()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What makes the tests' loops (pytest-asyncio's interface)."""
    return LOOPS


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(max_body="1KiB")` gives a running server with these options."""
    running: list[Server] = []

    async def start_server(**options: Any) -> Server:
        server = Server(Config(**{"port": 0, "drain": 0, "access_lines": 0, **options}))
        await server.start()
        running.append(server)
        return server

    yield start_server
    for server in running:
        await server.drain(0)
        await server.close()


@pytest.fixture
async def server(start: Start) -> Server:
    """A running server."""
    return await start()


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
def ask(server: Server) -> Ask:
    """`await ask("GET", "/healthz")` gives the answer to one request."""

    async def ask_server(
        method: str, path: str, *headers: str, body: bytes | None = None
    ) -> Answer:
        return await asked(server, method, path, *headers, body=body)

    return ask_server


async def asked(
    server: Server, method: str, path: str, *headers: str, body: bytes | None = None
) -> Answer:
    """One request on a connection of its own."""
    async with connected(server) as raw:
        await raw.send(request(method, path, *headers, body=body))
        return await raw.answer(to_head=method == "HEAD")
