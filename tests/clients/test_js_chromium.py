"""The JavaScript client in Chromium, as the server sends it, against real servers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.browser.chromium import PROGRAM, TIMEOUT_S, Browser, EmptySite, Page, chromium
from tests.loopback import LoopbackServer, Relay

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")

#: What a test's page has: `hub`, and `seen` of each subscription by its name.
SETUP = """
const { connect } = await import("/client.js");
window.seen = {}; window.subscriptions = {}; window.errors = [];
window.make = (options = {}, url = "/") => {
  const onError = (error) => errors.push(error.kind);
  window.hub = connect(url, { retryMinMs: 100, onError, ...options });
};
window.listen = (name, selector, options = {}) => {
  const one = seen[name] = { events: [], states: [], gaps: [], ends: 0 };
  subscriptions[name] = hub.subscribe(selector, {
    onEvent: (event) => one.events.push(event.data),
    onState: (state) => one.states.push(state),
    onGap: (gap) => one.gaps.push(gap.reason),
    onEnd: () => one.ends++,
    ...options,
  });
};
make();
"""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


def server(**options: Any) -> Server:
    return Server(Config(**{"port": 0, "drain": "0s", "retry": "100ms"} | options))


async def opened(browser: Browser, url: str, more: str = "") -> Page:
    """A page of the server's origin with the client in it."""
    page = await browser.open(f"{url}/healthz")
    await page.run(f"(async () => {{ {SETUP} {more} }})()")
    return page


async def is_open(page: Page, name: str = "a") -> None:
    await page.settled(f"seen.{name}.states.at(-1)", "open")


async def shows(page: Page, events: list[Any], name: str = "a") -> None:
    """Waits until a subscription has got just these."""
    await page.settled(f"seen.{name}.events.length >= {len(events)}")
    assert await page.run(f"seen.{name}.events") == events


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_page_gets_ten_thousand_events_exactly_over_cuts(browser: Browser) -> None:
    count = 10_000
    async with server(history_events=count + 1) as one, Relay(one.addresses[0]) as relay:
        page = await opened(browser, relay.url)
        await page.run("listen('a', 'a')")
        await is_open(page)
        for n in range(count):
            one.publish("a", n)
            if n % 2_000 == 1_000:
                relay.cut()
            if n % 50 == 0:
                await asyncio.sleep(0.001)
        await page.settled(f"seen.a.events.length >= {count}")
        assert await page.run("seen.a.events.every((n, at) => n === at)")
        assert await page.run("seen.a.events.length") == count
        assert await page.run("seen.a.gaps") == []


async def test_a_page_that_is_loaded_again_goes_on_after_its_last_event(browser: Browser) -> None:
    keep = """listen("a", "a", {
        lastEventId: sessionStorage.place,
        onEvent(event) {
          sessionStorage.place = event.id;
          sessionStorage.got = (sessionStorage.got ?? "") + event.data + ",";
        },
      });"""
    async with server() as one:
        page = await opened(browser, one.addresses[0], keep)
        await is_open(page)
        one.publish("a", 1)
        await page.settled("sessionStorage.got", "1,")
        await page.run("location.reload()")
        one.publish("a", 2)
        await page.settled("window.seen === undefined && document.readyState", "complete")
        one.publish("a", 3)
        await page.run(f"(async () => {{ {SETUP} {keep} }})()")
        one.publish("a", 4)
        await page.settled("sessionStorage.got", "1,2,3,4,")


async def test_a_page_without_a_network_waits_and_returns_when_it_is_back(browser: Browser) -> None:
    async with server() as one:
        page = await opened(browser, one.addresses[0])
        # A wait far beyond the test's: only the event `online` ends it.
        await page.run("make({ retryMinMs: 3_600_000, retryMaxMs: 3_600_000 }); 0")
        conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await page.ask("Network.enable", {})
        await page.ask("Network.emulateNetworkConditions", {**conditions, "offline": True})
        await page.run("listen('a', 'a', { last: 5 })")
        await page.settled("seen.a.states.at(-1)", "waiting")
        assert await page.run("errors") == ["network"]
        one.publish("a", 1)
        await page.ask("Network.emulateNetworkConditions", {**conditions, "offline": False})
        await is_open(page)
        one.publish("a", 2)
        await shows(page, [1, 2])


async def test_a_token_is_renewed_without_another_connection(browser: Browser) -> None:
    options = {"jwt_key": SECRET, "expiry_notice": "8s"}
    async with server(**options) as one, Relay(one.addresses[0]) as relay:
        page = await opened(browser, relay.url)
        claims = grants(subscribe=["a"]) | {"sub": "u7"}
        ends = int(time.time()) + 9
        tokens = [mint({**claims, "exp": end}).decode() for end in (ends, ends + 600)]
        await page.run(
            f"window.tokens = {json.dumps(tokens)}; make({{ token: async () => tokens.shift() }});"
            "listen('a', 'a'); 0"
        )
        await is_open(page)
        asked = relay.asked.count(b"GET /events")
        await page.settled("tokens.length", 0)
        await until(lambda: b"POST /renew" in relay.asked)
        async with asyncio.timeout(TIMEOUT_S):
            while time.time() < ends + 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        one.publish("a", "secret", private=True)
        await shows(page, ["secret"])
        assert relay.asked.count(b"GET /events") == asked == 1
        assert b"authorization=" not in relay.asked


async def test_a_page_returns_with_a_fresh_token_after_the_old_one_has_ended(
    browser: Browser,
) -> None:
    async with server(jwt_key=SECRET, expiry_notice="0s") as one:
        page = await opened(browser, one.addresses[0])
        claims = grants(subscribe=["a"])
        tokens = [mint({**claims, "exp": int(time.time()) + 2}).decode(), mint(claims).decode()]
        await page.run(
            f"window.tokens = {json.dumps(tokens)}; make({{ token: () => tokens.shift() }});"
            "listen('a', 'a'); 0"
        )
        await is_open(page)
        one.publish("a", 1, private=True)
        await page.settled("tokens.length", 0)
        one.publish("a", 2, private=True)
        await shows(page, [1, 2])


async def test_an_eventsource_opens_with_a_ticket_and_returns(browser: Browser) -> None:
    async with server(jwt_key=SECRET) as one, Relay(one.addresses[0]) as relay:
        page = await opened(browser, relay.url)
        token = mint(grants(subscribe=["a"])).decode()
        await page.run(
            f"make({{ token: {json.dumps(token)}, transports: ['eventsource'] }});"
            "listen('a', 'a', { event: 'tick,message' }); 0"
        )
        await is_open(page)
        one.publish("a", 1, private=True, event="tick")
        await shows(page, [1])
        relay.cut()
        one.publish("a", 2, private=True)
        await shows(page, [1, 2])
        assert b"ticket=" in relay.asked
        assert token.encode() not in relay.asked.split(b"GET /events")[-1]


class BufferingProxy(LoopbackServer):
    """Takes requests and holds their answers back, as a proxy that buffers does with a stream."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()


async def test_a_proxy_that_buffers_is_found_within_the_time(browser: Browser) -> None:
    async with server(cors_origins=["*"]) as one, BufferingProxy() as proxy:
        page = await opened(browser, one.addresses[0])
        await page.run(f"make({{ openTimeoutMs: 300 }}, {json.dumps(proxy.url)}); listen('a', 'a')")
        await page.settled("errors[0]", "buffered")


@pytest.mark.parametrize("share", ["worker", "leader"])
async def test_twenty_tabs_hold_one_stream(browser: Browser, share: str) -> None:
    count = 20
    async with server() as one:
        more = (
            "const { connectTabs } = await import('/client/tabs.js');"
            f"window.hub = connectTabs('/', {{ share: '{share}', retryMinMs: 100 }});"
            "listen('a', 'a', { last: 1 });"
        )
        one.publish("a", 0)
        pages = [await opened(browser, one.addresses[0], more) for _ in range(count)]
        for page in pages:
            await is_open(page)
            await shows(page, [0])
        for n in range(1, 50):
            one.publish("a", n)
        for page in pages:
            await shows(page, list(range(50)))
        await until(lambda: one.stream_count == 1)


@pytest.mark.parametrize("share", ["worker", "leader"])
async def test_a_tab_that_closes_hands_over_without_loss(browser: Browser, share: str) -> None:
    async with server() as one:
        more = (
            "const { connectTabs } = await import('/client/tabs.js');"
            f"window.hub = connectTabs('/', {{ share: '{share}', retryMinMs: 100 }});"
            "listen('a', 'a');"
        )
        first = await opened(browser, one.addresses[0], more)
        await is_open(first)
        others = [await opened(browser, one.addresses[0], more) for _ in range(3)]
        for page in others:
            await is_open(page)
        one.publish("a", 0)
        for page in others:
            await shows(page, [0])
        await first.run("setTimeout(() => location.href = 'about:blank'); 0")
        for n in range(1, 200):
            one.publish("a", n)
            await asyncio.sleep(0.002)
        for page in others:
            await shows(page, list(range(200)))
        await until(lambda: one.stream_count == 1)


async def test_an_outbox_publishes_each_event_once_over_cuts(browser: Browser) -> None:
    async with server() as one, Relay(one.addresses[0]) as relay:
        page = await opened(
            browser,
            relay.url,
            "const { createOutbox } = await import('/client/outbox.js');"
            "window.outbox = createOutbox(hub, { retryMinMs: 100, maxEvents: 100 });"
            "window.sent = [];",
        )
        await page.run("listen('a', 'a')")
        await is_open(page)
        await page.run(
            "for (let n = 0; n < 100; n++)"
            " outbox.publish('a', { n }, { meta: { by: 'me' } }).then((id) => sent.push(id));"
            "outbox.publish('a', 1).catch((error) => window.full = error.message); 0"
        )
        await page.settled("window.full?.startsWith('the outbox is full')")
        while await page.run("outbox.size"):
            relay.cut()
            await asyncio.sleep(0.15)
        await shows(page, [{"n": n} for n in range(100)])
        assert await page.run("new Set(sent).size") == 100


async def test_an_outbox_that_persists_sends_what_an_earlier_page_left(browser: Browser) -> None:
    make = (
        "const { createOutbox } = await import('/client/outbox.js');"
        "window.outbox = createOutbox(hub, { persist: 'chat', retryMinMs: 100 });"
    )
    async with server() as one:
        page = await opened(browser, one.addresses[0], "make({}, 'http://127.0.0.1:1');" + make)
        await page.run("outbox.publish('a', 'kept').catch(() => {}); 0")
        await page.settled("Object.keys(localStorage).length", 1)
        await page.run("location.reload()")
        await page.settled("window.seen === undefined && document.readyState", "complete")
        await page.run(f"(async () => {{ {SETUP} listen('a', 'a', {{ last: 1 }}); {make} }})()")
        await shows(page, ["kept"])
        await page.settled("Object.keys(localStorage).length", 0)


async def test_the_element_draws_events_as_text_and_never_as_markup(browser: Browser) -> None:
    evil = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'
    # A page of another origin loads the client as well.
    async with EmptySite() as site, server(cors_origins=[site.url]) as one:
        page = await browser.open(site.url)
        address = one.addresses[0]
        await page.run(f"import('{address}/client/element.js').then(() => 0)")
        await page.run(
            f"document.body.innerHTML = `<fastsse-events src='{address}' topic='news' last='2'"
            " limit='2'><template><li><b data-text='data.title'></b> <i data-text='topic'></i></li>"
            "</template></fastsse-events>`; 0"
        )
        await page.settled("document.querySelector('fastsse-events').getAttribute('state')", "open")
        for title in ("first", "second", evil):
            one.publish("news", {"title": title})
        await page.settled("document.querySelectorAll('fastsse-events li').length", 2)
        await page.settled("document.querySelector('li:last-of-type b').textContent", evil)
        assert await page.run("document.querySelectorAll('img, script').length") == 0
        assert await page.run("document.querySelector('li i').textContent") == "news"
        assert await page.run("window.hacked === undefined")
        await page.run("document.querySelector('fastsse-events').remove()")
        await until(lambda: one.stream_count == 0)


async def test_a_hidden_page_closes_its_stream_and_resumes_when_it_is_seen(
    browser: Browser,
) -> None:
    hide = (
        "Object.defineProperty(document, 'visibilityState',"
        " {{ get: () => '{}', configurable: true }});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    async with server() as one:
        page = await opened(
            browser, one.addresses[0], "make({ pauseHiddenMs: 50 }); listen('a', 'a');"
        )
        await is_open(page)
        one.publish("a", 1)
        await shows(page, [1])
        await page.run(hide.format("hidden"))
        await page.settled("seen.a.states.at(-1)", "paused")
        await until(lambda: one.stream_count == 0)
        one.publish("a", 2)
        await page.run(hide.format("visible"))
        await shows(page, [1, 2])


async def test_more_topics_than_an_address_takes_are_one_stream_by_a_feed(browser: Browser) -> None:
    count = 300
    async with server() as one, Relay(one.addresses[0]) as relay:
        page = await opened(browser, relay.url)
        await page.run(f"for (let n = 0; n < {count}; n++) listen('t' + n, 't' + n); 0")
        await is_open(page, "t0")
        assert one.stream_count == 1
        for turn in range(3):
            for n in range(count):
                one.publish(f"t{n}", turn)
            # Those of the first turn came through the stream that is cut here.
            await page.settled(f"seen.t{count - 1}.events.length >= {turn + 1}")
            relay.cut()
        await page.settled("Object.values(seen).every(({ events }) => events.join() === '0,1,2')")
        assert relay.asked.count(b"POST /feeds") >= 2
