"""The transports of the JavaScript client in both browsers, through proxies that break streams."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.browser import chromium, firefox
from tests.browser.chromium import TIMEOUT_S
from tests.clients.test_js_chromium import SETUP, server
from tests.loopback import Relay

COUNT = 200
# The clock of the page can be set forward: half a minute without a stream takes no time. Scripts of
# tests have a `Date` of their own in Firefox.
CLOCK = """
const { Date } = window, { now } = Date;
window.ahead = 0;
Date.now = () => now() + window.ahead;
"""


class Tab:
    """A page of either browser, with the client in it."""

    def __init__(self, page: chromium.Page | firefox.Firefox) -> None:
        self._page = page
        self.settled = page.settled

    async def run(self, expression: str) -> Any:
        if isinstance(self._page, chromium.Page):
            return await self._page.run(f"(async () => {{ {expression} }})()")
        return await self._page.run(expression)


class Browser:
    def __init__(self, program: chromium.Browser | firefox.Firefox) -> None:
        self._program = program

    async def opened(self, url: str, more: str) -> Tab:
        """A page of the server's origin in which a script has run."""
        if isinstance(self._program, chromium.Browser):
            tab = Tab(await self._program.open(f"{url}/healthz"))
        else:
            await self._program.ask("WebDriver:Navigate", {"url": f"{url}/healthz"})
            tab = Tab(self._program)
        assert await tab.run(f"{SETUP} {more} return 'made';") == "made"
        return tab

    async def again(self, tab: Tab, url: str, more: str) -> Tab:
        """The same tab, loaded again."""
        if isinstance(self._program, firefox.Firefox):
            return await self.opened(url, more)
        await tab.run("location.reload()")
        await tab.settled("window.seen === undefined && document.readyState", "complete")
        assert await tab.run(f"{SETUP} {more} return 'made';") == "made"
        return tab


@pytest.fixture(params=[chromium, firefox], ids=["chromium", "firefox"])
async def browser(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Browser]:
    if request.param.PROGRAM is None:
        pytest.skip("this browser is not here")
    start = chromium.chromium if request.param is chromium else firefox.firefox
    async with start(tmp_path / "profile") as opened:
        yield Browser(opened)


class StreamBuffer(Relay):
    """A proxy that buffers streams: nothing of them is passed on before their end."""

    buffers = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked += head
        if self.breaks(head):
            await self.hold(reader)
            return
        if b"Upgrade: websocket" not in head:
            head = head.replace(b"keep-alive", b"close")
        there, back = await asyncio.open_connection(self._host, self._port)
        self.writers.add(back)
        try:
            back.write(head)
            async with asyncio.TaskGroup() as group:
                copies = [_copy(there, writer), _copy(reader, back)]
                tasks = [group.create_task(copy) for copy in copies]
                await tasks[0]
                tasks[1].cancel()
        except* OSError:
            pass
        finally:
            self.writers.discard(back)
            back.transport.abort()

    def breaks(self, head: bytes) -> bool:
        return self.buffers and b"GET /events" in head and b"wait=" not in head

    async def hold(self, reader: asyncio.StreamReader) -> None:
        await reader.read()


class SocketsOnly(StreamBuffer):
    """A proxy that cuts every stream and every page of history, and passes WebSockets."""

    def breaks(self, head: bytes) -> bool:
        return b"GET /events" in head

    async def hold(self, reader: asyncio.StreamReader) -> None:
        pass


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def publish_over_cuts(one: Server, proxy: Relay, tab: Tab, first: int = 0) -> None:
    for n in range(first, COUNT):
        one.publish("a", n)
        await asyncio.sleep(0.002)
        if n % 50 == 25:
            proxy.cut()
            await tab.settled(f"seen.a.events.at(-1) === {n}")


async def shows(tab: Tab, count: int) -> None:
    await tab.settled(f"seen.a.events.length >= {count}")
    assert await tab.run("return seen.a.events") == list(range(count))
    assert await tab.run("return seen.a.gaps") == []


def streams(proxy: Relay) -> int:
    """Streams that were asked for through the proxy."""
    return proxy.asked.count(b"GET /events") - proxy.asked.count(b"wait=")


async def test_behind_a_proxy_that_buffers_a_page_polls_by_itself_and_remembers_it(
    browser: Browser,
) -> None:
    # So that there is no trial of a stream within the test.
    make = "make({ openTimeoutMs: 2_000 }); listen('a', 'a', { last: 300 });"
    async with server() as one, StreamBuffer(one.addresses[0]) as proxy:
        tab = await browser.opened(proxy.url, make)
        await tab.settled("seen.a.states.at(-1)", "open")
        assert await tab.run("return errors") == ["buffered"]
        await publish_over_cuts(one, proxy, tab)
        await shows(tab, COUNT)
        tab = await browser.again(tab, proxy.url, make)
        await shows(tab, COUNT)
        assert await tab.run("return errors") == []
        assert streams(proxy) == 1


async def test_a_page_that_polls_goes_back_to_a_stream_when_the_proxy_lets_it_through(
    browser: Browser,
) -> None:
    make = "make({ openTimeoutMs: 300 }); listen('a', 'a');"
    async with server() as one, StreamBuffer(one.addresses[0]) as proxy:
        tab = await browser.opened(proxy.url, make)
        await tab.settled("seen.a.states.at(-1)", "open")
        assert one.stream_count == 0
        proxy.buffers = False
        published = 0
        async with asyncio.timeout(TIMEOUT_S):
            # The trial and the stream, while events arrive.
            while streams(proxy) < 3 or await tab.run("return seen.a.states.at(-1)") != "open":
                one.publish("a", published)
                published += 1
                await asyncio.sleep(0.01)
        polls = proxy.asked.count(b"wait=")
        for n in range(published, published + 100):
            one.publish("a", n)
        await shows(tab, published + 100)
        assert proxy.asked.count(b"wait=") == polls
        assert one.stream_count == 1
        assert await tab.run("return Object.values(sessionStorage).join()") == "fetch"


async def test_a_shared_worker_remembers_for_its_tabs_that_a_proxy_buffers(
    browser: Browser,
) -> None:
    make = (
        "const { connectTabs } = await import('/client/tabs.js');"
        "window.hub = connectTabs('/', { share: 'worker', openTimeoutMs: 2_000 });"
        "listen('a', 'a', { last: 300 });"
    )
    async with server() as one, StreamBuffer(one.addresses[0]) as proxy:
        one.publish("a", 0)
        tab = await browser.opened(proxy.url, make)
        await shows(tab, 1)
        await tab.settled("Object.values(sessionStorage).join()", "poll")
        # Its worker ends with the page.
        tab = await browser.again(tab, proxy.url, make)
        one.publish("a", 1)
        await shows(tab, 2)
        assert streams(proxy) == 1


async def test_after_half_a_minute_without_a_stream_a_page_takes_a_websocket_and_remembers_it(
    browser: Browser,
) -> None:
    make = "make(); listen('a', 'a', { last: 300 });"
    async with server(history_events=1_000) as one, SocketsOnly(one.addresses[0]) as proxy:
        tab = await browser.opened(proxy.url, CLOCK + make)
        await tab.settled("errors.length > 1")
        assert b"GET /ws" not in proxy.asked
        await tab.run("window.ahead = 31_000")
        await tab.settled("seen.a.states.at(-1)", "open")
        await publish_over_cuts(one, proxy, tab)
        await shows(tab, COUNT)
        streams = proxy.asked.count(b"GET /events")
        tab = await browser.again(tab, proxy.url, make)
        await shows(tab, COUNT)
        assert proxy.asked.count(b"GET /events") == streams


@pytest.mark.parametrize("transport", ["poll", "websocket"])
async def test_a_transport_that_was_asked_for_has_rights_and_exact_ids_over_cuts(
    browser: Browser, transport: str
) -> None:
    token = mint(grants(subscribe=["a"])).decode()
    make = f"make({{ transports: ['{transport}'], token: '{token}' }}); listen('a', 'a');"
    async with server(jwt_key=SECRET) as one, Relay(one.addresses[0]) as proxy:
        tab = await browser.opened(proxy.url, make)
        await tab.settled("seen.a.states.at(-1)", "open")
        one.publish("a", 0, private=True)
        await shows(tab, 1)
        await publish_over_cuts(one, proxy, tab, 1)
        await shows(tab, COUNT)
        # A topic that is added begins with its own older events.
        await tab.run("listen('again', 'a', { last: 3 })")
        await tab.settled("seen.again.events.join()", ",".join(map(str, range(COUNT - 3, COUNT))))
        await shows(tab, COUNT)
