"""Pages with gzip, public events compressed and private ones stored, are read by HTTP clients that
unpack by themselves: pages at once, and long-polls that waited."""

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import httpx
import pytest
import requests

from fastsse.config import Config
from fastsse.server import Server
from tests.browser.chromium import PROGRAM, chromium
from tests.libraries.node import NODE
from tests.mercure.client import KEY, token

TIMEOUT_S = 60
LONG = "word " * 300
#: The program for browsers and Node; both send `Accept-Encoding` by themselves.
FETCH = """fetch(%s, {headers: %s}).then(async (answer) =>
  JSON.stringify({coding: answer.headers.get("content-encoding"), page: await answer.json()}))"""


class Page(NamedTuple):
    """An answer as a client shows it."""

    coding: str | None
    events: list[dict[str, Any]]


Read = Callable[[str, dict[str, str]], Awaitable[Page]]


@asynccontextmanager
async def with_requests(folder: pathlib.Path, url: str) -> AsyncIterator[Read]:
    def read(url: str, headers: dict[str, str]) -> Page:
        answer = requests.get(url, headers=headers, timeout=TIMEOUT_S, proxies={"http": ""})
        return Page(answer.headers.get("content-encoding"), answer.json()["events"])

    async def reading(url: str, headers: dict[str, str]) -> Page:
        return await asyncio.to_thread(read, url, headers)

    yield reading


@asynccontextmanager
async def with_httpx(folder: pathlib.Path, url: str) -> AsyncIterator[Read]:
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:

        async def reading(url: str, headers: dict[str, str]) -> Page:
            answer = await client.get(url, headers=headers)
            return Page(answer.headers.get("content-encoding"), answer.json()["events"])

        yield reading


@asynccontextmanager
async def with_aiohttp(folder: pathlib.Path, url: str) -> AsyncIterator[Read]:
    async with aiohttp.ClientSession() as session:

        async def reading(url: str, headers: dict[str, str]) -> Page:
            async with session.get(url, headers=headers) as answer:
                coding = answer.headers.get("content-encoding")
                return Page(coding, (await answer.json())["events"])

        yield reading


@asynccontextmanager
async def with_node(folder: pathlib.Path, url: str) -> AsyncIterator[Read]:
    async def reading(url: str, headers: dict[str, str]) -> Page:
        script = FETCH % (json.dumps(url), json.dumps(headers)) + ".then(console.log)"
        process = await asyncio.create_subprocess_exec(
            NODE, "-e", script, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return _parsed(out)

    yield reading


@asynccontextmanager
async def with_chromium(folder: pathlib.Path, url: str) -> AsyncIterator[Read]:
    if PROGRAM is None:
        pytest.skip("no Chromium here")
    async with chromium(folder / "profile") as browser:
        tab = await browser.open(f"{url}/healthz")

        async def reading(url: str, headers: dict[str, str]) -> Page:
            return _parsed(await tab.run(FETCH % (json.dumps(url), json.dumps(headers))))

        yield reading


def _parsed(text: str | bytes) -> Page:
    found = json.loads(text)
    return Page(found["coding"], found["page"]["events"])


READERS = {
    "requests": with_requests,
    "httpx": with_httpx,
    "aiohttp": with_aiohttp,
    "Node": with_node,
    "Chromium": with_chromium,
}


@pytest.mark.parametrize("reader", READERS)
async def test_a_client_unpacks_pages_and_long_polls(reader: str, tmp_path: pathlib.Path) -> None:
    config = Config(port=0, drain=0, access_lines=0, jwt_key=KEY, anonymous=True)
    async with Server(config) as server, READERS[reader](tmp_path, server.addresses[0]) as read:
        sent = [(f"{kind} {n} {LONG}", kind == "private") for n in range(9)
                for kind in ("public", "private")]  # fmt: skip
        for text, is_private in sent:
            server.publish("a", text, private=is_private)
        url = f"{server.addresses[0]}/events?topic=a"
        mine = {"Authorization": f"Bearer {token(subscribe=['a'])}"}
        page = await read(f"{url}&wait=0&since=earliest", mine)
        assert page.coding == "gzip"
        assert [event["data"] for event in page.events] == [text for text, _ in sent]
        public = await read(f"{url}&wait=0&since=earliest", {})
        assert [event["data"] for event in public.events] == [t for t, hides in sent if not hides]
        for is_private in (False, True):
            poll = asyncio.create_task(read(f"{url}&wait=50s", mine))
            async with asyncio.timeout(TIMEOUT_S):
                while not server._worker._hub.streams.polls.waiting:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            server.publish("a", LONG, private=is_private)
            late = await poll
            assert [event["data"] for event in late.events] == [LONG]
            # Of private events alone there is nothing to compress.
            assert late.coding == (None if is_private else "gzip")
