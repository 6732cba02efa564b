"""The modules of the guide on browsers, in a real one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.browser.chromium import PROGRAM, Browser, Page, chromium
from tests.docs.blocks import ROOT, blocks_of

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


def module(name: str, *changes: tuple[str, str]) -> str:
    """A module of the guide as a script, which records what the page would print in `got`."""
    page = blocks_of(ROOT / "docs/guides/browser.md")
    (text,) = [block.text for block in page if block.file == name]
    lines = text.splitlines()
    imports = [line for line in lines if line.startswith("import ")]
    loads = [
        line.replace("import ", "const ", 1)
        .replace(" from ", " = await import(")
        .replace(";", ");")
        for line in imports
    ]
    script = "\n".join([*loads, *(line for line in lines if line not in imports)])
    for old, new in (("export ", ""), ("console.log(", "got.push("), *changes):
        assert old in script
        script = script.replace(old, new)
    return f"(async () => {{ window.got = []; {script} }})()"


async def got(page: Page, *values: object) -> None:
    await page.settled("got.length", len(values))
    assert await page.run("got") == list(values)


async def test_the_page_of_the_guide_gets_events_with_their_topic(browser: Browser) -> None:
    async with Server(Config(port=0)) as server:
        page = await browser.open(f"{server.addresses[0]}/healthz")
        first = server.publish("news", "one")
        # Another server issues the tokens of a real page; this one takes readers without.
        token = 'async () => (await fetch("/token", { method: "POST" })).text()'
        await page.run(module("page.mjs", (token, "undefined")))
        await got(page, "news", first, "one")
        await page.settled("document.title", "open")


async def test_tabs_of_the_guide_share_one_stream(browser: Browser) -> None:
    async with Server(Config(port=0, retry="100ms")) as server:
        pages = [await browser.open(f"{server.addresses[0]}/healthz") for _ in range(2)]
        server.publish("news", "one")
        for page in pages:
            await page.run(module("tabs.mjs"))
            await got(page, "one")
        server.publish("news", "two")
        for page in pages:
            await got(page, "one", "two")
        assert server.stream_count <= 2
