"""The console in a real browser: what it shows and does, and what it never does."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.browser.chromium import PROGRAM, Browser, EmptySite, Page, chromium

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
ROOT = Path(__file__).parents[2]
AXE = next(
    (path for path in (ROOT / ".venv" / "node").resolve().glob("node_modules/axe-core/axe.min.js")),
    None,
)
HTML = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
VIEWS = ("try", "overview", "topics", "streams", "nodes", "tokens")
# What the page reports of itself: errors, and what the policy stopped.
WATCH = """
window.wrong = [];
addEventListener("error", (event) => wrong.push(String(event.message)));
addEventListener("unhandledrejection", (event) => wrong.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => wrong.push(event.violatedDirective));
true
"""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


def config(**options: Any) -> Config:
    return Config(**{"port": 0, "drain": 0, "access_lines": 0, **options})


async def subscribed(server: Server, target: str, agent: str) -> asyncio.StreamWriter:
    host, _, port = server.addresses[0].removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {agent}\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"\n\n")
    return writer


async def opened(browser: Browser, server: Server, view: str) -> Page:
    page = await browser.open(f"{server.addresses[0]}/#{view}")
    await page.run(WATCH)
    await page.settled(f"!document.querySelector('[data-view={view}]').hidden")
    return page


def text_of(selector: str) -> str:
    return f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent).join()"


async def test_texts_of_strangers_stay_text_in_every_view(browser: Browser) -> None:
    async with Server(config()) as server:
        server.publish(HTML, HTML, event="tick", meta={"from": HTML})
        writer = await subscribed(server, "/events?topic=news", HTML)
        page = await opened(browser, server, "topics")
        await page.settled(text_of("#topics button"), f"{HTML},news")
        await page.run("document.querySelector('#topics button').click()")
        await page.settled("document.getElementById('h-topic').textContent", HTML)
        await page.run("location.hash = '#streams'")
        await page.settled("document.querySelectorAll('#streams tr').length", 1)
        assert HTML in await page.run(text_of("#streams td"))
        await page.run("location.hash = '#try'")
        await page.run("document.getElementById('publish').data.value = " + json.dumps(HTML))
        await page.run("document.querySelector('#publish button').click()")
        await page.settled(text_of("#events pre"), HTML)
        assert await page.run("document.title") == "fastsse"
        assert await page.run("document.querySelectorAll('main img, main script').length") == 0
        assert await page.run("wrong") == []
        writer.close()


async def test_an_overview_is_live_and_has_what_was_before(browser: Browser) -> None:
    async with Server(config()) as server:
        writer = await subscribed(server, "/events?topic=news", "curl")
        page = await opened(browser, server, "overview")
        await page.settled("document.getElementById('live').textContent", "live")
        streams = "document.querySelector('[data-figure=connections] .value')?.textContent"
        await page.settled(streams, "2")  # The console's own, too.
        other = await subscribed(server, "/events?topic=news", "curl")
        await page.settled(streams, "3")
        assert await page.run("document.querySelectorAll('#tiles polyline').length") == 11
        again = await opened(browser, server, "overview")
        points = "document.querySelector('#tiles polyline')?.points.length > 1"
        await again.settled(points)
        assert await page.run("wrong") == []
        writer.close()
        other.close()


async def test_an_operator_ends_a_stream_and_asks_why(browser: Browser) -> None:
    async with Server(config(console_password="sesame")) as server:
        writer = await subscribed(server, "/events?topic=news", "curl")
        page = await opened(browser, server, "streams")
        await page.settled(
            "document.getElementById('message').textContent.includes('requires its password')"
        )
        await page.run("document.querySelector('#sign-in input').value = 'sesame'")
        await page.run("document.querySelector('#sign-in button').click()")
        await page.settled("document.querySelectorAll('#streams tr').length", 1)
        await page.run("document.querySelector('#streams button').click()")
        await page.settled(
            "document.getElementById('message').textContent", "The stream was ended."
        )
        await page.run("location.hash = '#topics'")
        server.publish("news", "x")
        await page.run("document.querySelector('#find-topics button').click()")
        await page.settled("document.querySelectorAll('#topics tr').length", 1)
        await page.run("document.querySelector('#topics button').click()")
        await page.run("document.getElementById('explain').click()")
        await page.settled("document.querySelectorAll('#checks .wrong').length > 0")
        await page.run("location.hash = '#tokens'")
        token = "x." + base64.urlsafe_b64encode(b'{"sub":"ann"}').decode().rstrip("=") + ".y"
        await page.run("document.getElementById('read-token').token.value = " + json.dumps(token))
        await page.run("document.querySelector('#read-token button').click()")
        await page.settled("document.querySelector('#token-facts li').textContent", "Subject: ann")
        await page.run("location.hash = '#nodes'")
        await page.settled("document.querySelectorAll('#workers tr').length", 1)
        assert await page.run("wrong") == []
        writer.close()


async def test_a_topic_is_emptied_by_the_second_click(browser: Browser) -> None:
    async with Server(config()) as server:
        server.publish("news", "x")
        page = await opened(browser, server, "topics")
        await page.settled("document.querySelectorAll('#topics tr').length", 1)
        await page.run("document.querySelector('#topics button').click()")
        purge = "document.getElementById('purge')"
        await page.run(f"{purge}.click()")
        await page.settled(f"{purge}.textContent", "Delete all events of this topic?")
        await page.run(f"{purge}.dispatchEvent(new Event('blur'))")
        await page.settled(f"{purge}.textContent", "Purge")
        await page.run(f"{purge}.click()")
        await page.run(f"{purge}.click()")
        await page.settled(
            "document.getElementById('message').textContent", "The events of news were deleted."
        )
        kept = "fetch('/admin/topics').then((answer) => answer.json())"
        assert [row["events"] for row in (await page.run(kept))["topics"]] == [0]
        assert await page.run("wrong") == []


async def test_dead_letters_are_shown_and_replayed(browser: Browser, tmp_path: Path) -> None:
    lines, bad = tmp_path / "app.log", tmp_path / "bad.jsonl"
    lines.write_text(f'{{"ok": 1}}\n{HTML}\n')
    rule = {
        "name": "logs", "files": [str(lines)], "topic": "logs/{data.ok}", "payload": "json",
        "dead_letter": f"file:{bad}",
    }  # fmt: skip
    async with Server(config(sources=[rule])) as server:
        page = await opened(browser, server, "nodes")
        await page.settled("document.querySelectorAll('#sources tr').length", 1)
        show = "document.querySelector('#sources button').click()"
        async with asyncio.timeout(30):
            while not await page.run("document.querySelectorAll('#letter-rows tr').length"):
                await page.run(show)
                await asyncio.sleep(0.1)
        assert HTML in await page.run(text_of("#letter-rows td"))
        await page.run("document.getElementById('replay').click()")
        note = "document.getElementById('letters-note').textContent"
        await page.settled(f"{note}.includes('1 stay')")
        assert await page.run("document.title") == "fastsse"
        assert await page.run("wrong") == []


async def test_the_keyboard_reaches_everything(browser: Browser) -> None:
    async with Server(config()) as server:
        server.publish("news", "x")
        page = await opened(browser, server, "topics")
        await page.settled("document.querySelectorAll('#topics tr').length", 1)
        await page.run("document.querySelector('#topics button').click()")
        await page.run("document.body.focus()")
        seen, outlines = [], set()
        for _ in range(40):
            for kind in ("keyDown", "keyUp"):
                await page.command(
                    "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                    windowsVirtualKeyCode=9,
                )  # fmt: skip
            seen.append(
                await page.run(
                    "(({id, name, textContent, tagName}) => id || name || textContent || tagName)"
                    "(document.activeElement)"
                )
            )
            outlines.add(await page.run(
                "document.activeElement === document.body || "
                "getComputedStyle(document.activeElement).outlineStyle != 'none'"
            ))  # fmt: skip
        wanted = {"Skip to the content", "Overview", "Topics", "operator", "topic", "sort", "Show",
                  "news", "tail", "explain", "purge"}  # fmt: skip
        assert wanted <= set(seen), seen
        assert outlines == {True}
        await page.run("document.getElementById('explain').focus()")
        for kind in ("keyDown", "char", "keyUp"):
            await page.command(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                windowsVirtualKeyCode=13,
            )  # fmt: skip
        await page.settled("document.querySelectorAll('#checks li').length > 3")


async def test_no_page_of_another_site_can_frame_read_or_act(browser: Browser) -> None:
    async with Server(config()) as server, EmptySite() as site:
        writer = await subscribed(server, "/events?topic=news", "curl")
        url = server.addresses[0]
        page = await browser.open(site.url)
        framed = await page.run(f"""new Promise((done) => {{
          const frame = document.createElement("iframe");
          frame.onload = () => done(frame.contentDocument === null);
          frame.src = "{url}/";
          document.body.append(frame);
        }})""")
        assert framed
        for act in (
            f'fetch("{url}/admin/connections", {{mode: "no-cors", method: "POST"}})',
            f'fetch("{url}/admin/connections?topic=news", {{method: "DELETE"}})',
            f'fetch("{url}/admin/topics").then((answer) => answer.text())',
        ):
            await page.run(f"{act}.then(() => 1, () => 0)")
        answer = await asyncio.to_thread(_connections, url)
        assert len(answer) == 1
        writer.close()


def _connections(url: str) -> list[Any]:
    import httpx

    answer = httpx.get(f"{url}/admin/connections?topic=news", trust_env=False)
    return list(answer.json()["connections"])


async def shown_as(page: Page, theme: str, width: int) -> None:
    """Light or dark, of this width; axe is loaded."""
    feature = [{"name": "prefers-color-scheme", "value": theme}]
    await page.command("Emulation.setEmulatedMedia", features=feature)
    await page.command(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=800, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip
    assert AXE is not None
    await page.run(AXE.read_text("utf-8") + "; true")


# How many pairs of sheets lie over each other.
OVERLAPS = """
  (() => {
    const sheets = [...document.querySelectorAll("[data-view]:not([hidden]) section")]
      .map((sheet) => sheet.getBoundingClientRect());
    const apart = (a, b) => a.right <= b.left || b.right <= a.left;
    const cross = (a, b) => !apart(a, b) && a.top < b.bottom && b.top < a.bottom;
    return sheets.flatMap((a, at) => sheets.slice(at + 1).filter((b) => cross(a, b))).length;
  })()
"""


async def check_accessible(page: Page, what: str) -> None:
    """What is shown has no fault that axe finds, is not wider than the window, and lies side by
    side."""
    found = await page.run("""axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    }).then((answer) => answer.violations.map(
      (one) => one.id + ": " + one.nodes.map((node) => node.target).join(" ")))""")
    assert found == [], what
    # `innerWidth` of a phone grows with what is too wide.
    root = "document.documentElement"
    assert await page.run(f"{root}.scrollWidth <= {root}.clientWidth"), what
    assert await page.run(OVERLAPS) == 0, what


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1180])
async def test_every_view_is_accessible(browser: Browser, theme: str, width: int) -> None:
    async with Server(config()) as server:
        server.publish("news", "x")
        writer = await subscribed(server, "/events?topic=news", "curl")
        page = await opened(browser, server, "try")
        await shown_as(page, theme, width)
        for view in VIEWS:
            await page.run(f"location.hash = '#{view}'")
            await page.settled(f"!document.querySelector('[data-view={view}]').hidden")
            if view == "overview":
                await page.settled("document.querySelectorAll('#tiles polyline').length > 0")
            elif view == "topics":
                await page.settled("document.querySelectorAll('#topics button').length > 0")
                await page.run("document.querySelector('#topics button').click()")
                await page.run("document.getElementById('explain').click()")
                await page.settled("document.querySelectorAll('#checks li').length > 3")
            elif view == "streams":
                await page.settled("document.querySelectorAll('#streams tr').length > 0")
            await check_accessible(page, view)
        writer.close()


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1180])
async def test_a_made_and_a_read_token_are_shown_accessibly(
    browser: Browser, theme: str, width: int
) -> None:
    options = {"jwt_key": "k" * 32, "console_minting": "1h", "console_password": "sesame"}
    async with Server(config(**options)) as server:
        page = await opened(browser, server, "tokens")
        await shown_as(page, theme, width)
        await check_accessible(page, "before sign-in")
        await page.run("document.querySelector('#sign-in input').value = 'sesame'")
        await page.run("document.querySelector('#sign-in button').click()")
        form = "document.getElementById('mint-token')"
        await page.run(f"{form}.subscribe.value = 'user/7'")
        await page.run(f"{form}.querySelector('button').click()")
        await page.settled("document.getElementById('message').textContent", "A token was made.")
        token = await page.run("document.querySelector('#minted textarea').value")
        await page.run(f"document.getElementById('read-token').token.value = '{token}'")
        await page.run("document.querySelector('#read-token button').click()")
        await page.run("document.getElementById('judge-token').click()")
        await page.settled(f"{text_of('#token-facts li')}.includes('user/7')")
        await check_accessible(page, "tokens")
        await page.run("document.getElementById('read-token').token.value = 'no.token.this'")
        await page.run("document.getElementById('judge-token').click()")
        await page.settled(f"!{text_of('#token-facts li')}.includes('user/7')")
        await check_accessible(page, "a token that is refused")


async def test_an_operator_makes_a_token_and_no_other_page_does(
    browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"jwt_key": "k" * 32, "console_minting": "1h", "console_password": "sesame"}
    async with Server(config(**options)) as server, EmptySite() as site:
        page = await opened(browser, server, "tokens")
        await page.run("document.querySelector('#sign-in input').value = 'sesame'")
        await page.run("document.querySelector('#sign-in button').click()")
        form = "document.getElementById('mint-token')"
        for name, value in (("subscribe", "a  b"), ("subject", HTML), ("lifetime", "1m")):
            await page.run(f"{form}.{name}.value = {json.dumps(value)}")
        with caplog.at_level("INFO", "fastsse.audit"):
            await page.run(f"{form}.querySelector('button').click()")
            await page.settled(
                "document.getElementById('message').textContent", "A token was made."
            )
            token = await page.run("document.querySelector('#minted textarea').value")
            claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
            assert claims["mercure"] == {"subscribe": ["a", "b"]}
            assert (claims["sub"], claims["exp"] - claims["iat"]) == (HTML, 60)
            await page.run(f"document.getElementById('read-token').token.value = '{token}'")
            await page.run("document.getElementById('judge-token').click()")
            said = "As a subscriber's: taken; it grants a, b"
            await page.settled(f"{text_of('#token-facts li')}.includes({json.dumps(said)})")
            await page.run("document.querySelector('#read-token button').click()")
            await page.settled(f"{text_of('#token-facts li')}.includes({json.dumps(HTML)})")
            assert await page.run("document.title") == "fastsse"
            await page.run("location.hash = '#try'")
            await page.settled("document.querySelector('#minted textarea').value", "")
            assert await page.run("wrong") == []
            other = await browser.open(site.url)
            target = f"{server.addresses[0]}/admin/tokens?subscribe=a"
            for mode in ("no-cors", "cors"):
                given = f'{{method: "POST", mode: "{mode}", credentials: "include"}}'
                await other.run(f'fetch("{target}", {given}).then(() => 1, () => 0)')
    assert [record.message for record in caplog.records] == ["An operator made a token."]
