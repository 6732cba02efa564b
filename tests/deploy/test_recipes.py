"""The files of `fastsse proxy-config` under a public name, with TLS and HTTP/2."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.browser.chromium import PROGRAM, Browser, Page, chromium
from tests.deploy.front import DOMAIN, TIMEOUT_S, Front, ask, front, stream
from tests.deploy.proxies import program
from tests.loopback import held_port

CLOSED = 2
STREAMS = 10
OPTIONS: dict[str, Any] = {"port": 0, "drain": "0s", "retry": "50ms", "allowed_hosts": [DOMAIN]}
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


def needs(name: str) -> Any:
    return pytest.param(
        name, marks=pytest.mark.skipif(program(name) is None, reason=f"no {name} here")
    )


PROXIES = [needs("nginx"), needs("haproxy"), needs("caddy")]
every_proxy = pytest.mark.parametrize("proxy", PROXIES)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")


def address(server: Server) -> str:
    return server.addresses[0].removeprefix("http://")


@asynccontextmanager
async def site(
    proxy: str, folder: Path, edit: Callable[[str], str] = lambda text: text, **options: Any
) -> AsyncIterator[tuple[Server, Front]]:
    """A node and the proxy in front of it."""
    async with (
        Server(Config(**OPTIONS | options)) as server,
        front(proxy, folder, address(server), edit=edit) as running,
    ):
        yield server, running


@every_proxy
async def test_curl_reads_each_event_at_its_moment_over_http2(proxy: str, tmp_path: Path) -> None:
    async with site(proxy, tmp_path) as (server, running):
        async with (
            stream(running, "/events?topic=news", "--http2") as ours,
            stream(running, "/.well-known/mercure?topic=news", "--http2") as mercure,
            stream(running, "/events?topic=news", "--http1.1") as old,
        ):
            for reader in (ours, mercure):
                await reader.saw("HTTP/2 200 ")
            await old.saw("HTTP/1.1 200 OK")
            for index in range(3):
                # Each is waited for before the next is sent: nothing is kept for a fuller buffer.
                server.publish("news", f"event {index}")
                for reader in (ours, mercure, old):
                    await reader.saw(f"data: event {index}")
            said = await ask(running, "/events?topic=news", "--http2", "-d", "from curl")
            assert said.startswith("HTTP/2 200 ")
            await ours.saw("data: from curl")
        for path in ("/healthz", "/readyz", "/metrics", "/stats"):
            assert (await ask(running, path, "--http2")).startswith("HTTP/2 200 "), path
        # The server's own answers are passed on as they are.
        assert (await ask(running, "/none", "--http2")).startswith("HTTP/2 404 ")
        assert "\n\n{" in await ask(running, "/events", "--http2")


@asynccontextmanager
async def browser_at(running: Front, folder: Path, *flags: str) -> AsyncIterator[Browser]:
    trusted = (
        f"--ignore-certificate-errors-spki-list={running.spki}",
        f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1",
    )
    async with chromium(folder / "profile", *trusted, *flags) as browser:
        yield browser


async def _protocol(page: Page) -> str:
    """What the page's own requests went over."""
    return str(
        await page.run(
            "fetch('/healthz').then((answer) => answer.text()).then(() =>"
            " performance.getEntriesByName(location.origin + '/healthz').at(-1).nextHopProtocol)"
        )
    )


@needs_chromium
@pytest.mark.parametrize(
    ("proxy", "protocol"), [*((one.values[0], "h2") for one in PROXIES), ("caddy", "h3")]
)
async def test_a_page_has_ten_streams_and_publishes(
    proxy: str, protocol: str, tmp_path: Path
) -> None:
    """HTTP/1.1 allows six for a host: the other four would never open."""
    if program(proxy) is None:
        pytest.skip(f"no {proxy} here")
    quic = [f"--origin-to-force-quic-on={DOMAIN}:{{port}}"] if protocol == "h3" else []
    log = "log {\n\t\toutput file " + f"{tmp_path}/access.log" + "\n\t}\n"

    def logged(text: str) -> str:
        return text.replace("\n\thandle {", f"\n\t{log}\thandle {{", 1) if quic else text

    async with site(proxy, tmp_path, logged) as (server, running):
        flags = [flag.format(port=running.port) for flag in quic]
        async with browser_at(running, tmp_path, *flags) as browser:
            page = await browser.open(f"{running.url}/healthz")
            names = [f"s{number}" for number in range(STREAMS)]
            for name in names:
                await page.watch(name, f"/events?topic=news&n={name}")
            for name in names:
                await page.until(name, lambda seen: ["open"] in seen)
            assert server.publish("news", "from the server")
            status = await page.run(
                "fetch('/events?topic=news', {method: 'POST', body: 'from the page'})"
                ".then((answer) => answer.status)"
            )
            assert status == 200
            for name in names:
                seen = await page.until(name, lambda seen: len(seen) == 3)
                assert [entry[1] for entry in seen[1:]] == ["from the server", "from the page"]
            assert await _protocol(page) == protocol
            await page.run("Object.values(sources).forEach((source) => source.close())")
        if quic:
            await _logged(tmp_path / "access.log", "HTTP/3.0", STREAMS)


async def _logged(path: Path, protocol: str, count: int) -> None:
    """Waits until the access log has so many streams, all of this protocol."""
    streams: list[str] = []
    async with asyncio.timeout(TIMEOUT_S):
        while len(streams) < count:
            lines = map(json.loads, path.read_text().splitlines())  # noqa: ASYNC240
            requests = [line["request"] for line in lines]
            streams = [one["proto"] for one in requests if "&n=s" in one["uri"]]
            await asyncio.sleep(0.02)
    assert set(streams) == {protocol}


def shortened(text: str) -> str:
    """With limits on silence of 3 s."""
    short, count = re.subn(r"(timeout (?:client|server)|\w+_timeout|timeout) 60s", r"\1 3s", text)
    assert count
    return short


@every_proxy
async def test_heartbeats_keep_a_quiet_stream_open(proxy: str, tmp_path: Path) -> None:
    async with (
        site(proxy, tmp_path, shortened, heartbeat="1s") as (server, running),
        stream(running, "/events?topic=news", "--http2") as quiet,
        stream(running, "/events?topic=news&heartbeat=30s", "--http2") as silent,
    ):
        await quiet.saw("HTTP/2 200 ")
        await silent.saw("HTTP/2 200 ")
        # The limit is at work: a stream that is silent for longer ends.
        async with asyncio.timeout(TIMEOUT_S):
            while not silent.has_ended:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        server.publish("news", "after the silence")
        await quiet.saw("data: after the silence")


@every_proxy
async def test_a_reload_of_the_proxy_cuts_no_stream(proxy: str, tmp_path: Path) -> None:
    async with (
        site(proxy, tmp_path) as (server, running),
        stream(running, "/events?topic=news", "--http2") as new,
        stream(running, "/events?topic=news", "--http1.1") as old,
    ):
        await new.saw("HTTP/2 200 ")
        await old.saw("HTTP/1.1 200 OK")
        for index in range(3):
            await running.reload()
            server.publish("news", f"after reload {index}")
            for reader in (new, old):
                await reader.saw(f"data: after reload {index}")
        async with stream(running, "/events?topic=news", "--http2") as newcomer:
            await newcomer.saw("HTTP/2 200 ")
            server.publish("news", "to all")
            for reader in (new, old, newcomer):
                await reader.saw("data: to all")


@needs_chromium
@every_proxy
async def test_streams_of_a_page_return_after_the_server_was_away(
    proxy: str, tmp_path: Path
) -> None:
    """A 502 would end an EventSource for good."""
    store = f"sqlite:{tmp_path / 'history.db'}"
    with held_port() as held:
        port = held.getsockname()[1]
        options = OPTIONS | {"port": port, "store": store}
        async with front(proxy, tmp_path, f"127.0.0.1:{port}") as running:
            async with Server(Config(**options)) as server:
                await _is_served(running)
                browser_context = browser_at(running, tmp_path)
                browser = await browser_context.__aenter__()
                page = await browser.open(f"{running.url}/healthz")
                await page.watch("news", "/events?topic=news")
                await page.until("news", lambda seen: ["open"] in seen)
                await server.publish_later("news", "before")
                await page.until("news", lambda seen: seen[-1][1:2] == ["before"])
            try:
                await _is_away(running)
                await asyncio.sleep(8)
                assert await page.run("sources.news.readyState") != CLOSED
                async with Server(Config(**options)) as server:
                    await server.publish_later("news", "after")
                    seen = await page.until("news", lambda seen: seen[-1][1:2] == ["after"])
            finally:
                await browser_context.__aexit__(None, None, None)
    assert [entry[1] for entry in seen if entry[0] == "message"] == ["before", "after"]
    assert ["error", CLOSED] not in seen


async def _is_served(running: Front) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while "\n\n" not in (said := await ask(running, "/healthz")) or " 200" not in said:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _is_away(running: Front) -> None:
    """The proxy answers for the server that is gone: streams with 200, others with 503."""
    said = await ask(running, "/events?topic=news", "--http2")
    head, _, body = said.partition("\n\n")
    assert head.startswith("HTTP/2 200")
    assert "content-type: text/event-stream" in head
    assert "cache-control: no-store" in head
    assert body == "retry: 5000\n\n"
    refused = await ask(running, "/events?topic=news", "--http2", "-d", "not taken")
    assert re.match(r"HTTP/2 50[23]", refused)


@every_proxy
async def test_a_reader_that_stops_delays_no_other_and_is_ended(proxy: str, tmp_path: Path) -> None:
    limits = {"max_lag": "2MiB", "max_lag_time": "30s", "history_bytes": "4MiB"}
    text = "x" * 50_000
    async with (
        site(proxy, tmp_path, **limits) as (server, running),
        _stuck(running) as stuck,
        stream(running, "/events?topic=news", "--http2") as quick,
    ):
        await quick.saw("HTTP/2 200 ")
        ended = 0.0
        # All that the path can hold for it: socket buffers and the proxy's own.
        for index in range(2_000):
            server.publish("news", f"{index} {text}")
            if not index % 10:
                await quick.saw(f"data: {index} {text}")
                ended = await _metric(running, 'fastsse_disconnects_total{reason="lagged"}')
                if ended:
                    break
        assert ended == 1
        server.publish("news", "and on")
        await quick.saw("data: and on")
        assert not stuck.is_closing()


@asynccontextmanager
async def _stuck(running: Front) -> AsyncIterator[asyncio.StreamWriter]:
    """A stream over HTTP/1.1 that is opened, and read no further."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", running.port, ssl=running.tls(), server_hostname=DOMAIN, limit=1024
    )
    writer.write(f"GET /events?topic=news HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    try:
        yield writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def _metric(running: Front, name: str) -> float:
    said = await ask(running, "/metrics", "--http2")
    found = [line for line in said.splitlines() if line.startswith(name)]
    return sum(float(line.split()[-1]) for line in found)
