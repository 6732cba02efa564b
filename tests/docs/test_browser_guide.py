"""The modules of the guide on browsers, in a real one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.browser.chromium import PROGRAM, TIMEOUT_S, Browser, Page, chromium
from tests.docs.blocks import ROOT, blocks_of

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


def module(name: str) -> str:
    """A module of the guide as a script that leaves its function in the page."""
    page = blocks_of(ROOT / "docs/guides/browser.md")
    (text,) = [block.text for block in page if block.file == name]
    return text.replace("export ", "")


async def got(page: Page, *data: str) -> None:
    await page.settled("JSON.stringify(got)", json.dumps(data, separators=(",", ":")))


async def test_a_stream_of_the_guide_goes_on_after_its_token_has_ended(browser: Browser) -> None:
    options = Config(port=0, jwt_key=SECRET, retry="10ms", expiry_notice="0s")
    async with Server(options) as server:
        page = await browser.open(f"{server.addresses[0]}/healthz")
        claims = grants(subscribe=["news"])
        tokens = [mint({**claims, "exp": int(time.time()) + 2}), mint(claims)]
        await page.run(f"""{module("events.mjs")}
            window.got = []; window.tokens = {[token.decode() for token in tokens]};
            window.close = connect(location.origin, ["news"], () => tokens.shift(),
                (event) => got.push(event.data)); 0""")
        await page.settled("tokens.length", 1)
        # The first token ends before anything was published.
        await page.settled("tokens.length", 0)
        server.publish("news", "one", private=True)
        await got(page, "one")
        await page.run("close()")


async def test_tabs_of_the_guide_share_one_stream(browser: Browser) -> None:
    async with Server(Config(port=0, retry="10ms")) as server:
        pages = [await browser.open(f"{server.addresses[0]}/healthz") for _ in range(2)]
        for page in pages:
            await page.run(f"""{module("shared.mjs")}
                window.got = [];
                listenShared("/events?topic=news", (event) => got.push(event.data)); 0""")
        await pages[0].settled(
            "navigator.locks.query().then((locks) => [locks.held.length, locks.pending.length])",
            [1, 1],
        )
        async with asyncio.timeout(TIMEOUT_S):
            while server.stream_count == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        server.publish("news", "one")
        for page in pages:
            await got(page, "one")
        assert server.stream_count == 1
        await pages[0].run("location.href = 'about:blank'")
        server.publish("news", "two")
        await got(pages[1], "one", "two")
