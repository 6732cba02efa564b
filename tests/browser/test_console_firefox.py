"""The console in a real Firefox: every view opens, lives and acts, without an error."""

import json
from pathlib import Path

import pytest

from fastsse.server import Server
from tests.browser.firefox import PROGRAM, firefox
from tests.browser.test_console import HTML, VIEWS, WATCH, config, subscribed, text_of

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Firefox here")


async def test_every_view_works_in_firefox(tmp_path: Path) -> None:
    options = {"jwt_key": "k" * 32, "anonymous": True, "console_minting": "1h"}
    async with Server(config(console_password="sesame", **options)) as server:
        server.publish("news", HTML, event="tick")
        writer = await subscribed(server, "/events?topic=news", HTML)
        async with firefox(tmp_path / "profile") as browser:
            url = f"{server.addresses[0]}/#overview"
            await browser.ask("WebDriver:Navigate", {"url": url})
            await browser.run(WATCH)
            await browser.run(
                "document.querySelector('#sign-in input').value = 'sesame';"
                "document.querySelector('#sign-in button').click()"
            )
            await browser.settled("document.querySelector('[data-view=overview]').hidden", False)
            await browser.settled("document.querySelectorAll('svg path, svg polyline').length > 0")
            for view in VIEWS:
                await browser.run(f"location.hash = '#{view}'")
                await browser.settled(f"document.querySelector('[data-view={view}]').hidden", False)
            await browser.run("location.hash = '#topics'")
            await browser.settled(text_of("#topics button"), "news")
            await browser.run("location.hash = '#streams'")
            await browser.settled("document.querySelectorAll('#streams tr').length", 1)
            await browser.run("document.querySelector('#streams button').click()")
            told = "document.getElementById('message').textContent"
            await browser.settled(told, "The stream was ended.")
            await browser.run("location.hash = '#tokens'")
            form = "document.getElementById('mint-token')"
            await browser.run(f"{form}.subscribe.value = {json.dumps(HTML)}")
            await browser.run(f"{form}.querySelector('button').click()")
            await browser.settled(told, "A token was made.")
            await browser.run("location.hash = '#try'")
            await browser.run("document.querySelector('#subscribe [name=topics]').value = 'news'")
            await browser.run("document.getElementById('toggle').click()")
            await browser.settled("document.getElementById('state').classList.length > 1")
            server.publish("news", HTML)
            await browser.settled(f"{text_of('#events pre')}.includes({json.dumps(HTML)})")
            assert await browser.run("return document.title") == "fastsse"
            assert await browser.run("return wrong") == []
        writer.close()
