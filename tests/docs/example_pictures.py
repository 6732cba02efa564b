"""Draws `examples/*/picture.png`: each example's page in Chromium, while the example runs.

`make example-pictures` runs it. With names as arguments it draws only those.
"""

import asyncio
import base64
import importlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from examples.site import playing
from tests.browser.chromium import PROGRAM, Browser, Page, chromium
from tests.clients.javascript import MODULES
from tests.docs.blocks import ROOT
from tests.examples.test_llm import program
from tests.examples.test_notifications import playing as shopping
from tests.redis.server import running

WIDTH, HEIGHT = 640, 360
#: When a page shows enough.
SHOWS = {
    "chat": "/Ann.*Ben/.test(document.getElementById('here').textContent)",
    "cursors": "document.querySelectorAll('.cursor').length === 2",
    "dashboard": "document.querySelectorAll('.up').length > 10",
    "datastar": "document.querySelectorAll('#visits li').length >= 5",
    "gateway": "document.querySelectorAll('#devices tr').length === 10 &&"
    " document.querySelector('#devices td').textContent.length > 3",
    "htmx": "document.querySelectorAll('li').length >= 5",
    "llm": "document.getElementById('answer').textContent.length > 20",
    "notifications": "document.querySelectorAll('li').length === 6 &&"
    " document.querySelectorAll('.unread').length === 2",
    "logtail": "document.querySelectorAll('#lines div, #lines p, #lines li').length > 12",
}
LIBRARIES = {"datastar": ROOT / "build" / "examples", "htmx": MODULES.resolve()}


async def say(page: Page, name: str, text: str) -> None:
    """Writes in the chat."""
    await page.settled("document.getElementById('state').textContent", "open")
    await page.run(f"document.getElementById('name').value = '{name}'; 0")
    await page.run(f"document.getElementById('text').value = '{text}'; 0")
    await page.run("document.querySelector('button').click()")


async def point(page: Page, x: float, y: float) -> None:
    """Moves the pointer to a part of the window."""
    await page.settled("document.getElementById('state').textContent", "open")
    at = f"clientX: innerWidth * {x}, clientY: innerHeight * {y}"
    await page.run(f"dispatchEvent(new PointerEvent('pointermove', {{ {at} }})); 0")


@asynccontextmanager
async def notifications() -> AsyncIterator[str]:
    """Six orders of a user, who has read four of them."""
    states = ("paid", "packed", "sent", "delivered")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as redis:
        async with shopping(redis) as scene, scene.device("alice") as phone:
            for number in range(12, 16):
                scene.publish(
                    "orders.alice", f'{{"order": {number}, "state": "{states[number % 4]}"}}'
                )
            await phone.shows([12, 13, 14, 15], unread=[12, 13, 14, 15])
            phone.read_all()
            await phone.shows([12, 13, 14, 15], unread=[])
            for number in (16, 17):
                scene.publish("orders.alice", f'{{"order": {number}, "state": "paid"}}')
            yield f"{scene.application}/?user=alice"


async def play(browser: Browser, name: str, page: Page, url: str) -> None:
    """What visitors do meanwhile."""
    if name == "llm":
        await page.run("document.querySelector('button').click()")
    if name == "chat":
        await say(page, "Ann", "hello")
        await say(await browser.open(url), "Ben", "hello Ann")
    if name == "cursors":
        for place in ((0.3, 0.4), (0.6, 0.7)):
            await point(await browser.open(url), *place)


async def draw(browser: Browser, name: str) -> None:
    """Draws the picture of one example."""
    os.environ["FASTSSE_LIB"] = str(LIBRARIES.get(name, ""))
    async with AsyncExitStack() as stack:
        if name == "llm":
            model = await stack.enter_async_context(program("examples.model:app", PAUSE_S="0.05"))
            url = await stack.enter_async_context(
                program("examples.llm.app:app", UPSTREAM=f"{model}/v1")
            )
        elif name == "notifications":
            url = await stack.enter_async_context(notifications())
        else:
            example = importlib.import_module(f"examples.{name}.app").EXAMPLE
            url, _ = await stack.enter_async_context(playing(example))
        page = await browser.open(url)
        await page.command(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        await play(browser, name, page, url)
        await page.settled(SHOWS[name])
        answer = await page.command("Page.captureScreenshot", format="png")
    picture = ROOT / "examples" / name / "picture.png"
    picture.write_bytes(base64.b64decode(answer["data"]))
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size} B")


async def draw_all(names: list[str]) -> None:
    """Draws them, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        async with chromium(Path(folder) / "profile", "--hide-scrollbars") as browser:
            for name in names or SHOWS:
                await draw(browser, name)


if __name__ == "__main__":
    if PROGRAM is None:
        sys.exit("no Chromium here")
    asyncio.run(draw_all(sys.argv[1:]))
