"""The examples of pages keep their promises in Chromium."""

import asyncio
import importlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import fastsse
from examples.site import Example, playing
from tests.browser.chromium import PROGRAM, TIMEOUT_S, Browser, Page, chromium
from tests.clients.javascript import MODULES
from tests.loopback import held_port

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
EXAMPLES = Path(__file__).parents[2] / "examples"
DOWNLOADS = EXAMPLES.parent / "build" / "examples"
# Datastar is in no registry by itself; the package starhtml has it, with the name in front.
DATASTARS = (DOWNLOADS, MODULES.parents[1] / "datastar" / "starhtml" / "static" / "js")
LINES_MAX = 150
PAGES = ("chat", "cursors", "dashboard", "datastar", "gateway", "htmx", "logtail")


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


def example(name: str) -> Example:
    found: Example = importlib.import_module(f"examples.{name}.app").EXAMPLE
    return found


def library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets pages load a package of npm; skips the test without it."""
    if not (MODULES / name).is_dir():
        pytest.skip(f"{name} is not installed; `make test-all` does it")
    monkeypatch.setenv("FASTSSE_LIB", str(MODULES.resolve()))


def downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets pages load Datastar; skips the test without it."""
    found = [folder for folder in DATASTARS if (folder / "datastar.js").is_file()]
    if not found:
        pytest.skip("Datastar is not installed; `make test-all` does it")
    monkeypatch.setenv("FASTSSE_LIB", str(found[0]))


# How others than the pages of `examples.site` are started.
COMMANDS = {
    "llm": "python -m uvicorn --port 8000 examples.llm.app:app",
    "notifications": "examples/notifications/start",
}


@pytest.mark.parametrize("name", [*PAGES, *COMMANDS])
def test_example_is_short_and_says_its_command(name: str) -> None:
    folder = EXAMPLES / name
    code = [path for path in folder.rglob("*") if path.suffix in (".py", ".js", ".html")]
    assert sum(len(path.read_text().splitlines()) for path in code) <= LINES_MAX
    readme = (folder / "README.md").read_text()
    assert COMMANDS.get(name, f"python -m examples.{name}.app") in readme
    assert "](picture.png)" in readme
    assert 1_000 < (folder / "picture.png").stat().st_size < 100_000
    assert not re.search(r"innerHTML = [^\"]", "".join(path.read_text() for path in code))


async def test_dashboard_shows_the_price_of_every_symbol(browser: Browser) -> None:
    async with playing(example("dashboard")) as (url, hub):
        page = await browser.open(url)
        await page.settled("document.querySelectorAll('#board div').length", 300)
        texts = await page.run(
            "[...document.querySelectorAll('#board div')].map(e => e.textContent)"
        )
        assert texts == sorted(texts)
        assert all(re.fullmatch(r"S\d{3} \d+\.\d\d", text) for text in texts)
        await page.settled("document.querySelectorAll('.up').length > 10")
        hub.publish("prices/ZZZ", {"price": 1, "change": 1})
        await page.settled(
            "document.querySelector('#board div:last-child').textContent", "ZZZ 1.00"
        )


async def test_log_tail_shows_the_chosen_levels_only(browser: Browser) -> None:
    async with playing(example("logtail")) as (url, hub):
        page = await browser.open(url)
        await page.settled("document.querySelectorAll('#lines .info').length > 3")
        await page.run("level.value = '3'; level.onchange(); 0")
        hub.publish("logs/web", {"level": 3, "name": "error", "text": "<b>the disk</b> is full"})
        await page.settled("document.querySelectorAll('#lines .error').length > 0")
        await page.settled("lines.textContent.includes('<b>the disk</b> is full')")
        assert await page.run("document.querySelectorAll('#lines .info, #lines b').length") == 0


async def test_chat_brings_messages_and_shows_who_is_there(browser: Browser) -> None:
    async with playing(example("chat")) as (url, _):
        ann, ben = [await browser.open(url) for _ in range(2)]
        send = "document.getElementById('{}').value = {!r}; 0"
        for page, name in ((ann, "Ann"), (ben, "Ben")):
            await page.settled("document.getElementById('state').textContent", "open")
            await page.run(send.format("name", name))
        await ann.run(send.format("text", "<b>hello</b>"))
        await ann.run("document.querySelector('button').click()")
        for page in (ann, ben):
            await page.settled(
                "document.getElementById('messages').textContent", "Ann: <b>hello</b>"
            )
        await ben.settled("/Ann.*Ben/.test(document.getElementById('here').textContent)")
        late = await browser.open(url)
        await late.settled("document.getElementById('messages').textContent", "Ann: <b>hello</b>")


async def test_cursors_follow_the_pointer_of_the_other_page(browser: Browser) -> None:
    async with playing(example("cursors")) as (url, _):
        one, other = [await browser.open(url) for _ in range(2)]
        for page in (one, other):
            await page.settled("document.getElementById('state').textContent", "open")
        await one.run(
            "dispatchEvent(new PointerEvent('pointermove',"
            " { clientX: innerWidth / 2, clientY: innerHeight / 4 })); 0"
        )
        await other.settled("document.querySelectorAll('.cursor').length", 1)
        await other.settled(
            "document.querySelector('.cursor').style.translate ==="
            " `${innerWidth / 2}px ${innerHeight / 4}px`"
        )
        assert await one.run("document.querySelectorAll('.cursor').length") == 0


async def test_gateway_publishes_datagrams_and_the_page_shows_each_device(browser: Browser) -> None:
    module = importlib.import_module("examples.gateway.app")
    played = module.EXAMPLE._replace(publish=module.publisher(0))
    async with playing(played) as (url, hub):
        page = await browser.open(url)
        await page.settled("document.querySelectorAll('#devices tr').length", 10)
        await page.settled("document.querySelector('#devices td').textContent.length > 3")
        gateway = module.Gateway(hub)
        for data in (b"x", b"a b c", b"\xff 1 2", b"a" * 2000, b"<b> temperature 1", b"a t 1e999"):
            gateway.datagram_received(data, ("127.0.0.1", 1))
        gateway.datagram_received(b"pump-1 temperature 70.25\n", ("127.0.0.1", 1))
        await page.settled("document.querySelectorAll('#devices tr').length", 11)
        await page.settled(
            "document.querySelector('#devices tr:last-child').textContent", "pump-170.25"
        )


async def test_htmx_draws_items_and_escapes_them(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    library("htmx-ext-sse", monkeypatch)
    async with playing(example("htmx")) as (url, _):
        page = await browser.open(url)
        await page.settled("document.querySelectorAll('li').length >= 2")
        await page.settled("document.querySelector('h1 span').textContent !== '0'")
        await page.settled("document.querySelector('ul').textContent.includes('<b>markup</b>')")
        assert await page.run("document.querySelectorAll('ul b').length") == 0


async def test_datastar_draws_visits_and_escapes_them(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded(monkeypatch)
    async with playing(example("datastar")) as (url, _):
        page = await browser.open(url)
        await page.settled("document.querySelectorAll('#visits li').length >= 3")
        await page.settled("document.getElementById('visits').textContent.includes('<i>Linus')")
        assert await page.run("document.querySelectorAll('#visits i').length") == 0


# The page, its publisher, and what is new in it after each event.
RESTARTED = {
    "htmx": ("htmx-ext-sse", "item", "<li>{}</li>", "document.querySelectorAll('li').length"),
    "datastar": (
        "datastar",
        "datastar-patch-elements",
        "selector #visits\nmode prepend\nelements <li>{}</li>",
        "document.querySelectorAll('#visits li').length",
    ),
}


@pytest.mark.parametrize("name", RESTARTED)
async def test_page_goes_on_after_a_drain_and_a_restart_of_the_server(
    name: str, browser: Browser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package, kind, form, count = RESTARTED[name]
    if name == "datastar":
        downloaded(monkeypatch)
    else:
        library(package, monkeypatch)
    topic = {"htmx": "news", "datastar": "visits"}[name]
    given = example(name)
    options = {**given.options, "store": f"sqlite:{tmp_path / 'x.db'}", "retry": "100ms"}
    given = given._replace(publish=None, options=options)
    shown: list[str] = []

    async def draws(hub: fastsse.Server, page: Page, *texts: str) -> None:
        """Publishes items; the page has each of all so far once, the newest first."""
        for text in texts:
            shown.insert(0, text)
            await hub.publish_later(topic, form.format(text), event=kind)
        await page.settled(count, len(shown))
        found = "[...document.querySelectorAll('ul li')].map(e => e.textContent)"
        assert await page.run(found) == shown

    with held_port() as pages, held_port() as held:
        ports = [one.getsockname()[1] for one in (pages, held)]
        async with playing(given, *ports) as (url, hub):
            page = await browser.open(url)
            await draws(hub, page, "one", "two")
            await hub.drain(0)
        async with playing(given, *ports) as (_, hub):
            await draws(hub, page, "three")
            await hub.drain(0)
        async with playing(given, *ports) as (_, hub):
            await draws(hub, page, "four", "five")


async def test_page_server_sends_files_of_the_example_only() -> None:
    async with playing(example("logtail")) as (url, _):
        port = int(url.rpartition(":")[2])
        for path in (
            "/../site.py",
            "/app.py",
            "/..%2fsite.py",
            "/lib/../../pyproject.toml",
            "/no.js",
        ):
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
                assert (await reader.read()).startswith(b"HTTP/1.1 404"), path
                writer.close()
