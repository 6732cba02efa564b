"""A client that is limited can not get more by coming to several workers."""

import asyncio
import os
import signal
import tracemalloc
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


async def test_a_client_has_its_streams_once_in_the_whole_service(serve: Serve) -> None:
    service = await serve("--workers", "2", "--address-streams", "6")
    async with AsyncExitStack() as stack:
        taken = 0
        for _ in range(12):
            taken += await opens(service, stack)
            await asyncio.sleep(0.15)  # Longer than it takes to tell the other worker.
        assert taken == 6
        for worker in service.children()["worker"]:
            os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(30):
            while not await opens(service, stack):
                pass


async def test_a_publisher_has_its_rate_once_in_the_whole_service(serve: Serve) -> None:
    service = await serve("--workers", "2", "--address-publishes", "1")
    statuses = []
    for _ in range(6):
        async with opened(service.url) as raw:
            await raw.send(request("POST", "/events?topic=a", body=b"x"))
            statuses.append((await raw.answer()).status)
        await asyncio.sleep(0.15)
    assert statuses.count(200) <= 3
    assert 429 in statuses


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
