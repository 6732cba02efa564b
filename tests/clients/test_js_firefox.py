"""The JavaScript client in Firefox, as the server sends it, against real servers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.firefox import PROGRAM, Firefox, firefox
from tests.clients.test_js_chromium import SETUP, server
from tests.loopback import Relay

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Firefox here")


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Firefox]:
    async with firefox(tmp_path / "profile") as opened:
        yield opened


async def opened(browser: Firefox, url: str, more: str) -> None:
    await browser.ask("WebDriver:Navigate", {"url": f"{url}/healthz"})
    assert await browser.run(f"{SETUP} {more} return 'made';") == "made"


async def shows(browser: Firefox, events: list[Any]) -> None:
    await browser.settled(f"seen.a.events.length >= {len(events)}")
    assert await browser.run("return seen.a.events") == events


@pytest.mark.parametrize("transport", ["fetch", "eventsource"])
async def test_firefox_gets_every_event_once_over_cuts(browser: Firefox, transport: str) -> None:
    async with server() as one, Relay(one.addresses[0]) as relay:
        make = f"make({{ transports: ['{transport}'] }}); listen('a', '{{+any}}');"
        await opened(browser, relay.url, make)
        await browser.settled("seen.a.states.at(-1)", "open")
        for n in range(1_000):
            one.publish(f"a/{n}", n)
            if n % 300 == 150:
                relay.cut()
                await browser.settled(f"seen.a.events.length > {n}")
        await shows(browser, list(range(1_000)))


@pytest.mark.parametrize("share", ["worker", "leader"])
async def test_firefox_shares_a_stream_between_tabs(browser: Firefox, share: str) -> None:
    more = (
        "const { connectTabs } = await import('/client/tabs.js');"
        f"window.hub = connectTabs('/', {{ share: '{share}', retryMinMs: 100 }});"
        "listen('a', 'a', { last: 9 });"
    )
    async with server() as one:
        one.publish("a", 0)
        first = (await browser.ask("WebDriver:GetWindowHandle", {}))["value"]
        await opened(browser, one.addresses[0], more)
        await shows(browser, [0])
        made = await browser.ask("WebDriver:NewWindow", {"type": "tab", "focus": True})
        await browser.ask("WebDriver:SwitchToWindow", {"handle": made["handle"]})
        await opened(browser, one.addresses[0], more)
        await shows(browser, [0])
        one.publish("a", 1)
        await shows(browser, [0, 1])
        await browser.ask("WebDriver:SwitchToWindow", {"handle": first})
        await shows(browser, [0, 1])
        # The first tab, which leads, is closed.
        await browser.ask("WebDriver:CloseWindow", {})
        one.publish("a", 2)
        await browser.ask("WebDriver:SwitchToWindow", {"handle": made["handle"]})
        one.publish("a", 3)
        await shows(browser, [0, 1, 2, 3])
        assert one.stream_count <= 2
