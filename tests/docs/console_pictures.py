"""Draws `docs/images/console-*.png` from a real console in Chromium.

`make console-pictures` runs it. What is shown happens meanwhile: streams, a publisher, a client
that does not read, refused publishes.
"""

import asyncio
import base64
import sys
import tempfile
from pathlib import Path

import httpx

from fastsse.config import Config
from fastsse.server import Server
from tests.auth.minting import mint
from tests.browser.chromium import PROGRAM, Page, chromium
from tests.docs.blocks import ROOT

PICTURES = ROOT / "docs" / "images"
WIDE, PHONE = (1180, 760), (390, 780)
AGENTS = ("Mozilla/5.0 (Windows NT 10.0)", "okhttp/4.12", "python-httpx/0.28", "curl/8.5.0")
TOPICS = ("orders/7", "prices/eur", "prices/usd", "news")
# The view, its picture, the theme and the size of the window.
SHOTS = (
    ("overview", "console-overview", "light", WIDE),
    ("topics", "console-topics", "light", WIDE),
    ("streams", "console-streams", "dark", WIDE),
    ("tokens", "console-tokens", "light", WIDE),
    ("overview", "console-phone", "dark", PHONE),
)
RUNS_S = 25.0
PASSWORD, KEY = "sesame", "k" * 32


async def reads(url: str, topic: str, agent: str) -> None:
    """A client that reads."""
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
        headers = {"User-Agent": agent}
        async with client.stream(
            "GET", f"{url}/events", params={"topic": topic}, headers=headers
        ) as answer:
            async for _ in answer.aiter_bytes():
                pass


async def publishes(server: Server) -> None:
    """A publisher whose rate goes up and down."""
    turn = 0
    while True:
        turn += 1
        for topic in TOPICS:
            if turn % (1 + TOPICS.index(topic)) == 0:
                server.publish(topic, f'{{"value": {turn}, "of": "{"x" * 2000}"}}')
        await asyncio.sleep(0.02 + 0.015 * ((turn // 60) % 4))


async def stuck(url: str) -> asyncio.StreamWriter:
    """A client that asks and does not read."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    lines = ("GET /events?topic=prices/eur HTTP/1.1", "Host: localhost", f"User-Agent: {AGENTS[1]}")
    writer.write("\r\n".join((*lines, "", "")).encode())
    del reader
    return writer


async def shot(page: Page, view: str, name: str, theme: str, size: tuple[int, int]) -> None:
    """Writes one picture."""
    feature = [{"name": "prefers-color-scheme", "value": theme}]
    await page.command("Emulation.setEmulatedMedia", features=feature)
    width, height = size
    await page.command(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip
    await page.run(f"location.hash = '#{view}'")
    await page.settled(f"!document.querySelector('[data-view={view}]').hidden")
    if view == "overview":
        await page.settled("document.querySelectorAll('#condition li').length > 0")
        await page.settled("document.querySelectorAll('#tiles polyline').length > 0")
        await page.settled("document.getElementById('live').textContent", "live")
    elif view == "topics":
        await page.settled("document.querySelectorAll('#topics tr').length > 3")
        await page.run("document.querySelector('#topics button').click()")
        await page.run("document.getElementById('explain').click()")
        await page.settled("document.querySelectorAll('#checks li').length > 3")
        await page.run("scrollTo(0, 0)")
    elif view == "tokens":
        await made_token(page)
    else:
        await page.settled(f"document.querySelectorAll('#{view} tr').length > 3")
    answer = await page.command("Page.captureScreenshot", format="png")
    (PICTURES / f"{name}.png").write_bytes(base64.b64decode(answer["data"]))


async def made_token(page: Page) -> None:
    """Makes one, and asks the server about it."""
    form = "document.getElementById('mint-token')"
    for name, value in (("subscribe", "orders/7 news"), ("subject", "u7"), ("lifetime", "10m")):
        await page.run(f"{form}.{name}.value = '{value}'")
    await page.run(f"{form}.querySelector('button').click()")
    await page.settled("document.getElementById('message').textContent", "A token was made.")
    await page.run(
        "document.getElementById('read-token').token.value = "
        "document.querySelector('#minted textarea').value"
    )
    await page.run("document.getElementById('judge-token').click()")
    await page.settled("document.querySelectorAll('#token-facts li').length > 1")
    await page.run("scrollTo(0, 0)")


async def draw(folder: Path) -> None:
    """Draws all."""
    options = {"jwt_key": KEY, "anonymous": True}
    options |= {"console_minting": "1h", "console_password": PASSWORD}
    config = Config(port=0, drain=0, access_lines=0, **options)
    async with (
        Server(config) as server,
        chromium(folder / "profile", "--hide-scrollbars") as browser,
    ):
        url = server.addresses[0]
        tasks = [
            asyncio.create_task(reads(url, topic, agent))
            for topic in TOPICS
            for agent in AGENTS[: 1 + len(topic) % 4]
        ]
        tasks.append(asyncio.create_task(publishes(server)))
        writer = await stuck(url)
        async with httpx.AsyncClient(trust_env=False) as client:
            too_long = "x" * (1 << 21)
            token = mint({"mercure": {"publish": ["*"]}}, key=KEY).decode()
            publisher = {"Authorization": f"Bearer {token}"}
            for _ in range(12):
                await client.post(
                    f"{url}/events", content=too_long, params={"topic": "news"}, headers=publisher
                )
        await asyncio.sleep(RUNS_S)
        page = await browser.open(f"{url}/#overview")
        await page.run(f"document.querySelector('#sign-in input').value = '{PASSWORD}'")
        await page.run("document.querySelector('#sign-in button').click()")
        for view, name, theme, size in SHOTS:
            await shot(page, view, name, theme, size)
        writer.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Draws them where there is a Chromium."""
    if PROGRAM is None:
        sys.exit("no Chromium here")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(draw(Path(folder)))


if __name__ == "__main__":
    main()
