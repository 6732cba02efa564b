"""A client that is limited can not get more by coming to several workers."""

import asyncio
import os
import signal
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from fastsse.selectors import Selector
from tests.http.raw import Raw, get, opened, request
from tests.supervisor.conftest import Serve, serve
from tests.supervisor.service import Service

__all__ = ["serve"]


async def opens(service: Service, stack: AsyncExitStack) -> bool:
    raw: Raw = await stack.enter_async_context(opened(service.url))
    await raw.send(get("/events?topic=a"))
    status, _ = await raw.head()
    assert status == 200
    return b"id: " in await raw.reader.read(200)


async def refused_everywhere(refuses: Callable[[], Awaitable[bool]]) -> None:
    """Returns when all of a dozen tries, by either worker, were refused: what is used in one is
    reported to the other soon, but not at once."""
    async with asyncio.timeout(60):
        in_a_row = 0
        while in_a_row < 12:
            in_a_row = in_a_row + 1 if await refuses() else 0
            await asyncio.sleep(0.1)


async def test_a_client_has_its_streams_once_in_the_whole_service(serve: Serve) -> None:
    service = await serve("--workers", "2", "--address-streams", "6")

    async def refuses() -> bool:
        """One more, which does not stay."""
        async with AsyncExitStack() as stack:
            return not await opens(service, stack)

    async with AsyncExitStack() as stack:
        for _ in range(6):
            assert await opens(service, stack)
        await refused_everywhere(refuses)
        for worker in service.children()["worker"]:
            os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(60):
            while await refuses():
                pass


async def test_a_publisher_has_its_rate_once_in_the_whole_service(serve: Serve) -> None:
    service = await serve("--workers", "2", "--address-publishes", "1")

    async def status(path: str, *headers: str, body: bytes) -> int:
        async with opened(service.url) as raw:
            await raw.send(request("POST", path, *headers, body=body))
            return (await raw.answer()).status

    async def refuses() -> bool:
        return await status("/events?topic=a", body=b"x") == 429

    # What one worker takes at once is owed for longer than this test can last.
    batch = b'{"topic":"a","data":"x"}\n' * 600
    assert await status("/events", "Content-Type: application/x-ndjson", body=batch) == 200
    await refused_everywhere(refuses)


@pytest.mark.parametrize(
    "template",
    [
        "{?" + ",".join(f"v{number}".ljust(13, "n") for number in range(64)) + "}",
        "{a}" + "x1" * 500 + "{b}",
    ],
)
def test_what_a_template_takes_of_memory_is_in_proportion_to_its_text(template: str) -> None:
    Selector("{warm}").matches("x")
    tracemalloc.start()
    try:
        selector = Selector(template)
        assert not selector.matches("?")
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not selector.is_exact
    assert kept_bytes < 100 * len(template)
