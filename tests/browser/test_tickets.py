"""A page's EventSource with a ticket in its URL returns after whatever ends its stream."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.auth.minting import SECRET, grants, mint
from tests.browser.chromium import PROGRAM, Browser, EmptySite, Page, chromium
from tests.loopback import held_port
from tests.supervisor.service import Service, gone, reload

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
CLOSED = 2
TOKEN = mint(grants(subscribe=["news"], publish=["news"])).decode()
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


async def ticket_of(url: str) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.post(f"{url}/tickets", headers=BEARER)
    ticket: str = answer.json()["ticket"]
    return ticket


async def publish(url: str, text: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        path = f"{url}/events?topic=news&private=true"
        answer = await client.post(path, headers=BEARER, content=text)
    assert answer.status_code == 200


async def got(page: Page, text: str) -> None:
    """Waits until the page has an event, and never fails for good."""

    def is_so(seen: list[list[Any]]) -> bool:
        assert ["error", CLOSED] not in seen
        return any(entry[:2] == ["message", text] for entry in seen)

    seen = await page.until("news", is_so)
    texts = [entry[1] for entry in seen if entry[0] == "message"]
    assert texts == sorted(set(texts), key=texts.index), "each once"


@pytest.mark.parametrize("same_origin", [True, False], ids=["by cookie", "without cookies"])
async def test_a_page_with_a_ticket_outlives_a_reload_killed_workers_and_a_drain(
    browser: Browser, tmp_path: Path, same_origin: bool
) -> None:
    pidfile = str(tmp_path / "pid")
    with held_port() as held:
        port = held.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with EmptySite() as site:
            words = (
                *("--port", str(port), "--workers", "2", "--jwt-key", SECRET, "--pidfile", pidfile),
                *("--store", f"sqlite:{tmp_path / 'history.db'}", "--cors-origins", site.url),
                *("--drain", "100ms", "--retry", "20ms", "--page", "on"),
            )
            service = await (await Service.start(*words)).wait()
            try:
                page = await browser.open(url if same_origin else site.url)
                await page.watch("news", f"{url}/events?topic=news&ticket={await ticket_of(url)}")
                await page.until("news", lambda seen: ["open"] in seen)
                await publish(url, "first")
                await got(page, "first")
                assert (await reload("--pidfile", pidfile))[0] == 0
                await publish(url, "after a reload")
                await got(page, "after a reload")
                for number, pid in enumerate(service.children()["worker"]):
                    os.kill(pid, signal.SIGKILL)
                    await gone(pid)
                    await publish(url, f"after a killed worker {number}")
                    await got(page, f"after a killed worker {number}")
                service.signal(signal.SIGTERM)
                assert await service.ended() == 0
                service = await (await Service.start(*words)).wait()
                await publish(url, "after a drain")
                await got(page, "after a drain")
                assert await page.run("sources.news.readyState") != CLOSED
                cookies = (await browser.ask("Storage.getCookies", {}))["cookies"]
                names = [one["name"] for one in cookies if one["httpOnly"]]
                assert [name[:15] for name in names] == ["fastsse-ticket-"] * same_origin
                assert json.dumps(cookies).count(TOKEN) == 0
            finally:
                await service.stop()
