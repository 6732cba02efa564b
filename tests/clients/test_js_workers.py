"""The JavaScript client against a service of several processes, some of which are killed."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastsse.client import OutcomeUnknown, Publisher, Unreachable
from tests.browser.chromium import PROGRAM, Browser, chromium
from tests.clients.test_js_chromium import is_open, opened
from tests.supervisor.conftest import serve

__all__ = ["serve"]
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
COUNT = 600


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


async def publish_once(publisher: Publisher, n: int) -> None:
    """Publishes, again with the same key while the worker that was asked is killed."""
    async with asyncio.timeout(30):
        while True:
            with suppress(OutcomeUnknown, Unreachable):
                await publisher.publish("a", {"n": n}, key=f"event {n}")
                return
            await asyncio.sleep(0.05)


async def test_pages_miss_and_repeat_nothing_while_workers_are_killed(
    browser: Browser, serve
) -> None:
    service = await serve("--workers", "2", "--retry", "100ms", "--history-events", str(2 * COUNT))
    pages = [await opened(browser, service.url, "listen('a', 'a');") for _ in range(4)]
    for page in pages:
        await is_open(page)
    # A topic that is added while workers die begins with the next event, and has no hole.
    await pages[0].run("setTimeout(() => listen('b', 'a'), 700); 0")
    kills = {COUNT // 4, COUNT // 2}
    async with Publisher(service.url) as publisher:
        for n in range(COUNT):
            await publish_once(publisher, n)
            await asyncio.sleep(0.002)
            if n in kills:
                worker = random.choice(service.children()["worker"])
                os.kill(worker, signal.SIGKILL)
    for page in pages:
        await page.settled(f"seen.a.events.length >= {COUNT}")
        assert await page.run("seen.a.events.every(({ n }, at) => n === at)")
        assert await page.run("seen.a.events.length") == COUNT
    await pages[0].settled(f"seen.b.events.at(-1)?.n === {COUNT - 1}")
    holes = "seen.b.events.slice(1).filter(({ n }, at) => n !== seen.b.events[at].n + 1).length"
    assert await pages[0].run(holes) == 0
