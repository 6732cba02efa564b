"""Caches and buffers in front of a server: real ones, and what `fastsse doctor --url` says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.cli.commandline import command, environment
from tests.deploy.proxies import AS_ROOT, PATH, ROOT, program, proxy_file
from tests.doctor.test_path import HELD, QUICK, check, verdicts
from tests.loopback import held_port

TIMEOUT_S = 60
needs_nginx = pytest.mark.skipif(program("nginx") is None, reason="no nginx here")
needs_varnish = pytest.mark.skipif(program("varnishd") is None, reason="no varnishd here")
CACHE = """
    proxy_cache_path {folder}/cache keys_zone=all:1m;
    proxy_cache_valid any 1m;
    proxy_cache_lock on;
"""


@pytest.fixture(autouse=True)
def _no_proxies_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(Config(port=0, drain="0s", heartbeat="100ms")) as running:
        yield running


@asynccontextmanager
async def _running(port: int, *arguments: str) -> AsyncIterator[str]:
    """The address of a program that listens there."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(PATH=PATH),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient() as client:
            while True:
                assert process.returncode is None
                with suppress(httpx.HTTPError):
                    if (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200:
                        break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def nginx(folder: Path, server: Server, *edits: tuple[str, str]) -> AsyncIterator[str]:
    """nginx with our file, in which some lines are others."""
    with held_port() as held:
        port = held.getsockname()[1]
        node = server.addresses[0].removeprefix("http://")
        path = proxy_file(
            folder, "nginx", "--plain", "--listen", f"127.0.0.1:{port}", "--node", node
        )
        text = path.read_text()
        for before, after in edits:
            assert before in text
            text = text.replace(before, after)
        path.write_text(text)
        async with _running(
            port, program("nginx") or "", "-e", "stderr", *AS_ROOT, "-c", str(path)
        ) as url:
            yield url


@asynccontextmanager
async def varnish(folder: Path, server: Server) -> AsyncIterator[str]:
    """Varnish with the file of `deploy/`."""
    vcl = folder / "varnish.vcl"
    port_of_node = str(httpx.URL(server.addresses[0]).port)
    text = (ROOT / "deploy" / "varnish.vcl").read_text()
    assert '"8080"' in text
    vcl.write_text(text.replace('"8080"', f'"{port_of_node}"'))
    with held_port() as held:
        port = held.getsockname()[1]
        arguments = ("-F", "-j", "none", "-n", str(folder / "varnish"), "-s", "malloc,16m")
        listen = ("-a", f"127.0.0.1:{port}", "-f", str(vcl))
        async with _running(port, program("varnishd") or "", *arguments, *listen) as url:
            yield url


async def _each_reader_gets_what_is_published_after_it(url: str, server: Server) -> None:
    """Also a second reader of the same URL, which a cache could answer with the first's stream."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=TIMEOUT_S))
        readers = []
        for index in range(3):
            answer = await stack.enter_async_context(client.stream("GET", f"{url}/events?topic=t"))
            assert answer.status_code == 200
            lines = answer.aiter_lines()
            readers.append(lines)
            await anext(lines)
            server.publish("t", f"event {index}")
            for number, each in enumerate(readers):
                assert await _next_event(each) == f"data: event {index}", number


async def _next_event(lines: Any) -> str:
    async with asyncio.timeout(TIMEOUT_S):
        while not (line := str(await anext(lines))).startswith("data: "):
            pass
        return line


@needs_varnish
async def test_varnish_passes_streams_and_keeps_none(tmp_path: Path, server: Server) -> None:
    async with varnish(tmp_path, server) as url:
        await _each_reader_gets_what_is_published_after_it(url, server)
        found = await check(f"{url}/events", QUICK)
        assert set(verdicts(found).values()) == {"ok"}, found


@needs_nginx
async def test_a_cache_of_nginx_keeps_no_stream(tmp_path: Path, server: Server) -> None:
    edits = [
        ("    upstream nodes {", CACHE.format(folder=tmp_path) + "    upstream nodes {"),
        ("proxy_cache off;", "proxy_cache all; add_header X-Cache $upstream_cache_status;"),
        ("        proxy_buffering off;\n", ""),
    ]
    async with nginx(tmp_path, server, *edits) as url:
        await _each_reader_gets_what_is_published_after_it(url, server)
        found = await check(f"{url}/events", QUICK)
        assert set(verdicts(found).values()) == {"ok"}, found


@needs_nginx
async def test_doctor_names_a_proxy_that_buffers(tmp_path: Path, server: Server) -> None:
    """As some CDNs do: it takes the whole answer, and passes on full buffers."""
    edits = [
        (
            "proxy_buffering off;",
            "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; postpone_output 1460;",
        ),
        ("gzip off;", "gzip on; gzip_types *; gzip_proxied any;"),
    ]
    async with nginx(tmp_path, server, *edits) as url:
        found = await check(f"{url}/events", HELD)
        assert verdicts(found)["answer"] == "fail"
        code, said = await _doctor(url)
    assert code == 1
    assert "something on the way holds the answer back" in said
    assert "nginx: proxy_buffering off;" in said


async def _doctor(url: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command(["doctor", "--url", f"{url}/events", "--watch", "0"]),
        env=environment(COLUMNS="200"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()
