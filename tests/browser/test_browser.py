"""What a browser's own EventSource makes of our streams, on pages of real origins."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.browser.chromium import PROGRAM, Browser, EmptySite, Page, chromium
from tests.loopback import Relay, held_port

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
CLOSED = 2
HUB = "/.well-known/mercure"
TEXTS = ["one", "two\nlines\n", "snowman \u2603", "", ": colon", "x" * 70_000, " leading"]


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
async def site() -> AsyncIterator[EmptySite]:
    async with EmptySite() as opened:
        yield opened


def server(site: EmptySite, **options: Any) -> Server:
    """One that the site's pages may read."""
    settings = {"port": 0, "drain": "0s", "retry": "20ms", "cors_origins": [site.url]}
    return Server(Config(**settings | options))


def events_of(seen: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Without what a source says of its connections."""
    return [list(entry) for entry in seen if entry[0] not in ("open", "error")]


async def opened(page: Page, name: str) -> None:
    await page.until(name, lambda seen: ["open"] in seen)


async def test_a_page_gets_every_event_once_over_a_cut_connection(
    browser: Browser, site: EmptySite
) -> None:
    async with server(site) as one, Relay(one.addresses[0]) as relay:
        page = await browser.open(site.url)
        await page.watch("news", f"{relay.url}/events?topic=news", "message", "tick")
        await opened(page, "news")
        sent: list[list[Any]] = []

        def publish(texts: Sequence[str]) -> None:
            for text in texts:
                kind = "tick" if len(sent) % 2 else "message"
                position = one.publish("news", text, event=None if kind == "message" else kind)
                sent.append([kind, text, position])

        for index in range(3):
            publish(TEXTS)
            await page.until("news", lambda seen: len(events_of(seen)) == len(sent))
            relay.cut()
            publish([f"while away {index}"])
        await page.until("news", lambda seen: len(events_of(seen)) >= len(sent))
        assert events_of(await page.seen("news")) == sent


async def test_a_page_that_is_cut_before_its_first_event_resumes(
    browser: Browser, site: EmptySite
) -> None:
    async with server(site) as one, Relay(one.addresses[0]) as relay:
        page = await browser.open(site.url)
        await page.watch("news", f"{relay.url}/events?topic=news")
        await opened(page, "news")
        async with asyncio.timeout(60):
            while b"\nid: " not in relay.answered:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        relay.end()
        one.publish("news", "while away")  # In the same turn: no connection is there.
        await page.until("news", lambda seen: seen.count(["open"]) == 2)
        one.publish("news", "later")
        seen = await page.until("news", lambda seen: ["message", "later"] in [e[:2] for e in seen])
        assert [entry[1] for entry in events_of(seen)] == ["while away", "later"]
        # What the readers of the load tests send, too.
        assert b"\r\nCache-Control: no-cache\r\n" in relay.asked
        assert b"no-store" not in relay.asked


async def test_a_page_resumes_at_a_restarted_server(
    browser: Browser, site: EmptySite, tmp_path: Path
) -> None:
    page = await browser.open(site.url)
    with held_port() as held:
        options = {"store": f"sqlite:{tmp_path / 'history.db'}", "port": held.getsockname()[1]}
        async with server(site, **options) as one:
            await page.watch("news", f"{one.addresses[0]}/events?topic=news")
            await opened(page, "news")
            first = await one.publish_later("news", "before")
            await page.until("news", lambda seen: len(events_of(seen)) == 1)
        await page.until("news", lambda seen: seen[-1][0] == "error")
        assert await page.run("sources.news.readyState") != CLOSED
        async with server(site, **options) as one:
            second = await one.publish_later("news", "after")
            seen = await page.until("news", lambda seen: len(events_of(seen)) == 2)
    assert events_of(seen) == [["message", "before", first], ["message", "after", second]]


async def test_a_page_receives_a_gap_event_for_evicted_events(
    browser: Browser, site: EmptySite
) -> None:
    async with (
        server(site, history_events=2) as one,
        Relay(one.addresses[0]) as relay,
    ):
        page = await browser.open(site.url)
        await page.watch("news", f"{relay.url}/events?topic=news", "message", "fastsse.gap")
        await opened(page, "news")
        one.publish("news", "seen")
        await page.until("news", lambda seen: len(events_of(seen)) == 1)
        relay.cut()
        for index in range(5):
            one.publish("news", str(index))
        seen = events_of(await page.until("news", lambda seen: seen[-1][1:2] == ["4"]))
        assert [event[0] for event in seen] == ["message", "fastsse.gap", "message", "message"]
        assert json.loads(seen[1][1])["reason"]
        assert [event[1] for event in seen[2:]] == ["3", "4"]


async def test_a_dead_token_stops_a_page_for_good(browser: Browser, site: EmptySite) -> None:
    async with (
        server(site, jwt_key=SECRET) as one,
        Relay(one.addresses[0]) as relay,
    ):
        page = await browser.open(site.url)
        ends = grants(subscribe=["news"]) | {"exp": int(time.time()) + 3}
        url = f"{relay.url}/events?topic=news&authorization={mint(ends).decode()}"
        await page.watch("news", url)
        await page.until("news", lambda seen: seen[-1:] == [["error", CLOSED]])
        # Once to be ended at its `exp`, once to receive a 204.
        assert 1 <= relay.connections <= 2


async def test_a_cookie_opens_private_events_to_its_page_only(browser: Browser) -> None:
    token = mint(grants(subscribe=["news"], publish=["news"])).decode()
    async with (
        EmptySite(f"mercureAuthorization={token}; HttpOnly; SameSite=Strict") as site,
        server(site, jwt_key=SECRET, anonymous=True) as one,
    ):
        page = await browser.open(site.url)
        url = f"{one.addresses[0]}{HUB}?topic=news"
        await page.watch("known", url, withCredentials=True)
        await page.watch("anybody", url)
        await opened(page, "known")
        await opened(page, "anybody")
        one.publish("news", "secret", private=True)
        one.publish("news", "public")
        for name, texts in (("known", ["secret", "public"]), ("anybody", ["public"])):
            seen = await page.until(name, lambda seen: seen[-1][1:2] == ["public"])
            assert [event[1] for event in events_of(seen)] == texts


async def test_a_page_of_a_foreign_origin_sees_nothing(browser: Browser, site: EmptySite) -> None:
    async with EmptySite() as foreign, server(site) as one:
        url = f"{one.addresses[0]}/events?topic=news&last_event_id=earliest"
        one.publish("news", "not for you")
        page = await browser.open(foreign.url)
        await page.watch("news", url)
        seen = await page.until("news", lambda seen: seen[-1:] == [["error", CLOSED]])
        assert seen == [["error", CLOSED]]
        post = f"fetch({json.dumps(one.addresses[0] + '/events?topic=news')}, {{method: 'POST', "
        refused = await page.run(post + "body: 'x'}).then(() => 'read', () => 'refused')")
        assert refused == "refused"
        allowed = await browser.open(site.url)
        await allowed.watch("news", url)
        seen = await allowed.until("news", lambda seen: len(events_of(seen)) == 1)
        assert events_of(seen)[0][1] == "not for you"


async def test_a_page_answers_pings_and_stays(browser: Browser, site: EmptySite) -> None:
    async with server(site, ping="200ms", pong_timeout="30s") as one:
        page = await browser.open(site.url)
        await page.watch("news", f"{one.addresses[0]}/events?topic=news&ping=true", "fastsse.ping")
        seen = await page.until("news", lambda seen: len(events_of(seen)) >= 2)
        (stream,) = {json.loads(event[1])["stream"] for event in events_of(seen)}
        pong = (
            f"fetch({json.dumps(one.addresses[0] + '/pong?stream=' + stream)}, {{method: 'POST'}})"
        )
        assert await page.run(pong + ".then((answer) => answer.status)") == 204


async def test_the_servers_own_page_reads_and_publishes(browser: Browser) -> None:
    async with Server(Config(port=0, drain="0s")) as one:
        page = await browser.open(one.addresses[0])
        await page.settled("state.classList.contains('live')")
        one.publish("news", "from elsewhere <b>&amp;", meta={"tenant": "acme"})
        await page.settled("document.querySelectorAll('#events li').length", 1)
        # A click, as users do.
        await page.run("document.querySelector('#publish button').click()")
        await page.settled("document.querySelectorAll('#events li').length", 2)
        texts = await page.run(
            "[...document.querySelectorAll('#events pre')].map(e => e.textContent)"
        )
        assert sorted(texts) == ["from elsewhere <b>&amp;", "hello"]
        topic = "[...document.querySelectorAll('#events .topic')].map(e => e.textContent).join()"
        assert await page.run(topic) == "news,news"
        assert (
            await page.run("document.querySelector('#events .meta').textContent") == "tenant=acme"
        )
        assert await page.run("document.querySelectorAll('#events b').length") == 0


async def test_the_servers_own_page_chooses_events(browser: Browser) -> None:
    async with Server(Config(port=0, drain="0s")) as one:
        for price in (3, 7, 9):
            one.publish("news", {"price": price})
        page = await browser.open(one.addresses[0])
        await page.settled("state.classList.contains('live')")
        stop_and_choose = (
            "toggle.click(); document.querySelector('[name=begin]').value = 'last_each=1';"
            "document.querySelector('[name=filter]').value = 'data.price > %s';"
            "document.querySelector('[name=max_rate]').value = '50'; toggle.click()"
        )
        await page.run(stop_and_choose % "5")
        types = "[...document.querySelectorAll('#events .type')].map(e => e.textContent).join()"
        await page.settled(types, "fastsse.snapshot,message")
        assert "9" in await page.run(
            "document.querySelector('#events li:last-child pre').textContent"
        )
        one.publish("news", {"price": 1})
        one.publish("news", {"price": 8})
        await page.settled(types, "message,fastsse.snapshot,message")
        await page.run(stop_and_choose % "> 5")
        await page.settled("state.textContent.includes('at character 14')")
