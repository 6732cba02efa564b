"""Commands under way, and a server for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.cli.commandline import Running, command, environment

Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start("publish", "news", "x", FASTSSE_URL=…)` starts a command."""
    running: list[Running] = []

    async def start_command(*arguments: str, **variables: str) -> Running:
        process = await asyncio.create_subprocess_exec(
            *command(arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(**variables),
        )
        running.append(Running(process))
        return running[-1]

    yield start_command
    for one in running:
        await one.stop()


class Here:
    """A server in this process. Holds nothing of it once the test is over."""

    def __init__(self, server: Server) -> None:
        self.url = server.addresses[0]
        self.publish = server.publish


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    """A running server, with events that tests publish from inside."""
    async with Server(Config(port=0, drain=0, retry="10ms")) as server:
        running = Here(server)
        yield running
    del running.publish


@pytest.fixture
def url(here: Here) -> str:
    """Its address."""
    return here.url
